"""How activations come in: as values, packed (`ops.packed`), or as float32, which the kernel
quantizes to the format `act` before the product.

| input      | x                                                                     |
|------------|-----------------------------------------------------------------------|
| act        | values, one a byte                                                    |
| packed     | codes in fields of 1, 2 or 4 bits                                     |
| planes     | bit planes of codes                                                   |
| f32        | float32, scale: the parameter input_scale (the epilogue's includes it) |
| f32:tensor | float32, scale: the largest |x| of the call becomes the largest level |
| f32:row    | the same for each row of a dense operator                             |

With a static scale, q = saturate(round(x * (1 / input_scale)) + zero_act). With a dynamic one the
levels lie evenly around zero_act, `levels` on either side:

    a = max |x|,  q = round(x * (levels / a)) + zero_act,  step = a / levels

and the sums are multiplied with `step` right behind the epilogue's scale (that of the weights).
Every operation is one of float32, rounding is half to even. A largest |x| of less than 2^-100
counts as 0: all q are zero_act then.

Infinities saturate, and what is no number (NaN) is quantized to the lowest value, as onnxruntime's
QuantizeLinear does it. With a dynamic scale they are the largest |x|: NaN makes step NaN, an
infinity makes it infinite (finite x are 0 beside it, 0 times infinity is NaN: the lowest value), so
that behind the scale nothing in this row or tensor is finite.

In the manner of FBGEMM (Khudia et al., arXiv 2101.05615) and of dynamic quantization in ONNX.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lpgen.ops import packed
from lpgen.ops.epilogue import Scale, find

if TYPE_CHECKING:
    from lpgen.ops.base import Operator

FLOATS = ("f32", "f32:tensor", "f32:row")
INPUTS = ("act", *packed.LAYOUTS, *FLOATS)
SMALLEST = 2.0**-100
"""Below it the largest |x| counts as 0."""


def read(text: str) -> str:
    """The value of the word input=; ValueError if it is none."""
    if text not in INPUTS:
        raise ValueError(f"{text!r} is none of {', '.join(INPUTS)}")
    return text


def is_dynamic(op: Operator) -> bool:
    """Whether the scale of x is found in every call."""
    return op.input in ("f32:tensor", "f32:row")


def is_float(op: Operator) -> bool:
    """Whether x is float32."""
    return op.input in FLOATS


def layout_of(op: Operator) -> str | None:
    """The layout of a packed x, or None."""
    return op.input if op.input in packed.LAYOUTS else None


def levels(op: Operator) -> int:
    """Levels on either side of the zero point that dynamic quantization uses."""
    return min(op.act.max - op.zero_act, op.zero_act - op.act.min)


def bounds(op: Operator) -> tuple[int, int]:
    """(low, high) of q - zero_act."""
    if is_dynamic(op):
        return -levels(op), levels(op)
    return op.act.min - op.zero_act, op.act.max - op.zero_act


def check(op: Operator) -> str | None:
    """Why the operator cannot take such an input, or None."""
    if op.input == "act":
        return None
    if op.input not in INPUTS:
        return f"input={op.input} is unknown; known: {', '.join(INPUTS)}"
    if layout := layout_of(op):
        return packed.check_layout(f"input={op.input} act={op.act}", op.act, layout)
    if op.act.encoding not in "us":
        return f"input={op.input}: activations are quantized to u1..u8 or s2..s8, not {op.act}"
    if op.input == "f32:row" and op.kind != "dense":
        return "input=f32:row is for dense: the rows of a convolution share their values"
    if is_dynamic(op) and levels(op) < 1:
        return f"input={op.input}: zero_act={op.zero_act} leaves no level below or above ({op.act})"
    if is_dynamic(op) and not find(op.epilogue, Scale):
        return f"input={op.input} gives real numbers: it needs a scale="
    return None


def quantized(
    op: Operator, x: np.ndarray, input_scale: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """(q as int16[x_shape], step): float32[m, 1] or [1], None with a static scale."""
    one = np.float32(1)
    if not is_dynamic(op):
        inverse, step = one / input_scale[0], None
    else:
        whole = tuple(range(x.ndim))
        largest = np.abs(x).max(axis=1 if op.input == "f32:row" else whole, keepdims=True)
        top = np.float32(levels(op))
        some = largest > SMALLEST
        inverse = np.where(some, top / np.where(some, largest, one), np.float32(0))
        step = largest / top
        step = step if op.input == "f32:row" else step.reshape(1)
    low, high = map(np.float32, bounds(op))
    scaled = x * inverse
    scaled = np.where(scaled > low, np.minimum(scaled, high), low)  # low where it is no number
    q = np.rint(scaled).astype(np.int16) + np.int16(op.zero_act)
    return q, step


def given(op: Operator, values: np.ndarray) -> np.ndarray:
    """Values of `act` as the operator takes them: as they are, or packed."""
    layout = layout_of(op)
    return packed.pack(values, op.act, layout) if layout else values


def random(op: Operator, rng: np.random.Generator) -> np.ndarray:
    """Normally distributed values, half of them on a grid, so that ties are common; in the first
    row zeros."""
    x = rng.normal(size=op.x_shape).astype(np.float32)
    x = np.where(rng.random(op.x_shape) < 0.5, x, np.rint(x * 16) / np.float32(16))
    x[0] = 0 if x.shape[0] > 1 else x[0]
    return x.astype(np.float32)


def random_scale(op: Operator, rng: np.random.Generator) -> np.ndarray:
    """A power of two with which random values saturate now and then."""
    return np.float32([2.0 ** np.rint(np.log2(4 / (op.act.max - op.act.min)))])
