"""Any number of rows: the bodies of a kernel by the height of their tiles (`kernel.RangedKernel`).

Few rows are one tile, whose body knows their number (`alone`); more rows are several tiles of one
height, whose number is known at run time (`algorithms.rows`). All bodies read the same weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from lpgen.algorithms.kernel import Body, Kernel, RangedKernel
from lpgen.errors import refuse
from lpgen.ops import Dense
from lpgen.ops.rows import Range
from lpgen.space import Knobs

PLANNED = 256
"""Rows up to which bodies are chosen one by one; all larger numbers get the same one."""


ONE_BLOCK = {"m_block": (0,), "outer": ("mn",)}
"""Knobs of the blocks (`blocks.knobs`) where the number of row tiles is not known."""


class Kind(NamedTuple):
    """What a body is for: tiles of `height` rows, one of them or several; many: of so many that
    stored weights are expanded into the cache."""

    height: int
    alone: bool
    many: bool = False

    def operator(self, op: Dense) -> Dense:
        """The operator that the body is scheduled for: of whole tiles."""
        if self.alone:
            return op.with_rows(self.height)
        whole = max(-(-op.range.high // self.height), 2) * self.height
        return op.with_rows(Range(self.height, whole))

    def rows(self, op: Dense) -> Range | int:
        """The rows that it serves in a call."""
        if self.alone:
            return self.height
        return Range(self.height, max(op.range.high, self.height + 1))


class Plan(NamedTuple):
    """The kinds of bodies, and which of them serves so many rows."""

    kinds: list[Kind]
    numbers: list[int]

    @classmethod
    def of(cls, rows: Range, kind: Callable[[int], Kind], last: Kind) -> Plan:
        """From what kind serves so many rows, and all that are not planned."""
        chosen = [kind(count) for count in range(rows.low, min(rows.high, PLANNED) + 1)]
        chosen += [last] if rows.high > PLANNED else []
        kinds = sorted(set(chosen), key=lambda kind: (kind.many, not kind.alone, kind.height))
        numbers = [kinds.index(kind) for kind in chosen]
        return cls(kinds, [numbers[0]] * rows.low + numbers)

    def kind(self, rows: int) -> Kind:
        """What serves so many rows."""
        return self.kinds[self.numbers[min(rows, len(self.numbers) - 1)]]


def some_heights(highest: int) -> list[int]:
    """Heights of several tiles, the highest first: down to half of it, and not too many."""
    lowest = (highest + 1) // 2
    return sorted({*range(highest, lowest, -max(1, highest // 6)), lowest}, reverse=True)


def even(rows: Range, highest: int, alone: int) -> Plan:
    """One tile up to `alone` rows; more rows in tiles of up to `highest` that waste the least."""
    heights = some_heights(highest)

    def kind(count: int) -> Kind:
        if count <= alone:
            return Kind(count, True)
        fitting = [height for height in heights if height <= count]
        return Kind(min(fitting, key=lambda height: -(-count // height) * height), False)

    return Plan.of(rows, kind, Kind(highest, False))


def two(rows: Range, height: int) -> Plan:
    """Tiles of `height` where there are so many rows, else of one."""
    return Plan.of(rows, lambda c: Kind(height if c >= height else 1, False), Kind(height, False))


def assembled(op: Dense, plan: Plan, kernel: Callable[[Kind, Dense], Kernel]) -> RangedKernel:
    """The kernel of the bodies that `kernel` makes, of a kind and for its operator. Raises
    ScheduleRefused where these do not read the same weights."""
    made = [kernel(kind, kind.operator(op)) for kind in plan.kinds]
    sizes = sorted({body.packed_bytes for body in made})
    if len(sizes) > 1:
        refuse(f"its bodies pack weights into {' and '.join(map(str, sizes))} bytes")
    pairs: Sequence = list(zip(plan.kinds, made, strict=True))
    bodies = [Body(kind.rows(op), body.module) for kind, body in pairs]
    return RangedKernel.of(op, bodies, plan.numbers, made[0].layout)


def own(knobs: Knobs, kind: Kind) -> Knobs:
    """The knobs of a body among those of all, which are its tile's and its blocks'; what one tile
    reads is asked for in advance."""
    inner = "mn" if kind.alone else knobs["inner"]
    prefetch = knobs["prefetch"] if kind.alone else 0
    return knobs | {"rows": kind.height, "inner": inner, "prefetch": prefetch}
