"""Nodes on float32 along axes: softmax, layer norm, reductions, products of matrices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np

from lpgen.errors import OnnxError
from lpgen.onnx import checks
from lpgen.onnx.checks import check_real
from lpgen.onnx.imported import Imported, NodeKind, Relayout, inverse, same
from lpgen.ops.rowwise import LayerNorm, MatMul, Reduce, Softmax
from lpgen.ops.tensor_type import TensorType


def place(axis: int, count: int) -> int:
    """An axis as 0..count-1; OnnxError where it is none."""
    if not -count <= axis < count:
        raise OnnxError(f"axis {axis} of {count}")
    return axis % count


def softmax(x: TensorType, axis: int = -1) -> Imported:
    """Softmax along any axis, which becomes the last one."""
    check_real("x", x.dtype)
    axis = place(axis, len(x.shape))
    order = (*(a for a in range(len(x.shape)) if a != axis), axis)
    moved = tuple(x.shape[a] for a in order)
    op = Softmax(rows=math.prod(x.shape) // x.shape[axis], columns=x.shape[axis])
    rows = (op.rows, op.columns)
    back = Relayout(rows, moved, inverse(order), x.shape)
    return Imported(op, {"x": Relayout(x.shape, x.shape, order, rows)}, back)


def layer_norm(
    x: TensorType,
    scale: np.ndarray,
    bias: np.ndarray | None = None,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
) -> Imported:
    """LayerNormalization over the axes from `axis` on, its first output."""
    check_real("x", x.dtype)
    axis = place(axis, len(x.shape))
    if stash_type != 1:
        raise OnnxError(f"stash_type={stash_type}, lpgen has 1")
    rows, columns = math.prod(x.shape[:axis]), math.prod(x.shape[axis:])
    bias = np.zeros(x.shape[axis:], np.float32) if bias is None else bias
    for name, value in (("scale", scale), ("bias", bias)):
        check_real(name, value.dtype.name)
        checks.check_shape(name, value, x.shape[axis:])
    op = LayerNorm(rows=rows, columns=columns, epsilon=epsilon)
    return Imported(
        op,
        {"x": same(x.shape, (rows, columns))},
        same((rows, columns), x.shape),
        parameters={"scale": scale.reshape(columns), "bias": bias.reshape(columns)},
    )


def reduce(
    how: str,
    x: TensorType,
    axes: np.ndarray | Sequence[int] | None = None,
    keepdims: int = 1,
    noop_with_empty_axes: int = 0,
) -> Imported:
    """Reductions along any axes: neighbours stay where they are, others are moved to the end."""
    check_real("x", x.dtype)
    count = len(x.shape)
    given = [] if axes is None else np.asarray(axes).ravel().tolist()
    if not given and noop_with_empty_axes:
        raise OnnxError("nothing is reduced")
    reduced = sorted({place(axis, count) for axis in given}) or list(range(count))
    kept = [axis for axis in range(count) if axis not in reduced]
    order = tuple(range(count))
    if reduced != list(range(reduced[0], reduced[-1] + 1)):
        order = (*kept, *reduced)
    first = order.index(reduced[0])
    behind = order[first + len(reduced) :]
    outer, axis, inner = (
        math.prod(x.shape[a] for a in some) for some in (order[:first], reduced, behind)
    )
    op = Reduce(outer=outer, axis=axis, inner=inner, how=how)
    shape = [1 if a in reduced else x.shape[a] for a in range(count) if keepdims or a in kept]
    return Imported(
        op,
        {"x": Relayout(x.shape, x.shape, order, (outer, axis, inner))},
        same((outer, inner), tuple(shape)),
    )


def matmul(x: TensorType, b: TensorType | np.ndarray) -> Imported:
    """MatMul; in front of the last two axes b has those of x, or none but 1."""
    check_real("a", x.dtype)
    check_real("b", str(b.dtype))
    shapes = x.shape, tuple(b.shape)
    if min(len(shape) for shape in shapes) < 2 or x.shape[-1] != b.shape[-2]:
        raise OnnxError(f"shapes {shapes[0]} and {shapes[1]}, lpgen multiplies matrices")
    outside, own = x.shape[:-2], shapes[1][:-2]
    k, n = shapes[1][-2:]
    if math.prod(own) == 1:
        batch, m = 1, math.prod(x.shape[:-1])
    elif own == outside:
        batch, m = math.prod(outside), x.shape[-2]
    else:
        raise OnnxError(f"b has axes {own} in front, expected {outside} or 1")
    op = MatMul(batch=batch, m=m, n=n, k=k)
    constant = {} if isinstance(b, TensorType) else {"b": b.reshape(batch, k, n)}
    tensors = {"a": same(x.shape, (batch, m, k))}
    tensors |= {} if constant else {"b": same(shapes[1], (batch, k, n))}
    y = (*np.broadcast_shapes(outside, own), x.shape[-2], n)
    return Imported(op, tensors, same((batch, m, n), y), parameters=constant)


NODES = {
    "Softmax": NodeKind((), softmax),
    "LayerNormalization": NodeKind(("scale", "bias"), layer_norm),
    **{
        f"Reduce{how.title()}": NodeKind(("axes",), partial(reduce, how))
        for how in ("sum", "mean", "max")
    },
    "MatMul": NodeKind(("b",), matmul, tensors=("b",)),
}
