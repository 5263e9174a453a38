"""The dot algorithm: one schedule for every Isa.

Inside the blocks (see `blocks`), for every register tile:

    tile = 0                                          # rows x vectors registers
    for r, s, k4                                      # taps, k steps
      for mi, nv: tile[mi, nv] += dot(left[mi, k4], right[k4, nv])      # straight-line
    y = tile (+ compensation)
"""

from tvm.s_tir import Schedule

from lpgen.algorithms import dot
from lpgen.algorithms.definition import Definition
from lpgen.algorithms.kernel import Kernel
from lpgen.errors import refuse
from lpgen.isa import Isa
from lpgen.ops import Conv2d, Dense
from lpgen.schedules.common import blocks, inside
from lpgen.schedules.common.dot import intrinsics, ranged
from lpgen.schedules.common.dot import knobs as fixed
from lpgen.schedules.common.dot.knobs import refuses, tiling
from lpgen.schedules.common.dot.steps import chunk_of, operands_of
from lpgen.schedules.common.finish import finished
from lpgen.space import Counts, Knobs, Space
from lpgen.tir.rolled import keep_rolled

RANGED = True

UNROLLED = 350
"""Instructions of a loop over k steps up to which LLVM unrolls it completely, about."""


def why_not(op: Dense | Conv2d, isa: Isa) -> str | None:
    """Why the algorithm does not serve the operator, or None."""
    if op.range and op.outliers:
        return "its outliers are summed for one number of rows"
    return fixed.why_not(op, isa)


def space(op: Dense | Conv2d, isa: Isa) -> Space:
    """All knobs with their choices for `op`."""
    return (ranged if op.range else fixed).space(op, isa)


def work(op: Dense | Conv2d, isa: Isa, knobs: Knobs) -> Counts:
    """What a kernel with these knobs does (`Template.work`)."""
    return (ranged if op.range else fixed).work(op, isa, knobs)


def kernel(op: Dense | Conv2d, isa: Isa, knobs: Knobs) -> Kernel:
    """The scheduled kernel. Raises ScheduleRefused for knobs outside of the space."""
    if op.range:
        return ranged.kernel(op, isa, knobs, scheduled)
    refuse(refuses(op, isa, knobs))
    return scheduled(op, isa, knobs, tiling(op, isa, knobs))


def scheduled(op: Dense | Conv2d, isa: Isa, knobs: Knobs, sizes: dot.Tiling) -> Kernel:
    """The kernel with these knobs and tiles of these sizes, whether or not they are any good."""
    operands = operands_of(op, isa, knobs["step"])
    definition = dot.define(op, operands, sizes)
    sch = definition.schedule()
    _Tiles(sch, isa, operands, definition, knobs, sizes).schedule()
    return finished(sch.mod["main"], definition, prefetch=knobs["prefetch"], isa=isa)


