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


def _read(text: str) -> Range:
    layers = Range.read(text)
    if not isinstance(layers, Range):
        raise ValueError(f"{text} is not a range, such as 1..8")
    return layers


LAYERS = Word(_read, str, quiet=True)


@dataclass(frozen=True)
class Layers:
    """The layers low..high of codes in the format `weight`."""

    low: int
    high: int
    weight: Format

    @property
    def all(self) -> range:
        """Every number of layers that a call may have."""
        return range(self.low, self.high + 1)

    @property
    def scalar(self) -> Argument:
        """The argument of a call."""
        return scalar(NAME, self.low, self.high)

    def parameters(self, grouped: tuple[int, ...], short: bool) -> dict[str, Parameter]:
        """Scale and offset of each number of layers; grouped: (n, groups)."""
        shape = (len(self.all), *grouped)
        return {name: real(*shape, short=short) for name in PARAMETERS}

    def codes(self, w: np.ndarray, count: int) -> np.ndarray:
        """The first `count` layers of weights."""
        return w >> (self.weight.bits - count)

    def some(self) -> list[int]:
        """Numbers that stand for all: the ends, and powers of two between them."""
        inside = [power for power in (2, 4) if self.low < power < self.high]
        return [self.low, *inside, self.high]

    def round(self) -> dict[int, int]:
        """How many calls of `some` make a round in which each takes about as long."""
        return {count: max(1, self.high // count) for count in self.some()}

    def nbytes(self, count: int, weights: int, fits: int) -> float:
        """Bytes that `count` layers read of `weights` weights and `fits` scales and offsets."""
        return weights * count / 8 + fits * 8

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
        scale, offset = (given[name][count - self.low] for name in PARAMETERS)
        codes = self.codes(w, count)
        total = np.zeros((x.shape[0], w.shape[0]), np.float32)
        for j, places in enumerate(scales.slices(x.shape[1], size)):
            part = x[:, places]
            row = part.sum(axis=1, dtype=np.int32).astype(np.float32)
            scaled = sums(part, codes[:, places]).astype(np.float32) * scale[:, j]
            total += scaled + row[:, None] * offset[:, j]
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
    if weight.encoding not in "us" or weight.bits < 2:
        return f"{word}: weight={weight} is none of u2..u8 and s2..s8"
    if layers.high != weight.bits:
        return f"{word}: weight={weight} has {weight.bits} bits, as many layers as that"
    if not size:
        return f"{word} needs scale=groupN, with N of k or more for all of k"
    if of_input:
        return f"{word}: with input=f32:group{of_input} there are no layers"
    if zero or outliers:
        beside = f"outliers={outliers}" if outliers else f"zero_weight={zero}"
        return f"{word} has offsets, and no {beside} beside them"
    return None


def check_act(layers: Range, act: Format, zero: int) -> str | None:
    """Why activations cannot be multiplied with layers, or None: less the zero point they are the
    signed side of a product with codes."""
    low, high = act.min - zero, act.max - zero
    if -128 <= low and high <= 127:
        return None
    return f"layers={layers}: act={act} less zero_act={zero} is {low}..{high}, outside -128..127"
