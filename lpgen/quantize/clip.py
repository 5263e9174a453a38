"""Scales by the least squared error (MSE clipping), and rounding to the nearest code with them.

With few bits the largest weight is no good end of the range: a smaller one clips some weights and
is finer for all others (Banner et al., arXiv 1810.05723; here by search, as most tools do).
"""

from __future__ import annotations

import numpy as np

from lpgen.formats import Format
from lpgen.quantize.codes import Codes, joined, nearest, split

CLIPS = np.linspace(0.35, 1.0, 27)
"""Ends of the range, as parts of the largest absolute value."""

_AT_ONCE = 2**22
"""Weights whose errors are computed at once, so that memory is bounded."""


def clipped_scale(w: np.ndarray, form: Format, importance: np.ndarray | None = None) -> np.ndarray:
    """The scale of each row of w [..., k] with the least sum of importance * (error of a weight)^2.

    importance: not negative, of a shape that broadcasts with w; None: 1. The best of CLIPS. A row
    of zeros gets 1. float64 [...].
    """
    rows = w.reshape(-1, w.shape[-1]).astype(np.float64)
    weight = None
    if importance is not None:
        weight = np.broadcast_to(importance, w.shape).reshape(rows.shape)
    found = np.ones(len(rows))
    step = max(1, _AT_ONCE // max(1, rows.shape[1]))
    for first in range(0, len(rows), step):
        some = slice(first, first + step)
        found[some] = _best(rows[some], form, None if weight is None else weight[some])
    return found.reshape(w.shape[:-1])


def _best(rows: np.ndarray, form: Format, importance: np.ndarray | None) -> np.ndarray:
    largest = np.abs(rows).max(1) / form.max
    scale = np.where(largest > 0, largest, 1)
    least = np.full(len(rows), np.inf)
    best = scale
    for clip in CLIPS[::-1]:
        tried = clip * scale
        error = (nearest(rows, tried[:, None], form) * tried[:, None] - rows) ** 2
        total = error.sum(1) if importance is None else (error * importance).sum(1)
        better = total < least
        best = np.where(better & (largest > 0), tried, best)
        least = np.where(better, total, least)
    return best


def rounded(
    w: np.ndarray, form: Format, group: int = 0, importance: np.ndarray | None = None
) -> Codes:
    """Weights rounded to the nearest code (RTN), symmetric: w [n, k], with a scale for each row or
    group by `clipped_scale`; importance: [k]."""
    groups = split(w.astype(np.float64), group)
    if importance is not None:
        importance = split(np.asarray(importance, np.float64)[None], group)
    scale = clipped_scale(groups, form, importance).astype(np.float32)
    codes = nearest(groups, scale[:, :, None], form)
    return Codes(joined(codes, w.shape[1]).astype(np.int8), scale, form, group)
