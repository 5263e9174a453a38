"""Static ranges of activations from samples: a scale and a zero point for a whole tensor.

Zero is always a code: padding is zeros, and half of what Relu gives is.

| method     | ends of the range                                                      |
|------------|------------------------------------------------------------------------|
| percentile | the values that one in 10,000 is beyond, on either side                |
| mse        | those with the least squared error of the sample                       |
| minmax     | the least and the largest value                                        |

The least squared error clips what is large and rare, which is often what matters: measured on a
task it loses to both others at 8 bits (docs/quantization.md).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lpgen.formats import Format

METHODS = ("percentile", "mse", "minmax")
"""The first is the default."""

BEYOND = 1e-4
"""Share of values outside of a range by percentile."""

_PARTS = np.linspace(1.0, 0.2, 33)
_TURNS = 3


class Range(NamedTuple):
    """How codes of a format stand for real numbers: (code - zero) * scale."""

    scale: np.float32
    zero: int
    form: Format

    def codes(self, x: np.ndarray) -> np.ndarray:
        """x as codes, int32: rounded to the nearest, saturated."""
        steps = np.rint(np.asarray(x, np.float32) / self.scale) + self.zero
        return np.clip(steps, self.form.min, self.form.max).astype(np.int32)

    def real(self, x: np.ndarray) -> np.ndarray:
        """x as it is seen through the codes."""
        return ((self.codes(x) - self.zero) * self.scale).astype(np.float32)

    @property
    def ends(self) -> tuple[np.float32, np.float32]:
        """The least and the largest number that there is a code for."""
        low, high = self.form.min - self.zero, self.form.max - self.zero
        return np.float32(low * self.scale), np.float32(high * self.scale)


def chosen(sample: np.ndarray, form: Format, method: str = METHODS[0]) -> Range:
    """The range for a sample of values (float32) by one of METHODS.

    Formats without a sign get a zero point, so that the range may lie anywhere around 0; with a
    sign it is symmetric. A sample of zeros gets the scale 1.
    """
    sample = np.asarray(sample, np.float32).ravel()
    low, high = min(0.0, float(sample.min())), max(0.0, float(sample.max()))
    if low == high:
        return Range(np.float32(1), 0, form)
    if method == "percentile":
        inner = np.quantile(sample, [BEYOND, 1 - BEYOND])
        low, high = min(0.0, float(inner[0])), max(0.0, float(inner[1]))
    if low == high or method != "mse":
        return between(low, high, form)
    return _least_error(sample, low, high, form)


def between(low: float, high: float, form: Format) -> Range:
    """The finest range from low to high, both of which have codes nearby."""
    if form.encoding == "s":
        return Range(_positive(max(-low / -form.min, high / form.max)), 0, form)
    scale = _positive((high - low) / form.max)
    zero = int(np.clip(np.rint(-low / scale), form.min, form.max))
    return Range(scale, zero, form)


def _positive(scale: float) -> np.float32:
    return np.float32(scale) if np.float32(scale) > 0 else np.float32(1)


def _least_error(sample: np.ndarray, low: float, high: float, form: Format) -> Range:
    """Both ends together where the range is symmetric, else one after the other, in turns."""

    def error(ends: tuple[float, float]) -> float:
        return float(np.square(between(*ends, form).real(sample) - sample, dtype=np.float64).sum())

    if form.encoding == "s":
        return between(*min(((part * low, part * high) for part in _PARTS), key=error), form)
    ends = (low, high)
    for _ in range(_TURNS):
        before = ends
        ends = min(((ends[0], part * high) for part in _PARTS), key=error)
        ends = min(((part * low, ends[1]) for part in _PARTS), key=error)
        if ends == before or low == 0 or high == 0:
            break
    return between(*ends, form)
