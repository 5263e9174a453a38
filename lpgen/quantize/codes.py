"""Weights as integer codes with scales, and rounding to the nearest one.

A matrix of weights is `w` [n, k]: a row for each output channel, k is what a sum goes over. A group
is so many neighbours in a row that share a scale; where the last one of a row is shorter, it is
filled up with zeros, which stay zeros.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lpgen.formats import Format


@dataclass(frozen=True)
class Codes:
    """Weights that stand for codes * scale; zero is a code.

    codes: int8 [n, k], values of `form`; scale: float32 [n, groups], positive, group: neighbours in
    a row that share one; 0: all of a row do, and groups is 1.
    """

    codes: np.ndarray
    scale: np.ndarray
    form: Format
    group: int = 0

    def real(self) -> np.ndarray:
        """What they stand for, float32 [n, k]."""
        return self.codes.astype(np.float32) * spread(self.scale, self.codes.shape[1], self.group)


def nearest(w: np.ndarray, scale: np.ndarray, form: Format) -> np.ndarray:
    """The nearest codes of w / scale, as floats: arrays that broadcast with each other."""
    return np.clip(np.rint(w / scale), form.min, form.max)


def split(w: np.ndarray, group: int) -> np.ndarray:
    """w [n, k] as [n, groups, group], filled up with zeros; [n, 1, k] where group is 0."""
    n, k = w.shape
    if not group:
        return w[:, None]
    return np.pad(w, ((0, 0), (0, -k % group))).reshape(n, -1, group)


def joined(groups: np.ndarray, k: int) -> np.ndarray:
    """The inverse of `split`: [n, groups, group] as [n, k]."""
    return groups.reshape(len(groups), -1)[:, :k]


def spread(values: np.ndarray, k: int, group: int) -> np.ndarray:
    """One number for each group, [n, groups], as one for each weight, [n, k] or [n, 1]."""
    return np.repeat(values, group, axis=1)[:, :k] if group else values
