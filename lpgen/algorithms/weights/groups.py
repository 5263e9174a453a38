"""Weights in groups of neighbours in k: what the layouts of `blockwise` and `bit_layers` share.

    section[panel][group]...[vector][lane]...

The panels are those of all groups of a convolution, one behind the other. A group of k is read in
`steps` steps of kq neighbours in k; places behind its end hold nothing. What groups have as float32
is stored so, or as the bits of bfloat16.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lpgen.algorithms.sections import Sectioned, pack_entry
from lpgen.ops import scales

if TYPE_CHECKING:
    from tvm import IRModule, te, tirx

    from lpgen.ops import Conv2d, Dense


@dataclass(frozen=True)
class GroupedWeights(Sectioned, ABC):
    """Weights of `op` in panels of vectors x lanes columns, by groups of k; panels: of each group
    of a convolution."""

    op: Dense | Conv2d
    kq: int
    panels: int
    vectors: int
    lanes: int

    @property
    def count(self) -> int:
        """Groups of k."""
        return scales.count(self.op.matrix.k, self.op.sum_group)

    @property
    def steps(self) -> int:
        """Steps in a group."""
        return -(-min(self.op.sum_group, self.op.matrix.k) // self.kq)

    @property
    def reach(self) -> int:
        """Places in k that the steps of a row read, a multiple of kq: those of the last group may
        reach past the row."""
        places = (self.count - 1) * self.op.sum_group + self.steps * self.kq
        return -(-max(places, self.op.matrix.k) // self.kq) * self.kq

    @property
    def panel(self) -> int:
        """Columns of a panel."""
        return self.vectors * self.lanes

    @property
    def all_panels(self) -> int:
        """Panels of all groups of a convolution."""
        return self.op.matrix.groups * self.panels

    @property
    def float_dtype(self) -> str:
        """What the floats of groups are stored as: float32, or uint16, the bits of bfloat16."""
        return "uint16" if self.op.parameters["scale"].short else "float32"

    # ---- NumPy

    def by_group(self, values: np.ndarray, empty: int = 0) -> np.ndarray:
        """[n, k] as [n, groups, steps * kq], `empty` behind the end of a group."""
        found = np.full((len(values), self.count, self.steps * self.kq), empty, values.dtype)
        for j, places in enumerate(scales.slices(self.op.matrix.k, self.op.sum_group)):
            part = values[:, places]
            found[:, j, : part.shape[1]] = part
        return found

    def by_column(self, values: np.ndarray) -> np.ndarray:
        """[n, groups, ...] as [panels, groups, vectors, lanes, ...], 0 in empty columns."""
        groups, _, n, _ = self.op.matrix
        full = np.zeros((groups, self.panels * self.panel, *values.shape[1:]), values.dtype)
        full[:, :n] = values.reshape(groups, n, *values.shape[1:])
        full = full.reshape(-1, self.vectors, self.lanes, *values.shape[1:])
        return np.moveaxis(full, 3, 1)

    def stored(self, floats: np.ndarray) -> np.ndarray:
        """The floats as `float_dtype`; those of bfloat16 are exact."""
        floats = np.ascontiguousarray(floats, np.float32)
        return floats if self.float_dtype == "float32" else floats.view(np.uint32) >> 16

    # ---- TIR

    @property
    @abstractmethod
    def given(self) -> tuple[str, ...]:
        """The parameters that are packed with the weights."""

    @abstractmethod
    def te_sections(self, w: te.Tensor, given: dict[str, te.Tensor]) -> list[te.Tensor]:
        """The sections out of the weights and the parameters."""

    def te_module(self) -> IRModule:
        """The packer as TIR: "main"(weights, *parameters, packed), see `Layout`."""
        from tvm import te

        op = self.op
        rows, planes = op.w_shape[0], op.planes
        shape = (rows, planes, op.matrix.k) if planes > 1 else (rows, op.matrix.k)
        w = te.placeholder(shape, op.weight.dtype, name="w")
        given = {
            name: te.placeholder(p.shape, p.dtype, name=name)
            for name, p in op.parameters.items()
            if name in self.given
        }
        outputs = self.te_sections(w, given)
        return pack_entry(w, outputs, self.sections, op.w_shape, op.weight.dtype, [*given.values()])

    def inside(self, group: tirx.Expr, place: tirx.Expr) -> tirx.Expr:
        """Whether that place of a group holds a weight."""
        from tvm import tirx

        size = self.op.sum_group
        return tirx.all(place < size, group * size + place < self.op.matrix.k)

    def column(self, panel: tirx.Expr, place: tirx.Expr) -> tuple[tirx.Expr, tirx.Expr]:
        """(row of the weights, whether there is one) of a place in a panel."""
        groups, _, n, _ = self.op.matrix
        if groups == 1:
            found = panel * self.panel + place
            return found, found < n
        inside = panel % self.panels * self.panel + place
        return panel // self.panels * n + inside, inside < n

    def te_stored(self, value: tirx.Expr) -> tirx.Expr:
        """A float32 as `float_dtype`."""
        from tvm import tirx

        if self.float_dtype == "float32":
            return value
        bits = tirx.reinterpret("uint32", value) >> tirx.const(16, "uint32")
        return bits.astype("uint16")

    def te_float(self, value: tirx.Expr) -> tirx.Expr:
        """The float32 of what is stored."""
        from tvm import tirx

        if self.float_dtype == "float32":
            return value
        bits = value.astype("uint32") << tirx.const(16, "uint32")
        return tirx.reinterpret("float32", bits)
