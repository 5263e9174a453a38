"""Scales of weights by the error of the results.

The scale with which weights alone lose least is not the one with which results do once GPTQ has
moved the errors. So GPTQ is done with some scales around it. Each row w of the weights keeps the
codes whose results lose least, q being what they stand for, times the factor that suits them best:

    a = (q H w) / (q H q),        error = (w - a q) H (w - a q)^T
"""

from __future__ import annotations

import numpy as np

from lpgen.formats import Format
from lpgen.quantize.clip import clipped_scale
from lpgen.quantize.codes import Codes, split
from lpgen.quantize.gptq import DAMPING, factored, with_scale

TRIED = (0.8, 0.9, 1.0, 1.1, 1.25)
"""Scales that are tried, in parts of that with the least error of the weights."""

_FINE = 8
"""Bits from which on a scale hardly matters: one is tried."""


def searched(
    w: np.ndarray, hessian: np.ndarray, form: Format, group: int = 0, damping: float = DAMPING
) -> Codes:
    """Codes of w [n, k] by GPTQ for inputs of this hessian [k, k]; one scale for each row, or group
    of neighbours along k. Raises QuantizeError where H is singular in spite of the damping."""
    w = w.astype(np.float64)
    first, factor = clipped_scale(split(w, group), form), factored(hessian, damping)
    codes = scale = least = None
    for part in TRIED if form.bits < _FINE else (1.0,):
        found = with_scale(w, factor, form, part * first, group)
        stretched = found.scale * _factors(w, found.real(), hessian)[:, None]
        made = Codes(found.codes, stretched.astype(np.float32), form, group)
        error = errors(w - made.real(), hessian)
        if least is None:
            codes, scale, least = made.codes, made.scale, error
            continue
        better = error < least
        codes[better], scale[better] = made.codes[better], made.scale[better]
        least = np.minimum(least, error)
    return Codes(codes, scale, form, group)


def errors(lost: np.ndarray, hessian: np.ndarray) -> np.ndarray:
    """The squared error of the results of each row [n] of weights that have lost so much [n, k]."""
    return np.einsum("nk,nk->n", lost @ hessian, lost)


def _factors(w: np.ndarray, q: np.ndarray, hessian: np.ndarray) -> np.ndarray:
    """a of each row, [n]; 1 where it would not be positive."""
    seen = q @ hessian
    along, power = np.einsum("nk,nk->n", seen, w), np.einsum("nk,nk->n", seen, q)
    good = (along > 0) & (power > 0)
    return np.where(good, along / np.where(good, power, 1), 1)
