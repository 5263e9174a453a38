"""Fields of several columns in one byte: the packed weights of telescoped and lane_pack.

The codes of some vectors of columns share bytes, and a *slice* of a byte holds some bits of one of
them. `weight.bits` bits a weight are stored in one or several *planes*,

    plane[group][panel][k step][vector / fields][byte][lane][kq]

* planes whose widths divide 8 (7 = 4 + 2 + 1): a byte of a plane holds those bits of `8 / width`
  codes;
* one plane of whole codes: 8 codes of 3 bits are 3 bytes, each with two codes below and two bits of
  another code, the seventh or eighth, above them;
* spread: one plane with a code at each end of a byte, and nothing between them.

Bytes are the unsigned operand of a multiplication, the left side is the signed one: x + offset fits
int8. With value = step * code + min everything else is done by `codes`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
from tvm import te, tirx

from lpgen.algorithms.sections import Section
from lpgen.algorithms.weights.codes import CodeWeights
from lpgen.algorithms.weights.panels import PLANES
from lpgen.formats import Format


@dataclass(frozen=True)
class Slice:
    """`width` bits of a code from bit `low` on, at bit `at` of a byte; field: of which vector of
    columns, of those that share bytes, the code is."""

    field: int
    low: int
    width: int
    at: int


@dataclass(frozen=True)
class Plane:
    """The slices, upwards, of each byte that the codes of `fields` vectors of columns share."""

    fields: int
    bytes: tuple[tuple[Slice, ...], ...]

    @property
    def slices(self) -> tuple[Slice, ...]:
        """Those of all bytes."""
        return tuple(s for byte in self.bytes for s in byte)

    @classmethod
    def of_bytes(cls, low: int, width: int, spacing: int, fields: int) -> Plane:
        """`width` bits of the codes from bit `low` on; `fields` of them in a byte, `spacing` bits
        apart."""
        return cls(fields, (tuple(Slice(f, low, width, f * spacing) for f in range(fields)),))


def dense_planes(weight: Format) -> tuple[Plane, ...]:
    """Planes that fill their bytes."""
    planes, low = [], 0
    for width in PLANES[weight.bits]:
        planes.append(Plane.of_bytes(low, width, width, 8 // width))
        low += width
    return tuple(planes)


def whole_codes(weight: Format) -> tuple[Plane, ...]:
    """One plane of bytes with as many whole codes as they have room for; what is left of a byte
    holds bits of the codes that remain. That is the fewest slices."""
    bits = weight.bits
    fields = math.lcm(bits, 8) // bits
    room = 8 // bits
    packed: list[list[Slice]] = [
        [Slice(byte * room + i, 0, bits, i * bits) for i in range(room)]
        for byte in range(fields * bits // 8)
    ]
    field, low = room * len(packed), 0
    for byte in packed:
        at = room * bits
        while at < 8:
            width = min(8 - at, bits - low)
            byte.append(Slice(field, low, width, at))
            at, low = at + width, low + width
            if low == bits:
                field, low = field + 1, 0
    return (Plane(fields, tuple(map(tuple, packed))),)


def spread_planes(weight: Format) -> tuple[Plane, ...]:
    """One plane with a code at each end of a byte."""
    return (Plane.of_bytes(0, weight.bits, 8 - weight.bits, 2),)


@dataclass(frozen=True)
class FieldWeights(CodeWeights):
    """Packed-weight layout above; a panel is a multiple of every plane's fields of `lanes`."""

    planes: tuple[Plane, ...] = ()
    lanes: int = 16

    def code_sections(self) -> list[Section]:
        outer = (self.groups, self.panels, self.cut.steps)
        vectors = self.panel // self.lanes
        inner = (self.lanes, self.cut.kq)
        return [
            Section(f"plane{i}", (*outer, vectors // p.fields, len(p.bytes), *inner), "uint8")
            for i, p in enumerate(self.planes)
        ]

    def arrange(self, codes: np.ndarray) -> list[np.ndarray]:
        # Columns become panels, vectors and lanes; behind the panel come all k steps of all runs.
        shape = (self.groups, self.panels, -1, self.lanes, self.cut.steps, self.cut.kq)
        codes = codes.reshape(shape).transpose(0, 1, 4, 2, 3, 5)
        parts = []
        for p in self.planes:
            fields = codes.reshape(*codes.shape[:3], -1, p.fields, *codes.shape[4:])
            packed = [
                np.bitwise_or.reduce(
                    [
                        (fields[..., s.field, :, :] >> s.low & (1 << s.width) - 1) << s.at
                        for s in byte
                    ]
                )
                for byte in p.bytes
            ]
            parts.append(np.stack(packed, axis=4))
        return parts

    def te_arrange(self, code) -> list[te.Tensor]:
        return [
            te.compute(section.shape, self._te_byte(code, plane), name=section.name)
            for section, plane in zip(self.code_sections(), self.planes, strict=True)
        ]

    def _te_byte(self, code, p: Plane):
        def packed(slices, group, panel, kg, unit, lane, kt):
            total = None
            for s in slices:
                column = panel * self.panel + (unit * p.fields + s.field) * self.lanes + lane
                bits = code(group, column, kg, kt) >> tirx.const(s.low, "uint8")
                bits = bits & tirx.const((1 << s.width) - 1, "uint8")
                bits = bits << tirx.const(s.at, "uint8")
                total = bits if total is None else total | bits
            return total

        def byte(group, panel, kg, unit, number, lane, kt):
            place = (group, panel, kg, unit, lane, kt)
            return _chosen([packed(slices, *place) for slices in p.bytes], number)

        return byte

    def code(self, sections: list[te.Tensor], g, no, kg, nv, nl, kt) -> tirx.Expr:
        """The code at (group, panel, k step, vector, lane, kt) out of the sections, int32."""
        total = None
        for p, section in zip(self.planes, sections, strict=False):
            for parts in _parts(p):
                number, at, mask, low = (
                    _chosen([tirx.const(value) for value in values], nv % p.fields)
                    for values in zip(*parts, strict=True)
                )
                byte = section[g, no, kg, nv // p.fields, number, nl, kt].astype("int32")
                bits = (byte >> at & mask) << low
                total = bits if total is None else total + bits
        return total


def _parts(plane: Plane) -> Iterator[list[tuple[int, int, int, int]]]:
    """(byte, bit in it, mask, bit of the code) of the first slice of each field's code, then of
    each second one and so on; a mask of 0 where there is none."""
    found: list[list] = [[] for _ in range(plane.fields)]
    for number, byte in enumerate(plane.bytes):
        for s in byte:
            found[s.field].append((number, s.at, (1 << s.width) - 1, s.low))
    return (list(parts) for parts in zip_longest(*found, fillvalue=(0, 0, 0, 0)))


def _chosen(values: Sequence[tirx.Expr], index: tirx.Expr) -> tirx.Expr:
    """values[index]; only that one is computed."""
    *first, last = values
    for i, value in reversed(list(enumerate(first))):
        last = te.if_then_else(index == i, value, last)
    return last
