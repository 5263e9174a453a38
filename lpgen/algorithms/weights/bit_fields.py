"""Fields of several columns in one byte: the packed weights of telescoped and lane_pack.

Codes are split into planes (`weights`), and a byte of a plane holds the codes of as many vectors of
columns as it has *fields*, `spacing` bits apart, each where an instruction can multiply it:

    plane[group][panel][k step][vector / fields][lane][kq]

Bytes with several fields are the unsigned operand of a multiplication, the left side is the signed
one: x + offset fits int8. With value = step * code + min everything else is done by `codes`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm import te, tirx

from lpgen.algorithms.sections import Section
from lpgen.algorithms.weights.codes import CodeWeights
from lpgen.algorithms.weights.panels import PLANES
from lpgen.formats import Format


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
    """Packed-weight layout above; a panel is a multiple of every plane's fields of `lanes`."""

    planes: tuple[Plane, ...] = ()
    lanes: int = 16

    def code_sections(self) -> list[Section]:
        outer = (self.groups, self.panels, self.cut.steps)
        vectors = self.panel // self.lanes
        shapes = [(*outer, vectors // p.fields, self.lanes, self.cut.kq) for p in self.planes]
        return [Section(f"plane{i}", shape, "uint8") for i, shape in enumerate(shapes)]

    def arrange(self, codes: np.ndarray) -> list[np.ndarray]:
        # Columns become panels, vectors and lanes; behind the panel come all k steps of all runs.
        shape = (self.groups, self.panels, -1, self.lanes, self.cut.steps, self.cut.kq)
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
        """The code at (group, panel, k step, vector, lane, kt) out of the sections, int32."""
        total = None
        for p, section in zip(self.planes, sections, strict=False):
            byte = section[g, no, kg, nv // p.fields, nl, kt].astype("int32")
            bits = byte >> (nv % p.fields * p.spacing) & ((1 << p.width) - 1)
            bits = bits << p.low if p.low else bits
            total = bits if total is None else total + bits
        return total
