"""The dot algorithm on x86: one schedule for SSE4, AVX2, AVX-512BW and AVX-512VNNI.

Loops, from the outside: blocks of the result (parallel), register tiles of a block, the k axis, and
inside, straight-line, one instruction for every accumulator of the tile:

    for g, block of row tiles, block of panels          # outer=nm: the blocks the other way round
      for row tile, panel                               # inner=nm: the other way round
        tile = 0                                        # rows x vectors registers
        for r, s, k4                                    # taps, k groups
          for mi, nv: tile[mi, nv] += dot(left[mi, k4], right[k4, nv])
        y = tile (+ correction)
"""

from tvm import IRModule, te
from tvm.s_tir import Schedule

from lpgen.algorithms import dot
from lpgen.algorithms.entry import kernel_entry
from lpgen.algorithms.kernel import Kernel
from lpgen.algorithms.tails import peel_partial_vectors
from lpgen.errors import ScheduleRefused
from lpgen.ops import Conv2d, Dense
from lpgen.schedules.x86 import intrinsics
from lpgen.schedules.x86.dot_space import chunk_of, operands_of, refusal, tiling
from lpgen.schedules.x86.isa import Isa
from lpgen.space import Knobs


def kernel(op: Dense | Conv2d, isa: Isa, knobs: Knobs) -> Kernel:
    """The scheduled kernel. Raises ScheduleRefused for knobs outside of the space."""
    reason = refusal(op, isa, knobs)
    if reason:
        raise ScheduleRefused(reason)
    operands = operands_of(op, knobs["step"])
    definition = dot.define(op, operands, tiling(op, isa, knobs))
    sch = Schedule(IRModule({"main": te.create_prim_func(definition.args)}))
    _Tiles(sch, isa, operands, definition, knobs).schedule()
    func = peel_partial_vectors(sch.mod["main"])
    return Kernel(op, kernel_entry(func, op, definition.layout.sections), definition.layout)


