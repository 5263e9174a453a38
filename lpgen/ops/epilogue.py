"""The epilogue: what happens to the int32 sum of an element before it is stored.

A chain of steps, each at most once and in this order. `v` is what the steps before have made of the
sum of an element in output channel n; every operation on floats is one of IEEE 754 in float32,
rounded to nearest even, and none are merged into one rounding.

| step                   | words                     | v becomes                              |
|------------------------|---------------------------|----------------------------------------|
| Bias("s32")            | bias=s32                  | v + bias[n]                            |
| Scale(per)             | scale=tensor, channel     | float32(v) * scale[n]                  |
| Scale("group32")       | scale=group32             | see below                              |
| Bias("f32")            | bias=f32                  | v + bias[n]                            |
| Residual(format, zero) | residual=, zero_residual= | v + float32(r - zero) * residual_scale |
| Residual("f32")        | residual=f32              | v + r                                  |
| Clamp(bounds)          | clamp=                    | low if v < low, high if v > high       |
| Quantize(format, zero) | out=, zero_out=           | v rounded half to even, plus zero,     |
|                        |                           | saturated                              |
| Threshold(format)      | out=, scale=thresholds    | see `ops.thresholds`, in place of all  |
|                        |                           | but the first                          |
| Pack(layout)           | out=u2:packed, :planes    | its code, packed: see `ops.packed`     |

Without Scale the result is int32 (out=s32), with Scale but without Quantize it is float32 (out=f32:
dequantized). With both, `scale` is the combined one: (scale of x) * (scale of w) / (scale of y).

Scales of groups are those of 4 or more neighbours in k (the last group may be shorter), and with
zero_weight=group there is a zero point for each as well. The sum S_j of group j is an exact int32;
what goes on is acc, which starts as 0.0 and becomes, for j = 0, 1, ... in this order,

    acc + float32(S_j) * scale[n, j]

These scales may be given as bfloat16 (scale=group32:bf16): as float32 whose low 16 bits are 0.

The bounds of a clamp are numbers of the result: of the int32 or the float32, or output values of
Quantize (zero point included). relu is 0 upwards, in real numbers: for a quantized result zero_out
upwards. relu6 is 0..6 in real numbers; what 6 is in steps of a quantized result is the parameter
`six`.

What is no number (NaN; it can come from a residual=f32 and from dynamic input scales) stays that
in a float result, through a clamp, too; a quantized result is the lowest value that the format and
the clamp allow. Infinities are bounded as other numbers are. So onnxruntime does it (Clip,
QuantizeLinear).

Bias, scale, residual_scale, six and zero points of weights per channel are *parameters*: arrays
that are given together with the weights. Source of the arithmetic: Jacob et al., "Quantization and
Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", 2017, with a float
scale in place of the fixed-point multiplier, as in FBGEMM and ONNX QLinearConv.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np

from lpgen.ops import packed
from lpgen.ops.steps import Bias, Clamp, Pack, Quantize, Residual, Scale
from lpgen.ops.thresholds import Threshold

Step = Bias | Scale | Residual | Clamp | Quantize | Threshold | Pack
Chain = tuple[Step, ...]


def find(chain: Chain, kind: type) -> Step | None:
    """The step of that kind, or None."""
    return next((step for step in chain if isinstance(step, kind)), None)


def group_of(chain: Chain) -> int:
    """Neighbours in k that share a scale, 0: all."""
    scale = find(chain, Scale)
    return scale.group if scale else 0


def out_of(chain: Chain) -> str:
    """What the chain leaves: "s32", "f32" or the text of a format, with ":LAYOUT" if packed."""
    last, pack = find(chain, Quantize | Threshold), find(chain, Pack)
    if last:
        return f"{last.format}:{pack.layout}" if pack else str(last.format)
    return "f32" if find(chain, Scale) else "s32"


def dtype_of(chain: Chain) -> str:
    """The NumPy dtype of the result, before it is packed."""
    last = find(chain, Quantize | Threshold)
    return last.format.dtype if last else {"s32": "int32", "f32": "float32"}[out_of(chain)]


def check_chain(chain: Chain) -> str | None:
    """Why the steps make no epilogue, or None."""
    for step in chain:
        if not isinstance(step, Step):
            return f"{step!r} is no step of an epilogue"
        if reason := step.check():
            return reason
    for before, after in itertools.pairwise(chain):
        if before.place >= after.place or type(before) is type(after):
            names = type(after).__name__, type(before).__name__
            return f"epilogue: {names[0]} cannot follow {names[1]}"
    if pack := find(chain, Pack):
        last = find(chain, Quantize | Threshold)
        if last is None:
            return f"epilogue: Pack({pack.layout!r}) needs out=FORMAT"
        if reason := packed.check_layout(f"out={out_of(chain)}", last.format, pack.layout):
            return reason
    if find(chain, Threshold):
        others = [step for step in chain if step.place not in (0, 5, 6)]
        if others:
            return f"epilogue: {type(others[0]).__name__} is part of the thresholds"
    elif not find(chain, Scale):
        floats = [s for s in chain if s.place in (2, 3, 5)]
        if floats:
            return f"epilogue: {type(floats[0]).__name__} needs scale=tensor or scale=channel"
    if group_of(chain) and find(chain, Bias) == Bias("s32"):
        return "bias=s32 is for sums over all of k, with scales of groups there are none"
    return _check_clamp(chain)


def _check_clamp(chain: Chain) -> str | None:
    clamp, quantize = find(chain, Clamp), find(chain, Quantize)
    if not clamp:
        return None
    if clamp.bounds == "relu6" and not find(chain, Scale):
        return "clamp=relu6 is for real numbers, out=s32 has none"
    if quantize and not isinstance(clamp.bounds, str):
        low, high = clamp.bounds
        form = quantize.format
        if not form.min <= low <= high <= form.max:
            return f"clamp={low}x{high} is outside {form.min}..{form.max} ({form})"
    return None


def integer_bounds(chain: Chain) -> tuple[int | None, int | None]:
    """(low, high) that the last value before the zero point is kept in; None: no bound.

    For a quantized result the format's range is in it, and both are numbers. Clamping to integers
    may come before rounding or after, the result is the same.
    """
    clamp, quantize = find(chain, Clamp), find(chain, Quantize)
    low, high = None, None
    if clamp and isinstance(clamp.bounds, tuple):
        low, high = clamp.bounds
    elif clamp and not quantize:
        low, high = 0, 6 if clamp.bounds == "relu6" else None
    if quantize:
        form, zero = quantize.format, quantize.zero
        low = (form.min if low is None else low) - zero
        high = (form.max if high is None else high) - zero
        low = max(low, 0) if clamp and isinstance(clamp.bounds, str) else low
    return low, high


def apply(
    chain: Chain,
    sums: np.ndarray,
    parameters: Mapping[str, np.ndarray],
    residual: np.ndarray | None,
    input_step: np.ndarray | None = None,
) -> np.ndarray:
    """The result of the chain, step by step: the oracle of every kernel's epilogue.

    sums: int32, the channels in the last dimension; with scales of groups float32, what the groups
    add up to; parameters: see `parameters_of`; residual: of the shape of sums, if there is such a
    step; input_step: what `inputs.quantized` found, multiplied behind the scale.
    """
    if pack := find(chain, Pack):
        values = apply(chain[:-1], sums, parameters, residual, input_step)
        return packed.pack(values, find(chain, Quantize | Threshold).format, pack.layout)
    v = sums if group_of(chain) else sums.astype(np.int32)
    for step in chain:
        match step:
            case Threshold():
                return step.apply(v, parameters["thresholds"], parameters["direction"])
            case Bias():
                v = v + parameters["bias"]
            case Scale(group=group):
                v = v if group else v.astype(np.float32) * parameters["scale"]
                v = v if input_step is None else v * input_step
            case Residual("f32"):
                v = v + residual
            case Residual():
                real = (residual.astype(np.int32) - step.zero).astype(np.float32)
                v = v + real * parameters["residual_scale"]
    if "six" in parameters:
        v = np.where(parameters["six"] < v, parameters["six"], v)
    low, high = (None if bound is None else v.dtype.type(bound) for bound in integer_bounds(chain))
    # Not np.maximum: which zero it takes of 0.0 and -0.0 is not said.
    v = v if low is None else np.where(v < low, low, v)
    v = v if high is None else np.where(v > high, high, v)
    quantize = find(chain, Quantize)
    if not quantize:
        return v
    v = np.where(np.isnan(v), low, v)
    return (np.rint(v).astype(np.int32) + quantize.zero).astype(quantize.format.dtype)
