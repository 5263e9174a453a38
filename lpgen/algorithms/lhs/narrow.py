"""Values of a float row made the bytes of a left side: scaled, rounded, bounded, narrowed.

Four vectors of the CPU at a time become one of bytes where it has an Isa (`lpgen.isa`); the rest
in vectors of 16, and then one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from tvm import tirx
from tvm.tirx.script import builder as tb

from lpgen.ops import Operator
from lpgen.tir.vectors import ROUNDING, load, splat, store, vector

LANES = 16


class Narrows(Protocol):
    """Part of an Isa that is needed here."""

    @property
    def lanes(self) -> int: ...

    def narrow4(
        self, values: Sequence[tirx.Expr], low: int, high: int, zero: int, dtype: str
    ) -> tirx.Expr: ...


def moved(at: list, by: tirx.Expr) -> list:
    """Indices further in the last axis."""
    return [*at[:-1], at[-1] + by]


def pieces(count: int, lanes: int, start: int = 0) -> Iterator[tuple[tirx.Expr, int]]:
    """Loops over places start .. count: (first place, lanes) of vectors, then of single ones."""
    whole = start + (count - start) // lanes * lanes
    for first, end, width in ((start, whole, lanes), (whole, count, 1)):
        if first < end:
            with tb.serial(0, (end - first) // width) as i:
                yield i * width + first, width


def same(value: tirx.Expr) -> Callable[[tirx.Expr], tirx.Expr]:
    """The function that has one value for all places."""
    return lambda place: value


@dataclass(frozen=True)
class Narrow:
    """What emits it. dtype, zero: those of the bytes; any 8-bit type may hold them."""

    op: Operator
    isa: Narrows | None
    dtype: str
    zero: int

    @property
    def together(self) -> int:
        """Values that are narrowed together, 0: one vector is narrowed for itself."""
        return 4 * self.isa.lanes if self.isa else 0

    def spans(self, size: int) -> bool:
        """Whether values of several groups of this size are narrowed together."""
        return bool(self.isa) and size < self.together and size % LANES == 0

    def all(
        self, x, at: list, q, to: list, count: int, inverse: Callable[[tirx.Expr], tirx.Expr]
    ) -> None:
        """Emit: `count` values from q[to] on are those of x[at].

        inverse(place): what the values of a vector are multiplied with, by its first place.
        """

        def scaled(first: tirx.Expr, lanes: int) -> tirx.Expr:
            return load(x, moved(at, first), lanes) * splat(inverse(first), "float32", lanes)

        width = self.together
        done = count // width * width if width else 0
        if done:
            with tb.serial(0, done // width) as i:
                parts = [i * width + part * self.isa.lanes for part in range(4)]
                values = [tb.Bind(scaled(part, self.isa.lanes)) for part in parts]
                packed = self.isa.narrow4(values, *self.op.lhs.bounds, self.zero, self.dtype)
                self._store(q, moved(to, parts[0]), packed, width)
        for first, lanes in pieces(count, LANES, done):
            self._store(q, moved(to, first), self._narrowed(scaled(first, lanes), lanes), lanes)

    def _store(self, q, to: list, values: tirx.Expr, lanes: int) -> None:
        """Emit the store of bytes, with the sign that q has."""
        if self.dtype != str(q.dtype):
            values = tirx.reinterpret(vector(str(q.dtype), lanes), values)
        store(q, to, values, lanes)

    def _narrowed(self, value: tirx.Expr, lanes: int) -> tirx.Expr:
        low, high = (splat(float(bound), "float32", lanes) for bound in self.op.lhs.bounds)
        # Max gives its second operand where the first is no number (NaN): the lowest value.
        value = tirx.Min(tirx.Max(value, low), high)
        bits = tirx.reinterpret(vector("int32", lanes), value + splat(ROUNDING, "float32", lanes))
        return bits.astype(vector(self.dtype, lanes)) + splat(self.zero, self.dtype, lanes)
