"""BatchNormalization: of a product it is other scales and biases, of codes a product of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from lpgen.errors import OnnxError
from lpgen.onnx import conv
from lpgen.onnx.rules.attributes import attributes
from lpgen.onnx.rules.products import Product
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
    if not isinstance(value, Product):
        value = _scaled(lowering, value)
    return [_changed(value, factor.astype(np.float32), bias)]


def _scaled(lowering: Lowering, value: Value) -> Product:
    """Codes as a product with weights of 1."""
    x = lowering.affine(value)
    if x is None or len(x.type.shape) not in (3, 4):
        raise OnnxError("x is neither a product of quantized values nor a quantized image")
    channels = x.type.shape[1]
    weights = np.ones((channels, *[1] * (len(x.type.shape) - 1)), np.int8)
    zero = x.scale.zero.astype(x.form.dtype)
    imported = conv.product(x.codes.type, weights, zero, None, {"group": channels})
    return Product(
        TensorType(x.type.shape, "float32"),
        *(-np.inf, np.inf),
        *(x.codes, replace(imported, op=replace(imported.op, act=x.form))),
        *(np.repeat(x.scale.scale.reshape(1), channels), 1, None),
    )


def _changed(product: Product, factor: np.ndarray, bias: np.ndarray) -> Product:
    """The product times factors of its channels, plus a bias."""
    if (product.low, product.high) != (-np.inf, np.inf) or product.channels != 1:
        raise OnnxError("behind bounds, or along another axis than the channels")
    own = product.bias
    if own is not None:
        real = own if own.dtype == np.float32 else own.astype(np.float32) * product.scale
        bias = real * factor + bias
    return replace(product, scale=product.scale * factor, bias=bias.astype(np.float32))


RULES = {"BatchNormalization": batch}
