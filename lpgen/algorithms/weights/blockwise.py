"""Packed weights in groups of neighbours in k, with a scale or a zero point for each if they have.

    plane[panel][group][step / fields][vector][lane][kq]     codes, as in `weights`
    scale[panel][group][vector][lane]                        float32, or the bits of bfloat16, if
                                                             groups of weights have scales
    zero[panel][group][vector][lane]                         one byte, if groups have zero points
    compensation[panel][group][vector][lane]                 int32, if the left side has an offset

A group is read in `steps` steps of kq neighbours in k; places behind its end are operands of 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lpgen.algorithms.sections import Section
from lpgen.algorithms.weights.groups import GroupedWeights
from lpgen.algorithms.weights.panels import PLANES, code_of, select

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tvm import te, tirx

    Lookup = Callable[[Sequence[int], tirx.Expr], tirx.Expr]


class Operand(NamedTuple):
    """Operand that a weight w is multiplied as: w - base, in `dtype` (one byte)."""

    dtype: str
    base: int


@dataclass(frozen=True)
class BlockwiseWeights(GroupedWeights):
    """Packed-weight layout above for the weights of `op`; panels of vectors x lanes columns.

    pad_value: what the left side holds where there is no activation.
    """

    operand_of: Operand
    pad_value: int

    @property
    def planes(self) -> tuple[int, ...]:
        """Widths of the planes in bits, low bits first."""
        return PLANES.get(self.op.weight.bits, (8,))

    @property
    def zeros(self) -> bool:
        """Whether there are groups whose zero point differs from the operand's base."""
        return self.op.zero_weight == "group" or self.op.zero_weight != self.operand_of.base

    @property
    def table(self) -> tuple[int, ...]:
        """The operand's byte for each code."""
        values = self.op.weight.values().astype(int) - self.operand_of.base
        return tuple(int(value) % 256 for value in values)

    @cached_property
    def sections(self) -> list[Section]:
        """Parts of the packed bytes, in order."""
        outer, inner = (self.panels, self.count), (self.vectors, self.lanes)
        parts = [
            Section(f"plane{i}", (*outer, -(-self.steps * width // 8), *inner, self.kq), "uint8")
            for i, width in enumerate(self.planes)
        ]
        if self.op.group_size:
            parts.append(Section("scale", (*outer, *inner), self.float_dtype))
        if self.op.zero_weight == "group":
            parts.append(Section("zero", (*outer, *inner), self.operand_of.dtype))
        if self.pad_value:
            parts.append(Section("compensation", (*outer, *inner), "int32"))
        return parts

    # ---- NumPy

    def pack(self, w: np.ndarray, **parameters: np.ndarray) -> np.ndarray:
        """The packed bytes of the weight values `w` [n, k] and the parameters scale [n, groups] and
        zero_weight [n, groups], as far as groups of weights have them."""
        parameters = self.op.legal_parameters(parameters) if self.op.group_size else {}
        operands = self.by_group(w.astype(np.int32) - self.operand_of.base)
        codes = self.by_group(self.op.weight.encode(w), self._empty)

        def contents(section: Section) -> np.ndarray:
            if section.name.startswith("plane"):
                return self._plane(codes, int(section.name[5:]))
            if section.name == "scale":
                return self.stored(self.by_column(parameters["scale"]))
            if section.name == "zero":
                zeros = parameters["zero_weight"].astype(np.int32) - self.operand_of.base
                return self.by_column(zeros)
            return self.by_column(operands.sum(axis=2) * -self.pad_value)

        return self.bytes_of(map(contents, self.sections))

    @property
    def _empty(self) -> int:
        """The code whose operand is 0; 0 where there is none."""
        return self.table.index(0) if 0 in self.table else 0

    def _plane(self, codes: np.ndarray, number: int) -> np.ndarray:
        width, low = self.planes[number], sum(self.planes[:number])
        fields = 8 // width
        bits = codes >> low & (1 << width) - 1
        spare = -self.steps % fields * self.kq
        empty = self._empty >> low & (1 << width) - 1
        bits = np.pad(bits, [(0, 0), (0, 0), (0, spare)], constant_values=empty)
        bits = bits.reshape(self.op.n, self.count, -1, fields, self.kq)
        shifts = (np.arange(fields, dtype=np.uint8) * width)[:, None]
        bytes_ = np.bitwise_or.reduce(bits << shifts, axis=3)
        return self.by_column(bytes_).transpose(0, 1, 4, 2, 3, 5)

    # ---- TIR

    def operand(self, sections: dict[str, te.Tensor], index: tuple) -> tirx.Expr:
        """C at (panel, group, step, vector, lane, kt) out of the sections."""
        panel, group, step, *rest = index
        code, low = None, 0
        for number, width in enumerate(self.planes):
            fields = 8 // width
            byte = sections[f"plane{number}"][(panel, group, step // fields, *rest)]
            code = self.joined(code, byte, width, low, (step % fields * width).astype("uint8"))
            low += width
        return self.unpacked(code, select).astype(self.operand_of.dtype)

    def joined(self, code, byte, width: int, low: int, shift: tirx.Expr) -> tirx.Expr:
        """A field of a plane's byte put to the lower bits of the code."""
        from tvm import tirx

        bits = byte >> shift & tirx.const((1 << width) - 1, "uint8") if width < 8 else byte
        bits = bits << tirx.const(low, "uint8") if low else bits
        return bits if code is None else code | bits

    def unpacked(self, code: tirx.Expr, lookup: Lookup) -> tirx.Expr:
        """The operand's byte of a code (uint8)."""
        from tvm import tirx

        if self.op.weight.book:
            return lookup(self.table, code)
        code = code + code if self.op.weight.step == 2 else code
        first = self.table[0]
        return code + tirx.const(first, "uint8") if first else code

    def scale(self, sections: dict[str, te.Tensor], column: tuple) -> tirx.Expr:
        """The scale, float32."""
        return self.te_float(sections["scale"][column])

    @property
    def given(self) -> tuple[str, ...]:
        """The parameters that groups have values of."""
        return ("zero_weight", "scale") if self.op.group_size else ()

    def te_sections(self, w: te.Tensor, given: dict[str, te.Tensor]) -> list[te.Tensor]:
        """The sections out of the weights and the parameters."""
        return [self._te_section(section, w, given) for section in self.sections]

    def _te_section(self, section: Section, w: te.Tensor, given: dict) -> te.Tensor:
        from tvm import te, tirx

        op, zero = self.op, tirx.const(0, section.dtype)
        if section.name.startswith("plane"):
            return self._te_plane(section, w, int(section.name[5:]))
        kt = te.reduce_axis((0, self.steps * self.kq), name="kt")

        def element(no, j, nv, nl):
            column = no * self.panel + nv * self.lanes + nl
            if section.name == "compensation":
                value = w[column, j * op.sum_group + kt].astype("int32") - self.operand_of.base
                value = value * (-self.pad_value)
                inside = tirx.all(column < op.n, self.inside(j, kt))
                return te.sum(te.if_then_else(inside, value, zero), axis=[kt])
            if section.name == "zero":
                value = given["zero_weight"][column, j].astype("int32") - self.operand_of.base
                value = value.astype(section.dtype)
            else:
                value = self.te_stored(given["scale"][column, j])
            return te.if_then_else(column < op.n, value, zero)

        return te.compute(section.shape, element, name=section.name)

    def _te_plane(self, section: Section, w: te.Tensor, number: int) -> te.Tensor:
        from tvm import te, tirx

        op, width, low = self.op, self.planes[number], sum(self.planes[:number])
        mask = tirx.const((1 << width) - 1, "uint8")

        def byte(no, j, so, nv, nl, kt):
            column, total = no * self.panel + nv * self.lanes + nl, None
            for field in range(8 // width):
                place = (so * (8 // width) + field) * self.kq + kt
                code = te.if_then_else(
                    self.inside(j, place),
                    code_of(op.weight, w[column, j * op.sum_group + place]),
                    tirx.const(self._empty, "uint8"),
                )
                bits = code >> tirx.const(low, "uint8") & mask
                bits = bits << tirx.const(field * width, "uint8")
                total = bits if total is None else total | bits
            return te.if_then_else(column < op.n, total, tirx.const(0, "uint8"))

        return te.compute(section.shape, byte, name=section.name)
