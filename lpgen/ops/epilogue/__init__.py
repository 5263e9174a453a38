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
| Middle(format, zero)   | middle=, zero_middle=     | (v rounded, saturated) * middle_scale  |
| Residual(format, zero) | residual=, zero_residual= | v + float32(r - zero) * residual_scale |
| Residual("f32")        | residual=f32              | v + r                                  |
| Clamp(bounds)          | clamp=                    | low if v < low, high if v > high       |
| Quantize(format, zero) | out=, zero_out=           | v rounded half to even, plus zero,     |
|                        |                           | saturated                              |
| Threshold(format)      | out=, scale=thresholds    | see `threshold`, in place of all   |
|                        |                           | but the first                          |
| Pack(layout)           | out=u2:packed, :planes    | its code, packed: see `ops.packed`     |

Without Scale the result is int32 (out=s32), with Scale but without Quantize it is float32 (out=f32:
dequantized). With both, `scale` is the combined one: (scale of x) * (scale of w) / (scale of y).

Middle is for networks in which the product is quantized before the residual is added: v is rounded
to a value of its format less the zero point, and the sum with the residual is divided by
output_scale. Every result is that of the two operators by themselves (`ops.add`, rounded=quotient).

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

Bias, scale, residual_scale, middle_scale, output_scale, six and zero points of weights per channel
are *parameters*: arrays that are given together with the weights. Source of the arithmetic: Jacob
et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference", 2017, with a float scale in place of the fixed-point multiplier, as in FBGEMM and ONNX
QLinearConv.
"""

from lpgen.ops.epilogue.bias import Bias
from lpgen.ops.epilogue.chain import (
    apply,
    check_chain,
    dtype_of,
    integer_bounds,
    out_of,
    parameters_of,
    random_parameter,
)
from lpgen.ops.epilogue.clamp import Clamp
from lpgen.ops.epilogue.middle import Middle
from lpgen.ops.epilogue.pack import Pack
from lpgen.ops.epilogue.quantize import Quantize
from lpgen.ops.epilogue.residual import Residual
from lpgen.ops.epilogue.scale import Scale, group_size_of
from lpgen.ops.epilogue.step import Chain, Given, Step, Sums, check_zero, find
from lpgen.ops.epilogue.threshold import Threshold

__all__ = [
    "Bias",
    "Chain",
    "Clamp",
    "Given",
    "Middle",
    "Pack",
    "Quantize",
    "Residual",
    "Scale",
    "Step",
    "Sums",
    "Threshold",
    "apply",
    "check_chain",
    "check_zero",
    "dtype_of",
    "find",
    "group_size_of",
    "integer_bounds",
    "out_of",
    "parameters_of",
    "random_parameter",
]
