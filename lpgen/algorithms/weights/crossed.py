"""Packed weights of crossed products: panels, and behind them what each column adds by itself.

column_terms[group][column]     int32: less the sum over k of (w1 + second)(w2 + first), but for
                                what `first` and `second` add alone (`lpgen.algorithms.crossed`)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from tvm import IRModule, te, tirx

from lpgen.algorithms.crossed import Crossing
from lpgen.algorithms.sections import Section, pack_entry
from lpgen.algorithms.weights.panels import PanelWeights


@dataclass(frozen=True, kw_only=True)
class CrossedWeights(PanelWeights):
    """`PanelWeights`, whose runs have an even number of steps, and the section above."""

    crossing: Crossing

    @property
    def half(self) -> int:
        """Values of the half of a run."""
        return self.cut.kg // 2 * self.cut.kq

    @property
    def surplus(self) -> int:
        """What `first` and `second` alone add to a sum over k."""
        return self.crossing.surplus(self.cut.r * self.cut.s * self.half)

    @property
    def empty(self) -> int:
        """The weight that stands where there is none."""
        return 0 if self.format.has_zero else self.format.min

    @cached_property
    def sections(self) -> list[Section]:
        columns = self.panels * self.panel
        return [*super().sections, Section("column_terms", (self.groups, columns), "int32")]

    def contents(self, w: np.ndarray) -> list[np.ndarray]:
        cut = self.cut
        order = cut.index(np.arange(cut.r * cut.s)[:, None], np.arange(cut.run))
        shape = (self.groups, self.panels * self.panel, cut.r * cut.s, 2 * self.half)
        full = np.full(shape, self.empty, np.int64)
        full[:, : self.columns, :, : cut.run] = w.reshape(self.groups, self.columns, -1)[
            :, :, order
        ]
        first, second = full[..., : self.half], full[..., self.half :]
        products = (first + self.crossing.second) * (second + self.crossing.first)
        return [*super().contents(w), self.surplus - products.sum((2, 3))]

    def te_module(self) -> IRModule:
        cut = self.cut
        shape = (self.groups, self.columns, cut.r * cut.s * cut.run)
        w = te.placeholder(shape, self.format.dtype, name="w")
        outputs = self.te_sections(lambda group, column, k: w[group, column, k])
        outputs = [*outputs, self._te_terms(w)]
        return pack_entry(w, outputs, self.sections, self.shape, self.format.dtype)

    def _te_terms(self, w: te.Tensor) -> te.Tensor:
        cut, empty = self.cut, tirx.const(self.empty, "int32")
        run = te.reduce_axis((0, cut.r * cut.s), name="run")
        j = te.reduce_axis((0, self.half), name="j")

        def weight(group, column, place):
            inside = tirx.all(column < self.columns, place < cut.run)
            value = w[group, column, cut.index(run, place)].astype("int32")
            return te.if_then_else(inside, value, empty)

        def product(group, column):
            first = weight(group, column, j) + self.crossing.second
            second = weight(group, column, j + self.half) + self.crossing.first
            return te.sum(first * second, axis=[run, j])

        shape = self.sections[-1].shape
        sums = te.compute(shape, product)
        surplus = tirx.const(self.surplus, "int32")
        return te.compute(shape, lambda g, n: surplus - sums[g, n], name="column_terms")
