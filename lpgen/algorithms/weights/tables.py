"""Tables of products: for each combination of activations, what all combinations of weights give.

Tables are exact for any values. Their least entry is subtracted, which leaves unsigned numbers
below 2^17; what does not fit a byte is split into the bytes of several tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, pairwise

import numpy as np
from tvm import tirx

from lpgen.formats import Format

ENTRIES = 16
"""Bytes of a table: what a shuffle instruction looks up."""

TABLE_BYTES = 20480
"""Most bytes of all tables together, so that they stay in the L1 cache."""

FEW_TABLES = 256
"""Up to how many tables an activation's low bits may choose among, though some go unused."""


@dataclass(frozen=True)
class Tables:
    """The tables of products of two formats."""

    act: Format
    weight: Format

    @property
    def kq(self) -> int:
        """Products in one entry."""
        return 4 // self.weight.bits

    @cached_property
    def low_bits(self) -> int | None:
        """How many low bits tell all values and 0 apart; None where those make too many tables."""
        values = {0, *self.act.values().tolist()}
        bits = next(b for b in range(1, 9) if len({v % 2**b for v in values}) == len(values))
        return bits if 2 ** (bits * self.kq) <= FEW_TABLES else None

    @cached_property
    def digits(self) -> tuple[int, ...]:
        """The value of each digit that an activation can have. Digit 0, which empty places have, is
        the value 0; the digits are the values' low bits, or else those that are not 0 in order."""
        values = self.act.values().tolist()
        if self.low_bits is None:
            return (0, *(value for value in values if value))
        found = [0] * 2**self.low_bits
        for value in values:
            found[value % len(found)] = value
        return tuple(found)

    @property
    def count(self) -> int:
        """How many tables there are: all combinations of `kq` digits."""
        return len(self.digits) ** self.kq

    @cached_property
    def sums(self) -> np.ndarray:
        """int32[count, ENTRIES]: the sums of products; unused entries are 0."""
        number, entry = np.arange(self.count)[:, None], np.arange(ENTRIES)
        codes = [
            entry >> t * self.weight.bits & (1 << self.weight.bits) - 1 for t in range(self.kq)
        ]
        book = np.zeros(1 << self.weight.bits, np.int32)
        book[: self.weight.levels] = self.weight.values()
        digits = np.array(self.digits, np.int32)
        base = len(digits)
        return sum(digits[number // base**t % base] * book[code] for t, code in enumerate(codes))

    @cached_property
    def least(self) -> int:
        """What is subtracted from all sums."""
        return int(self.sums.min())

    @cached_property
    def shifts(self) -> tuple[int, ...]:
        """The parts of a table: from which bit each of them is, the low one first.

        The cut that makes the lookups cheapest: a byte that is nearly full is widened after few.
        """
        largest = int(self.sums.max()) - self.least
        cuts = ((0, *rest) for parts in range(3) for rest in combinations(range(1, 17), parts))
        fitting = (shifts for shifts in cuts if max(_largest(largest, shifts)) <= 255)
        return min(fitting, key=lambda shifts: sum(map(_cost, _largest(largest, shifts))))

    @cached_property
    def largest(self) -> tuple[int, ...]:
        """The largest entry of each part, at least 1."""
        return _largest(int(self.sums.max()) - self.least, self.shifts)

    @property
    def masks(self) -> tuple[int, ...]:
        """What remains of each part behind its shift."""
        return (*((1 << high - low) - 1 for low, high in pairwise(self.shifts)), 255)

    @property
    def steps(self) -> tuple[int, ...]:
        """How many entries of each part may be summed in a byte."""
        return tuple(255 // largest for largest in self.largest)

    @property
    def longest(self) -> int:
        """How many entries of any part may be summed in 16 bits."""
        return (2**16 - 1) // max(self.largest)

    @property
    def stride(self) -> int:
        """Bytes from table to table: its parts lie behind each other."""
        return ENTRIES * len(self.shifts)

    @property
    def nbytes(self) -> int:
        """Bytes of all tables."""
        return self.count * self.stride

    def contents(self) -> np.ndarray:
        """uint8[count, parts, ENTRIES]"""
        entries = self.sums - self.least
        parts = [entries >> s & m for s, m in zip(self.shifts, self.masks, strict=True)]
        return np.stack(parts, axis=1).astype(np.uint8)

    def digit(self, x: tirx.Expr, dtype: str, lanes: int = 1) -> tirx.Expr:
        """The digit of x (uint8, so many lanes) in `dtype`; some digit for what is no value."""

        def constant(value: int, dtype: str) -> tirx.Expr:
            scalar = tirx.const(value, dtype)
            return tirx.Broadcast(scalar, lanes) if lanes > 1 else scalar

        if self.low_bits is not None:
            low = x & constant(2**self.low_bits - 1, "uint8")
            return low if dtype == "uint8" else low.astype(dtype)
        found = constant(0, dtype)
        for number, value in enumerate(self.digits[1:], 1):
            same = x == constant(value % 256, "uint8")
            found = tirx.Select(same, constant(number, dtype), found)
        return found


def _largest(largest: int, shifts: tuple[int, ...]) -> tuple[int, ...]:
    """The largest entry of each part of numbers up to `largest`, at least 1."""
    widths = [high - low for low, high in pairwise(shifts)]
    return (*((1 << width) - 1 for width in widths), max(1, largest >> shifts[-1]))


def _cost(largest: int) -> float:
    """Instructions of a lookup: shuffle, add, and three to widen after so many."""
    steps = 255 // largest
    return 1 + (steps > 1) + 3 / steps