class _Tiles:
    """The steps of the schedule, in the order in which TVM accepts them."""

    def __init__(
        self,
        sch: Schedule,
        isa: Isa,
        operands: dot.Operands,
        definition: dot.Definition,
        knobs: Knobs,
    ) -> None:
        self.sch, self.isa, self.operands, self.knobs = sch, isa, operands, knobs
        self.definition = definition
        self.chunked = bool(chunk_of(knobs["step"]))
        self.stages = {
            name: sch.get_sblock(name)
            for name in ("pad", "pack", "expand", "partial", "tile", "y")
            if self._has(name)
        }

    def _has(self, name: str) -> bool:
        blocks = self.sch.get_child_blocks(self.sch.get_sblock("root"))
        return name in {self.sch.get(block).name_hint for block in blocks}

    def schedule(self) -> None:
        block, inner, reduction = self._order()
        if self.chunked:
            self.sch.compute_at(self.stages["partial"], reduction[1], preserve_unit_loops=True)
        self._place_left()
        if "expand" in self.stages and self.knobs["expand"] == "panel":
            self._place_expanded_panel(block)
        self.sch.reverse_compute_at(self.stages["y"], inner, preserve_unit_loops=True)
        if self.chunked:
            self._product_in_chunks(reduction)
        else:
            self._product(reduction)
        self._copy_out()

    def _order(self):
        """Split and reorder the loops of the tile, parallelize; returns (the innermost loop over
        blocks, the innermost loop over tiles, the loops over k groups)."""
        sch, knobs = self.sch, self.knobs
        g, mo, no, mi, nv, nl, r, s, *k = sch.get_loops(self.stages["tile"])
        mb, mo = sch.split(mo, [None, knobs["m_block"] or sch.get(mo).extent])
        nb, no = sch.split(no, [None, knobs["n_block"] or sch.get(no).extent])
        blocks = (mb, nb) if knobs["outer"] == "mn" else (nb, mb)
        tiles = (mo, no) if knobs["inner"] == "mn" else (no, mo)
        k4, *rest = k  # kt, or pair when the k groups are chunks
        sch.reorder(g, *blocks, *tiles, r, s, k4, mi, nv, nl, *rest)
        if self._one_stage_per_outer_block():
            self.outer = sch.fuse(g, blocks[0])
            sch.parallel(self.outer)
            return blocks[1], tiles[1], (r, k4)
        self.outer = sch.fuse(g, *blocks)
        sch.parallel(self.outer)
        return self.outer, tiles[1], (r, k4)

    def _one_stage_per_outer_block(self) -> bool:
        """Whether a stage belongs to an outer block alone: its copy serves all inner blocks."""
        knobs = self.knobs
        if knobs["outer"] == "mn":
            return knobs["left"] == "copied"
        return knobs["expand"] == "panel"

    def _place_left(self) -> None:
        if "pack" not in self.stages:
            return
        sch, pack = self.sch, self.stages["pack"]
        if self.knobs["outer"] == "mn":
            sch.compute_at(pack, self.outer, preserve_unit_loops=True)
        *_, r, s, k4, mi, kt = sch.get_loops(pack)
        sch.reorder(r, s, mi, k4, kt)
        sch.vectorize(kt)

    def _place_expanded_panel(self, block) -> None:
        sch, expand = self.sch, self.stages["expand"]
        at = self.outer if self.knobs["outer"] == "nm" else block
        sch.compute_at(expand, at, preserve_unit_loops=True)
        *_, kg, nv, nl, kt = sch.get_loops(expand)
        fields = self.definition.layout.fields
        kg_byte, field = sch.split(kg, [None, fields])
        sch.reorder(kg_byte, nv, field, nl, kt)
        sch.unroll(field)
        sch.vectorize(sch.fuse(nl, kt))

    def _expand_in_registers(self, k_group) -> None:
        sch, expand = self.sch, self.stages["expand"]
        sch.compute_at(expand, k_group, preserve_unit_loops=True)
        *_, nv, nl, kt = sch.get_loops(expand)
        sch.unroll(nv)
        sch.vectorize(sch.fuse(nl, kt))

    def _unrolled(self, k_group):
        """Unroll the loop over k groups; returns the loop whose body is one step."""
        unroll = self.knobs["unroll"]
        if unroll == 1:
            return k_group
        _, inner = self.sch.split(k_group, [None, unroll])
        self.sch.unroll(inner)
        return inner

    def _product(self, reduction) -> None:
        sch, tile = self.sch, self.stages["tile"]
        first, k4 = reduction
        step = self._unrolled(k4)
        if "expand" in self.stages and self.knobs["expand"] == "register":
            self._expand_in_registers(step)
        self._zero(sch.decompose_reduction(tile, first), 3)
        self._tensorize(tile, 2, self._intrinsic())

    def _product_in_chunks(self, reduction) -> None:
        """int16 sums of a chunk in registers, int32 sums beside them in memory."""
        sch, tile, partial = self.sch, self.stages["tile"], self.stages["partial"]
        first, _ = reduction
        *_, mi, nv, nl, pair, ki, kt = sch.get_loops(partial)
        sch.reorder(ki, mi, nv, nl, pair, kt)
        step = self._unrolled(ki)
        if "expand" in self.stages and self.knobs["expand"] == "register":
            self._expand_in_registers(step)
        self._zero(sch.decompose_reduction(partial, self._outer_step(step)), 4)
        pairs = intrinsics.dot_pairs(self.isa, self.operands.left, self.operands.right)
        self._tensorize(partial, 3, pairs)
        self._zero(sch.decompose_reduction(tile, first), 3)
        self._tensorize(tile, 2, intrinsics.widen_pairs(self.isa))

    def _outer_step(self, step):
        """The loop over the k groups of a chunk that contains all others over them."""
        loops = self.sch.get_loops(self.stages["partial"])
        return loops[-6] if self.knobs["unroll"] == 1 else loops[-7]

    def _intrinsic(self) -> str:
        if self.knobs["step"] == "words":
            return intrinsics.dot_words(self.isa)
        return intrinsics.dot_bytes(self.isa, self.operands.left, self.operands.right)

    def _tensorize(self, block, inner: int, intrinsic: str) -> None:
        """Unroll rows and vectors; the `inner` loops inside them become one instruction."""
        loops = self.sch.get_loops(block)
        mi, nv, lane = loops[-inner - 2], loops[-inner - 1], loops[-inner]
        self.sch.unroll(mi)
        self.sch.unroll(nv)
        self.sch.tensorize(lane, intrinsic)

    def _zero(self, init, loops: int) -> None:
        mi, nv, *lanes = self.sch.get_loops(init)[-loops:]
        self.sch.unroll(mi)
        self.sch.unroll(nv)
        self.sch.vectorize(self.sch.fuse(*lanes) if len(lanes) > 1 else lanes[0])

    def _copy_out(self) -> None:
        sch = self.sch
        *_, row, column = sch.get_loops(self.stages["y"])
        vector, lane = sch.split(column, [None, self.isa.lanes])
        if sch.get(row).extent.value <= 64:
            sch.unroll(row)
        sch.unroll(vector)
        sch.vectorize(lane)
