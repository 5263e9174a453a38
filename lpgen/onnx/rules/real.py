"""Conv, Gemm and MatMul of float32 with weights that are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from lpgen.errors import OnnxError
from lpgen.onnx import conv
from lpgen.onnx.checks import check_real
from lpgen.onnx.imported import Imported, same
from lpgen.onnx.rules.quantization import Bounded
from lpgen.onnx.values import Constant, Pending, Stored, Target, Value
from lpgen.ops.conv2d_f32 import RealConv2d
from lpgen.ops.tensor_type import TensorType

if TYPE_CHECKING:
    from lpgen.onnx.lowering import Lowering


@dataclass(frozen=True)
class RealProduct(Pending):
    """Sums of products of real numbers.

    imported: the operator without its constants; weights: float32[channels, ...] in the order of
    its sums; bias: float32[channels]; channels: the axis of the result that they are on.
    """

    costly: ClassVar[bool] = True

    x: Stored
    imported: Imported
    weights: np.ndarray
    bias: np.ndarray
    channels: int

    def quantized(self, lowering: Lowering, name: str, to: Target) -> Stored:
        """Real numbers first."""
        made = replace(self, low=-np.inf, high=np.inf).real(lowering, f"{name}:real")
        return Bounded(self.type, self.low, self.high, made).quantized(lowering, name, to)

    def real(self, lowering: Lowering, name: str) -> Stored:
        """The operator."""
        op = replace(self.imported.op, low=self.low, high=self.high)
        constants = {"weights": op.arranged(self.weights), "bias": self.bias}
        return lowering.apply(replace(self.imported, op=op, parameters=constants), name, [self.x])

    def biased(self, values: np.ndarray) -> RealProduct | None:
        """With numbers added, one for each channel or the same for all; None where they are
        others."""
        if (self.low, self.high) != (-np.inf, np.inf):
            return None
        each = along(values, self.type.shape, self.channels)
        return None if each is None else replace(self, bias=self.bias + each)

    def scaled(self, factor: np.ndarray) -> RealProduct:
        """Times a factor for each channel."""
        across = factor.reshape(-1, *[1] * (self.weights.ndim - 1))
        return replace(self, weights=self.weights * across, bias=self.bias * factor)


def along(values: np.ndarray, shape: Sequence[int], axis: int) -> np.ndarray | None:
    """Numbers that are broadcast to a shape as float32[shape[axis]]; None where other axes than
    this one have different ones."""
    sizes = (*[1] * (len(shape) - values.ndim), *values.shape)
    places = [place for place, size in enumerate(sizes) if size > 1]
    if len(sizes) > len(shape) or places not in ([], [axis]):
        return None
    return np.ascontiguousarray(np.broadcast_to(values.ravel(), shape[axis]), dtype=np.float32)


def convolution(
    lowering: Lowering, value: Value, w: np.ndarray, bias: Value | None, given: dict[str, Any]
) -> RealProduct:
    """x [n, c, (h,) w] and w [oc, c / groups, (kh,) kw]; given: the attributes of Conv."""
    x = lowering.tensor(value)
    imported = conv.real(x.type, w, given)
    last = w.reshape(*w.shape[:2], -1).transpose(0, 2, 1)
    return _with_bias(RealProduct(*_unbounded(imported), x, imported, last, *_none(w, 0), 1), bias)


def matrix(lowering: Lowering, value: Value, w: np.ndarray, bias: Value | None) -> RealProduct:
    """x [..., k] times w [k, n]."""
    x = lowering.tensor(value)
    check_real("x", x.type.dtype)
    shape, (k, n) = x.type.shape, w.shape
    if shape[-1] != k:
        raise OnnxError(f"shapes {shape} and {w.shape} do not match")
    rows = int(np.prod(shape[:-1]))
    op = RealConv2d(h=rows, w=1, ic=k, oc=n, kernel=(1, 1))
    imported = Imported(op, {"x": same(shape, op.x_shape)}, same(op.y_shape, (*shape[:-1], n)))
    made = RealProduct(*_unbounded(imported), x, imported, w.T, *_none(w, 1), len(shape) - 1)
    return _with_bias(made, bias)


def _unbounded(imported: Imported) -> tuple[TensorType, float, float]:
    return TensorType(imported.y.shape, "float32"), -np.inf, np.inf


def _none(w: np.ndarray, axis: int) -> tuple[np.ndarray]:
    return (np.zeros(w.shape[axis], np.float32),)


def _with_bias(product: RealProduct, bias: Value | None) -> RealProduct:
    if bias is None:
        return product
    if not isinstance(bias, Constant):
        raise OnnxError("the bias is no constant")
    check_real("the bias", bias.type.dtype)
    array = bias.array
    channels = product.bias.size
    if array.size not in (1, channels) or max(array.shape, default=1) != array.size:
        raise OnnxError(f"the bias has shape {array.shape}, expected ({channels},)")
    return replace(product, bias=np.broadcast_to(array.ravel(), channels).copy())
