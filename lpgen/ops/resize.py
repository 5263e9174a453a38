"""Images in another size, and patches of an image put together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lpgen.formats import REAL
from lpgen.ops.elementwise import quantized
from lpgen.ops.signature import Argument, Limits, Role, Signature
from lpgen.ops.unweighted import VALUES, Unweighted, Values
from lpgen.ops.words import EDGES, KERNEL, NUMBER, PAIR, Word, as_edges, as_pair, one_of

MODES = ("nearest", "linear")
COORDINATES = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")
ROUNDINGS = {
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


@dataclass(frozen=True, kw_only=True)
class Resize(Unweighted):
    """y[n, oh, ow, c] of x[n, h, w, c]: for each line of y a place in x, and for each column.

    mode=nearest: y[n, i, j] = x[n, rows[i], columns[j]]. mode=linear: between the line rows[i] and
    the next one, if there is one, at row_weights[i] of the way, and likewise for columns:

        a + (b - a) * column_weights[j]  on both lines, then the same between them

    in float32, and for quantized values rounded half to even and saturated; scale and zero point
    stay. `places_of` makes these inputs (int32 and float32) for the modes of ONNX. Raises
    WorkloadError when a size is outside its limits; a place outside of x is taken as the nearest.
    """

    n: int = 1
    h: int
    w: int
    c: int
    oh: int
    ow: int
    mode: str
    act: Values

    kind: ClassVar[str] = "resize"
    WORDS: ClassVar[dict[str, Word]] = {
        **dict.fromkeys(("n", "h", "w", "c", "oh", "ow"), NUMBER),
        "mode": Word(one_of(*MODES), str),
        "act": VALUES,
    }

    def __post_init__(self) -> None:
        for key in ("n", "h", "w", "c", "oh", "ow"):
            self._take_sizes(key, 1)
        self._take_values("act")
        if self.mode not in MODES:
            self._fail(f"mode={self.mode} is unknown; known: {', '.join(MODES)}")
        self._check_elements(x=(self.n, self.h, self.w, self.c), y=self.y_shape)

    @property
    def y_shape(self) -> tuple[int, ...]:
        """(n, oh, ow, c)"""
        return (self.n, self.oh, self.ow, self.c)

    @property
    def signature(self) -> Signature:
        """(x, rows, columns, y), or (x, rows, row_weights, columns, column_weights, y)"""
        arguments = [Argument.of_values("x", (self.n, self.h, self.w, self.c), self.act)]
        for name, size, out in (("row", self.h, self.oh), ("column", self.w, self.ow)):
            limits = Limits(0, size - 1)
            arguments.append(Argument(f"{name}s", Role.INPUT, (out,), "int32", limits=limits))
            if self.mode == "linear":
                arguments.append(Argument.of_values(f"{name}_weights", (out,), REAL))
        y = Argument.of_values("y", self.y_shape, self.act, Role.OUTPUT)
        return Signature((*arguments, y))

    def _example_of(self, argument: Argument, rng: np.random.Generator, name: str) -> np.ndarray:
        if argument.name.endswith("_weights"):
            return rng.random(argument.shape, np.float32)
        return super()._example_of(argument, rng, name)

    def _result(
        self,
        x: np.ndarray,
        rows: np.ndarray,
        columns: np.ndarray,
        row_weights: np.ndarray | None = None,
        column_weights: np.ndarray | None = None,
    ) -> np.ndarray:
        if self.mode == "nearest":
            return x[:, rows[:, None], columns]
        below, right = np.minimum(rows + 1, self.h - 1), np.minimum(columns + 1, self.w - 1)
        weights = row_weights[:, None, None], column_weights[:, None]

        def line(at: np.ndarray) -> np.ndarray:
            a, b = (x[:, at[:, None], column].astype(np.float32) for column in (columns, right))
            return a + (b - a) * weights[1]

        top = line(rows)
        y = top + (line(below) - top) * weights[0]
        return y if self.act == REAL else quantized(y, np.int32(0), self.act)


def places_of(
    size: int,
    out: int,
    mode: str,
    coordinates: str = "half_pixel",
    rounding: str = "round_prefer_floor",
    scale: float | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """(places int32[out], weights float32[out]) on an axis of `size` that becomes `out`, for the
    words of ONNX's Resize; scale: that of the node [out / size]. Weights are 0 for mode=nearest.

    Source: https://onnx.ai/onnx/operators/onnx__Resize.html
    """
    at, scale = np.arange(out, dtype=np.float64), out / size if scale is None else scale
    if coordinates == "align_corners":
        x = at * (size - 1) / max(out - 1, 1)
    elif coordinates == "asymmetric":
        x = at / scale
    elif coordinates == "pytorch_half_pixel" and out == 1:
        x = at
    else:
        x = (at + 0.5) / scale - 0.5
    if mode == "nearest":
        places = np.clip(ROUNDINGS[rounding](x), 0, size - 1).astype(np.int32)
        return places, np.zeros(out, np.float32)
    x = np.clip(x, 0, size - 1)
    places = np.floor(x)
    return places.astype(np.int32), (x - places).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Fold(Unweighted):
    """y[n, oh, ow, c]: the sum of the patches x[n, h, w, kh, kw, c], each laid where the kernel of
    a convolution with this stride, pad and dilation would stand. What lies in the padding is left
    out; oh and ow are `more` larger at the bottom and the right.

    float32 or int32 sums from 0 in the order of the taps, row by row. With a dense layer of
    n = kh * kw * oc in front it is a transposed convolution (ConvTranspose of ONNX).
    Raises WorkloadError when a size is outside its limits, or nothing is left.
    """

    n: int = 1
    h: int
    w: int
    c: int
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    pad: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    more: tuple[int, int] = (0, 0)
    dtype: str

    kind: ClassVar[str] = "fold"
    WORDS: ClassVar[dict[str, Word]] = {
        **dict.fromkeys(("n", "h", "w", "c"), NUMBER),
        "kernel": KERNEL,
        "stride": PAIR,
        "pad": EDGES,
        "dilation": PAIR._replace(quiet=True),
        "more": PAIR._replace(quiet=True),
        "dtype": Word(one_of("float32", "int32"), str),
    }

    def __post_init__(self) -> None:
        for key in ("n", "h", "w", "c"):
            self._take_sizes(key, 1)
        for key in ("kernel", "stride", "dilation"):
            self._take_sizes(key, 1, as_pair)
        self._take_sizes("pad", 0, as_edges)
        self._take_sizes("more", 0, as_pair)
        if self.dtype not in ("float32", "int32"):
            self._fail(f"dtype={self.dtype} is unknown; known: float32, int32")
        if min(self.y_shape) < 1:
            self._fail(f"the result has shape {self.y_shape}")
        self._check_elements(x=self.x_shape, y=self.y_shape)

    @property
    def x_shape(self) -> tuple[int, ...]:
        """(n, h, w, kh, kw, c)"""
        return (self.n, self.h, self.w, *self.kernel, self.c)

    @property
    def y_shape(self) -> tuple[int, ...]:
        """(n, oh, ow, c)"""
        outs = [
            (size - 1) * self.stride[i]
            + (self.kernel[i] - 1) * self.dilation[i]
            + 1
            + self.more[i]
            - self.pad[i]
            - self.pad[i + 2]
            for i, size in enumerate((self.h, self.w))
        ]
        return (self.n, *outs, self.c)

    @property
    def signature(self) -> Signature:
        """(x, y)"""
        x = Argument("x", Role.INPUT, self.x_shape, self.dtype)
        return Signature((x, Argument("y", Role.OUTPUT, self.y_shape, self.dtype)))

    def _example_of(self, argument: Argument, rng: np.random.Generator, name: str) -> np.ndarray:
        if self.dtype == "int32":  # sums of which fit
            return rng.integers(-(2**20), 2**20, argument.shape, np.int32)
        return super()._example_of(argument, rng, name)

    def _result(self, x: np.ndarray) -> np.ndarray:
        n, oh, ow, c = self.y_shape
        (top, left, _, _), (down, across) = self.pad, self.stride
        rows = (self.h - 1) * down + (self.kernel[0] - 1) * self.dilation[0] + 1 + self.more[0]
        columns = (self.w - 1) * across + (self.kernel[1] - 1) * self.dilation[1] + 1 + self.more[1]
        whole = np.zeros((n, rows, columns, c), self.dtype)
        for r, s in np.ndindex(self.kernel):
            i, j = r * self.dilation[0], s * self.dilation[1]
            part = whole[:, i : i + self.h * down : down, j : j + self.w * across : across]
            part[:, : self.h, : self.w] += x[:, :, :, r, s]
        return whole[:, top : top + oh, left : left + ow].copy()
