"""Quant and BipolarQuant of QONNX, as Brevitas exports them: QuantizeLinear and DequantizeLinear in
one node, of any number of bits.

Source: https://github.com/fastmachinelearning/qonnx/tree/main/docs/qonnx-custom-ops
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from lpgen.errors import OnnxError
from lpgen.formats import Format
from lpgen.onnx.rules import quantization
from lpgen.onnx.rules.attributes import attributes
from lpgen.onnx.rules.structure import known
from lpgen.onnx.values import Constant, Mapped, Pending, Scale, Target, Value

if TYPE_CHECKING:
    import onnx

    from lpgen.onnx.lowering import Lowering


def quant(lowering: Lowering, node: onnx.NodeProto) -> Sequence[Value]:
    """Quant: round(clip(x / scale + zero)), less zero, times scale."""
    value = lowering.inputs(node)[0]
    scale, zero, bits = (
        known(lowering, node, place, what)
        for place, what in enumerate(("the scale", "the zero point", "the bit width"), 1)
    )
    given = attributes(node, signed=1, narrow=0, rounding_mode="ROUND")
    if given["rounding_mode"].upper() not in ("ROUND", "HALF_EVEN"):
        raise OnnxError(f"rounding_mode={given['rounding_mode']}, lpgen has ROUND")
    if bits.size != 1 or float(bits.item()) not in range(1 + given["signed"], 9):
        raise OnnxError(f"{bits.tolist()} bits, lpgen has {1 + given['signed']} to 8")
    if (zero != np.rint(zero)).any() or not (np.isfinite(scale) & (scale > 0)).all():
        raise OnnxError("zero points are no integers, or scales no positive numbers")
    form = Format("s" if given["signed"] else "u", int(bits.item()))
    ends = (
        form.min + (given["narrow"] and given["signed"]),
        form.max - (given["narrow"] and not given["signed"]),
    )
    if isinstance(value, Constant):
        return [_constant(value.array, scale, zero, form, ends)]
    if scale.size != 1 or zero.size != 1:
        raise OnnxError(f"activations have {scale.size} scales, lpgen has one for a tensor")
    to = Target(form, form.dtype, np.float32(scale.item()), np.int32(zero.item()))
    if not form.min <= to.zero <= form.max:
        raise OnnxError(f"the zero point {to.zero} is outside of {form.described}")
    if ends != (form.min, form.max):
        low, high = ((end - float(to.zero)) * float(to.scale) for end in ends)
        value = _clipped(lowering, value, low, high)
    return [Mapped.of(quantization.coded(lowering, node.output[0], value, to), to.of_codes)]


def _clipped(lowering: Lowering, value: Value, low: float, high: float) -> Value:
    """A value with bounds."""
    if isinstance(value, Mapped):
        table = np.clip(value.table, np.float32(low), np.float32(high))
        return Mapped(value.codes, table)
    if not isinstance(value, Pending):
        tensor = lowering.tensor(value)
        value = quantization.Bounded(tensor.type, -np.inf, np.inf, tensor)
    return replace(value, low=max(value.low, low), high=max(low, min(value.high, high)))


def _constant(
    array: np.ndarray, scale: np.ndarray, zero: np.ndarray, form: Format, ends: tuple[int, int]
) -> Constant:
    """Weights, with their codes where scales are on one axis at most."""
    scale, zero = scale.astype(np.float32), zero.astype(np.float32)
    try:
        codes = np.rint(np.clip(array / scale + zero, *ends))
    except ValueError:
        raise OnnxError(f"scales {scale.shape} for weights {array.shape}") from None
    real = ((codes - zero) * scale).astype(np.float32)
    shape = (*[1] * (array.ndim - scale.ndim), *scale.shape)
    along = [axis for axis, size in enumerate(shape) if size > 1]
    if len(along) > 1 or zero.size not in (1, scale.size) or codes.shape != array.shape:
        return Constant(real)
    zeros = zero.reshape(-1).astype(form.dtype)
    how = Scale(scale.reshape(-1), zeros, along[0] if along else 0)
    return Constant(real, codes.astype(form.dtype), how, form)


def bipolar(lowering: Lowering, node: onnx.NodeProto) -> Sequence[Value]:
    """BipolarQuant of weights: scale where they are not negative, else -scale."""
    value = lowering.inputs(node)[0]
    scale = known(lowering, node, 1, "the scale")
    attributes(node)
    if not isinstance(value, Constant):
        raise OnnxError("of activations: lpgen has it for weights")
    signs = np.where(value.array >= 0, np.float32(1), np.float32(-1))
    zero = np.zeros((), np.float32)
    return [_constant(signs * scale, scale, zero, Format("s", 2), (-1, 1))]


RULES = {
    "qonnx.custom_op.general.Quant": quant,
    "qonnx.custom_op.general.BipolarQuant": bipolar,
}
