"""The oracle of the products: exact sums and the steps behind them, by NumPy alone."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np

from lpgen.formats import REAL
from lpgen.ops import epilogue, packed, scales, sparse
from lpgen.ops.epilogue import Given
from lpgen.ops.layers import PARAMETERS, Layers
from lpgen.ops.lhs import CODED
from lpgen.ops.parameter import legal
from lpgen.ops.product_examples import ProductExamples
from lpgen.ops.reach import Reach


class ProductOracle(ProductExamples):
    """The part of a `Product` that computes its result; its fields and shapes are stated there."""

    zero_act: int
    zero_weight: int | str
    group_size: int
    sum_group: int
    bit_layers: Layers
    matrix: tuple[int, int, int, int]
    x_shape: tuple[int, ...]
    y_extents: tuple[int, ...]
    _reach: Reach

    def reference(
        self,
        x: np.ndarray,
        w: np.ndarray,
        residual: np.ndarray | None = None,
        layers: int | None = None,
        **parameters: np.ndarray,
    ) -> np.ndarray:
        """The exact result, `y_dtype`[y_shape], computed by NumPy alone: the oracle of every test.

        x: integers[x_shape] in format `act`, packed, or float32 (`ops.lhs`); w:
        integers[w_shape] in format `weight`; residual (float32, or integers of its format) and
        parameters: as the epilogue asks; layers: how many the call uses (`ops.layers`).
        Padding adds nothing, also in formats that have no zero.
        Raises WorkloadError on another shape and on an argument that is missing or not asked for,
        and FormatError on a value outside its format.
        """
        if self.range is not None:
            return self.at(len(x)).reference(x, w, residual, layers, **parameters)
        given = self.legal_parameters(parameters)
        layout = self.lhs.layout
        form = REAL if self.lhs.real else self.act
        as_bytes = layout or self.lhs.input == CODED
        x = self._checked("x", x, self.x_shape, None if as_bytes else form)
        w = self._checked("w", w, self.w_shape, self.weight)
        if (residual is None) != (self.residual is None):
            self._fail(f"residual is {'missing' if residual is None else 'not asked for'}")
        if (layers is None) != (self.layers is None):
            self._fail(f"layers is {'missing' if layers is None else 'not asked for'}")
        if layers is not None and layers not in self.bit_layers.all:
            self._fail(f"layers is {layers}, the operator has {self.layers}")
        if residual is not None:
            form = self.residual.values
            residual = self._checked("residual", residual, self.y_extents, form)
        with np.errstate(all="ignore"):  # infinities and what is no number have results, too
            x = packed.unpack(x, self.act, layout, self.x_extents[-1]) if layout else x
            return self._result(x, w, residual, layers, given)

    def _result(
        self,
        x: np.ndarray,
        w: np.ndarray,
        residual: np.ndarray | None,
        layers: int | None,
        given: dict[str, np.ndarray],
    ) -> np.ndarray:
        """What `reference` gives for legal arguments, x unpacked."""
        step = None
        if self.lhs.real:
            x, step = self.lhs.quantized(x, given.pop("input_scale", None))
        elif self.lhs.input == CODED:
            x, step = self.lhs.decoded(x, *self.x_extents)
        zero = given.pop("zero_weight", self.zero_weight)
        if self.zero_act:
            x = x.astype(np.int16) - self.zero_act
        if np.any(zero):
            w = w.astype(np.int16) - scales.spread(zero, self.w_shape, self.group_size)
        if self.outliers:
            w = w.astype(np.int16) + sparse.dense(self.w_shape, *map(given.get, sparse.NAMES))
        if layers is not None:
            sums = self._layered(x, w, given, layers)
        elif self.sum_group:
            scale = given["scale"] if self.group_size else None
            steps, step = (step, None) if self.lhs.group else (None, step)
            sums = scales.scaled(self._sums, x, w, self.sum_group, scale, steps)
        else:
            sums = self._sums(x, w).astype(np.int32)
        return epilogue.apply(self.epilogue, sums, Given(given, residual, step))

    def _layered(
        self, x: np.ndarray, w: np.ndarray, given: dict[str, np.ndarray], count: int
    ) -> np.ndarray:
        """float32[y_extents]: what so many layers make of x without its zero point."""
        groups, m, n, _ = self.matrix
        found, exact = np.empty((groups, m, n), np.float32), self._exact_float
        w = w.reshape(groups, n, -1)

        def sums(left: np.ndarray, right: np.ndarray) -> np.ndarray:
            return left.astype(exact) @ right.astype(exact).T

        for g, rows in enumerate(self._rows(x)):
            fits = {
                name: given[name][:, g * n : (g + 1) * n] for name in PARAMETERS if name in given
            }
            found[g] = self.bit_layers.scaled(sums, rows, w[g], fits, self.group_size, count)
        return found.transpose(1, 0, 2).reshape(self.y_extents)

    def legal_parameters(self, given: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """The parameters as arrays of their shapes and dtypes, in the order of `parameters`.

        Raises WorkloadError for one that is missing or not asked for, FormatError for one that has
        another shape or dtype, a value outside its limits, or outliers in another order.
        """
        for name in (*self.parameters, *given):
            if name not in given:
                self._fail(f"parameter {name} is missing")
            if name not in self.parameters:
                known = ", ".join(self.parameters) or "none"
                self._fail(f"parameter {name} is not asked for; asked for: {known}")
        found = {name: legal(name, given[name], p) for name, p in self.parameters.items()}
        if self.outliers:
            sparse.check_order(*map(found.get, sparse.NAMES))
        return found

    @abstractmethod
    def _rows(self, x: np.ndarray) -> np.ndarray:
        """x, with 0 in the padding, as the left sides of the matrix products, [groups, m, k]."""

    @abstractmethod
    def _sums(self, x: np.ndarray, w: np.ndarray) -> np.ndarray:
        """The sums of products, exact integers of any dtype, [y_extents]."""

    @property
    def _exact_float(self) -> type:
        """The float in which BLAS adds up exactly."""
        return self._reach.exact_float


def rows_per_block(row: int) -> int:
    """How many rows of `row` floats keep a block of an oracle's operands at 32 MiB or less."""
    return max(1, 2**22 // row)
