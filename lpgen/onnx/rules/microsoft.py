"""Quantized nodes of com.microsoft, as onnxruntime's quantizer writes them: the same as ordinary
nodes between DequantizeLinear and QuantizeLinear.

Source: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lpgen.errors import OnnxError
from lpgen.onnx import checks
from lpgen.onnx.linear import FORMATS
from lpgen.onnx.rules import functions, parts, products, quantization, rows, sums
from lpgen.onnx.rules.attributes import attributes
from lpgen.onnx.rules.spelled import Spelled
from lpgen.onnx.values import Constant, Mapped, Recoded, Scale, Stored, Target, Value
from lpgen.ops.mul import Mul
from lpgen.ops.tensor_type import TensorType

if TYPE_CHECKING:
    import onnx

    from lpgen.onnx.lowering import Lowering


def _scale(name: str, scale: Value | None, zero: Value | None, dtype: str) -> Scale:
    """A scale and a zero point of a tensor of codes; 0 where that is left out."""
    for value, what in ((scale, "scale"), (zero, "zero_point")):
        if value is not None and not isinstance(value, Constant):
            raise OnnxError(f"{name}_{what} is no constant")
    if scale is None:
        raise OnnxError(f"input {name}_scale is missing")
    form = checks.format_of(name, dtype, FORMATS)
    numbers = checks.real(f"{name}_scale", scale.array).reshape(-1)
    if zero is None:
        return Scale(numbers, np.zeros(1, form.dtype))
    checks.check_type(f"{name}_zero_point", zero.array, dtype)
    return Scale(numbers, zero.array.reshape(-1).astype(form.dtype))


def _mapped(name: str, codes: Value | None, scale: Value | None, zero: Value | None) -> Mapped:
    """A dequantized tensor."""
    if not isinstance(codes, Stored | Recoded):
        raise OnnxError(f"{name} is no tensor of codes")
    how = _scale(name, scale, zero, codes.type.dtype)
    if not how.single or how.zero.size != 1:
        raise OnnxError(f"{name} has {how.scale.size} scales, lpgen has one for a tensor")
    return Mapped.of(codes, how)


def _affine(lowering: Lowering, *given: Any) -> Mapped:
    """A dequantized tensor whose codes are in memory."""
    value = lowering.affine(_mapped(*given))
    assert value is not None
    return value


def _target(scale: Value | None, zero: Value | None, dtype: str) -> Target:
    """What the result is quantized to; dtype: where the zero point is left out."""
    dtype = dtype if zero is None else zero.type.dtype
    how = _scale("y", scale, zero, dtype)
    form = checks.format_of("y", dtype, FORMATS)
    return Target(form, dtype, how.scale[0], np.int32(how.zero[0]))


def gemm(lowering: Lowering, node: onnx.NodeProto) -> Sequence[Value]:
    """QGemm: a product of codes with a bias, quantized, or real where y_scale is left out."""
    given = lowering.inputs(node)
    a, a_scale, a_zero, b, b_scale, b_zero, c, y_scale, y_zero = given + [None] * (9 - len(given))
    known = attributes(node, alpha=1.0, transA=0, transB=0)
    if known["transA"] or known["alpha"] != 1:
        raise OnnxError("alpha is 1 and transA 0 in what lpgen has")
    if not isinstance(b, Constant):
        raise OnnxError("B is no constant")
    codes = b.array.T if known["transB"] else b.array
    how = _scale("b", b_scale, b_zero, b.type.dtype)._replace(axis=1)
    form = checks.format_of("b", b.type.dtype, FORMATS)
    weights = Constant(codes, np.ascontiguousarray(codes).astype(form.dtype), how, form)
    product = products.matrix_product(_affine(lowering, "a", a, a_scale, a_zero), weights, None)
    if c is not None:
        if not isinstance(c, Constant) or c.array.size != codes.shape[1]:
            raise OnnxError(f"C is not int32[{codes.shape[1]}]")
        checks.check_type("C", c.array, "int32")
        product = replace(product, bias=c.array.reshape(-1))
    name = node.output[0]
    if y_scale is None:
        return [product.real(lowering, name)]
    return [product.quantized(lowering, name, _target(y_scale, y_zero, a.type.dtype))]


def function(lowering: Lowering, node: onnx.NodeProto) -> Sequence[Value]:
    """QLinearSigmoid, QLinearLeakyRelu: a table."""
    from onnx import helper

    given = lowering.inputs(node)
    x, x_scale, x_zero, y_scale, y_zero = given + [None] * (5 - len(given))
    plain = helper.make_node(node.op_type.removeprefix("QLinear"), ["x"], ["y"])
    plain.attribute.extend(node.attribute)
    value = functions.of_table(lowering, plain, _mapped("x", x, x_scale, x_zero))
    to = _target(y_scale, y_zero, x.type.dtype)
    return [quantization.recoded(node.output[0], value, to)]


def multiply(lowering: Lowering, node: onnx.NodeProto) -> Sequence[Value]:
    """QLinearMul of two tensors, or of one and constants."""
    given = lowering.inputs(node)
    a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = given + [None] * (8 - len(given))
    attributes(node)
    sides = [(a, a_scale, a_zero, "a"), (b, b_scale, b_zero, "b")]
    if isinstance(a, Constant):
        sides.reverse()
    (first, *how, name), (second, *other_how, other_name) = sides
    left = _affine(lowering, name, first, *how)
    if isinstance(second, Constant):
        scale = _scale(other_name, *other_how, second.type.dtype)
        if not scale.single or scale.zero.size != 1:
            raise OnnxError(f"{other_name} has {scale.scale.size} scales, lpgen has one")
        form = checks.format_of(other_name, second.type.dtype, FORMATS)
        right = Constant(second.array, second.array.astype(form.dtype), scale, form)
    else:
        right = _affine(lowering, other_name, second, *other_how)
    try:
        shape = np.broadcast_shapes(left.type.shape, right.type.shape)
    except ValueError:
        raise OnnxError(f"shapes {a.type.shape} and {b.type.shape} do not match") from None
    kind = TensorType(shape, "float32")
    pair = sums.Pair(kind, -np.inf, np.inf, left, right, Mul, rounded="sum")
    to = _target(y_scale, y_zero, left.codes.type.dtype)
    return [pair.quantized(lowering, node.output[0], to)]


def concat(lowering: Lowering, node: onnx.NodeProto) -> Sequence[Value]:
    """QLinearConcat: tensors with a scale each."""
    y_scale, y_zero, *given = lowering.inputs(node)
    if not given or len(given) % 3:
        raise OnnxError(f"{len(given)} inputs behind y_zero_point, expected three for each tensor")
    parts_of = [given[i : i + 3] for i in range(0, len(given), 3)]
    values = tuple(_mapped(f"x{i}", *part) for i, part in enumerate(parts_of))
    joined = parts.joined(values, attributes(node, axis=1)["axis"])
    to = _target(y_scale, y_zero, given[0].type.dtype)
    return [joined.quantized(lowering, node.output[0], to)]


def softmax(lowering: Lowering, node: onnx.NodeProto) -> Sequence[Value]:
    """QLinearSoftmax along the last axis, or any one from opset 13 on: in float32."""
    x, x_scale, x_zero, y_scale, y_zero = (lowering.inputs(node) + [None] * 5)[:5]
    known = attributes(node, axis=-1, opset=rows.FREE_AXES)
    if known["opset"] < rows.FREE_AXES and known["axis"] not in (-1, len(x.type.shape) - 1):
        raise OnnxError(
            f"opset={known['opset']} with axis={known['axis']}, lpgen has the last axis"
        )
    value = lowering.tensor(_mapped("x", x, x_scale, x_zero))
    name = node.output[0]
    made = rows.along(lowering, f"{name}:real", value, known["axis"])
    return [quantization.codes_of(lowering, name, made, _target(y_scale, y_zero, x.type.dtype))]


def where(lowering: Lowering, node: onnx.NodeProto) -> Sequence[Value]:
    """QLinearWhere: of the numbers that the codes of both stand for."""
    spelled = Spelled(lowering, node)
    attributes(node)
    sides = [
        spelled("DequantizeLinear", *(spelled.input(place + i) for i in range(3)))
        for place in (1, 4)
    ]
    made = spelled("Where", spelled.input(0), *sides)
    ends = [spelled.input(place) for place in (7, 8)]
    return spelled.lowered(spelled("QuantizeLinear", made, *ends, writes=node.output[0]))


def gelu(lowering: Lowering, node: onnx.NodeProto) -> Sequence[Value]:
    """Gelu, which is ONNX's own since opset 20."""
    from onnx import helper

    attributes(node)
    return [lowering.imported(helper.make_node("Gelu", node.input, node.output, name=node.name))]


RULES = {
    "com.microsoft.Gelu": gelu,
    "com.microsoft.QLinearConcat": concat,
    "com.microsoft.QLinearSoftmax": softmax,
    "com.microsoft.QGemm": gemm,
    "com.microsoft.QLinearWhere": where,
    "com.microsoft.QLinearMul": multiply,
    "com.microsoft.QLinearSigmoid": function,
    "com.microsoft.QLinearLeakyRelu": function,
}
