"""Any number of rows: several kernels of the dot algorithm on the same packed weights.

Rows are cut into tiles of one height, at most that of the knob rows. There is a *body* for each
height: few rows are one tile, whose body knows their number; more rows are several tiles, whose
number is known at run time. Where stored weights have to become operands, that pays in the cache
for many rows only: from `many` on other bodies serve.

| knob    | meaning                                                                                |
|---------|----------------------------------------------------------------------------------------|
| step    | as in `knobs`                                                                          |
| panel   | vectors of output columns of a panel of the packed weights                             |
| rows    | rows of the highest of several tiles                                                   |
| n_block | vectors of columns of a block, for several row tiles; 0: all                           |
| inner   | order of the tiles in a block                                                          |
| unroll  | as in `knobs`, but for bodies that expand in registers                                 |
| prefetch| as in `knobs`, of a single tile                                                        |
| many    | rows from which weights are expanded into the cache, 0: never (or nothing to expand)   |
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property, lru_cache

from lpgen.algorithms.dot import Tiling
from lpgen.algorithms.kernel import Kernel, RangedKernel
from lpgen.errors import refuse
from lpgen.isa import Isa
from lpgen.ops import Dense
from lpgen.schedules.common.cuts import fits
from lpgen.schedules.common.dot import knobs as fixed
from lpgen.schedules.common.dot import steps as instruction
from lpgen.schedules.common.heights import Kind, Plan, assembled, some_heights
from lpgen.space import Counts, Knobs, Space

PANELS = (1, 2, 4)
BLOCKS = (0, 8, 16, 32, 64)
HEIGHTS = (2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14)
OVERHEAD, STREAM = 0.1, 0.5
"""What loading an operand costs, and a vector of weights from beyond the first cache, as a part of
a multiplication."""

WIDEST, AHEAD = 24, 4096
LATENCY = 8
"""Multiplications that an instruction takes to give its sum: a tile of fewer waits."""


def space(op: Dense, isa: Isa) -> Space:
    """All knobs with their choices for `op`."""
    known = instruction.steps(op, isa)
    steps = tuple(step for step in known if step != "words") or known
    whole = -(-op.matrix.n // isa.lanes)
    expands = instruction.unpacked(op, steps[0])
    high = op.range.high
    return Space(
        {
            "step": steps,
            "panel": tuple(v for v in PANELS if v == 1 or (v <= whole and fits(whole, v))),
            "rows": tuple(rows for rows in HEIGHTS if rows <= max(high, 4)),
            "n_block": tuple(b for b in BLOCKS if b < whole),
            "inner": ("mn", "nm"),
            "unroll": (1, 2),
            "prefetch": sorted(fixed.distances(op.range.low), key=lambda ahead: ahead != AHEAD),
            "many": tuple(m for m in (0, 16, 32, 64) if m < high) if expands else (0,),
        },
        lambda knobs: refuses(op, isa, knobs) is None,
    )


def refuses(op: Dense, isa: Isa, knobs: Knobs) -> str | None:
    """Why the combination is no good; None if it may be."""
    rows, shape = knobs["rows"], (op.matrix.n, isa, knobs["step"], knobs["panel"])
    if not width(rows, *shape):
        return f"a tile of {rows} rows exceeds {isa.registers} registers"
    if rows * width(rows, *shape) < min(8, isa.registers // 3) and rows < op.range.high:
        return f"tiles of {rows} rows do not hide the latency of an instruction"
    if instruction.chunk_of(knobs["step"]) % knobs["unroll"]:
        return f"unroll={knobs['unroll']} does not divide the chunk"
    return None


@lru_cache(maxsize=4096)
def width(height: int, n: int, isa: Isa, step: str, panel: int) -> int:
    """Vectors of a tile: panels or an even part of one, as many as take the least time; 0: there
    are no registers for any."""
    fitting = []
    for vectors in range(1, WIDEST + 1):
        tile = {"step": step, "rows": height, "vectors": vectors, "expand": "none"}
        whole = vectors % panel == 0 or panel % vectors == 0
        if whole and fixed.fits_registers(isa, tile):
            fitting.append(vectors)
    return min(fitting, key=lambda vectors: _time(height, vectors, n, isa.lanes), default=0)


def _time(height: int, vectors: int, n: int, lanes: int) -> float:
    """Of a k step of a row of tiles, in multiplications."""
    sums = max(height * vectors, LATENCY)
    work = sums + OVERHEAD * (height + vectors) + STREAM * vectors
    return -(-n // (vectors * lanes)) * work


class _Bodies:
    """The bodies that some knobs mean: which there are, their sizes and their own knobs."""

    def __init__(self, op: Dense, isa: Isa, knobs: Knobs) -> None:
        self.op, self.isa, self.knobs = op, isa, knobs
        self.expands = instruction.unpacked(op, knobs["step"])
        last = Kind(knobs["rows"], False, bool(knobs["many"]))
        self.plan = Plan.of(op.range, self._of, last)

    def _of(self, rows: int) -> Kind:
        """What serves so many rows."""
        many = bool(self.knobs["many"]) and rows >= self.knobs["many"]
        if rows <= self._single:
            return Kind(rows, True, many)
        heights = [height for height in self._times if height <= rows]
        return Kind(min(heights, key=lambda h: -(-rows // h) * self._times[h]), False, many)

    @cached_property
    def _single(self) -> int:
        """The rows up to which one tile serves, at least those that several heights do not."""
        most = max(self.isa.registers // 2 - 2, some_heights(self.knobs["rows"])[-1] - 1)
        return max(rows for rows in range(1, most + 1) if self.width(rows))

    @cached_property
    def _times(self) -> dict[int, float]:
        """Of a k step of a row of tiles of each height, in multiplications."""
        n, lanes = self.op.matrix.n, self.isa.lanes
        heights = some_heights(self.knobs["rows"])
        return {height: _time(height, self.width(height), n, lanes) for height in heights}

    def width(self, height: int) -> int:
        """Vectors of a tile."""
        return width(height, self.op.matrix.n, self.isa, self.knobs["step"], self.knobs["panel"])

    def own(self, kind: Kind) -> Knobs:
        """The knobs of a body, as those of a kernel for one number of rows."""
        expand = ("panel" if kind.many else "register") if self.expands else "none"
        vectors, together = self.width(kind.height), kind.alone and not kind.many
        block = 0 if together else max(1, self.knobs["n_block"] // vectors)
        panels = -(-self.op.matrix.n // (vectors * self.isa.lanes))
        unroll = fixed.fields(self.op) if expand == "register" else self.knobs["unroll"]
        return {
            "step": self.knobs["step"],
            "rows": kind.height,
            "vectors": vectors,
            "m_block": 0,
            "n_block": block if self.knobs["n_block"] and block < panels else 0,
            "outer": "mn",
            "inner": "mn" if kind.alone else self.knobs["inner"],
            "left": "direct",
            "expand": expand,
            "unroll": unroll,
            "prefetch": self.knobs["prefetch"] if together else 0,
        }

    def tilings(self) -> dict[Kind, Tiling]:
        """The sizes of each body, all with the same stored weights."""
        found = {
            kind: fixed.tiling(kind.operator(self.op), self.isa, self.own(kind))
            for kind in self.plan.kinds
        }
        panel = self.knobs["panel"]
        panels = max(-(-t.panels * t.vectors // panel) for t in found.values())
        multiple = math.lcm(*(t.multiple for t in found.values()))
        same = {"stored": (panel, panels), "multiple": multiple}
        return {kind: replace(t, **same) for kind, t in found.items()}


def kernel(op: Dense, isa: Isa, knobs: Knobs, scheduled: Callable[..., Kernel]) -> RangedKernel:
    """The kernel for all sizes. scheduled(op, isa, knobs, tiling): the kernel of a body. Raises
    ScheduleRefused for knobs outside of the space."""
    refuse(refuses(op, isa, knobs))
    bodies = _Bodies(op, isa, knobs)
    tilings = bodies.tilings()

    def body(kind: Kind, own: Dense) -> Kernel:
        return scheduled(own, isa, bodies.own(kind), tilings[kind])

    return assembled(op, bodies.plan, body)


def work(op: Dense, isa: Isa, knobs: Knobs) -> Counts:
    """What a kernel with these knobs does at the sizes of the range that stand for it."""
    bodies = _Bodies(op, isa, knobs)
    total: Counts = {}
    for rows in op.range.some():
        counts = fixed.work(op.with_rows(rows), isa, bodies.own(bodies.plan.kind(rows)))
        for name, count in counts.items():
            total[name] = total.get(name, 0.0) + count / rows
    return total
