"""Images that grow: Resize, and ConvTranspose whose patches lie side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from lpgen.errors import OnnxError
from lpgen.onnx.nodes import import_node
from lpgen.onnx.rules import products, transposed
from lpgen.onnx.rules.structure import known
from lpgen.onnx.values import Constant, Mapped, Pending, Scale, Stored, Target, Value
from lpgen.ops.tensor_type import TensorType

if TYPE_CHECKING:
    import onnx

    from lpgen.onnx.lowering import Lowering

TO_LAST = transposed.TO_LAST


def resize(lowering: Lowering, node: onnx.NodeProto) -> Sequence[Value] | None:
    """Resize of a function of codes to the nearest: of the codes; None for others."""
    from onnx import helper

    value = lowering.inputs(node)[0]
    modes = [helper.get_attribute_value(a) for a in node.attribute if a.name == "mode"]
    if not isinstance(value, Mapped) or modes not in ([], [b"nearest"]):
        return None
    value = lowering.affine(value) or value  # a table is looked up in the smaller image
    imported = import_node(node, value.codes.type, lowering.constants(node))
    made = lowering.apply(imported, node.output[0], [value.codes])
    return [replace(value, codes=replace(made, form=value.form))]


@dataclass(frozen=True)
class Patches(Pending):
    """A product whose columns are patches [kh, kw, channels], one for each pixel of [n, h, w]."""

    product: products.Product
    patch: tuple[int, int, int]

    def quantized(self, lowering: Lowering, name: str, to: Target) -> Stored:
        """Patches of codes, laid side by side."""
        return self._laid(lowering, self._bounded.quantized(lowering, f"{name}:patches", to))

    def real(self, lowering: Lowering, name: str) -> Stored:
        """Patches of float32."""
        return self._laid(lowering, self._bounded.real(lowering, f"{name}:patches"))

    @property
    def _bounded(self) -> products.Product:
        return replace(self.product, low=self.low, high=self.high)

    def _laid(self, lowering: Lowering, made: Stored) -> Stored:
        """The image [n, c, h * kh, w * kw], channels last in memory."""
        n, h, w, _ = made.type.shape
        kh, kw, c = self.patch
        apart = lowering.ordered(made, range(4))
        kind = TensorType((n * h, kh, w, kw, c), made.type.dtype)
        rows = lowering.ordered(replace(apart, type=kind, order=(0, 2, 1, 3, 4)), range(5))
        kind = TensorType(self.type.shape, made.type.dtype)
        return replace(rows, type=kind, order=TO_LAST)


def conv_transpose(lowering: Lowering, node: onnx.NodeProto) -> Sequence[Value]:
    """ConvTranspose of dequantized values and weights whose stride is its kernel; of others in
    float32."""
    x, w, *rest = lowering.inputs(node)
    x = lowering.affine(x)
    if x is None or not isinstance(w, Constant) or not _side_by_side(node, w):
        return transposed.conv_transpose(lowering, node)
    shape, kernel = x.type.shape, w.codes.shape[2:]
    if len(shape) != 4 or w.codes.shape[0] != shape[1]:
        raise OnnxError(f"x has shape {shape} and w {w.codes.shape}: no image and its weights")
    kh, kw = kernel
    channels, taps = w.codes.shape[1], kh * kw

    def each(values: np.ndarray) -> np.ndarray:
        """Values of channels for each column of the product."""
        return values if values.size == 1 else np.tile(values, taps)

    matrix = w.codes.transpose(0, 2, 3, 1).reshape(shape[1], -1)
    scale = Scale(each(w.scale.scale), each(w.scale.zero), 1)
    w = replace(w, codes=np.ascontiguousarray(matrix), scale=scale)
    seen = TensorType(tuple(shape[axis] for axis in TO_LAST), x.codes.type.dtype)
    order = tuple(TO_LAST.index(axis) for axis in x.codes.order)
    x = replace(x, codes=replace(x.codes, type=seen, order=order))
    product = products.matrix_product(x, w, None)
    if rest and rest[0] is not None:
        product = product.biased(np.tile(known(lowering, node, 2, "the bias"), taps))
    n, _, h, wide = shape
    kind = TensorType((n, channels, h * kh, wide * kw), "float32")
    return [Patches(kind, -np.inf, np.inf, product, (kh, kw, channels))]


def _side_by_side(node: onnx.NodeProto, w: Constant) -> bool:
    """Whether patches of quantized weights neither overlap nor leave gaps."""
    from onnx import helper

    kernel = list(w.array.shape[2:])
    given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if w.codes is None or w.scale is None or w.form is None or w.array.ndim != 4:
        return False
    plain = {"strides": kernel, "kernel_shape": kernel, "pads": [0] * 4, "dilations": [1, 1]}
    plain |= {"group": 1, "output_padding": [0, 0], "auto_pad": b"NOTSET"}
    usual = {**plain, "strides": [1, 1]}
    found = {**usual, **given}
    return found == plain and (w.scale.single or w.scale.axis == 1)


RULES = {"Resize": resize, "ConvTranspose": conv_transpose}
