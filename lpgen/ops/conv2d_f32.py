"""The convolution of float32 with weights that are known; of one pixel in height, a dense layer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lpgen.formats import REAL
from lpgen.ops.functions import Numbers, clip
from lpgen.ops.fused import Sums
from lpgen.ops.rounded import ROUNDED_WORD, Rounded
from lpgen.ops.signature import Argument, Role, Signature
from lpgen.ops.unary import REAL_NUMBER
from lpgen.ops.words import EDGES, KERNEL, NUMBER, PAIR, Word, as_edges, as_pair

PANEL = 16
"""Channels of the result that lie side by side in the weights."""


@dataclass(frozen=True, kw_only=True)
class RealConv2d(Rounded):
    """y[n, oh, ow, oc] = the sums of x[n, h, w, ic] times weights, plus bias[oc], within low..high.

    Each sum begins with 0 and takes the products one after the other: row by row of the kernel, in
    each the taps, in each the channels; padding adds nothing. Then comes the bias. rounded: what of
    products and sums (`Rounded`). Other words
    are those of conv2d. Weights are what `arranged` makes of [oc, kh, kw, ic / groups]: constants
    of every call. Raises WorkloadError when a size is outside its limits, the kernel is larger than
    the padded input, or `groups` does not divide the channels.
    """

    n: int = 1
    h: int
    w: int
    ic: int
    oc: int
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    pad: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    low: float = -math.inf
    high: float = math.inf

    kind: ClassVar[str] = "conv2d_f32"
    WORDS: ClassVar[dict[str, Word]] = {
        **dict.fromkeys(("n", "h", "w", "ic", "oc"), NUMBER),
        "kernel": KERNEL,
        "stride": PAIR,
        "pad": EDGES,
        "dilation": PAIR._replace(quiet=True),
        "groups": NUMBER._replace(quiet=True),
        "low": REAL_NUMBER,
        "high": REAL_NUMBER,
        "rounded": ROUNDED_WORD,
    }

    def __post_init__(self) -> None:
        for key in ("n", "h", "w", "ic", "oc", "groups"):
            self._take_sizes(key, 1)
        for key in ("kernel", "stride", "dilation"):
            self._take_sizes(key, 1, as_pair)
        self._take_sizes("pad", 0, as_edges)
        for key in ("low", "high"):
            self._set(key, float(np.float32(getattr(self, key))))
        if not self.low <= self.high:
            self._fail(f"low={self.low:g} is above high={self.high:g}")
        self._take_rounded()
        for key in ("ic", "oc"):
            if getattr(self, key) % self.groups:
                self._fail(f"groups={self.groups} does not divide {key}={getattr(self, key)}")
        for key, size, reach in zip(("h", "w"), self._padded, self._reach, strict=True):
            if reach > size:
                self._fail(f"a kernel of {reach} does not fit {key} with padding, {size}")
        self._check_elements(x=self.x_shape, w=self.w_shape, y=self.y_shape)

    @property
    def _reach(self) -> tuple[int, ...]:
        """(height, width) of the input that one output position reads."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilation, strict=True))

    @property
    def _padded(self) -> tuple[int, int]:
        """(height, width) of the input with its padding."""
        return self.h + self.pad[0] + self.pad[2], self.w + self.pad[1] + self.pad[3]

    @property
    def depthwise(self) -> bool:
        """Whether every group has one channel, of input and result."""
        return 1 < self.groups == self.ic == self.oc

    @property
    def depth(self) -> int:
        """Products of a sum."""
        return math.prod(self.kernel) * self.ic // self.groups

    @property
    def pixels(self) -> int:
        """Positions of the result."""
        return math.prod(self.y_shape[:3])

    @property
    def panels(self) -> int:
        """PANELs of the channels of a group, the last one filled up."""
        return -(-self.oc // self.groups // PANEL)

    @property
    def x_shape(self) -> tuple[int, ...]:
        """(n, h, w, ic)"""
        return (self.n, self.h, self.w, self.ic)

    @property
    def w_shape(self) -> tuple[int, ...]:
        """(groups, panels, kh * kw * ic / groups, PANEL), of depthwise ones (kh * kw, channels)"""
        if self.depthwise:
            return (self.depth, self.ic)
        return (self.groups, self.panels, self.depth, PANEL)

    @property
    def y_shape(self) -> tuple[int, ...]:
        """(n, oh, ow, oc)"""
        places = zip(self._padded, self._reach, self.stride, strict=True)
        return (self.n, *((size - reach) // step + 1 for size, reach, step in places), self.oc)

    @property
    def signature(self) -> Signature:
        """(x, weights, bias, y)"""
        shapes = {"x": self.x_shape, "weights": self.w_shape, "bias": (self.oc,)}
        inputs = [Argument.of_values(name, shape, REAL) for name, shape in shapes.items()]
        return Signature((*inputs, Argument.of_values("y", self.y_shape, REAL, Role.OUTPUT)))

    @property
    def label(self) -> str:
        """conv2d_f32 3x3 64->128@28x28 s2 (kernel, ic->oc@h x w, stride)"""
        sizes = f"{self.ic}->{self.oc}@{self.h}x{self.w}"
        step = f" s{max(self.stride)}" if max(self.stride) > 1 else ""
        groups = f" g{self.groups}" if self.groups > 1 else ""
        return f"{self.kind} {'x'.join(map(str, self.kernel))} {sizes}{step}{groups}"

    @property
    def ops(self) -> int:
        """Two for each multiply-accumulate, those on padding included."""
        return 2 * super().ops * self.depth

    def arranged(self, weights: np.ndarray) -> np.ndarray:
        """The weights that a call takes, of float32[oc, kh, kw, ic / groups]."""
        rows = np.asarray(weights, np.float32).reshape(self.groups, self.oc // self.groups, -1)
        if self.depthwise:
            return np.ascontiguousarray(rows[:, 0].T)
        whole = np.zeros((self.groups, self.panels * PANEL, self.depth), np.float32)
        whole[:, : rows.shape[1]] = rows
        panels = whole.reshape(self.groups, self.panels, PANEL, self.depth)
        return np.ascontiguousarray(panels.transpose(0, 1, 3, 2))

    def _result(self, x: np.ndarray, weights: np.ndarray, bias: np.ndarray) -> np.ndarray:
        n, oh, ow, oc = self.y_shape
        (top, left, bottom, right), (down, across) = self.pad, self.stride
        sums = Sums(self.rounded, x, weights)
        padded = np.pad(sums.a, ((0, 0), (top, bottom), (left, right), (0, 0)))
        factors = sums.b
        if not self.depthwise:  # as [depth, groups, channels of a group]
            factors = factors.transpose(2, 0, 1, 3).reshape(self.depth, self.groups, -1)
            factors = factors[:, :, : oc // self.groups]
        rows = iter(factors.reshape(self.depth, self.groups, -1))
        y = np.zeros((n, oh, ow, self.groups, oc // self.groups), np.float32)
        for r, s in np.ndindex(self.kernel):
            i, j = r * self.dilation[0], s * self.dilation[1]
            taps = padded[:, i : i + oh * down : down, j : j + ow * across : across]
            taps = taps[:, :oh, :ow].reshape(n, oh, ow, self.groups, -1)
            for channel in range(taps.shape[-1]):
                y = sums(y, taps[..., channel, None], next(rows))
        y = y.reshape(self.y_shape) + bias
        if (self.low, self.high) == (-math.inf, math.inf):
            return y
        return clip(Numbers, y, self.low, self.high)
