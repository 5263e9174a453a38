"""Tiles of the winograd algorithm: which are exact for an operator, and with which offsets."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lpgen.algorithms.winograd.crossed import Crossings
from lpgen.algorithms.winograd.sides import Side, limits, side
from lpgen.ops import Conv2d
from lpgen.ops.reach import INT16_MAX, INT32_MAX

INT8, UINT8, INT16 = (-128, 127), 255, (-INT16_MAX, INT16_MAX)
THIRDS = 2**21
"""Quotients by odd numbers are exact below it: they are rounded in float32."""


def outputs_of(name: str) -> tuple[int, int]:
    """Outputs of the tile called "2x2", "4ix2" or the like, high and wide."""
    high, wide = (int(outputs.rstrip("i")) for outputs in name.split("x"))
    return high, wide


@dataclass(frozen=True)
class Tile:
    """Tiles of `high.outputs` x `wide.outputs` results of `op`; words: transformed values are
    int16, and sums wrap around as they are transformed back, else bytes."""

    op: Conv2d
    high: Side
    wide: Side
    words: bool = False

    @classmethod
    def of(cls, op: Conv2d, name: str, words: bool = False) -> Tile:
        """The tile called "2x2" or the like: outputs, high x wide; 1 is a side without
        transformation, "4i" one with the points i and -i."""
        names = name.split("x")
        imaginary = (outputs.endswith("i") for outputs in names)
        high, wide = map(side, outputs_of(name), op.kernel, op.stride, imaginary)
        return cls(op, high, wide, words)

    @property
    def saving(self) -> float:
        """How many times fewer products than those of all taps it takes."""
        sides = zip((self.high, self.wide), self.op.kernel, strict=True)
        return math.prod(s.outputs * k / s.products for s, k in sides if s.outputs > 1)

    @property
    def kq(self) -> int:
        """Input channels of a step."""
        return 2 if self.words else 4

    @property
    def centre(self) -> int:
        """What is subtracted from each activation before words are made of it, so that sums are
        as small as they can be."""
        act = self.op.act
        return (act.min + act.max + 1) // 2 if self.words else 0

    @property
    def scale(self) -> int:
        """What the results are multiplied by before they are divided by it."""
        return self.high.scale * self.wide.scale

    @property
    def direct(self) -> tuple[int, int]:
        """Taps of the kernel, down and across, that are summed one by one."""
        kernel = self.op.kernel
        pairs = zip(kernel, (self.high, self.wide), strict=True)
        return tuple(taps if s.outputs == 1 else 1 for taps, s in pairs)

    @cached_property
    def inputs(self) -> tuple[np.ndarray, np.ndarray]:
        """Limits of transformed activations; the zero point fills the padding."""
        return limits(self.high.input, self.wide.input, *self._range)

    @property
    def _range(self) -> tuple[int, int]:
        act, zero, centre = self.op.act, self.op.zero_act, self.centre
        return min(act.min, zero) - centre, max(act.max, zero) - centre

    @cached_property
    def weights(self) -> tuple[np.ndarray, np.ndarray]:
        """Limits of transformed weights."""
        weight = self.op.weight
        return limits(self.high.weight, self.wide.weight, weight.min, weight.max)

    @cached_property
    def offsets(self) -> np.ndarray:
        """What is added to each transformed activation so that a byte has no sign, int64[p][q]."""
        return np.maximum(-self.inputs[0], 0) * (not self.words)

    @cached_property
    def pairs(self) -> int:
        """Sums of two products u8 x s8 that an int16 holds; 0: not even one."""
        largest = np.maximum(-self.weights[0], self.weights[1])
        return int(INT16_MAX // max(1, int((2 * (self.inputs[1] + self.offsets) * largest).max())))

    @cached_property
    def bound(self) -> int:
        """The largest absolute sum of activations, as they are or less `centre`, times weights."""
        return self.op.matrix.k * max(map(abs, self._range)) * self.op.weight.largest

    @cached_property
    def sums(self) -> int:
        """What int32 sums may reach while they are transformed back, `start` included: TVM says of
        an int32 addition that it does not wrap."""
        top = self.inputs[1] + self.offsets + self.offsets
        return self.reach(top * np.maximum(-self.weights[0], self.weights[1]))

    def reach(self, products: np.ndarray) -> int:
        """What sums of products up to `products`, int64[p][q], reach when transformed back."""
        reach = self.op.ic * math.prod(self.direct) * products
        high, wide = (np.abs(np.array(side.output)) for side in (self.high, self.wide))
        return int((high @ reach @ wide.T).max())

    @cached_property
    def crossings(self) -> Crossings | None:
        """How its products become products of sums, None: they do not."""
        return Crossings.of(self)

    def why_not(self) -> str | None:
        """Why the tile is not exact, with the value and the limit; None if it is."""
        return self._why_not_words() if self.words else self._why_not_bytes()

    def _why_not_words(self) -> str | None:
        for what, (least, most) in (("activations", self.inputs), ("weights", self.weights)):
            if least.min() < INT16[0] or most.max() > INT16[1]:
                return f"transformed {what} are {least.min()}..{most.max()}, more than int16"
        power = self.scale & -self.scale
        if self.bound * power > INT32_MAX:
            return f"sums reach {self.bound}, and {power} times that is more than int32"
        return None

    def _why_not_bytes(self) -> str | None:
        least, most = self.weights
        if least.min() < INT8[0] or most.max() > INT8[1]:
            return f"transformed weights are {least.min()}..{most.max()}, more than int8"
        span = int((self.inputs[1] + self.offsets).max())
        if span > UINT8:
            return f"transformed activations have {span + 1} values, more than 256"
        if self.sums > INT32_MAX:
            return f"sums on the way back reach {self.sums}, more than int32"
        if self.scale & (self.scale - 1) and self.bound >= THIRDS:
            return f"sums reach {self.bound}, too many to divide by {self.scale}: {THIRDS}"
        return None
