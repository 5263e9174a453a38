"""Bit layers: how many bits of the weights a call uses is an argument of it.

    dense m=1 n=4096 k=4096 act=s8 weight=u8 layers=1..8 out=f32 scale=group64

The weights are codes u of M bits (format `weight`, u2..u8, or s2..s8 in two's complement), stored
once as bit planes, the highest first. A call with `layers` = L reads L of the planes and uses

    u_L[n, k] = u[n, k] >> (M - L)                       (arithmetic: the sign stays)

whose scale and offset are those of this L and of the group j of neighbours in k:

    w[n, k] is about scale[L - low, n, j] * u_L[n, k] + offset[L - low, n, j],

    low..high = layers, high = M;  scale, offset: float32[high - low + 1, n, groups].

So y[n] = sum over j of scale * H_j + offset * X_j, with H_j the sum over the group of
(x - zero_act) * u_L and X_j that of (x - zero_act), both exact integers. Every operation is rounded
to float32, in this order: y = 0.0, and then for j = 0, 1, ...

    y = y + (float32(H_j) * scale + float32(X_j) * offset)

With weight=b1 layers are what Lam et al. make of the weights, up to 16 planes of signs B_i, each
with a scale of its own (`lpgen.quantize.greedy`):

    w[n, k] is about the sum over i < L of scale[i, n, j] * B_i[n, k],

    y = y + float32(sum over the group of (x - zero_act) * B_i) * scale[i]

for each j, i = 0, 1, ..., with scale float32[high, n, groups]. Such weights are given with the
planes one behind the other, [n, high * k].

k is what a sum is over: of a convolution kernel rows, kernel columns and the channels of a group,
in this order, as the weights [oc, kh, kw, ic / groups] lie in memory, planes as [oc, high * kh, kw,
ic / groups].

Sources: Lam et al., "Precision Batching", arXiv 2003.00822 (layers whose number is an argument of
the call); Park et al., "Any-Precision LLM", arXiv 2402.10517 (prefixes of one code).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lpgen.formats import Format
from lpgen.ops import scales
from lpgen.ops.parameter import Parameter, real
from lpgen.ops.rows import Range
from lpgen.ops.signature import Argument, scalar
from lpgen.ops.words import Word

NAME = "layers"
"""The word of the workload, and the argument of a call."""

PARAMETERS = ("scale", "offset")

MOST_PLANES = 16
"""Of signs, each with a scale."""


def _read(text: str) -> Range:
    layers = Range.read(text)
    if not isinstance(layers, Range):
        raise ValueError(f"{text} is not a range, such as 1..8")
    return layers


LAYERS = Word(_read, str, quiet=True)


@dataclass(frozen=True)
class Layers:
    """The layers low..high of codes in the format `weight`, or as many planes of signs."""

    low: int
    high: int
    weight: Format

    @property
    def all(self) -> range:
        """Every number of layers that a call may have."""
        return range(self.low, self.high + 1)

    @property
    def of_signs(self) -> bool:
        """Whether layers are planes of signs, with a scale for each."""
        return self.weight.encoding == "b"

    @property
    def planes(self) -> int:
        """How many values of `weight` a weight is given as."""
        return self.high if self.of_signs else 1

    @property
    def scalar(self) -> Argument:
        """The argument of a call."""
        return scalar(NAME, self.low, self.high)

    def parameters(self, grouped: tuple[int, ...], short: bool) -> dict[str, Parameter]:
        """Scale and offset of each number of layers, or the scale of each plane; grouped: (n,
        groups)."""
        if self.of_signs:
            return {"scale": real(self.high, *grouped, short=short)}
        shape = (len(self.all), *grouped)
        return {name: real(*shape, short=short) for name in PARAMETERS}

    def codes(self, w: np.ndarray, count: int) -> np.ndarray:
        """The first `count` layers of weights."""
        return w >> (self.weight.bits - count)

    def some(self) -> list[int]:
        """Numbers that stand for all: the ends, and powers of two between them."""
        inside = [power for power in (2, 4, 8) if self.low < power < self.high]
        return [self.low, *inside, self.high]

    def round(self) -> dict[int, int]:
        """How many calls of `some` make a round in which each takes about as long."""
        return {count: max(1, self.high // count) for count in self.some()}

    def nbytes(self, count: int, weights: int, fits: int) -> float:
        """Bytes that `count` layers read of so many weights in so many groups."""
        return weights * count / 8 + fits * (4 * count if self.of_signs else 8)

    def scaled(
        self,
        sums: Callable[[np.ndarray, np.ndarray], np.ndarray],
        x: np.ndarray,
        w: np.ndarray,
        given: dict[str, np.ndarray],
        size: int,
        count: int,
    ) -> np.ndarray:
        """float32[m, n]: the sum over the groups of k, of `size` each.

        sums(x, w): the exact sums of products; x: without its zero point; given: the parameters;
        count: how many layers.
        """
        terms = self._of_signs if self.of_signs else self._of_codes
        total = np.zeros((x.shape[0], w.shape[0]), np.float32)
        for j, places in enumerate(scales.slices(x.shape[1], size)):
            total = terms(sums, x[:, places], w, given, (j, places), count, total)
        return total

    def _of_codes(self, sums, x, w, given, group, count: int, total: np.ndarray) -> np.ndarray:
        """The total with that of a group: its number, and where it is."""
        j, places = group
        scale, offset = (given[name][count - self.low][:, j] for name in PARAMETERS)
        row = x.sum(axis=1, dtype=np.int32).astype(np.float32)
        scaled = sums(x, self.codes(w[:, places], count)).astype(np.float32) * scale
        return total + (scaled + row[:, None] * offset)

    def _of_signs(self, sums, x, w, given, group, count: int, total: np.ndarray) -> np.ndarray:
        j, places = group
        k = w.shape[1] // self.high
        for i in range(count):
            signs = w[:, i * k : (i + 1) * k][:, places]
            total = total + sums(x, signs).astype(np.float32) * given["scale"][i, :, j]
        return total


def check(
    layers: Range, weight: Format, size: int, zero: int | str, outliers: int, of_input: int
) -> str | None:
    """Why the weights of a product cannot have so many layers, or None.

    size: neighbours in k that share a scale of the weights; of_input: of the activations.
    """
    word = f"layers={layers}"
    if not isinstance(layers, Range) or not 1 <= layers.low < layers.high:
        return f"{word} is no range LOW..HIGH, 1 <= LOW < HIGH"
    if str(weight) == "b1":
        if layers.high > MOST_PLANES:
            return f"{word}: of weight=b1 there are up to {MOST_PLANES} planes"
    elif weight.encoding not in "us" or weight.bits < 2:
        return f"{word}: weight={weight} is none of u2..u8, s2..s8 and b1"
    elif layers.high != weight.bits:
        return f"{word}: weight={weight} has {weight.bits} bits, as many layers as that"
    if not size:
        return f"{word} needs scale=groupN, with N of k or more for all of k"
    if of_input:
        return f"{word}: with input=f32:group{of_input} there are no layers"
    if zero or outliers:
        beside = f"outliers={outliers}" if outliers else f"zero_weight={zero}"
        return f"{word} has scales of its own, and no {beside} beside them"
    return None


def check_act(layers: Range, act: Format, zero: int) -> str | None:
    """Why activations cannot be multiplied with layers, or None: less the zero point they are a
    byte with a sign, or one without."""
    low, high = act.min - zero, act.max - zero
    if (-128 <= low and high <= 127) or (low == 0 and high <= 255):
        return None
    return (
        f"layers={layers}: act={act} less zero_act={zero} is {low}..{high}, outside -128..127 and "
        "0..255"
    )
