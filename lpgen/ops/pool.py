"""Pooling: the largest value or the mean of windows of an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lpgen.formats import REAL, Format
from lpgen.ops.elementwise import quantized
from lpgen.ops.signature import Argument, Role, Signature
from lpgen.ops.unweighted import VALUES, Unweighted, Values
from lpgen.ops.words import EDGES, KERNEL, NUMBER, PAIR, Word, as_edges, as_pair, one_of

HOW = ("max", "average")
COUNTS = ("valid", "all")


@dataclass(frozen=True, kw_only=True)
class Pool(Unweighted):
    """y[n, oh, ow, c] of the windows of x[n, h, w, c]: their largest value, or their mean.

    Padding is no value: `how=max` leaves it out (the lowest value where there is nothing else).
    A mean is the sum over what is inside of the image, divided by how much that is (count=valid,
    at least 1) or by the size of the kernel (count=all). In float32 it is summed in the order of
    the taps, row by row, from 0. Of quantized values the sum of x - zero_x is an exact int32, and

        y = round(float32(sum) * (scale_x / (scale_y * float32(count)))) + zero_y

    rounded half to even, saturated: what onnxruntime's QLinearGlobalAveragePool computes. A call
    takes x, and for the mean of quantized values `scales` (float32) and `zeros` (int32) of x and y.
    A maximum keeps format, scale and zero point.
    Raises WorkloadError when a size is outside its limits, padding is not smaller than the window,
    or formats do not go together.
    """

    n: int = 1
    h: int
    w: int
    c: int
    how: str
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    pad: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    count: str = "valid"
    act: Values
    out: Values | None = None

    kind: ClassVar[str] = "pool"
    WORDS: ClassVar[dict[str, Word]] = {
        "n": NUMBER,
        "h": NUMBER,
        "w": NUMBER,
        "c": NUMBER,
        "how": Word(one_of(*HOW), str),
        "kernel": KERNEL,
        "stride": PAIR,
        "pad": EDGES,
        "dilation": PAIR._replace(quiet=True),
        "count": Word(one_of(*COUNTS), str, quiet=True),
        "act": VALUES,
        "out": VALUES,
    }

    def __post_init__(self) -> None:
        for key in ("n", "h", "w", "c"):
            self._take_sizes(key, 1)
        for key in ("kernel", "stride", "dilation"):
            self._take_sizes(key, 1, as_pair)
        self._take_sizes("pad", 0, as_edges)
        self._take_values("act")
        self._set("out", self.act if self.out is None else self.out)
        self._take_values("out")
        for key, known in (("how", HOW), ("count", COUNTS)):
            if getattr(self, key) not in known:
                self._fail(f"{key}={getattr(self, key)} is unknown; known: {', '.join(known)}")
        if self.out != self.act and (self.how == "max" or REAL in (self.act, self.out)):
            self._fail(f"out={self.out} with act={self.act}: only means of integers change format")
        for axis, size in enumerate(("h", "w")):
            window = (self.kernel[axis] - 1) * self.dilation[axis] + 1
            if max(self.pad[axis], self.pad[axis + 2]) >= window:
                self._fail(f"pad={self.WORDS['pad'].write(self.pad)} is not below the window")
            room = getattr(self, size) + self.pad[axis] + self.pad[axis + 2]
            if window > room:
                self._fail(f"a window of {window} does not fit {size} with padding, {room}")
        if self.quantized_mean and (self.kernel[0] * self.kernel[1]) * 255 >= 2**31:
            self._fail(f"a sum of {self.kernel[0]}x{self.kernel[1]} values may leave int32")
        self._check_elements(x=self.x_shape, y=self.y_shape)

    @property
    def quantized_mean(self) -> bool:
        """Whether it is the mean of integers."""
        return self.how == "average" and self.act != REAL

    @property
    def x_shape(self) -> tuple[int, ...]:
        """(n, h, w, c)"""
        return (self.n, self.h, self.w, self.c)

    @property
    def y_shape(self) -> tuple[int, ...]:
        """(n, oh, ow, c)"""
        outs = []
        for axis, size in enumerate((self.h, self.w)):
            window = (self.kernel[axis] - 1) * self.dilation[axis] + 1
            room = size + self.pad[axis] + self.pad[axis + 2]
            outs.append((room - window) // self.stride[axis] + 1)
        return (self.n, *outs, self.c)

    @property
    def zeros_of(self) -> dict[str, Format]:
        return {"x": self.act, "y": self.out} if self.quantized_mean else {}

    @property
    def signature(self) -> Signature:
        """(x, y), or (x, scales, zeros, y)"""
        more = self._scales_and_zeros() if self.quantized_mean else ()
        x = Argument.of_values("x", self.x_shape, self.act)
        return Signature((x, *more, Argument.of_values("y", self.y_shape, self.out, Role.OUTPUT)))

    @property
    def label(self) -> str:
        """pool max 1x112x112x64 3x3/2 u8"""
        sizes, kernel = ("x".join(map(str, v)) for v in (self.x_shape, self.kernel))
        forms = str(self.act) if self.act == self.out else f"{self.act} -> {self.out}"
        return f"pool {self.how} {sizes} {kernel}/{PAIR.write(self.stride)} {forms}"

    @property
    def ops(self) -> int:
        """One for each tap of each element of y."""
        return super().ops * self.kernel[0] * self.kernel[1]

    def _result(
        self, x: np.ndarray, scales: np.ndarray | None = None, zeros: np.ndarray | None = None
    ) -> np.ndarray:
        if self.how == "max":
            lowest = -np.inf if self.act == REAL else self.act.min
            y = np.full(self.y_shape, lowest, x.dtype)
            for inside, values in self._taps(x):
                y = np.where(inside & ~(y > values), values, y)
            return y
        integers = self.act != REAL
        total = np.zeros(self.y_shape, np.int32 if integers else np.float32)
        count = np.zeros(self.y_shape, np.int32)
        x = x.astype(np.int32) - zeros[0] if integers else x
        for inside, values in self._taps(x):
            total = np.where(inside, total + values, total)
            count += inside
        count = np.maximum(count, 1) if self.count == "valid" else self.kernel[0] * self.kernel[1]
        count = np.float32(count)
        if not integers:
            return total / count
        factor = scales[0] / (scales[1] * count)
        return quantized(total.astype(np.float32) * factor, zeros[1], self.out)

    def _taps(self, x: np.ndarray):
        """For each tap (whether it is inside of the image, its values), both [n, oh, ow, c]."""
        for r in range(self.kernel[0]):
            for s in range(self.kernel[1]):
                places, inside = [], []
                for axis, tap in enumerate((r, s)):
                    at = np.arange(self.y_shape[1 + axis]) * self.stride[axis]
                    at += tap * self.dilation[axis] - self.pad[axis]
                    inside.append((at >= 0) & (at < x.shape[1 + axis]))
                    places.append(np.clip(at, 0, x.shape[1 + axis] - 1))
                mask = inside[0][:, None] & inside[1]
                yield mask[None, :, :, None], x[:, places[0][:, None], places[1]]
