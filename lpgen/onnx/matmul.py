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
from lpgen.onnx.arithmetic import Requantize, format_of, quantization, single
from lpgen.onnx.imported import Imported, Relayout, TensorType, inverse
from lpgen.ops import Conv2d, Dense


def integer(
    x: TensorType,
    w: np.ndarray,
    x_zero: np.ndarray | None = None,
    w_zero: np.ndarray | None = None,
) -> Imported:
    """MatMulInteger."""
    return _matmul(x, w, x_zero, w_zero)


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
    return _matmul(x, w, x_zero, w_zero, Requantize(x_scale, w_scale, y_scale, y_zero))


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


def _matmul(
    x: TensorType,
    w: np.ndarray,
    x_zero: np.ndarray | None,
    w_zero: np.ndarray | None,
    last: Requantize | None = None,
) -> Imported:
    if not math.prod(x.shape) * w.size or not x.shape or not w.ndim:
        raise OnnxError(f"shapes {x.shape} and {w.shape} are no matrices, or empty")
    *left, m, k = x.shape if len(x.shape) > 1 else (1, *x.shape)
    matrices = w if w.ndim > 1 else w[:, None]
    *right, depth, n = matrices.shape
    if depth != k:
        raise OnnxError(f"shapes {x.shape} and {w.shape} do not match: k is {k} and {depth}")
    batches = _Batches.of(tuple(left), tuple(right))
    axes = len(batches.all)
    rows, groups, columns = batches.rows, batches.groups, batches.columns

    def by_column(values: np.ndarray) -> np.ndarray:
        """[..., k or 1, n] as [group and column, k or 1]."""
        whole = np.broadcast_to(values, (*batches.right, values.shape[-2], n))
        moved = whole.transpose(*rows, *groups, *columns, axes + 1, axes)
        return moved.reshape(-1, values.shape[-2])

    if last is not None:
        last = last._replace(w_scale=by_column(_matrix(last.w_scale))[:, 0])
    zeros = np.zeros(1, w.dtype) if w_zero is None else w_zero
    fields, weights, parameters = quantization(
        format_of(x.dtype, "a"),
        single(x_zero, "a_zero_point"),
        by_column(matrices),
        by_column(_matrix(zeros))[:, 0],
        last,
    )
    op = _operator(x, len(weights), k, math.prod(batches.left[i] for i in groups), fields)
    result = (*batches.all, m, n)
    order = (*rows, axes, *groups, *columns, axes + 1)
    return Imported(
        op,
        np.ascontiguousarray(weights).reshape(op.w_shape),
        parameters,
        x=Relayout((*batches.left, m, k), order, op.x_shape),
        y=Relayout(
            tuple(result[axis] for axis in order),
            inverse(order),
            (*batches.all, *[m] * (len(x.shape) > 1), *[n] * (w.ndim > 1)),
        ),
    )


def _matrix(values: np.ndarray) -> np.ndarray:
    """Scales or zero points of columns, one, [n] or [..., 1, n], as [..., 1, n]."""
    return values if values.ndim > 1 else values.reshape(1, -1)


def _operator(x: TensorType, columns: int, k: int, groups: int, fields: dict) -> Dense | Conv2d:
    rows = math.prod(x.shape) // (k * groups)
    if groups == 1:
        return Dense(rows, columns, k, **fields)
    return Conv2d(h=rows, w=1, ic=groups * k, oc=columns, kernel=1, groups=groups, **fields)
