"""ConvInteger and QLinearConv: [n, c, (h,) w] and [oc, ic / groups, (kh,) kw], as conv2d."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lpgen.errors import OnnxError
from lpgen.onnx import checks
from lpgen.onnx.arithmetic import REQUANTIZED, Requantize, combined_scale, quantization
from lpgen.onnx.checks import check_real
from lpgen.onnx.imported import Imported, NodeKind, Relayout
from lpgen.ops import Conv2d
from lpgen.ops.conv2d_f32 import RealConv2d
from lpgen.ops.epilogue import Quantize
from lpgen.ops.tensor_type import TensorType

TO_LAST = (0, 2, 3, 1)
TO_FIRST = (0, 3, 1, 2)


def integer(
    x: TensorType,
    w: np.ndarray,
    x_zero: np.ndarray | None = None,
    w_zero: np.ndarray | None = None,
    **attributes: Any,
) -> Imported:
    """ConvInteger."""
    _check_sides(x, w)
    return product(x, w, x_zero, w_zero, attributes)


def requantized(
    x: TensorType,
    x_scale: np.ndarray,
    x_zero: np.ndarray,
    w: np.ndarray,
    w_scale: np.ndarray,
    w_zero: np.ndarray,
    y_scale: np.ndarray,
    y_zero: np.ndarray,
    bias: np.ndarray | None = None,
    **attributes: Any,
) -> Imported:
    """QLinearConv."""
    _check_sides(x, w)
    scale = combined_scale(
        checks.single("x_scale", checks.real("x_scale", x_scale)),
        _by_channel("w_scale", checks.real("w_scale", w_scale), w),
        checks.single("y_scale", checks.real("y_scale", y_scale)),
    )
    out = checks.format_of("y_zero_point", y_zero.dtype.name)
    if bias is not None:
        checks.check_type("B", bias, "int32")
        checks.check_shape("B", bias, w.shape[:1])
    last = Requantize(scale, Quantize(out, checks.single("y_zero_point", y_zero)), bias)
    return product(x, w, x_zero, w_zero, attributes, last)


def _check_sides(x: TensorType, w: np.ndarray) -> None:
    """Raise OnnxError unless both are bytes of a convolution in one or two dimensions."""
    checks.format_of("x", x.dtype)
    checks.format_of("the tensor of weights", w.dtype.name)
    if len(x.shape) not in (3, 4) or w.ndim != len(x.shape):
        raise OnnxError(f"x has {len(x.shape)} axes and w has {w.ndim}, lpgen has 3 or 4 for both")
    checks.tensor_type("w", (w.shape, w.dtype))


def product(
    x: TensorType,
    w: np.ndarray,
    x_zero: np.ndarray | None,
    w_zero: np.ndarray | None,
    attributes: dict[str, Any],
    last: Requantize | None = None,
) -> Imported:
    """The convolution of codes, with the attributes of Conv."""
    *_, h, wide = (1, *x.shape[2:])
    n, channels = x.shape[:2]
    weights = np.ascontiguousarray(_image(w).transpose(TO_LAST))
    if w_zero is None:
        w_zero = np.zeros((), w.dtype)
    checks.check_type("w_zero_point", w_zero, w.dtype.name)
    fields, weights, parameters = quantization(
        checks.format_of("x", x.dtype),
        checks.zero_point("x_zero_point", x_zero, x.dtype),
        weights,
        _by_channel("w_zero_point", w_zero, w),
        last,
    )
    taps = geometry(x.shape[2:], w.shape[2:], **attributes)
    op = Conv2d(n=n, h=h, w=wide, ic=channels, oc=len(weights), **taps, **fields)
    if weights.shape != op.w_shape:
        raise OnnxError(f"w has shape {w.shape}, but x has {channels} channels")
    spatial = op.y_shape[1:3][2 - len(x.shape[2:]) :]
    return Imported(
        op,
        {"x": Relayout(x.shape, (n, channels, h, wide), TO_LAST, op.x_shape)},
        Relayout(op.y_shape, op.y_shape, TO_FIRST, (n, op.oc, *spatial)),
        weights,
        parameters,
    )


def real(x: TensorType, w: np.ndarray, attributes: dict[str, Any]) -> Imported:
    """Conv of float32 as an operator, without its constants."""
    check_real("x", x.dtype)
    check_real("w", w.dtype.name)
    if len(x.shape) not in (3, 4) or w.ndim != len(x.shape):
        raise OnnxError(f"x has {len(x.shape)} axes and w has {w.ndim}, lpgen has 3 or 4 for both")
    *_, h, wide = (1, *x.shape[2:])
    n, channels = x.shape[:2]
    taps = geometry(x.shape[2:], w.shape[2:], **attributes)
    if w.shape[1] * taps["groups"] != channels:
        raise OnnxError(f"w has shape {w.shape}, but x has {channels} channels")
    op = RealConv2d(n=n, h=h, w=wide, ic=channels, oc=len(w), **taps)
    spatial = op.y_shape[1:3][2 - len(x.shape[2:]) :]
    return Imported(
        op,
        {"x": Relayout(x.shape, (n, channels, h, wide), TO_LAST, op.x_shape)},
        Relayout(op.y_shape, op.y_shape, TO_FIRST, (n, op.oc, *spatial)),
    )


def _image(tensor: np.ndarray) -> np.ndarray:
    return tensor if tensor.ndim == 4 else tensor[:, :, None]


def _by_channel(what: str, values: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Values of all output channels or of each, as [channels]."""
    each = w.shape[:1]
    checks.check_shape(what, values, (), (1,), each)
    return np.broadcast_to(values, each)


