"""The lut_sum algorithm: one schedule for every Isa.

for block of rows
  encode: the tables of its rows                # left=direct: all tables, before the blocks
  for block of panels, row tile, panel
    unpack: the indices of a panel              # expand=panel, once per block of panels
    tile: lookups                               # straight-line, see `lookup_sums`
    y = tile (+ compensation)
"""

import math

from tvm.s_tir import Schedule

from lpgen.algorithms import lut_sum
from lpgen.algorithms.kernel import Kernel
from lpgen.algorithms.lhs.encode import AT_SOURCE
from lpgen.algorithms.lhs.view import PARALLEL_BYTES
from lpgen.errors import refuse
from lpgen.isa import Isa
from lpgen.ops import Conv2d, Dense
from lpgen.schedules.common import blocks
from lpgen.schedules.common.finish import finished
from lpgen.schedules.common.lut_sum.knobs import refuses, space, tiling, why_not, work
from lpgen.schedules.common.lut_sum.tables import TableCode
from lpgen.schedules.common.lut_sum.tile import TileCode
from lpgen.space import Knobs
from lpgen.tir.microkernel import replace_encode, replace_tile

__all__ = ["kernel", "space", "why_not", "work"]


def kernel(op: Dense | Conv2d, isa: Isa, knobs: Knobs) -> Kernel:
    """The scheduled kernel. Raises ScheduleRefused for knobs outside of the space."""
    refuse(refuses(op, isa, knobs))
    sizes = tiling(op, isa, knobs)
    definition = lut_sum.define(op, sizes)
    sch = definition.schedule()
    _schedule(sch, isa, sizes, knobs)
    in_tiles = sizes.left not in AT_SOURCE
    tables = lut_sum.tables_of(op, sizes.inputs, sizes.digits, sizes.table_rows)
    tile = TileCode(op, definition.weights, tables, sizes, isa, knobs["prefetch"])
    func = replace_tile(sch.mod["main"], tile)
    code = TableCode(tables, isa, sizes.rows // tables.rows if in_tiles else 1)
    func = replace_encode(func, code, elements=2 + (tables.rows > 1), rows=in_tiles)
    return finished(func, definition, isa=isa)


def _schedule(sch: Schedule, isa: Isa, sizes: lut_sum.Tiling, knobs: Knobs) -> None:
    in_tiles = sizes.left not in AT_SOURCE
    tile, encode = sch.get_sblock("tile"), sch.get_sblock("encode")
    order = blocks.order_blocks(sch, tile, knobs, copied=in_tiles, panels=sizes.unpacked)
    if in_tiles:
        blocks.place_rows(sch, encode, order)
    else:
        _make_all_tables(sch, encode, inner=4 + (sizes.table_rows > 1))
    if sizes.unpacked:
        _unpack_panels(sch, order, lut_sum.PACK[sizes.inputs][0])
    sch.reverse_compute_at(sch.get_sblock("y"), order.tile, preserve_unit_loops=True)
    blocks.copy_out(sch, order, isa.lanes, unroll_rows=True)


def _make_all_tables(sch: Schedule, encode, inner: int) -> None:
    """Several threads share the rows where that pays; inner: loops of a row, those over elements
    and the rows and values that make them."""
    loops = sch.get_loops(encode)
    rows, made = loops[:-inner], loops[: 3 - inner]
    if math.prod(int(sch.get(loop).extent) for loop in made) >= PARALLEL_BYTES:
        sch.parallel(sch.fuse(*rows) if len(rows) > 1 else rows[0])


def _unpack_panels(sch: Schedule, order: blocks.Order, shared: int) -> None:
    """Unpack the indices of a block of panels, `shared` k steps at a time."""
    unpack = sch.get_sblock("unpack")
    blocks.place_panels(sch, unpack, order)
    *_, kg, nv, byte = sch.get_loops(unpack)
    kgs, field = sch.split(kg, [None, shared])
    sch.reorder(kgs, nv, field, byte)
    sch.unroll(field)
    sch.vectorize(byte)
