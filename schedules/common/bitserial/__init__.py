"""The bitserial algorithm: one schedule for every Isa.

Inside the blocks (see `blocks`), for every register tile:

    words of k: products of planes into trees of carry-save adders     # `bitserial_tile`
    tile = the bits that are left in the trees, counted and weighted
    y = tile (+ compensation, + sums of rows)

left=direct and inside pack the activations into bit planes once, as they lie in memory
(input=planes: they come packed); copied and folded pack the rows of a block just before use.
"""

from tvm.s_tir import Schedule

from lpgen.algorithms import bitserial
from lpgen.algorithms.kernel import Kernel
from lpgen.algorithms.lhs.encode import AT_SOURCE
from lpgen.algorithms.lhs.planes import reads_planes
from lpgen.algorithms.lhs.view import PARALLEL_BYTES
from lpgen.errors import refuse
from lpgen.isa import Isa
from lpgen.ops import Conv2d, Dense
from lpgen.schedules.common import blocks
from lpgen.schedules.common.bitserial.knobs import plan_of, refuses, space, tiling, work
from lpgen.schedules.common.bitserial.planes import emit_planes
from lpgen.schedules.common.bitserial.tile import emit_tile
from lpgen.schedules.common.finish import finished
from lpgen.space import Knobs
from lpgen.tir.microkernel import replace_encode, replace_tile

__all__ = ["kernel", "space", "why_not", "work"]


def why_not(op: Dense | Conv2d, isa: Isa) -> str | None:
    """Why the algorithm does not serve the operator."""
    return bitserial.why_not(op)


def kernel(op: Dense | Conv2d, isa: Isa, knobs: Knobs) -> Kernel:
    """The scheduled kernel. Raises ScheduleRefused for knobs outside of the space."""
    refuse(why_not(op, isa) or refuses(op, isa, knobs))
    definition = bitserial.define(op, tiling(op, isa, knobs))
    sch = definition.schedule()
    given = reads_planes(op, knobs["word"], knobs["left"])
    _schedule(sch, isa, knobs, given)
    func = replace_tile(sch.mod["main"], emit_tile(op, plan_of(op, isa, knobs)))
    low = bitserial.planes_of_left(op)[1]
    if not given:
        func = replace_encode(func, emit_planes(isa, knobs["word"], low), 1)
    return finished(func, definition, isa=isa)


def _schedule(sch: Schedule, isa: Isa, knobs: Knobs, given: bool) -> None:
    copied = knobs["left"] not in AT_SOURCE
    order = blocks.order_blocks(sch, sch.get_sblock("tile"), knobs, copied=copied, panels=False)
    encode = None if given else sch.get_sblock("encode")
    if copied:
        blocks.place_rows(sch, encode, order)
    elif not given:
        _parallel_rows(sch, encode, len(sch.get_loops(encode)) - 3)
    sch.reverse_compute_at(sch.get_sblock("y"), order.tile, preserve_unit_loops=True)
    blocks.copy_out(sch, order, isa.lanes, unroll_rows=True)


def _parallel_rows(sch: Schedule, encode, outer: int) -> None:
    """Several threads for the whole left side, if it is large: over its `outer` first loops."""
    loops = sch.get_loops(encode)
    nbytes = 1
    for loop in loops[:-2]:
        nbytes *= int(sch.get(loop).extent) * (8 if loop is loops[-3] else 1)
    if nbytes >= PARALLEL_BYTES:
        rows = loops[:outer]
        sch.parallel(sch.fuse(*rows) if len(rows) > 1 else rows[0])
