"""Packed weights of the families that work on codes: what all of their layouts share.

A code is (value - min) / step, at least 0, and an empty place has code 0, so that it adds nothing
to a sum over codes. The values are put back together at the end:

    sum of x * w = step * (sum of x * code) + min * (sum of x)

The left side holds x - zero_act + offset, so that from the sum of its products with the codes the
compensation of the column, offset * (sum of codes), is taken away; x here is x - zero_act.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Self

import numpy as np
from tvm import te, tirx

from lpgen.algorithms.lhs.k_split import KSplit
from lpgen.algorithms.sections import Section, Sectioned, pack_entry
from lpgen.algorithms.weights.panels import code_of
from lpgen.formats import Format

if TYPE_CHECKING:
    from tvm import IRModule

    from lpgen.algorithms.definition import Tiling
    from lpgen.ops import Conv2d, Dense


@dataclass(frozen=True)
class CodeWeights(Sectioned, ABC):
    """Packed-weight layout of codes: `groups` x `columns` columns in `panels` panels of `panel`.

    shape: op.w_shape; offset: what the left side holds for nothing, zero_act among its values.

    A layout derives from it and says how codes are arranged: `code_sections`, `arrange` (NumPy)
    and `te_arrange` (TIR), which must give the same bytes.
    """

    shape: tuple[int, ...]
    format: Format
    cut: KSplit
    groups: int
    columns: int
    panels: int
    panel: int
    offset: int

    @classmethod
    def of(cls, op: Dense | Conv2d, cut: KSplit, tiling: Tiling, offset: int, **own) -> Self:
        """The layout for the weights of `op` in the panels of a tiling; own: what it has more."""
        return cls(
            shape=op.w_shape,
            format=op.weight,
            cut=cut,
            groups=op.matrix.groups,
            columns=op.matrix.n,
            panels=tiling.panels,
            panel=tiling.panel,
            offset=offset,
            **own,
        )

    @abstractmethod
    def code_sections(self) -> list[Section]:
        """The sections that hold the codes."""

    @abstractmethod
    def arrange(self, codes: np.ndarray) -> list[np.ndarray]:
        """Those sections' contents; codes: uint8[groups, panels * panel, runs, kg, kq]."""

    @abstractmethod
    def te_arrange(self, code) -> list[te.Tensor]:
        """The same as tensors; code(group, column, k step, kt) is a uint8 expression, 0 in empty
        places; the k step counts through all runs (and may lie behind the last)."""

    @cached_property
    def sections(self) -> list[Section]:
        """Parts of the packed bytes, in order."""
        parts = self.code_sections()
        if self.offset:
            parts.append(Section("compensation", (self.groups, self.panels * self.panel), "int32"))
        return parts

    def pack(self, w: np.ndarray) -> np.ndarray:
        """The packed weights (uint8[nbytes]) of the weight values `w` (`shape`)."""
        cut = self.cut
        order = cut.index(np.arange(cut.r * cut.s)[:, None], np.arange(cut.run))
        runs = w.reshape(self.groups, self.columns, -1)[:, :, order]
        outer = (self.groups, self.panels * self.panel)
        codes = np.zeros((*outer, cut.r * cut.s, cut.kg * cut.kq), np.uint8)
        codes[:, : self.columns, :, : cut.run] = self.format.encode(runs)
        parts = self.arrange(codes.reshape(*outer, cut.r * cut.s, cut.kg, cut.kq))
        if self.offset:
            sums = codes.sum(axis=(2, 3), dtype=np.int64) * -self.offset
            parts = [*parts, sums.astype(np.int32)]
        return self.bytes_of(parts)

    def te_module(self) -> IRModule:
        """The packer as TIR: "main"(weights, packed), see `Layout`."""
        cut = self.cut
        shape = (self.groups, self.columns, cut.r * cut.s * cut.run)
        w = te.placeholder(shape, self.format.dtype, name="w")

        def code(group, column, kg, kt):
            run, j = kg // cut.kg, kg % cut.kg * cut.kq + kt
            inside = tirx.all(column < self.columns, kg < cut.steps, j < cut.run)
            bits = code_of(self.format, w[group, column, cut.index(run, j)])
            return te.if_then_else(inside, bits, tirx.const(0, "uint8"))

        outputs = self.te_arrange(code)
        if self.offset:
            outputs.append(self._te_compensation(code))
        return pack_entry(w, outputs, self.sections, self.shape, self.format.dtype)

    def _te_compensation(self, code) -> te.Tensor:
        kg = te.reduce_axis((0, self.cut.steps), name="kg")
        kt = te.reduce_axis((0, self.cut.kq), name="kt")
        factor = tirx.const(-self.offset, "int32")
        return te.compute(
            self.sections[-1].shape,
            lambda g, n: te.sum(code(g, n, kg, kt).astype("int32") * factor, axis=[kg, kt]),
            name="compensation",
        )

    def value(self, sum_of_codes: tirx.Expr, place: tuple, sections: list, row_sums) -> tirx.Expr:
        """The sum of products at place (m, g, n) from that with codes; `sections` as placeholders;
        row_sums: int32[groups, m] (`lhs.row_sums`), None where codes are values."""
        m, g, n = place
        total = sum_of_codes
        if self.offset:
            total = total + sections[-1][g, n]
        if self.format.step == 2:
            total = total * tirx.const(2, "int32")
        if row_sums is not None:
            total = total + row_sums[g, m] * tirx.const(self.format.min, "int32")
        return total
