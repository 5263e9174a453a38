"""The left side of a product as it comes in: values, packed values (`ops.packed`), or float32,
which the kernel quantizes to the format `act` before the product.

| input      | x                                                                     |
|------------|-----------------------------------------------------------------------|
| act        | values, one a byte                                                    |
| packed     | codes in fields of 1, 2 or 4 bits                                     |
| planes     | bit planes of codes                                                   |
| f32        | float32, scale: the parameter input_scale (the epilogue's includes it) |
| f32:tensor | float32, scale: the largest |x| of the call becomes the largest level |
| f32:row    | the same for each row of a dense operator                             |
| f32:group64| the same for each group of 64 neighbours in k of each row             |
| act:row    | what f32:row makes of float32, in one tensor (`quantize_rows`)         |

With a static scale, q = saturate(round(x * (1 / input_scale)) + zero_act). With a dynamic one the
levels lie evenly around zero_act, `levels` on either side:

    a = max |x|,  q = round(x * (levels / a)) + zero_act,  step = a / levels

and the sums are multiplied with `step` right behind the epilogue's scale (that of the weights).
Groups j have sums S_j of their own, and what goes on is acc, which starts as 0.0 and becomes

    acc + float32(S_j) * step[m, j]        or        acc + float32(S_j) * scale[n, j] * step[m, j]

if weights have scales of the same groups (`ops.scales`).
As act:row such a q of all rows, one a byte, and behind them, from a multiple of 64 bytes on, the
steps of all rows in float32 are one tensor of uint8, which several products may read.
Every operation is one of float32, rounding is half to even. A largest |x| of less than 2^-100
counts as 0: all q are zero_act then.

With hadamard=128 blocks of x are rotated first (`ops.hadamard`). Then x stands for sums and
differences within its block, whose factor r = 1 / sqrt(128) is part of the scale:
round(x * (r / input_scale)), or step = a / levels * r.

Infinities saturate, and what is no number (NaN) is quantized to the lowest value, as onnxruntime's
QuantizeLinear does it. With a dynamic scale they are the largest |x|: NaN makes step NaN, an
infinity makes it infinite (finite x are 0 beside it, 0 times infinity is NaN: the lowest value), so
that behind the scale nothing in this row or tensor is finite.

In the manner of FBGEMM (Khudia et al., arXiv 2101.05615) and of dynamic quantization in ONNX.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from lpgen.formats import Format
from lpgen.ops import hadamard, packed
from lpgen.ops.scales import SMALLEST_GROUP
from lpgen.ops.words import Word, one_of

FLOATS = ("f32", "f32:tensor", "f32:row")
CODED = "act:row"
INPUTS = ("act", *packed.LAYOUTS, *FLOATS, CODED)
_GROUP = re.compile(r"f32:group([1-9][0-9]{0,8})")
_read_plain = one_of(*INPUTS, "f32:groupN")


def _read(text: str) -> str:
    return text if text.startswith("f32:group") else _read_plain(text)  # `check` looks at the group


INPUT = Word(_read, str, quiet=True)
SMALLEST = 2.0**-100
"""Below it the largest |x| counts as 0."""


def steps_at(rows: int, k: int) -> int:
    """Where the steps of rows are behind their codes, float32 each: on a boundary of 64 bytes."""
    return -(-rows * k // 64) * 64


def coded_bytes(rows: int, k: int) -> int:
    """Bytes of the codes of so many rows, and of their steps."""
    return steps_at(rows, k) + 4 * rows


@dataclass(frozen=True)
class Lhs:
    """The activations of a product: one of INPUTS, the format and the zero point of the values;
    block: neighbours that are rotated together, 0: none."""

    input: str
    act: Format
    zero: int
    block: int = 0

    @property
    def group(self) -> int:
        """Neighbours in k that share a scale of x, 0: all of them."""
        match = _GROUP.fullmatch(self.input)
        return int(match[1]) if match else 0

    @property
    def dynamic(self) -> bool:
        """Whether the scale of x is found in every call."""
        return self.input in ("f32:tensor", "f32:row", CODED) or self.group > 0

    @property
    def by_row(self) -> bool:
        """Whether each row has a scale of its own."""
        return self.input in ("f32:row", CODED)

    @property
    def real(self) -> bool:
        """Whether x is float32."""
        return self.input in FLOATS or self.group > 0

    @property
    def layout(self) -> str | None:
        """The layout of a packed x, or None."""
        return self.input if self.input in packed.LAYOUTS else None

    @property
    def levels(self) -> int:
        """Levels on either side of the zero point that dynamic quantization uses."""
        return min(self.act.max - self.zero, self.zero - self.act.min)

    @property
    def bounds(self) -> tuple[int, int]:
        """(low, high) of q - zero_act."""
        if self.dynamic:
            return -self.levels, self.levels
        return self.act.min - self.zero, self.act.max - self.zero

    def shape(self, extents: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of x as it is given, of values in that shape."""
        if self.input == CODED:
            return (coded_bytes(*extents),)
        return packed.packed_shape(extents, self.act, self.layout) if self.layout else extents

    @property
    def dtype(self) -> str:
        """The NumPy dtype of x: that of the format, uint8 if packed, or float32."""
        if self.real:
            return "float32"
        return "uint8" if self.layout or self.input == CODED else self.act.dtype

    def __str__(self) -> str:
        """The format, with the layout if x is packed."""
        if self.input == CODED:
            return f"{self.act}:row"
        return f"{self.act}:{self.layout}" if self.layout else str(self.act)

    def check(self, of_rows: bool, scaled: bool) -> str | None:
        """Why a product cannot take such an input, or None.

        of_rows: x is a matrix; scaled: the result is multiplied with a scale.
        """
        word, act = f"input={self.input}", self.act
        if self.input == "act":
            return None
        if self.input not in INPUTS and not self.group:
            return f"{word} is unknown; known: {', '.join(INPUTS)}, f32:groupN"
        if 0 < self.group < SMALLEST_GROUP:
            return f"{word}: a group has {SMALLEST_GROUP} neighbours in k or more"
        if self.layout:
            return packed.check_layout(f"{word} act={act}", act, self.layout)
        if act.encoding not in "us":
            return f"{word}: activations are quantized to u1..u8 or s2..s8, not {act}"
        if (self.by_row or self.group) and not of_rows:
            return f"{word} is for dense: the rows of a convolution share their values"
        if self.dynamic and self.levels < 1:
            return f"{word}: zero_act={self.zero} leaves no level below or above ({act})"
        if self.dynamic and not scaled:
            return f"{word} gives real numbers: it needs a scale="
        return None

    def quantized(
        self, x: np.ndarray, input_scale: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """(q as int16[x_shape], step): float32[1], [m, 1] or [m, groups], None with a static
        scale."""
        one = np.float32(1)
        factor = hadamard.factor(self.block) if self.block else one
        x = hadamard.sums(x, self.block) if self.block else x
        if not self.dynamic:
            inverse, step = factor / input_scale[0], None
        else:
            largest = self._largest(np.abs(x))
            top = np.float32(self.levels)
            some = largest > SMALLEST
            inverse = np.where(some, top / np.where(some, largest, one), np.float32(0))
            step = largest / top * factor
            step = step.reshape(1) if self.input == "f32:tensor" else step
        if self.group:
            inverse = np.repeat(inverse, self.group, axis=1)[:, : x.shape[1]]
        low, high = map(np.float32, self.bounds)
        scaled = x * inverse
        scaled = np.where(scaled > low, np.minimum(scaled, high), low)  # low where it is no number
        q = np.rint(scaled).astype(np.int16) + np.int16(self.zero)
        return q, step

    def _largest(self, sizes: np.ndarray) -> np.ndarray:
        """The largest of those that share a scale, in a shape of as many axes."""
        if self.group:
            return np.maximum.reduceat(sizes, range(0, sizes.shape[1], self.group), axis=1)
        return sizes.max(axis=1 if self.by_row else None, keepdims=True)

    def coded(self, x: np.ndarray) -> np.ndarray:
        """uint8[coded_bytes]: float32 x [rows, k] as the input act:row has it."""
        q, step = self.quantized(x, None)
        codes = q.astype(self.act.dtype).view(np.uint8).ravel()
        behind = np.zeros(steps_at(*x.shape) - x.size, np.uint8)
        return np.concatenate([codes, behind, np.float32(step).view(np.uint8).ravel()])

    def decoded(self, x: np.ndarray, rows: int, k: int) -> tuple[np.ndarray, np.ndarray]:
        """(q as int16[rows, k], step as float32[rows, 1]) of such a tensor."""
        q = x[: rows * k].view(self.act.dtype).reshape(rows, k)
        return q.astype(np.int16), x[steps_at(rows, k) :].view(np.float32).reshape(rows, 1)

    def random(self, rng: np.random.Generator, extents: tuple[int, ...]) -> np.ndarray:
        """Values drawn uniformly, as they are or packed. Floats: normally distributed, half of them
        on a grid, so that ties are common; in the first row zeros."""
        if not self.real and self.input != CODED:
            return self.given(self.act.random(rng, extents))
        x = rng.normal(size=extents).astype(np.float32)
        x = np.where(rng.random(extents) < 0.5, x, np.rint(x * 16) / np.float32(16))
        x[0] = 0 if x.shape[0] > 1 else x[0]
        return x.astype(np.float32) if self.real else self.coded(x.astype(np.float32))

    def extreme(self, end: str, extents: tuple[int, ...]) -> np.ndarray:
        """The "max" or the "min" value everywhere."""
        if self.real or self.input == CODED:
            x = np.full(extents, {"max": 1e9, "min": -1e9}[end], np.float32)
            return x if self.real else self.coded(x)
        return self.given(np.full(extents, getattr(self.act, end), self.act.dtype))

    def given(self, values: np.ndarray) -> np.ndarray:
        """Values of `act` as the product takes them: as they are, or packed."""
        return packed.pack(values, self.act, self.layout) if self.layout else values

    def random_scale(self) -> np.ndarray:
        """A power of two with which random values saturate now and then."""
        return np.float32([2.0 ** np.rint(np.log2(4 / (self.act.max - self.act.min)))])
