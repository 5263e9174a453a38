"""ConvInteger and QLinearConv: [n, c, (h,) w] and [oc, ic / groups, (kh,) kw], as conv2d."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lpgen.errors import OnnxError
from lpgen.onnx.arithmetic import Requantize, format_of, quantization, single
from lpgen.onnx.imported import Imported, Relayout, TensorType
from lpgen.ops import Conv2d

_TO_LAST = (0, 2, 3, 1)
_TO_FIRST = (0, 3, 1, 2)


def integer(
    x: TensorType,
    w: np.ndarray,
    x_zero: np.ndarray | None = None,
    w_zero: np.ndarray | None = None,
    **attributes: Any,
) -> Imported:
    """ConvInteger."""
    return _conv(x, w, x_zero, w_zero, attributes)


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
    last = Requantize(x_scale, w_scale, y_scale, y_zero, bias)
    return _conv(x, w, x_zero, w_zero, attributes, last)


def _conv(
    x: TensorType,
    w: np.ndarray,
    x_zero: np.ndarray | None,
    w_zero: np.ndarray | None,
    attributes: dict[str, Any],
    last: Requantize | None = None,
) -> Imported:
    if len(x.shape) not in (3, 4) or w.ndim != len(x.shape):
        raise OnnxError(f"x has {len(x.shape)} axes and w has {w.ndim}, lpgen has 3 or 4 for both")
    *_, h, wide = (1, *x.shape[2:])
    n, channels = x.shape[:2]
    weights = np.ascontiguousarray(_image(w).transpose(_TO_LAST))
    zeros = np.zeros(1, w.dtype) if w_zero is None else w_zero.ravel()
    fields, weights, parameters = quantization(
        format_of(x.dtype, "x"),
        single(x_zero, "x_zero_point"),
        weights,
        np.resize(zeros, len(weights)),
        last,
    )
    geometry = _geometry((h, wide), weights.shape[1:3], **attributes)
    op = Conv2d(n=n, h=h, w=wide, ic=channels, oc=len(weights), **geometry, **fields)
    if weights.shape != op.w_shape:
        raise OnnxError(f"w has shape {w.shape}, but x has {channels} channels")
    spatial = op.y_shape[1:3][-len(x.shape) + 2 :]
    return Imported(
        op,
        weights,
        parameters,
        x=Relayout((n, channels, h, wide), _TO_LAST, op.x_shape),
        y=Relayout(op.y_shape, _TO_FIRST, (n, op.oc, *spatial)),
    )


def _image(tensor: np.ndarray) -> np.ndarray:
    return tensor if tensor.ndim == 4 else tensor[:, :, None]


def _geometry(
    size: tuple[int, int],
    kernel: tuple[int, int],
    kernel_shape: Sequence[int] = (),
    strides: Sequence[int] = (),
    dilations: Sequence[int] = (),
    pads: Sequence[int] = (),
    auto_pad: str = "NOTSET",
    group: int = 1,
) -> dict[str, Any]:
    """Fields of Conv2d from the attributes; a convolution in one dimension gives one of each."""
    if kernel_shape and tuple(kernel_shape) != tuple(kernel)[-len(kernel_shape) :]:
        raise OnnxError(f"kernel_shape={list(kernel_shape)}, but w has {kernel}")
    stride, dilation = ((*[1] * (2 - len(v)), *v) for v in (strides, dilations))
    if auto_pad == "NOTSET":
        half = len(pads) // 2
        before, after = ((*[0] * (2 - half), *v) for v in (pads[:half], pads[half:]))
    elif auto_pad == "VALID":
        before = after = (0, 0)
    elif auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        # As many outputs as strides fit the input; the odd one is where the name says.
        total = [
            max(0, (-(-n // s) - 1) * s + (k - 1) * d + 1 - n)
            for n, k, s, d in zip(size, kernel, stride, dilation, strict=True)
        ]
        before, after = [t // 2 for t in total], [t - t // 2 for t in total]
        if auto_pad == "SAME_LOWER":
            before, after = after, before
    else:
        raise OnnxError(f"auto_pad={auto_pad} is none of NOTSET, VALID, SAME_UPPER, SAME_LOWER")
    return {
        "kernel": tuple(kernel),
        "stride": stride,
        "dilation": dilation,
        "pad": (*before, *after),
        "groups": group,
    }
