"""Products of two rows and two columns, eight bytes of each, in one instruction (Armv8.6).

    smmla: acc[2 i + j] += sum over t < 8 of left[8 i + t] * right[8 j + t]        # i, j < 2

`ummla` takes unsigned bytes, `usmmla` unsigned ones on the left and signed ones on the right. The
definition is that of the dot algorithm with eight values of k in a step. A vector of four columns
is two operands; the sums of two rows with them are two accumulators, which change places behind the
loop over k: (rows x columns) 00 01 10 11 and 02 03 12 13 to 00 01 02 03 and 10 11 12 13.

| knob    | meaning                                                                                |
|---------|----------------------------------------------------------------------------------------|
| rows    | rows of the register tile, an even number                                              |
| vectors | vectors of four columns in the register tile                                           |
| unroll  | k steps of one iteration of the innermost loop                                         |
| m_block, n_block, outer, inner, left: see `dot.knobs`; weights of fewer than 8 bits are unpacked |
per block of panels.

Source: Arm Architecture Reference Manual for A-profile (DDI 0487), C7.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from tvm import tirx

from lpgen.algorithms import dot
from lpgen.algorithms.depthwise import one_channel_each
from lpgen.algorithms.kernel import Kernel
from lpgen.algorithms.lhs.k_split import KSplit, cut
from lpgen.algorithms.weights.panels import PLANES
from lpgen.errors import refuse
from lpgen.ops import Conv2d, Dense
from lpgen.schedules.arm.isa import I8mm, isa_of
from lpgen.schedules.common import blocks
from lpgen.schedules.common.cuts import cuts, fits
from lpgen.schedules.common.finish import finished
from lpgen.space import Counts, Knobs, Space
from lpgen.target import Target
from lpgen.tir import vectors as vec
from lpgen.tir.microkernel import Access, Site, for_k_steps, replace_tile

LANES, BYTES = 4, 8
SIGNS = (("int8", "int8"), ("uint8", "uint8"), ("uint8", "int8"))
ROWS, VECTORS = (2, 4, 6, 8, 10, 12, 14), (1, 2, 3, 4, 6)


def why_not(op: Dense | Conv2d, target: Target) -> str | None:
    """Why the template does not serve `op`; None if it does."""
    if not isinstance(isa_of(target), I8mm):
        return f"{target.name} has no instruction that multiplies two rows with two columns"
    if op.matrix.m < 2:
        return "one row leaves half of each product empty"
    return one_channel_each(op)


def space(op: Dense | Conv2d, target: Target) -> Space:
    """The knobs above."""
    return Space(
        {
            "rows": tuple(sorted({2, *(r for r in cuts(op.matrix.m, ROWS) if r % 2 == 0)})),
            "vectors": tuple(_vectors(op.matrix.n)),
            **blocks.knobs(op.matrix.m, op.matrix.n, LANES),
            "left": blocks.left_choices(op),
            "unroll": (1, 2),
        },
        lambda knobs: _refuses(op, target, knobs) is None,
    )


def _vectors(n: int) -> Iterator[int]:
    whole = -(-n // LANES)
    return (v for v in VECTORS if v == 1 or (v <= whole and fits(whole, v)))


def _refuses(op: Dense | Conv2d, target: Target, knobs: Knobs) -> str | None:
    rows, vectors, registers = knobs["rows"], knobs["vectors"], isa_of(target).registers
    if rows * vectors + rows // 2 + 2 > registers:
        return f"a tile of {rows} x {vectors} vectors exceeds {registers} registers"
    if knobs["unroll"] > cut(op, BYTES, 1, knobs["left"] == "folded").kg:
        return f"unroll={knobs['unroll']} is more than the k steps there are"
    return blocks.refuses(op, rows, vectors * LANES, knobs)


def _tiling(op: Dense | Conv2d, knobs: Knobs) -> dot.Tiling:
    rows, vectors = knobs["rows"], knobs["vectors"]
    return dot.Tiling(
        rows=rows,
        vectors=vectors,
        lanes=LANES,
        kq=BYTES,
        **blocks.counts(op, rows, vectors * LANES, knobs),
        copied=knobs["left"] == "copied",
        folded=knobs["left"] == "folded",
    )


def work(op: Dense | Conv2d, target: Target, knobs: Knobs) -> Counts:
    """What a kernel with these knobs does (`Template.work`)."""
    t, matrix = _tiling(op, knobs), op.matrix
    steps = cut(op, BYTES, 1, t.folded).steps
    tiles, panel = matrix.groups * t.row_tiles * t.panels, t.panel * steps * BYTES
    sweeps = t.row_tiles / (knobs["m_block"] or t.row_tiles) if knobs["outer"] == "mn" else 1
    unpacking = max(1, 2 * len(PLANES.get(op.weight.bits, ())) - 1) * (op.weight.bits < 8)
    return {
        "products": tiles * steps * t.rows * t.vectors,
        "loads": tiles * steps * (t.rows / (2 if t.copied else 1) + 2 * t.vectors),
        "stall": tiles * steps * max(0, 4 - t.rows * t.vectors / 4),
        "expand": matrix.groups * t.panels * panel / 16 * sweeps * unpacking,
        "copy": matrix.groups * t.row_tiles * t.rows * steps * BYTES * t.copied,
        "fold": matrix.m * matrix.k * t.folded,
        "tiles": tiles,
        "stores": tiles * t.rows * t.vectors * 2,
        **blocks.traffic(op, knobs, t.row_tiles, t.panels, t.rows * matrix.k, panel, target),
    }


def kernel(op: Dense | Conv2d, target: Target, knobs: Knobs) -> Kernel:
    """The scheduled kernel. Raises ScheduleRefused for knobs outside of the space."""
    refuse(why_not(op, target) or _refuses(op, target, knobs))
    isa, operands = isa_of(target), dot.byte_operands(op, SIGNS)
    definition = dot.define(op, operands, _tiling(op, knobs))
    sch, copied = definition.schedule(), knobs["left"] == "copied"
    unpacked = dot.is_unpacked(definition.weights, operands)
    order = blocks.order_blocks(sch, sch.get_sblock("tile"), knobs, copied=copied, panels=unpacked)
    if copied:
        blocks.place_copy(sch, order)
    if unpacked:
        blocks.unpack_panel(sch, order, definition.weights.fields)
    sch.reverse_compute_at(sch.get_sblock("y"), order.tile, preserve_unit_loops=True)
    blocks.copy_out(sch, order, LANES, unroll_rows=True)
    right = "unpack" if unpacked else definition.weights.sections[0].name
    code = _Tile(isa, operands, definition.weights.cut, right, knobs, copied)
    return finished(replace_tile(sch.mod["main"], code), definition, isa=isa)


@dataclass(frozen=True)
class _Tile:
    """Emits the tile. right: the name of the buffer of weights; copied: whether rows lie in tile
    order, those of a k step side by side."""

    isa: I8mm
    operands: dot.Operands
    cut: KSplit
    right: str
    knobs: Knobs
    copied: bool

    def __call__(self, site: Site) -> None:
        rows, vectors = self.knobs["rows"], self.knobs["vectors"]
        right = site.sources[self.right]
        (left,) = (access for name, access in site.sources.items() if name != self.right)
        places = [*itertools.product(range(0, rows, 2), range(vectors), range(2))]
        sums = {place: vec.scratch((LANES,), "int32") for place in places}
        for buffer in sums.values():
            vec.store(buffer, [0], vec.splat(0, "int32", LANES), LANES)

        def steps(groups: list[tuple]) -> None:
            for r, s, kg in groups:
                at = {"r": r, "s": s, "kg": kg}
                pairs = {row: self._rows(left, row, at) for row in range(0, rows, 2)}
                for v, half in itertools.product(range(vectors), range(2)):
                    columns = vec.load(right.buffer, right.at(nv=v, nl=2 * half, **at), 2 * BYTES)
                    columns = vec.bind(columns)
                    for row, pair in pairs.items():
                        acc = vec.load(sums[row, v, half], [0], LANES)
                        new = self.isa.mmla(acc, pair, columns)
                        vec.store(sums[row, v, half], [0], new, LANES)

        for_k_steps((self.cut.r, self.cut.s, self.cut.kg), self.knobs["unroll"], steps)
        for row, v in itertools.product(range(0, rows, 2), range(vectors)):
            halves = [vec.bind(vec.load(sums[row, v, half], [0], LANES)) for half in range(2)]
            for own in range(2):
                lanes = [2 * own, 2 * own + 1, 4 + 2 * own, 5 + 2 * own]
                to = site.target.at(mi=row + own, nv=v)
                vec.store(site.target.buffer, to, vec.joined(halves, lanes), LANES)

    def _rows(self, left: Access, row: int, at: dict) -> tirx.Var:
        """Eight bytes of two rows."""
        if self.copied:
            return vec.bind(vec.load(left.buffer, left.at(mi=row, **at), 2 * BYTES))
        dtype, parts = f"{self.operands.left}x{BYTES}", []
        for own in (row, row + 1):
            part = vec.bind(vec.load(left.buffer, left.at(mi=own, **at), BYTES))
            parts.append(vec.bind(vec.reinterpret(dtype, part)))
        return vec.bind(vec.joined(parts, range(2 * BYTES)))
