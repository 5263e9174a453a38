"""Fields of several columns in one byte: the packed weights of telescoped and lane_pack.

Codes are split into planes (`weights`), and a byte of a plane holds the codes of as many vectors of
columns as it has *fields*, `spacing` bits apart, each where an instruction can multiply it:

    plane[group][panel][k group][vector / fields][lane][kq]

Bytes with several fields are the unsigned operand of a multiplication, the left side is the signed
one: x + offset fits int8. With value = step * code + min everything else is done by `codes`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm import te, tirx

from lpgen.algorithms.dot import Tiling, left_tiles
from lpgen.algorithms.kernel import Layout
from lpgen.algorithms.lhs.k_split import Reduction, cut
from lpgen.algorithms.lhs.row_sums import placeholder
from lpgen.algorithms.lhs.view import left_side
from lpgen.algorithms.result.epilogue import Epilogue
from lpgen.algorithms.sections import Section
from lpgen.algorithms.weights.codes import CodeWeights
from lpgen.algorithms.weights.panels import PLANES
from lpgen.formats import Format
from lpgen.ops import Conv2d, Dense


@dataclass(frozen=True)
class Plane:
    """`width` bits of the codes from bit `low` on; a byte holds `fields` of them, `spacing` bits
    apart."""

    low: int
    width: int
    spacing: int
    fields: int


def dense_planes(weight: Format) -> tuple[Plane, ...]:
    """Planes that fill their bytes: exactly `bits` bits a weight."""
    planes, low = [], 0
    for width in PLANES[weight.bits]:
        planes.append(Plane(low, width, width, 8 // width))
        low += width
    return tuple(planes)


def spread_planes(weight: Format) -> tuple[Plane, ...]:
    """One plane with a code at each end of a byte, and nothing between them."""
    return (Plane(0, weight.bits, 8 - weight.bits, 2),)


@dataclass(frozen=True)
class FieldWeights(CodeWeights):
    """The layout above, for panels of a multiple of every plane's fields of `lanes` columns."""

    planes: tuple[Plane, ...] = ()
    lanes: int = 16

    def code_sections(self) -> list[Section]:
        outer = (self.groups, self.panels, self.cut.groups)
        vectors = self.panel // self.lanes
        shapes = [(*outer, vectors // p.fields, self.lanes, self.cut.kq) for p in self.planes]
        return [Section(f"plane{i}", shape, "uint8") for i, shape in enumerate(shapes)]

    def arrange(self, codes: np.ndarray) -> list[np.ndarray]:
        # Columns become panels, vectors and lanes; behind the panel come all k groups of all runs.
        shape = (self.groups, self.panels, -1, self.lanes, self.cut.groups, self.cut.kq)
        codes = codes.reshape(shape).transpose(0, 1, 4, 2, 3, 5)
        parts = []
        for p in self.planes:
            bits = codes >> p.low & (1 << p.width) - 1
            bits = bits.reshape(*bits.shape[:3], -1, p.fields, *bits.shape[4:])
            shifts = (np.arange(p.fields, dtype=np.uint8) * p.spacing)[:, None, None]
            parts.append(np.bitwise_or.reduce(bits << shifts, axis=4))
        return parts

    def te_arrange(self, code) -> list[te.Tensor]:
        return [
            te.compute(section.shape, self._te_byte(code, plane), name=section.name)
            for section, plane in zip(self.code_sections(), self.planes, strict=True)
        ]

    def _te_byte(self, code, p: Plane):
        def byte(group, panel, kg, packed, lane, kt):
            total = None
            for field in range(p.fields):
                column = panel * self.panel + (packed * p.fields + field) * self.lanes + lane
                bits = code(group, column, kg, kt) >> tirx.const(p.low, "uint8")
                bits = bits & tirx.const((1 << p.width) - 1, "uint8")
                bits = bits << tirx.const(field * p.spacing, "uint8")
                total = bits if total is None else total | bits
            return total

        return byte

    def code(self, sections: list[te.Tensor], g, no, kg, nv, nl, kt) -> tirx.Expr:
        """The code at (group, panel, k group, vector, lane, kt) out of the sections, int32."""
        total = None
        for p, section in zip(self.planes, sections, strict=False):
            byte = section[g, no, kg, nv // p.fields, nl, kt].astype("int32")
            bits = byte >> (nv % p.fields * p.spacing) & ((1 << p.width) - 1)
            bits = bits << p.low if p.low else bits
            total = bits if total is None else total + bits
        return total


@dataclass(frozen=True)
class Definition:
    """Tensors of the computation; `args` are the parameters, in order."""

    op: Dense | Conv2d
    cut: Reduction
    weights: FieldWeights
    layout: Layout
    """`weights` with the parameters of the epilogue behind them."""
    args: list[te.Tensor]
    prologue: list[tirx.PrimFunc]
    """What has to run before (`entry.kernel_entry`)."""


def define(
    op: Dense | Conv2d, tiling: Tiling, planes: tuple[Plane, ...], offset: int
) -> Definition:
    """The tensor expressions of `op`: stages pad (optional), pack (if copied), tile and y.

    offset: what is added to every value of the left side, so that it fits int8.
    """
    matrix, t = op.matrix, tiling
    c = cut(op, t.kq, folded=t.folded, empty=True)
    weights = FieldWeights(
        shape=op.w_shape,
        format=op.weight,
        cut=c,
        groups=matrix.groups,
        columns=matrix.n,
        panels=t.panels,
        panel=t.vectors * t.lanes,
        offset=offset + op.zero_act,
        planes=planes,
        lanes=t.lanes,
    )
    sections = [te.placeholder(s.shape, s.dtype, name=s.name) for s in weights.sections]
    left = left_side(op, c, "int8", offset)
    left_at = left_tiles(left, c, t, matrix.groups)
    r, s, kg, kt = (
        te.reduce_axis((0, extent), name=name)
        for name, extent in (("r", c.r), ("s", c.s), ("kg", c.kg), ("kt", c.kq))
    )

    def product(g, mo, no, mi, nv, nl):
        x = left_at(g, mo, mi, r, s, kg, kt, None).astype("int32")
        code = weights.code(sections, g, no, (r * c.s + s) * c.kg + kg, nv, nl, kt)
        return te.sum(x * code, axis=[r, s, kg, kt])

    shape = (matrix.groups, t.row_tiles, t.panels, t.rows, t.vectors, t.lanes)
    tile = te.compute(shape, product, name="tile")
    sums = placeholder(op) if op.weight.min else None
    epilogue = Epilogue(op, 0, matrix.groups, matrix.n, sums)

    def result(m, g, n):
        where = (g, m // t.rows, n // weights.panel, m % t.rows)
        value = tile[(*where, n % weights.panel // t.lanes, n % t.lanes)]
        return epilogue(weights.value(value, (m, g, n), sections, sums), m, g, n)

    y = te.compute((matrix.m, matrix.groups, matrix.n), result, name="y")
    args = [left.x, *sections, *epilogue.inputs, y]
    return Definition(op, c, weights, epilogue.layout(weights), args, epilogue.prologue)
