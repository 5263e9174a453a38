"""BatchNormalization: of a product other scales and biases, of others a product of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from lpgen.errors import OnnxError
from lpgen.onnx import conv
from lpgen.onnx.rules.attributes import attributes
from lpgen.onnx.rules.product import Product
from lpgen.onnx.rules.real import RealProduct, convolution
from lpgen.onnx.rules.structure import known
from lpgen.onnx.values import Value
from lpgen.ops.tensor_type import TensorType

if TYPE_CHECKING:
    import onnx

    from lpgen.onnx.lowering import Lowering


def batch(lowering: Lowering, node: onnx.NodeProto) -> Sequence[Value]:
    """BatchNormalization with statistics that are known: a factor and a bias for each channel."""
    value = lowering.inputs(node)[0]
    given = attributes(node, epsilon=1e-5, momentum=0.9, training_mode=0, spatial=1)
    if given["training_mode"] or not given["spatial"]:
        raise OnnxError("training_mode=1 or spatial=0")
    names = ("scale", "bias", "mean", "variance")
    scale, bias, mean, variance = (
        known(lowering, node, place, name) for place, name in enumerate(names, 1)
    )
    factor = scale / np.sqrt(variance + np.float32(given["epsilon"]))
    bias = (bias - mean * factor).astype(np.float32)
    if not isinstance(value, Product | RealProduct) or _ends(value):
        value = _scaled(lowering, value)
    return [_changed(value, factor.astype(np.float32), bias)]


def _ends(product: Product | RealProduct) -> bool:
    """Whether nothing can be multiplied into it: behind bounds or a residual, or along another
    axis."""
    if isinstance(product, Product) and product.residual is not None:
        return True
    return (product.low, product.high) != (-np.inf, np.inf) or product.channels != 1


def _scaled(lowering: Lowering, value: Value) -> Product | RealProduct:
    """An image as a product with weights of 1."""
    shape = value.type.shape
    if len(shape) not in (3, 4):
        raise OnnxError(f"x has {len(shape)} axes, lpgen has images of 3 or 4")
    channels, size = shape[1], (shape[1], *[1] * (len(shape) - 1))
    x = lowering.affine(value)
    if x is None:
        ones = np.ones(size, np.float32)
        return convolution(lowering, value, ones, None, {"group": channels})
    weights = np.ones(size, np.int8)
    zero = x.scale.zero.astype(x.form.dtype)
    imported = conv.product(x.codes.type, weights, zero, None, {"group": channels})
    return Product(
        TensorType(x.type.shape, "float32"),
        *(-np.inf, np.inf),
        *(x.codes, replace(imported, op=replace(imported.op, act=x.form))),
        *(np.repeat(x.scale.scale.reshape(1), channels), 1, None),
    )


def _changed(
    product: Product | RealProduct, factor: np.ndarray, bias: np.ndarray
) -> Product | RealProduct:
    """The product times factors of its channels, plus a bias."""
    if isinstance(product, RealProduct):
        scaled = product.scaled(factor)
        return replace(scaled, bias=scaled.bias + bias)
    own = product.bias
    if own is not None:
        real = own if own.dtype == np.float32 else own.astype(np.float32) * product.scale
        bias = real * factor + bias
    return replace(product, scale=product.scale * factor, bias=bias.astype(np.float32))


RULES = {"BatchNormalization": batch}
