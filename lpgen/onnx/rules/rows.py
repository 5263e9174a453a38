"""Softmax, LayerNormalization and reductions of float32 on tensors as they lie in memory, and
products of two tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from lpgen.errors import OnnxError
from lpgen.onnx.nodes import import_node
from lpgen.onnx.rules import parts, quantization
from lpgen.onnx.rules.attributes import attributes
from lpgen.onnx.rules.bounds import bounded_real
from lpgen.onnx.rules.structure import axis_of, known
from lpgen.onnx.values import Constant, Mapped, Pending, Stored, Target, Value
from lpgen.ops import DequantizeLinear, QuantizeLinear
from lpgen.ops.rowwise import MatMul
from lpgen.ops.tensor_type import TensorType

if TYPE_CHECKING:
    import onnx

    from lpgen.onnx.lowering import Lowering

FREE_AXES = 13
"""The opset from which on Softmax has one axis; before, all from `axis` on are one row."""


def softmax(lowering: Lowering, node: onnx.NodeProto) -> Sequence[Value]:
    """Softmax along the axis that lies last in memory, or is brought there."""
    x = lowering.tensor(lowering.inputs(node)[0])
    shape = x.type.shape
    flat = lowering.model.opsets.get("", FREE_AXES) < FREE_AXES
    axis = axis_of(attributes(node, axis=1 if flat else -1)["axis"], len(shape))
    if flat:
        x = lowering.reshaped(x, (math.prod(shape[:axis]), math.prod(shape[axis:])))
        axis = 1
    return [lowering.reshaped(along(lowering, node.output[0], x, axis), shape)]


def along(lowering: Lowering, name: str, x: Stored, axis: int) -> Stored:
    """The softmax along an axis."""
    from onnx import helper

    axis = axis_of(axis, len(x.type.shape))
    x = lowering.ordered(x, (*(i for i in x.order if i != axis), axis))
    return _in_memory(lowering, helper.make_node("Softmax", ["x"], ["y"], axis=-1), name, x)


def _in_memory(lowering: Lowering, node: onnx.NodeProto, name: str, x: Stored) -> Stored:
    """A node that keeps the shape, on the tensor as it lies."""
    imported = import_node(node, x.memory, {})
    made = lowering.apply(imported, name, [lowering.stored(x.name, x.memory)])
    return replace(made, type=x.type, order=x.order)


def reduction(lowering: Lowering, node: onnx.NodeProto) -> Sequence[Value]:
    """ReduceMean, ReduceSum, ReduceMax: along axes that lie side by side in memory, or are brought
    to its end."""
    from onnx import helper

    value = lowering.inputs(node)[0]
    given = attributes(node, axes=(), keepdims=1, noop_with_empty_axes=0)
    asked = known(lowering, node, 1, "the tensor of axes")
    asked = given["axes"] if asked is None else asked
    x = lowering.tensor(value)
    shape = x.type.shape
    along = sorted({axis_of(int(axis), len(shape)) for axis in np.ravel(asked)})
    if not along and given["noop_with_empty_axes"]:
        return [value]
    along = along or list(range(len(shape)))
    places = [place for place, axis in enumerate(x.order) if axis in along and shape[axis] > 1]
    if places and places != list(range(places[0], places[-1] + 1)):
        x = lowering.ordered(x, [*(i for i in x.order if i not in along), *along])
        places = range(len(shape) - len(along), len(shape))
    plain = helper.make_node(node.op_type, ["x", "axes"], ["y"])
    axes = np.array([*places] or [x.order.index(along[0])], np.int64)
    imported = import_node(plain, x.memory, {"axes": axes})
    made = lowering.apply(imported, node.output[0], [lowering.stored(x.name, x.memory)])
    kept = tuple(1 if axis in along else size for axis, size in enumerate(shape))
    made = replace(made, type=TensorType(kept, made.type.dtype), order=x.order)
    if given["keepdims"]:
        return [made]
    return [lowering.reshaped(made, [s for axis, s in enumerate(shape) if axis not in along])]


@dataclass(frozen=True)
class Product(Pending):
    """Matrices of two dequantized tensors: [..., m, k] times [..., k, n]."""

    costly: ClassVar[bool] = True

    a: Mapped
    b: Mapped

    def quantized(self, lowering: Lowering, name: str, to: Target) -> Stored:
        """Of codes less their zero points: sums below 2^24, those of k up to 258, are exact in
        float32, so that there is one rounding in front of that to codes."""
        sides = self._codes(lowering)
        plain = [_integers(lowering, side, mapped.scale.zero) for side, mapped in sides]
        made = multiplied(lowering, f"{name}:sum", *plain, self.type.shape)
        scales = [mapped.scale.scale.reshape(()) for mapped in (self.a, self.b)]
        with np.errstate(all="ignore"):
            scale = np.float32(to.scale) / (scales[0] * scales[1])
        op = QuantizeLinear(axis=math.prod(made.type.shape), format=to.form)
        constants = {"scale": scale.reshape(1), "zero": to.of_codes.zero}
        step = lowering.step(name, op, {"x": made}, constants=constants)
        kind = TensorType(made.type.shape, to.form.dtype)
        return quantization.bounded(lowering, Stored(step, kind, made.order, to.form), to, self)

    def real(self, lowering: Lowering, name: str) -> Stored:
        """Of real numbers."""
        a, b = lowering.tensor(self.a), lowering.tensor(self.b)
        made = multiplied(lowering, name, *matrices(lowering, a, b), self.type.shape)
        return bounded_real(lowering, made, self)

    def _codes(self, lowering: Lowering) -> list[tuple[Stored, Mapped]]:
        """Both sides as they are multiplied."""
        sides = matrices(lowering, self.a.codes, self.b.codes)
        return list(zip(sides, (self.a, self.b), strict=True))


def _integers(lowering: Lowering, codes: Stored, zero: np.ndarray) -> Stored:
    """Codes less their zero point as float32."""
    op = DequantizeLinear(axis=math.prod(codes.type.shape), format=codes.form)
    constants = {"scale": np.ones(1, np.float32), "zero": zero.reshape(1).astype(op.format.dtype)}
    made = lowering.step(f"{codes.name}:integers", op, {"x": codes}, constants=constants)
    return Stored(made, TensorType(codes.type.shape, "float32"), codes.order)


def matrices(lowering: Lowering, a: Stored, b: Stored) -> list[Stored]:
    """Both sides with the same batches, or one matrix on the right; b lies as it is, or as if it
    were transposed."""
    left, right = a.type.shape[:-2], b.type.shape[:-2]
    if math.prod(right) > 1 and left != right:
        try:
            both = np.broadcast_shapes(left, right)
        except ValueError:
            raise OnnxError(f"batches {left} and {right} do not match") from None
        a, b = (
            parts.expanded(lowering, f"{t.name}:all", t, (*both, *t.type.shape[-2:]))
            for t in (a, b)
        )
    axes = len(b.order)
    swapped = (*range(axes - 2), axes - 1, axes - 2)
    return [
        lowering.ordered(a, range(len(a.order))),
        b if b.lies(swapped) else lowering.ordered(b, range(axes)),
    ]


def multiplied(
    lowering: Lowering, name: str, a: Stored, b: Stored, shape: tuple[int, ...]
) -> Stored:
    """The step of two sides that lie as `matrices` has them."""
    (m, k), n = a.type.shape[-2:], b.type.shape[-1]
    batch = math.prod(b.type.shape[:-2])
    rows = m if batch > 1 else math.prod(a.type.shape[:-1])
    order = "kn" if b.natural else "nk"
    op = MatMul(batch=batch, m=rows, n=n, k=k, order=order)
    return lowering.stored(lowering.step(name, op, {"a": a, "b": b}), TensorType(shape, "float32"))


def product(lowering: Lowering, node: onnx.NodeProto) -> Sequence[Value]:
    """MatMul of two tensors."""
    given = lowering.inputs(node)
    if any(isinstance(value, Constant) for value in given):
        raise OnnxError("one side is constant float32, not dequantized from 8 bits or fewer")
    shapes = [value.type.shape for value in given]
    if min(map(len, shapes)) < 2 or shapes[0][-1] != shapes[1][-2]:
        raise OnnxError(f"shapes {shapes[0]} and {shapes[1]} are no matrices that match")
    try:
        batches = np.broadcast_shapes(shapes[0][:-2], shapes[1][:-2])
    except ValueError:
        raise OnnxError(f"batches {shapes[0][:-2]} and {shapes[1][:-2]} do not match") from None
    shape = (*batches, shapes[0][-2], shapes[1][-1])
    a, b = (lowering.affine(value) for value in given)
    if a is not None and b is not None:
        return [Product(TensorType(shape, "float32"), -np.inf, np.inf, a, b)]
    sides = matrices(lowering, *(lowering.tensor(value) for value in given))
    return [multiplied(lowering, node.output[0], *sides, shape)]


RULES = {
    "Softmax": softmax,
    **dict.fromkeys(("ReduceMean", "ReduceSum", "ReduceMax"), reduction),
}
