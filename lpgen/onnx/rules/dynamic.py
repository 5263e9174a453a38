"""Products whose activations are real numbers, quantized in the kernel with a scale for each row.

A model has them where its weights alone are quantized, and behind DynamicQuantizeLinear, which has
one scale and a zero point for a whole tensor. A scale for each row is finer, so that results differ
from those of the model: it has to be asked for (`read_network(dynamic="s8")`), for all products
alike, or for each node by its name. With dynamic="f32" activations stay as they are, and weights
become float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lpgen.errors import OnnxError
from lpgen.formats import REAL, Format
from lpgen.onnx import checks, conv, matmul
from lpgen.onnx.linear import FORMATS
from lpgen.onnx.rules import real
from lpgen.onnx.rules.attributes import attributes
from lpgen.onnx.rules.product import Product, narrowed
from lpgen.onnx.rules.products import UNASKED, matrix_of, of_blocks
from lpgen.onnx.values import Constant, Scale, Stored, Value
from lpgen.ops.tensor_type import TensorType

if TYPE_CHECKING:
    import onnx

    from lpgen.onnx.lowering import Lowering

SMALL = ("uint8", "int8")


@dataclass(frozen=True)
class Dynamic:
    """An output of DynamicQuantizeLinear of x: "codes", "scale" or "zero"; factor: what a scale is
    multiplied with, [channels of weights] or one number."""

    x: Stored
    what: str
    type: TensorType
    factor: np.ndarray | None = None


@dataclass(frozen=True)
class Sums:
    """int32 sums of such codes and weights; made: their product once the scale of weights comes."""

    x: Stored
    weights: Constant
    type: TensorType


def product(
    lowering: Lowering,
    x: Stored,
    w: Constant,
    bias: Value | None = None,
    node: onnx.NodeProto | None = None,
) -> Product | real.RealProduct:
    """x [..., k] of float32 times a matrix [k, n] of dequantized weights, plus a vector; node: the
    product, where it is one."""
    how = lowering.activations(node)
    if how is None:
        raise OnnxError(UNASKED)
    if how.form == REAL:
        return real.matrix(lowering, x, _real(w), bias)
    act = how.form
    zero = _middle(act)
    kind, size = TensorType(x.type.shape, act.dtype), 0
    if w.blocks is not None:
        imported, each = of_blocks(kind, zero, w.blocks, act), w.blocks.scale
        size = w.blocks.size
    else:
        codes, scale = matrix_of(w)
        imported = matmul.product(kind, codes, zero, scale.zero.reshape(-1)[: codes.shape[1]])
        imported = narrowed(imported, act)
        each = np.broadcast_to(scale.scale.ravel(), codes.shape[1:]).astype(np.float32)
    shape = imported.y.shape
    made = Product(
        *(TensorType(shape, "float32"), -np.inf, np.inf, x, imported, each),
        *(len(shape) - 1, None, how.input, how.hadamard, size),
    )
    return made if bias is None else with_bias(made, bias)


def convolution(
    x: Stored, w: Constant, bias: Value | None, given: dict[str, Any], act: Format
) -> Product:
    """Conv of x [n, c, (h,) w] of float32, with one scale for the tensor, and dequantized weights;
    given: the attributes."""
    if w.codes is None or w.scale is None or not (w.scale.single or w.scale.axis == 0):
        raise OnnxError("scales of weights are not on axis 0: the channels")
    zeros = w.scale.zero.reshape(-1)
    imported = conv.product(
        *(TensorType(x.type.shape, act.dtype), w.codes, _middle(act)),
        *(zeros if zeros.size > 1 else zeros.reshape(()), given),
    )
    imported = narrowed(imported, act)
    each = np.broadcast_to(w.scale.scale.ravel(), w.codes.shape[:1]).astype(np.float32)
    shape = imported.y.shape
    made = Product(
        *(TensorType(shape, "float32"), -np.inf, np.inf, x, imported, each, 1, None, "f32:tensor")
    )
    if bias is None:
        return made
    if not isinstance(bias, Constant) or bias.array.size not in (1, shape[1]):
        raise OnnxError("the bias is no constant vector of the channels")
    return with_bias(made, Constant(bias.array.reshape(-1, *[1] * (len(shape) - 2))))


def _middle(act: Format) -> np.ndarray:
    """The code for 0: levels lie evenly around it."""
    return np.array(act.min + act.levels // 2, act.dtype)


def _real(w: Constant) -> np.ndarray:
    """The numbers that codes stand for, whose scale came later where codes alone were constant."""
    if w.blocks is not None or w.codes is None or w.scale is None:
        return w.array
    differences = w.codes.astype(np.float32) - w.scale.zero.reshape(-1)
    return differences * w.scale.scale.reshape(-1)


def with_bias(product: Product, bias: Value) -> Product:
    """The product plus a vector."""
    biased = product.biased(bias.array) if isinstance(bias, Constant) else None
    if biased is None:
        raise OnnxError("the bias is no constant vector")
    return biased


def quantize(lowering: Lowering, node: onnx.NodeProto) -> Sequence[Value]:
    """DynamicQuantizeLinear."""
    (value,) = lowering.inputs(node)
    x = lowering.tensor(value)
    return [
        Dynamic(x, "codes", TensorType(x.type.shape, "uint8")),
        Dynamic(x, "scale", TensorType((), "float32")),
        Dynamic(x, "zero", TensorType((), "uint8")),
    ]


def sums(lowering: Lowering, node: onnx.NodeProto) -> Sequence[Value] | None:
    """MatMulInteger of dynamic codes."""
    given = lowering.inputs(node)
    a, b, a_zero, b_zero = given + [None] * (4 - len(given))
    if not isinstance(a, Dynamic):
        return None
    if not isinstance(a_zero, Dynamic) or a_zero.x != a.x or not isinstance(b, Constant):
        raise OnnxError("codes and zero point are not of one DynamicQuantizeLinear")
    shape = matmul.product(a.type, b.array, None, None).y.shape
    return [Sums(a.x, _codes(b, b_zero), TensorType(shape, "int32"))]


def _codes(b: Constant, zero: Value | None) -> Constant:
    """Weights as codes whose scale is not known yet."""
    form = checks.format_of("B", b.type.dtype, FORMATS)
    zeros = np.zeros(1, form.dtype)
    if zero is not None:
        if not isinstance(zero, Constant):
            raise OnnxError("the zero point of B is no constant")
        zeros = zero.array.reshape(-1).astype(form.dtype)
    return Constant(b.array, b.array, Scale(np.ones(1, np.float32), zeros, 1), form)


def scaled(lowering: Lowering, a: Value, b: Value) -> Value | None:
    """What Mul makes of a scale and a constant, or of sums and their scale; None for others."""
    for one, other in ((a, b), (b, a)):
        if isinstance(one, Dynamic) and isinstance(other, Constant) and one.factor is None:
            return replace(one, factor=other.array)
        if isinstance(one, Sums) and isinstance(other, Dynamic) and other.x == one.x:
            factor = np.ones(1, np.float32) if other.factor is None else other.factor
            scale = one.weights.scale._replace(scale=factor.reshape(-1).astype(np.float32))
            return product(lowering, one.x, replace(one.weights, scale=scale))
    return None


def to_float(lowering: Lowering, node: onnx.NodeProto) -> Sequence[Value] | None:
    """MatMulIntegerToFloat and DynamicQuantizeMatMul of com.microsoft."""
    given = lowering.inputs(node)
    attributes(node)
    if node.op_type == "DynamicQuantizeMatMul":
        a, b, b_scale, b_zero, bias = given + [None] * (5 - len(given))
        x = lowering.tensor(a)
    else:
        a, b, _, b_scale, _, b_zero, bias = given + [None] * (7 - len(given))
        if not isinstance(a, Dynamic):
            raise OnnxError("A does not come from DynamicQuantizeLinear")
        x = a.x
    for value, what in ((b, "B"), (b_scale, "b_scale")):
        if not isinstance(value, Constant):
            raise OnnxError(f"{what} is no constant")
    codes = _codes(b, b_zero)
    scale = codes.scale._replace(scale=checks.real("b_scale", b_scale.array).reshape(-1))
    return [product(lowering, x, replace(codes, scale=scale), bias)]


RULES = {
    "DynamicQuantizeLinear": quantize,
    "MatMulInteger": sums,
    "com.microsoft.MatMulIntegerToFloat": to_float,
    "com.microsoft.DynamicQuantizeMatMul": to_float,
}
