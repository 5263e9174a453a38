"""The lut_sum algorithm on x86: one schedule for SSE4, AVX2 and AVX-512BW.

for block of rows
  encode: the tables of its rows                # left=direct: all tables, before the blocks
  for block of panels, row tile, panel
    expand: the indices of a panel              # expand=panel, once per block of panels
    tile: lookups                               # straight-line, see `lookup_sums`
    y = tile (+ correction)
"""

import math

from tvm import IRModule, te
from tvm.s_tir import Schedule

from lpgen.algorithms import lut_sum
from lpgen.algorithms.entry import kernel_entry
from lpgen.algorithms.kernel import Kernel
from lpgen.algorithms.lhs.view import PARALLEL_BYTES
from lpgen.errors import ScheduleRefused
from lpgen.ops import Conv2d, Dense
from lpgen.schedules.common import blocks
from lpgen.schedules.common.lut_sum.knobs import refuses, space, tiling, why_not, work
from lpgen.schedules.common.lut_sum.tables import TableCode
from lpgen.schedules.common.lut_sum.tile import TileCode
from lpgen.schedules.x86.isa import Isa
from lpgen.schedules.x86.narrow import narrow_together
from lpgen.space import Knobs
from lpgen.tir.microkernel import replace_encode, replace_tile
from lpgen.tir.tails import peel_partial_vectors

__all__ = ["kernel", "space", "why_not", "work"]

__all__ = ["kernel", "space", "why_not", "work"]


def kernel(op: Dense | Conv2d, isa: Isa, knobs: Knobs) -> Kernel:
    """The scheduled kernel. Raises ScheduleRefused for knobs outside of the space."""
    reason = refuses(op, isa, knobs)
    if reason:
        raise ScheduleRefused(reason)
    sizes = tiling(op, isa, knobs)
    definition = lut_sum.define(op, sizes)
    sch = Schedule(IRModule({"main": te.create_prim_func(definition.args)}))
    _schedule(sch, isa, sizes, knobs)
    in_tiles = sizes.left != "direct"
    tables = TableCode(definition.tables, isa, sizes.rows if in_tiles else 1)
    func = replace_tile(sch.mod["main"], TileCode(definition, sizes, isa, knobs["prefetch"]))
    func = replace_encode(func, tables, elements=2, rows=in_tiles)
    func = peel_partial_vectors(narrow_together(func, op, isa.lanes))
    layout = definition.with_parameters
    return Kernel(op, kernel_entry(func, op, layout.sections, definition.prologue), layout)


def _schedule(sch: Schedule, isa: Isa, sizes: lut_sum.Tiling, knobs: Knobs) -> None:
    in_tiles = sizes.left != "direct"
    tile, encode = sch.get_sblock("tile"), sch.get_sblock("encode")
    order = blocks.order_blocks(sch, tile, knobs, copied=in_tiles, panels=sizes.expanded)
    if in_tiles:
        blocks.place_rows(sch, encode, order)
    else:
        _make_all_tables(sch, encode)
    if sizes.expanded:
        _expand_panels(sch, order, lut_sum.PACK[sizes.inputs][0])
    sch.reverse_compute_at(sch.get_sblock("y"), order.tile, preserve_unit_loops=True)
    blocks.copy_out(sch, order, isa.lanes, unroll_rows=True)


def _make_all_tables(sch: Schedule, encode) -> None:
    """Several threads share the rows where that pays."""
    loops = sch.get_loops(encode)
    *rows, _, _, _, _ = loops
    if math.prod(int(sch.get(loop).extent) for loop in loops[:-1]) >= PARALLEL_BYTES:
        sch.parallel(sch.fuse(*rows) if len(rows) > 1 else rows[0])


def _expand_panels(sch: Schedule, order: blocks.Order, shared: int) -> None:
    """Unpack the indices of a block of panels, `shared` k groups at a time."""
    expand = sch.get_sblock("expand")
    blocks.place_panels(sch, expand, order)
    *_, kg, nv, byte = sch.get_loops(expand)
    kgs, field = sch.split(kg, [None, shared])
    sch.reorder(kgs, nv, field, byte)
    sch.unroll(field)
    sch.vectorize(byte)
