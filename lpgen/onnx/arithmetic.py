"""Scales and zero points of ONNX as an operator's fields, epilogue and parameters."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from lpgen.formats import Format
from lpgen.onnx.checks import BYTES
from lpgen.ops.epilogue import Bias, Chain, Quantize, Scale

REQUANTIZED = ("x_scale", "x_zero", "w", "w_scale", "w_zero", "y_scale", "y_zero")
"""Inputs of QLinearConv and QLinearMatMul behind the first one."""


class Requantize(NamedTuple):
    """How int32 sums become 8-bit values.

    scale: float32[channels], see `combined_scale`; bias: int32[channels] in steps of x_scale *
    w_scale, or None.
    """

    scale: np.ndarray
    out: Quantize
    bias: np.ndarray | None = None


def combined_scale(x_scale: float, w_scale: np.ndarray, y_scale: float) -> np.ndarray:
    """x_scale * w_scale / y_scale in float32, in this order, as onnxruntime computes it."""
    with np.errstate(all="ignore"):  # what is not finite is refused with the other parameters
        return np.float32(x_scale) * w_scale / np.float32(y_scale)


def quantization(
    x_format: Format, x_zero: int, weights: np.ndarray, w_zero: np.ndarray, last: Requantize | None
) -> tuple[dict[str, Any], np.ndarray, dict[str, np.ndarray]]:
    """(formats, zero points and epilogue of the operator; its weights; its parameters).

    weights: 8-bit, channels in the first axis; w_zero: [channels]. Weights are stored less their
    zero points where that fits int8: such kernels need no sums of activations.
    """
    zeros = w_zero.astype(np.int16).reshape(-1, *[1] * (weights.ndim - 1))
    different = weights.astype(np.int16) - zeros
    if different.min() >= -128 and different.max() <= 127:
        weights, w_zero = different.astype(np.int8), np.zeros_like(w_zero)
    each = bool(np.any(w_zero != w_zero[0]))
    fields = {
        "act": x_format,
        "weight": BYTES[weights.dtype.name],
        "zero_act": x_zero,
        "zero_weight": "channel" if each else int(w_zero[0]),
    }
    parameters = {"zero_weight": w_zero} if each else {}
    if last is not None:
        fields["epilogue"], more = _epilogue(last)
        parameters |= more
    return fields, weights, parameters


def _epilogue(last: Requantize) -> tuple[Chain, dict[str, np.ndarray]]:
    each = bool(np.any(last.scale != last.scale[0]))
    steps = (Scale("channel" if each else "tensor"), last.out)
    parameters = {"scale": last.scale if each else last.scale[:1]}
    if last.bias is None:
        return steps, parameters
    return (Bias("s32"), *steps), {"bias": last.bias} | parameters
