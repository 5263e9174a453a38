"""Scales and zero points of ONNX as an operator's fields, epilogue and parameters."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from lpgen.errors import OnnxError
from lpgen.formats import Format
from lpgen.ops.epilogue import Bias, Chain, Quantize, Scale

FORMATS = {"uint8": Format("u", 8), "int8": Format("s", 8)}


class Requantize(NamedTuple):
    """How int32 sums become 8-bit values: scales and zero points as the node has them; bias: int32
    [channels] in steps of x_scale * w_scale, or None."""

    x_scale: np.ndarray
    w_scale: np.ndarray
    y_scale: np.ndarray
    y_zero: np.ndarray
    bias: np.ndarray | None = None


def format_of(dtype: Any, what: str) -> Format:
    """The format of an 8-bit tensor. Raises OnnxError for any other."""
    name = np.dtype(dtype).name
    if name not in FORMATS:
        raise OnnxError(f"{what} has type {name}, lpgen has {' and '.join(FORMATS)}")
    return FORMATS[name]


def single(values: np.ndarray | None, what: str) -> Any:
    """The one value in `values` (0 for None). Raises OnnxError where there are several."""
    if values is None:
        return 0
    flat = np.unique(values)
    if flat.size != 1:
        raise OnnxError(f"{what} has {flat.size} different values, lpgen has one for a tensor")
    return flat[0].item()


def quantization(
    x_format: Format, x_zero: int, weights: np.ndarray, w_zero: np.ndarray, last: Requantize | None
) -> tuple[dict[str, Any], np.ndarray, dict[str, np.ndarray]]:
    """(formats, zero points and epilogue of the operator; its weights; its parameters).

    weights: 8-bit, channels in the first axis; w_zero: [channels]. Weights are stored less their
    zero points where that fits int8: such kernels need no sums of activations.
    """
    format_of(weights.dtype, "the tensor of weights")
    zeros = w_zero.astype(np.int16).reshape(-1, *[1] * (weights.ndim - 1))
    real = weights.astype(np.int16) - zeros
    if real.min() >= -128 and real.max() <= 127:
        weights, w_zero = real.astype(np.int8), np.zeros_like(w_zero)
    each = bool(np.any(w_zero != w_zero[0]))
    fields = {
        "act": x_format,
        "weight": FORMATS[weights.dtype.name],
        "zero_act": x_zero,
        "zero_weight": "channel" if each else int(w_zero[0]),
    }
    parameters = {"zero_weight": w_zero} if each else {}
    if last is not None:
        fields["epilogue"], more = _epilogue(last, len(weights))
        parameters |= more
    return fields, weights, parameters


def _epilogue(last: Requantize, channels: int) -> tuple[Chain, dict[str, np.ndarray]]:
    single(last.x_scale, "x_scale"), single(last.y_scale, "y_scale")
    x_scale, w_scale, y_scale = (
        np.asarray(scale).astype(np.float32).ravel() for scale in (*last[:2], last.y_scale)
    )
    scale = x_scale[0] * w_scale / y_scale[0]
    each = bool(np.any(scale != scale[0]))
    zero = single(last.y_zero, "y_zero_point")
    out = Quantize(format_of(last.y_zero.dtype, "y_zero_point"), zero)
    steps = (Scale("channel" if each else "tensor"), out)
    parameters = {"scale": np.resize(scale, channels if each else 1)}
    if last.bias is None:
        return steps, parameters
    return (Bias("s32"), *steps), {"bias": last.bias} | parameters
