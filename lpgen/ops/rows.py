"""Rows at run time: a size of an operator that is given at each call.

    dense m=1..512 n=768 k=3072 act=u8 weight=s8       m rows of x
    conv2d n=1..16 h=14 w=14 ...                       n images of x

Such an operator stands for those with each size of the range, `op.at(size)`; all of them take the
same packed weights. Its own shapes are those of the largest.
"""

from __future__ import annotations

import re
from typing import NamedTuple, Self

from lpgen.ops.words import Word, read_number

TYPICAL = (1, 4, 16, 64, 256)
FEW = 16


class Range(NamedTuple):
    """Sizes low..high, both included."""

    low: int
    high: int

    @classmethod
    def read(cls, text: str) -> Self | int:
        """What "1..512" says, or the number that "64" is. Raises ValueError for other texts."""
        ends = text.split("..")
        if len(ends) != 2:
            return read_number(text)
        if not all(re.fullmatch(r"[0-9]+", end) for end in ends):
            raise ValueError(f"{text[:40]!r} is not a range, such as 1..512")
        return cls(*map(read_number, ends))

    def some(self) -> list[int]:
        """Sizes that stand for all: those of TYPICAL, and the end that is far from them."""
        inside = [size for size in TYPICAL if self.low <= size <= self.high]
        ends = [self.low] if not inside or self.low > 2 * TYPICAL[0] else []
        ends += [self.high] if self.high >= 4 * TYPICAL[-1] or len(inside) < 2 else []
        return sorted({*inside, *ends})

    def round(self) -> dict[int, int]:
        """How many calls of `some` sizes make a round in which each takes about as long: few rows
        take as long as `FEW`."""
        sizes = self.some()
        return {size: max(1, sizes[-1] // max(size, FEW)) for size in sizes}

    def __str__(self) -> str:
        return f"{self.low}..{self.high}"


SIZE_OR_RANGE = Word(Range.read, str)


def largest(size: Range | int) -> int:
    """The size, or the largest of a range."""
    return size.high if isinstance(size, Range) else size


def in_name(size: Range | int) -> str:
    """The size as a part of a C name: 64, or 1to512."""
    return f"{size.low}to{size.high}" if isinstance(size, Range) else str(size)


def entry_at(rows: int) -> str:
    """The name of a measured kernel's function for so many rows, 0: of the only one."""
    return f"main_{rows}" if rows else "main"
