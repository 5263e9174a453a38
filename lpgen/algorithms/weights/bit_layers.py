"""Packed weights of which a call reads as many bit layers as it is told (`ops.layers`).

    plane[panel][group][vector of bytes][vector][lane][kq]      codes, the highest bits first
    fit[layers][panel][group][scale, offset][vector][lane]      float32, or the bits of bfloat16

A plane has one or two bits of every code, and is a section of its own: what a call reads of it lies
together. A byte of a plane holds them of 8 or 4 steps in k as fields. Codes of an even number of
bits are planes of two bits each, or (top=1) two of one bit and then planes of two: so that a single
layer is half the bytes. Of an odd number of bits the first plane has one.

Planes of signs lie as planes of one bit do, 1 for +1, all in one section,

    plane0[plane][panel][group][vector of bytes][vector][lane][kq]
    fit[panel][group][plane][vector][lane]                      the scales

Two planes of one bit, a over b, become one of two bits by `joined`: as bytes of 8 steps have two
vectors of 4 then, the fields of planes of two bits lie in that order where there are such,

    step 8 i + 2 f + v   is field f of vector 2 i + v            (else step 4 i + f is field f of i)

in the first slice of two bits, and field f ^ s in slice s: so that what two slices have of a step
is often beside each other where they are joined (`lpgen.schedules.common.bit_layers.operands`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from lpgen.algorithms.sections import Section
from lpgen.algorithms.weights.groups import GroupedWeights
from lpgen.algorithms.weights.panels import code_of

if TYPE_CHECKING:
    from tvm import te, tirx

Index = Any
"""A number, or an expression for one."""


def tops(bits: int) -> tuple[int, ...]:
    """Choices of the width of the first plane."""
    return (1,) if bits % 2 else (2, 1)


@dataclass(frozen=True)
class LayerWeights(GroupedWeights):
    """Packed-weight layout above for the weights of `op`; panels of vectors x lanes columns.

    top: bits of the first plane.
    """

    top: int

    @property
    def unit(self) -> int:
        """Steps whose bytes are whole in every plane."""
        return 8 if self.top == 1 else 4

    @property
    def widths(self) -> tuple[int, ...]:
        """Bits of each plane."""
        bits = self.op.weight.bits
        first = (1, 1) if self.top == 1 and bits % 2 == 0 else (self.top,)
        return (*first, *(2,) * ((bits - sum(first)) // 2))

    def low(self, plane: int) -> int:
        """The lowest bit of the code in a plane."""
        return self.op.weight.bits - sum(self.widths[: plane + 1])

    def slice(self, plane: int) -> int:
        """The slice of two bits that a plane is, or is a part of."""
        return plane - (self.top == 1 and self.op.weight.bits % 2 == 0 and plane > 0)

    def place(self, plane: int, step: Index) -> tuple[Index, Index]:
        """(vector of bytes, shift) of a step's field in a plane."""
        if self.widths[plane] == 1:
            return step // 8, step % 8
        if self.unit == 4:
            return step // 4, (step % 4 ^ self.slice(plane)) * 2
        return step // 8 * 2 + step % 2, (step % 8 // 2 ^ self.slice(plane)) * 2

    @cached_property
    def sections(self) -> list[Section]:
        """Parts of the packed bytes, in order."""
        outer, inner = (self.all_panels, self.count), (self.vectors, self.lanes)
        units, layers = -(-self.steps // self.unit), self.op.bit_layers
        parts = [
            Section(f"plane{i}", (*outer, units * self.unit * width // 8, *inner, self.kq), "uint8")
            for i, width in enumerate(self.widths)
        ]
        if layers.of_signs:
            (first,) = parts
            signs = Section("plane0", (layers.high, *first.shape), "uint8")
            return [signs, Section("fit", (*outer, layers.high, *inner), self.float_dtype)]
        fit = (len(layers.all), *outer, 2, *inner)
        return [*parts, Section("fit", fit, self.float_dtype)]

    # ---- NumPy

    def pack(self, w: np.ndarray, **parameters: np.ndarray) -> np.ndarray:
        """The packed bytes of the weight values `w` (op.w_shape) and the parameters scale and
        offset [layers, n, groups]."""
        parameters = self.op.legal_parameters(parameters)
        w = self.op.weight.encode(w).reshape(self.op.w_shape[0], self.op.planes, -1)
        if self.op.bit_layers.of_signs:
            planes = np.stack([self._plane(self._codes(rows), 0) for rows in np.moveaxis(w, 1, 0)])
            scale = np.stack([self.by_column(fit) for fit in parameters["scale"]], axis=2)
            return self.bytes_of([planes, self.stored(scale)])
        codes = self._codes(w[:, 0])
        planes = [self._plane(codes, number) for number in range(len(self.widths))]
        fits = np.stack([parameters[name] for name in ("scale", "offset")], axis=-1)
        fits = np.stack([self.by_column(fit) for fit in fits])
        # [layers, panels, groups, vectors, lanes, 2], and the columns of each number together
        return self.bytes_of([*planes, self.stored(np.moveaxis(fits, -1, 3))])

    def _codes(self, rows: np.ndarray) -> np.ndarray:
        """Codes [n, k] as [panels, groups, vectors, lanes, steps, kq]."""
        codes = self.by_column(self.by_group(rows))
        return codes.reshape(*codes.shape[:-1], self.steps, self.kq)

    def _plane(self, codes: np.ndarray, number: int) -> np.ndarray:
        width, low = self.widths[number], self.low(number)
        shape = self.sections[number].shape[-6:]  # of one of the planes of signs
        found = np.zeros(shape, np.uint8)
        for step in range(self.steps):
            place, shift = self.place(number, step)
            bits = codes[:, :, :, :, step] >> low & (1 << width) - 1
            found[:, :, place] |= bits << np.uint8(shift)
        return found

    # ---- TIR

    def code(self, sections: dict[str, te.Tensor], index: tuple, plane: tirx.Expr) -> tirx.Expr:
        """The code, all bits, at (panel, group, step, vector, lane, kt) out of the sections, int32;
        0 for nothing; plane: which of those of signs."""
        panel, group, step, *rest = index
        if self.op.bit_layers.of_signs:
            place, shift = self.place(0, step)
            byte = sections["plane0"][(plane, panel, group, place, *rest)].astype("int32")
            return byte >> shift & 1
        total = None
        for number, width in enumerate(self.widths):
            place, shift = self.place(number, step)
            byte = sections[f"plane{number}"][(panel, group, place, *rest)].astype("int32")
            bits = (byte >> shift & ((1 << width) - 1)) << self.low(number)
            total = bits if total is None else total + bits
        return total

    def fit(self, sections: dict[str, te.Tensor], layers: tirx.Expr, which: int, column: tuple):
        """The scale (0) or the offset (1) of so many layers at (panel, group, vector, lane), or the
        scale of a plane of signs."""
        panel, group, *rest = column
        if self.op.bit_layers.of_signs:
            return self.te_float(sections["fit"][(panel, group, which, *rest)])
        layer = layers - self.op.layers.low
        return self.te_float(sections["fit"][(layer, panel, group, which, *rest)])

    @property
    def given(self) -> tuple[str, ...]:
        """The parameters that layers have values of."""
        return "scale", "offset"

    def te_sections(self, w: te.Tensor, given: dict[str, te.Tensor]) -> list[te.Tensor]:
        """The sections out of the weights and the parameters."""
        planes = [self._te_plane(s, w, i) for i, s in enumerate(self.sections[:-1])]
        return [*planes, self._te_fit(given)]

    def _te_plane(self, section: Section, w: te.Tensor, number: int) -> te.Tensor:
        from tvm import te, tirx

        op, width, zero = self.op, self.widths[number], tirx.const(0, "uint8")
        slice_ = self.slice(number)
        mask, low = tirx.const((1 << width) - 1, "uint8"), tirx.const(self.low(number), "uint8")

        def byte(*index):
            *plane, no, j, place, nv, nl, kt = index
            (column, there), total = self.column(no, nv * self.lanes + nl), None
            for field in range(8 // width):
                if width == 1:
                    step = place * 8 + field
                elif self.unit == 4:
                    step = place * 4 + (field ^ slice_)
                else:
                    step = place // 2 * 8 + (field ^ slice_) * 2 + place % 2
                at = step * self.kq + kt
                inside = tirx.all(self.inside(j, at), there)
                value = w[(column, *plane, j * op.group_size + at)]
                code = te.if_then_else(inside, code_of(op.weight, value), zero)
                bits = (code >> low & mask) << tirx.const(field * width, "uint8")
                total = bits if total is None else total | bits
            return total

        return te.compute(section.shape, byte, name=section.name)

    def _te_fit(self, given: dict[str, te.Tensor]) -> te.Tensor:
        from tvm import te, tirx

        section = self.sections[-1]

        def stored(value, there):
            value = self.te_stored(value)
            return te.if_then_else(there, value, tirx.const(0, section.dtype))

        def fit(layer, no, j, which, nv, nl):
            column, there = self.column(no, nv * self.lanes + nl)
            place = (layer, column, j)
            value = te.if_then_else(which == 0, given["scale"][place], given["offset"][place])
            return stored(value, there)

        def scale(no, j, plane, nv, nl):
            column, there = self.column(no, nv * self.lanes + nl)
            return stored(given["scale"][plane, column, j], there)

        of_signs = self.op.bit_layers.of_signs
        return te.compute(section.shape, scale if of_signs else fit, name=section.name)
