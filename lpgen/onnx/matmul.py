"""MatMulInteger and QLinearMatMul: [..., m, k] times [..., k, n] with NumPy's rules of batches.

Every axis of a batch is one of three. Where only the left side has it, it is more rows; where only
the right side has it, more columns; where both have it, each of its entries has weights of its own:
the groups of a convolution whose kernel is 1x1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lpgen.errors import OnnxError
from lpgen.onnx import checks
from lpgen.onnx.arithmetic import REQUANTIZED, Requantize, combined_scale, quantization
from lpgen.onnx.imported import Imported, NodeKind, Relayout, inverse
from lpgen.ops import Conv2d, Dense
from lpgen.ops.epilogue import Quantize
from lpgen.ops.tensor_type import TensorType


def integer(
    x: TensorType,
    w: np.ndarray,
    x_zero: np.ndarray | None = None,
    w_zero: np.ndarray | None = None,
) -> Imported:
    """MatMulInteger."""
    return product(x, w, x_zero, w_zero)


def requantized(
    x: TensorType,
    x_scale: np.ndarray,
    x_zero: np.ndarray,
    w: np.ndarray,
    w_scale: np.ndarray,
    w_zero: np.ndarray,
    y_scale: np.ndarray,
    y_zero: np.ndarray,
) -> Imported:
    """QLinearMatMul."""
    sides = _Product.of(x, w)
    scale = combined_scale(
        checks.single("a_scale", checks.real("a_scale", x_scale), *sides.of_rows),
        sides.of_columns("b_scale", checks.real("b_scale", w_scale)),
        checks.single("y_scale", checks.real("y_scale", y_scale), *sides.of_result),
    )
    out = checks.format_of("y_zero_point", y_zero.dtype.name)
    zero = checks.single("y_zero_point", y_zero, *sides.of_result)
    return product(x, w, x_zero, w_zero, Requantize(scale, Quantize(out, zero)))


@dataclass(frozen=True)
class _Batches:
    """The batch axes of both sides, as many on each."""

    left: tuple[int, ...]
    right: tuple[int, ...]

    @property
    def all(self) -> tuple[int, ...]:
        return np.broadcast_shapes(self.left, self.right)

    @property
    def rows(self) -> list[int]:
        return [i for i, size in enumerate(self.right) if size == 1]

    @property
    def columns(self) -> list[int]:
        return [i for i in range(len(self.right)) if self.left[i] == 1 < self.right[i]]

    @property
    def groups(self) -> list[int]:
        return [i for i in range(len(self.right)) if self.left[i] > 1 and self.right[i] > 1]

    @classmethod
    def of(cls, left: tuple[int, ...], right: tuple[int, ...]) -> _Batches:
        try:
            axes = len(np.broadcast_shapes(left, right))
        except ValueError:
            raise OnnxError(f"batches {left} and {right} do not match") from None
        return cls(*((*[1] * (axes - len(side)), *side) for side in (left, right)))


@dataclass(frozen=True)
class _Product:
    """The product as one of matrices: [*left, m, k] times w, [*right, k, n]."""

    batches: _Batches
    left: tuple[int, ...]
    right: tuple[int, ...]
    m: int
    n: int
    k: int

    @classmethod
    def of(cls, x: TensorType, w: np.ndarray) -> _Product:
        checks.format_of("a", x.dtype)
        checks.format_of("the tensor of weights", w.dtype.name)
        checks.tensor_type("b", (w.shape, w.dtype))
        if not x.shape or not w.ndim:
            raise OnnxError(f"shapes {x.shape} and {w.shape} are no matrices")
        *left, m, k = x.shape if len(x.shape) > 1 else (1, *x.shape)
        *right, depth, n = w.shape if w.ndim > 1 else (*w.shape, 1)
        if depth != k:
            raise OnnxError(f"shapes {x.shape} and {w.shape} do not match: k is {k} and {depth}")
        left, right = tuple(left), tuple(right)
        return cls(_Batches.of(left, right), left, right, m, n, k)

    @property
    def of_rows(self) -> tuple[checks.Shape, ...]:
        """Shapes of one number for each row of the left side."""
        return (self.m,), (*self.left, self.m, 1)

    @property
    def of_result(self) -> tuple[checks.Shape, ...]:
        """Shapes of one number for each row of the result."""
        return (self.m,), (*self.batches.all, self.m, 1)

    def of_columns(self, what: str, values: np.ndarray) -> np.ndarray:
        """One number for all columns or for each (of all matrices or of each), as [columns]."""
        each = (*self.right, 1, self.n)
        checks.check_shape(what, values, (), (1,), (self.n,), each)
        return self.by_column(values if values.ndim > 1 else values.reshape(1, -1))[:, 0]

    def by_column(self, values: np.ndarray) -> np.ndarray:
        """[..., k or 1, n] as [group and column, k or 1]."""
        b, depth = self.batches, values.shape[-2]
        whole = np.broadcast_to(values, (*b.right, depth, self.n))
        axes = len(b.all)
        moved = whole.transpose(*b.rows, *b.groups, *b.columns, axes + 1, axes)
        return moved.reshape(-1, depth)


def product(
    x: TensorType,
    w: np.ndarray,
    x_zero: np.ndarray | None,
    w_zero: np.ndarray | None,
    last: Requantize | None = None,
) -> Imported:
    """The product of codes."""
    sides = _Product.of(x, w)
    batches, m, n, k = sides.batches, sides.m, sides.n, sides.k
    rows, groups, columns = batches.rows, batches.groups, batches.columns
    axes = len(batches.all)
    if w_zero is None:
        w_zero = np.zeros((), w.dtype)
    checks.check_type("b_zero_point", w_zero, w.dtype.name)
    fields, weights, parameters = quantization(
        checks.format_of("a", x.dtype),
        checks.zero_point("a_zero_point", x_zero, x.dtype, *sides.of_rows),
        sides.by_column(w if w.ndim > 1 else w[:, None]),
        sides.of_columns("b_zero_point", w_zero),
        last,
    )
    op = _operator(x, len(weights), k, math.prod(batches.left[i] for i in groups), fields)
    result = (*batches.all, m, n)
    order = (*rows, axes, *groups, *columns, axes + 1)
    return Imported(
        op,
        {"x": Relayout(x.shape, (*batches.left, m, k), order, op.x_shape)},
        Relayout(
            op.y_shape,
            tuple(result[axis] for axis in order),
            inverse(order),
            (*batches.all, *[m] * (len(x.shape) > 1), *[n] * (w.ndim > 1)),
        ),
        np.ascontiguousarray(weights).reshape(op.w_shape),
        parameters,
    )


def _operator(x: TensorType, columns: int, k: int, groups: int, fields: dict) -> Dense | Conv2d:
    rows = math.prod(x.shape) // (k * groups)
    if groups == 1:
        return Dense(rows, columns, k, **fields)
    return Conv2d(h=rows, w=1, ic=groups * k, oc=columns, kernel=1, groups=groups, **fields)


NODES = {
    "MatMulInteger": NodeKind(("w", "x_zero", "w_zero"), integer),
    "QLinearMatMul": NodeKind(REQUANTIZED, requantized),
}
