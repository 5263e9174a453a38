"""Add and Mul: a bias, a table, or two quantized tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lpgen.errors import OnnxError
from lpgen.onnx.linear import FORMATS
from lpgen.onnx.rules import dynamic, quantization
from lpgen.onnx.rules.functions import mapped
from lpgen.onnx.rules.products import Product
from lpgen.onnx.values import Constant, Mapped, Pending, Scale, Stored, Target, Value
from lpgen.ops.add import Add
from lpgen.ops.tensor_type import TensorType

if TYPE_CHECKING:
    import onnx

    from lpgen.onnx.lowering import Lowering


@dataclass(frozen=True)
class Sum(Pending):
    """Of two tensors with a scale each."""

    a: Mapped
    b: Mapped

    def quantized(self, lowering: Lowering, name: str, to: Target) -> Stored:
        """The operator add, on codes as they lie in memory."""
        a, b = lowering.aligned([self.a.codes, self.b.codes])
        shape = a.memory.shape
        tail = b.memory.shape
        while tail[:1] == (1,):
            tail = tail[1:]
        if tail != shape[len(shape) - len(tail) :]:
            raise OnnxError(f"shapes {a.type.shape} and {b.type.shape} of a sum")
        inner = math.prod(tail)
        op = Add(
            outer=math.prod(shape) // inner,
            inner=inner,
            a=self.a.form,
            b=self.b.form,
            out=to.form,
            clamp="relu" if self.low == 0 else "none",
            rounded="quotient",
        )
        parts = (self.a.scale, self.b.scale, to.of_codes)
        constants = {
            "scales": np.float32([part.scale.ravel()[0] for part in parts]),
            "zeros": np.int32([part.zero.ravel()[0] for part in parts]),
        }
        made = lowering.step(name, op, {"a": a, "b": b}, constants=constants)
        total = Stored(made, TensorType(a.type.shape, to.form.dtype), a.order, to.form)
        return quantization.bounded(lowering, total, to, self)

    def real(self, lowering: Lowering, name: str) -> Stored:
        """A sum of real numbers."""
        raise OnnxError("a sum of dequantized values is read as float32")


def add(lowering: Lowering, node: onnx.NodeProto) -> Sequence[Value] | None:
    """Add of constants to a product, of numbers to a quantized tensor, or of two of these."""
    a, b = lowering.inputs(node)
    for value, other in ((a, b), (b, a)):
        if isinstance(value, Product) and isinstance(other, Constant):
            biased = value.biased(other.array)
            if biased is not None:
                return [biased]
    if done := mapped(lowering, node):
        return done
    pair = sorted((a, b), key=lambda value: -math.prod(value.type.shape))
    if all(isinstance(value, Mapped) and value.scale for value in pair):
        shape = np.broadcast_shapes(a.type.shape, b.type.shape)
        if shape == pair[0].type.shape:
            return [Sum(TensorType(shape, "float32"), -np.inf, np.inf, *pair)]
    return None


def multiply(lowering: Lowering, node: onnx.NodeProto) -> Sequence[Value] | None:
    """Mul of constants that leaves codes of weights known, of scales found in a call, of numbers
    and a quantized tensor."""
    a, b = lowering.inputs(node)
    if isinstance(a, Constant) and isinstance(b, Constant):
        return weights(a, b) or weights(b, a)
    done = dynamic.scaled(lowering, a, b)
    return [done] if done is not None else mapped(lowering, node)


def weights(codes: Constant, scale: Constant) -> list[Constant] | None:
    """Integers that were cast to float32, and their scales, one for each place on an axis: what a
    DequantizeLinear of them would be."""
    along = [axis for axis, size in enumerate(scale.array.shape) if size > 1]
    if codes.codes is None or codes.scale is not None or len(along) > 1:
        return None
    if scale.array.dtype != np.float32 or scale.array.ndim > codes.array.ndim:
        return None
    form = FORMATS.get(codes.codes.dtype.name)
    axis = along[0] + codes.array.ndim - scale.array.ndim if along else 0
    if form is None or (along and codes.array.shape[axis] != scale.array.size):
        return None
    how = Scale(scale.array.reshape(-1), np.zeros(1, form.dtype), axis)
    return [Constant(codes.array * scale.array, codes.codes, how, form)]


RULES = {"Add": add, "Mul": multiply}