def geometry(
    size: Sequence[int],
    kernel: Sequence[int],
    kernel_shape: Sequence[int] = (),
    strides: Sequence[int] = (),
    dilations: Sequence[int] = (),
    pads: Sequence[int] = (),
    auto_pad: str = "NOTSET",
    group: int = 1,
) -> dict[str, Any]:
    """Kernel, stride, dilation, pad and groups from the attributes of Conv; size, kernel: as the
    node has them, of one or two axes. A convolution in one dimension is one of a single row."""
    axes = len(size)
    if kernel_shape and tuple(kernel_shape) != tuple(kernel):
        raise OnnxError(f"kernel_shape={list(kernel_shape)}, but w has {list(kernel)}")
    stride = _each("strides", strides, axes, 1)
    dilation = _each("dilations", dilations, axes, 1)
    pad = _each("pads", pads, 2 * axes, 0)
    before, after = pad[:axes], pad[axes:]
    if auto_pad not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
        raise OnnxError(f"auto_pad={auto_pad} is none of NOTSET, VALID, SAME_UPPER, SAME_LOWER")
    if auto_pad != "NOTSET" and any(pad):
        raise OnnxError(f"pads={list(pads)} beside auto_pad={auto_pad}, which says it")
    if auto_pad.startswith("SAME"):
        # As many outputs as strides fit the input; the odd one is where the name says.
        total = [
            max(0, (-(-n // s) - 1) * s + (k - 1) * d + 1 - n)
            for n, k, s, d in zip(size, kernel, stride, dilation, strict=True)
        ]
        before, after = [t // 2 for t in total], [t - t // 2 for t in total]
        if auto_pad == "SAME_LOWER":
            before, after = after, before
    ones, zeros = [1] * (2 - axes), [0] * (2 - axes)
    return {
        "kernel": (*ones, *kernel),
        "stride": (*ones, *stride),
        "dilation": (*ones, *dilation),
        "pad": (*zeros, *before, *zeros, *after),
        "groups": group,
    }


def _each(name: str, values: Sequence[int], count: int, default: int) -> list[int]:
    """The `count` values of an attribute; `default`, also the least, where it is absent."""
    if not values:
        return [default] * count
    if len(values) != count or min(values) < default:
        expected = f"{count} of {default} or more"
        raise OnnxError(f"{name}={list(values)}, expected {expected} for x and w")
    return list(values)


NODES = {
    "ConvInteger": NodeKind(("w", "x_zero", "w_zero"), integer),
    "QLinearConv": NodeKind((*REQUANTIZED, "bias"), requantized),
}
