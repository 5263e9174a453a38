"""Register tiles over groups of neighbours in k: what blockwise_dot and bit_layers share.

The stage "partial" holds the int32 sums of a group, and the stage "tile" adds them up in float32,
times what belongs to the group. Both are generated, inside of the loop over groups.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar

from tvm import tirx
from tvm.s_tir import Schedule

from lpgen.algorithms.definition import Definition, Tiling
from lpgen.isa import Isa
from lpgen.ops import Conv2d, Dense
from lpgen.schedules.common import blocks, heights
from lpgen.schedules.common.cuts import fits
from lpgen.schedules.common.dot.knobs import distances, tile_rows
from lpgen.space import Knobs
from lpgen.tir import vectors
from lpgen.tir.microkernel import Site, replace_tile, site_of

BYTES = 4
"""Bytes of a lane: values of k in a step."""

VECTORS = (1, 2, 3, 4, 6, 8)

_OUTSIDE = ("g", "mo", "no", "j")


def choices(op: Dense | Conv2d, isa: Isa, **own: tuple) -> dict[str, tuple]:
    """All knobs with their choices for `op`; own: those of one algorithm alone."""
    m = op.matrix.m
    around = blocks.knobs(m, op.matrix.n, isa.lanes)
    if op.range:
        around |= heights.ONE_BLOCK
    return {
        "rows": tuple(rows for rows in tile_rows(m) if rows < isa.registers),
        "vectors": tuple(_widths(op.matrix.n, isa)),
        **own,
        **around,
        "prefetch": distances(op.range.low if op.range else m),
    }


def _widths(n: int, isa: Isa) -> Iterator[int]:
    """Tile widths that waste little of the last panel, and the narrowest."""
    whole = -(-n // isa.lanes)
    for width in VECTORS:
        if width == 1 or fits(whole, width):
            yield width


def sizes(op: Dense | Conv2d, isa: Isa, knobs: Knobs) -> dict[str, int]:
    """The sizes of a `Tiling` that the knobs mean for this operator."""
    rows, width = knobs["rows"], knobs["vectors"]
    inside = {"rows": rows, "vectors": width, "lanes": isa.lanes, "kq": BYTES}
    return inside | blocks.counts(op, rows, width * isa.lanes, knobs)


def schedule(sch: Schedule, isa: Isa, knobs: Knobs, ranged: bool) -> None:
    """Order the loops around the blocks "partial" and "tile", which are generated."""
    tile = sch.get_sblock("tile")
    order = blocks.order_blocks(sch, tile, knobs, copied=False, panels=False, ranged=ranged)
    first, _, j, *_ = order.reduction
    sch.compute_at(sch.get_sblock("partial"), j)
    sch.reverse_compute_at(sch.get_sblock("y"), order.tile, preserve_unit_loops=True)
    sch.unroll(order.row)
    sch.unroll(order.vector)
    sch.vectorize(order.lane)
    sch.decompose_reduction(tile, first)
    blocks.copy_out(sch, order, isa.lanes, unroll_rows=True)


class GroupTile(ABC):
    """The code of a register tile; ahead: bytes of weights to ask for in advance, or 0."""

    WITHIN: ClassVar[tuple[str, ...]] = ()
    """Axes of both stages behind the groups."""

    def __init__(self, isa: Isa, definition: Definition, ahead: int) -> None:
        self.isa, self.weights, self.ahead = isa, definition.weights, ahead
        self.op, self.lanes = definition.op, isa.lanes
        self.left_type = str(definition.lhs.source.dtype)

    def replace(self, func: tirx.PrimFunc, tiling: Tiling) -> tirx.PrimFunc:
        """`func` with generated code for the blocks "partial" and "tile_update"."""
        self.rows, self.vectors = tiling.rows, tiling.vectors
        tile, within = ("mi", "nv", "nl"), self.WITHIN
        update = ("g", "mo", "no", *tile, "r", "s", "j", *within), _OUTSIDE
        self.terms = site_of(func, "tile_update", *update).sources
        partial = (*_OUTSIDE, *within, *tile, "step", "kt"), _OUTSIDE
        func = replace_tile(func, self.partial, "partial", *partial)
        return replace_tile(func, self.update, "tile_update", *update)

    @abstractmethod
    def partial(self, site: Site) -> None:
        """Emit the sums of a group."""

    @abstractmethod
    def update(self, site: Site) -> None:
        """Emit their part of the result."""

    def left(self, site: Site, mi: int, step) -> tirx.Expr:
        """Emit the values of a row in a step, in every lane."""
        (access,) = (a for name, a in site.sources.items() if not name.startswith("plane"))
        four = vectors.load(access.buffer, access.at(mi=mi, step=step), BYTES)
        word = vectors.bind(tirx.reinterpret("int32", four))
        splat = tirx.Broadcast(word, self.lanes)
        return vectors.bind(tirx.reinterpret(f"{self.left_type}x{BYTES * self.lanes}", splat))

    def rounded(self, value: tirx.Expr) -> tirx.Expr:
        """The vector of floats, see `lpgen.algorithms.result.epilogue.product`."""
        return vectors.intrinsic(f"float32x{self.lanes}", "llvm.arithmetic.fence", value)

    def floats(self, stored: tirx.Expr) -> tirx.Expr:
        """A vector of what groups have, as float32."""
        if self.weights.float_dtype == "float32":
            return stored
        lanes = self.lanes
        bits = stored.astype(f"uint32x{lanes}") << vectors.splat(16, "uint32", lanes)
        return tirx.reinterpret(f"float32x{lanes}", bits)
