"""Add and Mul: a bias, a table, weights with their scales, or two quantized tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lpgen.errors import OnnxError
from lpgen.onnx.axes import MOST_TURNS, turns
from lpgen.onnx.linear import FORMATS
from lpgen.onnx.rules import dynamic, quantization
from lpgen.onnx.rules.bounds import bounded_real
from lpgen.onnx.rules.functions import mapped
from lpgen.onnx.rules.product import Product
from lpgen.onnx.rules.real import RealProduct
from lpgen.onnx.values import Constant, Mapped, Pending, Scale, Stored, Target, Value
from lpgen.ops.add import Add
from lpgen.ops.mul import Mul
from lpgen.ops.tensor_type import TensorType

if TYPE_CHECKING:
    import onnx

    from lpgen.onnx.lowering import Lowering


@dataclass(frozen=True)
class Pair(Pending):
    """The sum or the product of two tensors with a scale each, broadcast as in ONNX; b may be
    constant codes. rounded: as `ops.pairs` has it, for what is quantized."""

    a: Mapped
    b: Mapped | Constant
    kind: type[Add] | type[Mul]
    rounded: str = "quotient"

    def quantized(self, lowering: Lowering, name: str, to: Target) -> Stored:
        """The operator, on codes as they lie in memory."""
        fields: dict[str, Any] = {"rounded": self.rounded}
        left = self  # the bounds that the operator does not have
        if self.kind is Add and self.low == 0:
            fields["clamp"], left = "relu", replace(self, low=-np.inf)
        a, inputs, constants = self._sides(lowering)
        shapes = [tensor.memory.shape for tensor in inputs.values()]
        shapes += [array.shape for array in constants.values()]
        formats = {"a": self.a.form, "b": self.b.form, "out": to.form}
        scales = (self.a.scale, self.b.scale, to.of_codes)
        constants |= {
            "scales": np.float32([part.scale.ravel()[0] for part in scales]),
            "zeros": np.int32([part.zero.ravel()[0] for part in scales]),
        }
        op = self.kind(**extents(*shapes), **formats, **fields)
        if "b" in constants:
            constants["b"] = constants["b"].reshape(op.shape_of(op.axes_of("b")))
        made = lowering.step(name, op, inputs, constants=constants)
        kind = TensorType(self.type.shape, to.form.dtype)
        return quantization.bounded(lowering, Stored(made, kind, a.order, to.form), to, left)

    def _sides(self, lowering: Lowering) -> tuple[Stored, dict[str, Stored], dict[str, np.ndarray]]:
        """a as it is added; the tensors by their names, and b where it is constant."""
        if isinstance(self.b, Mapped):
            a, b = lowering.aligned([self.a.codes, self.b.codes])
            return a, {"a": a, "b": b}, {}
        assert self.b.codes is not None
        axes = len(self.type.shape)
        own = self.a.type.shape
        a = lowering.reshaped(self.a.codes, (*[1] * (axes - len(own)), *own))
        codes = self.b.codes.reshape(*[1] * (axes - self.b.codes.ndim), *self.b.codes.shape)
        if len(turns(a.memory.shape, codes.transpose(a.order).shape)) > MOST_TURNS:
            a = lowering.repeated_to(a, self.type.shape)
            codes = np.broadcast_to(codes, self.type.shape)
        return a, {"a": a}, {"b": np.ascontiguousarray(codes.transpose(a.order))}

    def real(self, lowering: Lowering, name: str) -> Stored:
        """Of real numbers."""
        from onnx import helper

        sides = {"a": self.a, "b": self.b}
        node = helper.make_node(self.kind.__name__, [*sides], ["y"])
        made = lowering.elementwise(
            node,
            name,
            {n: lowering.tensor(v) for n, v in sides.items() if isinstance(v, Mapped)},
            {n: v.array for n, v in sides.items() if isinstance(v, Constant)},
        )
        return bounded_real(lowering, made, self)


def extents(a: tuple[int, ...], b: tuple[int, ...]) -> dict[str, Any]:
    """Extents and axes of operators on pairs for two shapes of as many axes; OnnxError where they
    take turns in being broadcast more often than there are extents."""
    groups = turns(a, b)
    if len(groups) > MOST_TURNS:
        raise OnnxError(f"shapes {a} and {b} are broadcast along too many axes")
    letters = {0: "i", 1: "i", 2: "oi", 3: "omi"}[len(groups)]
    names = {"o": "outer", "m": "middle", "i": "inner"}
    sizes = [size for size, *_ in groups] or [1]
    found: dict[str, Any] = {names[letter]: n for letter, n in zip(letters, sizes, strict=True)}
    for place, key in ((1, "a_axes"), (2, "b_axes")):
        has = "".join(letter for letter, g in zip(letters, groups, strict=False) if g[place])
        if key == "a_axes" and len(has) == len(groups):
            has = "omi"
        if key == "b_axes" and len(has) == len(groups) and len(groups) != 1:
            has = "omi"
        found[key] = has or ("i" if not groups else "none")
    return found


def add(lowering: Lowering, node: onnx.NodeProto) -> Sequence[Value] | None:
    """Add of constants or a tensor to a product, of numbers to a quantized tensor, or of two of
    these."""
    a, b = lowering.inputs(node)
    for value, other in ((a, b), (b, a)):
        if isinstance(value, Product | RealProduct) and isinstance(other, Constant):
            biased = value.biased(other.array)
            if biased is not None:
                return [biased]
    joined = _joined(lowering, node, a, b)
    return joined or mapped(lowering, node) or _pair(lowering, a, b, Add)


def _joined(
    lowering: Lowering, node: onnx.NodeProto, a: Value, b: Value
) -> Sequence[Product] | None:
    """A product that nothing else reads with the other tensor in its epilogue: codes, or such a
    product as well."""
    own = [name for name in node.input if lowering.only_reader(name)]
    for value, other, name in ((b, a, node.input[1]), (a, b, node.input[0])):
        if not isinstance(value, Product) or name not in own:
            continue
        if isinstance(other, Product):
            other = other if len(own) == 2 else None
        else:
            other = lowering.affine(other)
        made = None if other is None else value.joined(other)
        if made is not None:
            return [made]
    return None


def multiply(lowering: Lowering, node: onnx.NodeProto) -> Sequence[Value] | None:
    """Mul of constants that leaves codes of weights known, of scales found in a call, of numbers
    and a quantized tensor, or of two of these."""
    a, b = lowering.inputs(node)
    if isinstance(a, Constant) and isinstance(b, Constant):
        return weights(a, b) or weights(b, a)
    done = dynamic.scaled(lowering, a, b)
    return [done] if done is not None else mapped(lowering, node) or _pair(lowering, a, b, Mul)


def _pair(
    lowering: Lowering, a: Value, b: Value, kind: type[Add] | type[Mul]
) -> Sequence[Value] | None:
    """Of two dequantized tensors, one of which may be constant."""
    if isinstance(a, Constant):
        a, b = b, a
    a = lowering.affine(a)
    if isinstance(b, Constant):
        known = b.codes is not None and b.scale is not None and b.form is not None
        b = b if known and b.scale.single else None
    else:
        b = lowering.affine(b)
    if a is None or b is None:
        return None
    try:
        shape = np.broadcast_shapes(a.type.shape, b.type.shape)
    except ValueError:
        raise OnnxError(f"shapes {a.type.shape} and {b.type.shape} do not match") from None
    return [Pair(TensorType(shape, "float32"), -np.inf, np.inf, a, b, kind)]


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