class _Tiles:
    """The steps of the schedule, in the order in which TVM accepts them."""

    def __init__(
        self,
        sch: Schedule,
        isa: Isa,
        operands: dot.Operands,
        definition: Definition,
        knobs: Knobs,
        sizes: dot.Tiling,
    ) -> None:
        self.sch, self.isa, self.operands, self.knobs = sch, isa, operands, knobs
        self.definition, self.sizes = definition, sizes
        self.chunked = bool(chunk_of(knobs["step"]))
        self.tile = sch.get_sblock("tile")
        self.near = int(isa.kq > 2)
        """Loops over products that are added up in an int16 lane at once: 1, or none."""
        self.pair = int(isa.kq > 1)
        """Loops over the int16 lanes of a column: 1, or none."""
        self.rows: list = []
        """The loops over rows of the tile inside of those over taps."""

    def schedule(self) -> None:
        sch, knobs = self.sch, self.knobs
        panels = knobs["expand"] == "panel"
        copied = knobs["left"] == "copied"
        ranged = bool(self.definition.op.range)
        order = blocks.order_blocks(
            sch, self.tile, knobs, copied=copied, panels=panels, ranged=ranged
        )
        if self.chunked:
            _, _, chunk, *_ = order.reduction
            self.partial = sch.get_sblock("partial")
            sch.compute_at(self.partial, chunk, preserve_unit_loops=True)
        if self.sizes.crossed:
            for side in dot.crossed.SIDES:
                sch.compute_at(sch.get_sblock(side), order.vector, preserve_unit_loops=True)
        if copied:
            blocks.place_copy(sch, order)
        if panels:
            blocks.unpack_panel(sch, order, self.definition.weights.fields)
        sch.reverse_compute_at(sch.get_sblock("y"), order.tile, preserve_unit_loops=True)
        if self.chunked:
            self._product_in_chunks(order.reduction)
        else:
            self._product(order.reduction)
        # The accumulators are registers only if each is read at a constant place.
        blocks.copy_out(sch, order, self.isa.lanes, unroll_rows=True)
        if knobs["left"] == "inside":
            inside.mark(sch, *order.reduction[:2], self.rows)

    def _unpack_in_registers(self, k_step) -> None:
        sch, unpack = self.sch, self.sch.get_sblock("unpack")
        sch.compute_at(unpack, k_step, preserve_unit_loops=True)
        *_, nv, nl, kt = sch.get_loops(unpack)
        sch.unroll(nv)
        sch.vectorize(sch.fuse(nl, kt))

    def _unrolled(self, k_step):
        """Unroll the loop over k steps; returns the loop over iterations, and the one whose body is
        one step."""
        unroll = self.knobs["unroll"]
        if unroll == 1:
            return k_step, k_step
        outer, inner = self.sch.split(k_step, [None, unroll])
        self.sch.unroll(inner)
        return outer, inner

    def _reorders(self, row, column, k_step) -> bool:
        """Whether LLVM would order the products of a tile anew: nothing but the loop over k steps
        is around them, it is short, and there are many sums."""
        taps, steps = (self._extent(row) * self._extent(column), self._extent(k_step))
        rows, columns = self.sizes.rows, self.sizes.vectors
        unrolls = steps * (rows * columns + rows + columns) <= UNROLLED
        many = 2 * rows * columns >= self.isa.registers
        return taps == 1 and self.knobs["left"] != "inside" and unrolls and many

    def _extent(self, loop) -> int:
        return int(self.sch.get(loop).extent)

    def _product(self, reduction) -> None:
        sch, tile = self.sch, self.tile
        first, column, k4, _ = reduction
        reorders = self._reorders(first, column, k4)
        iterations, step = self._unrolled(k4)
        if reorders:
            keep_rolled(sch, iterations)
        if self.knobs["expand"] == "register":
            self._unpack_in_registers(step)
        self._zero(sch.decompose_reduction(tile, first), 3)
        self._tensorize(tile, 2, self._intrinsic())
        for side, dtype in dot.crossed.SIDES.items() if self.sizes.crossed else ():
            lane = sch.get_loops(sch.get_sblock(side))[-2]
            sch.tensorize(lane, intrinsics.add_across(self.isa, dtype))

    def _product_in_chunks(self, reduction) -> None:
        """int16 sums of a chunk in registers, int32 sums beside them in memory."""
        sch, tile, partial = self.sch, self.tile, self.partial
        loops = sch.get_loops(partial)
        mi, nv, nl, *pair, ki = loops[-4 - self.pair - self.near : len(loops) - self.near]
        sch.reorder(ki, mi, nv, nl, *pair, *loops[len(loops) - self.near :])
        _, step = self._unrolled(ki)
        if self.knobs["expand"] == "register":
            self._unpack_in_registers(step)
        zero = sch.decompose_reduction(partial, self._outer_step(step))
        self.rows.append(self._zero(zero, 3 + self.pair))
        signs = (self.operands.left, self.operands.right)
        pairs = intrinsics.dot_pairs(self.isa, *signs, self.isa.kq)
        self._tensorize(partial, 1 + self.pair + self.near, pairs)
        self._zero(sch.decompose_reduction(tile, reduction[0]), 3)
        self._tensorize(tile, 1 + self.pair, intrinsics.widen_pairs(self.isa, 1 + self.pair))

    def _outer_step(self, step):
        """The loop over the k steps of a chunk that contains all others over them."""
        loops = self.sch.get_loops(self.partial)
        return loops[-4 - self.pair - self.near - (self.knobs["unroll"] > 1)]

    def _intrinsic(self) -> str:
        if self.knobs["step"] == "words":
            return intrinsics.dot_words(self.isa)
        if self.sizes.crossed:
            return intrinsics.dot_lanes(self.isa)
        signs = (self.operands.left, self.operands.right)
        return intrinsics.dot_bytes(self.isa, *signs, self.isa.kq)

    def _tensorize(self, block, inner: int, intrinsic: str) -> None:
        """Unroll rows and vectors; the `inner` loops inside them become one instruction."""
        loops = self.sch.get_loops(block)
        mi, nv, lane = loops[-inner - 2], loops[-inner - 1], loops[-inner]
        self.sch.unroll(mi)
        self.sch.unroll(nv)
        self.sch.tensorize(lane, intrinsic)
        self.rows.append(mi)

    def _zero(self, init, loops: int):
        """Unroll the stores of zeros; returns the loop over rows."""
        mi, nv, *lanes = self.sch.get_loops(init)[-loops:]
        self.sch.unroll(mi)
        self.sch.unroll(nv)
        self.sch.vectorize(self.sch.fuse(*lanes) if len(lanes) > 1 else lanes[0])
        return mi
