"""GPTQ (Frantar et al., arXiv 2210.17323): the error of a weight moves to those not rounded yet.

With the inputs X [rows, k] of a layer and H = X^T X, the squared error of its results is the
trace of (W - Q) H (W - Q)^T. Weights are rounded place by place along k, those with the largest
H[i, i] first ("act-order"). With U upper triangular and U^T U = H^-1, what is lost at place i is
made up for by

    w[:, j] -= (w[:, i] - q[:, i]) / U[i, i] * U[i, j],   j > i

which is optimal Brain surgery for the places that are left. Blocks of places are finished one after
the other, and what they cost the places behind comes as one matrix product.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from lpgen.errors import QuantizeError
from lpgen.formats import Format
from lpgen.quantize.clip import clipped_scale
from lpgen.quantize.codes import Codes, nearest, split, spread

DAMPING = 0.01
"""What is added to the diagonal of H, in parts of its mean."""

_BLOCK = 128
_NOT_FINITE = "inputs in the calibration have values that are not finite"
_SINGULAR = (
    "the Hessian of k={} inputs is singular with damping {}: calibrate with more data, or damp more"
)

Rounding = Callable[[np.ndarray, int], np.ndarray]
"""(weights [n] of a place, the place) -> what they become, [n]."""


class Factor(NamedTuple):
    """Of a hessian: the places along k in the order in which they are rounded, and the `upper`
    factor of its inverse in that order."""

    order: np.ndarray
    upper: np.ndarray


def factored(hessian: np.ndarray, damping: float = DAMPING) -> Factor:
    """The order and the factor for a hessian [k, k]. Raises QuantizeError where it is singular in
    spite of the damping."""
    order = np.argsort(-np.diag(hessian), kind="stable")
    return Factor(order, inverse_factor(hessian[np.ix_(order, order)], damping))


def gptq(
    w: np.ndarray, hessian: np.ndarray, form: Format, group: int = 0, damping: float = DAMPING
) -> Codes:
    """Codes of w [n, k] for inputs of this hessian [k, k], X^T X; one scale for each row, or group
    of neighbours along k, with the least error of the weights. Raises QuantizeError where H is
    singular in spite of the damping."""
    scale = clipped_scale(split(w.astype(np.float64), group), form)
    return with_scale(w, factored(hessian, damping), form, scale, group)


def with_scale(
    w: np.ndarray, factor: Factor, form: Format, scale: np.ndarray, group: int = 0
) -> Codes:
    """`gptq` with scales [n, groups] that are known."""
    k, scale = w.shape[1], scale.astype(np.float32)
    each = np.broadcast_to(spread(scale, k, group), w.shape).T.astype(np.float64)
    codes = np.empty((k, len(w)), np.int8)

    def place(values: np.ndarray, i: int) -> np.ndarray:
        found = nearest(values, each[i], form)
        codes[i] = found
        return found * each[i]

    compensate(w, factor, place)
    return Codes(np.ascontiguousarray(codes.T), scale, form, group)


def gptq_each(w: np.ndarray, hessians: np.ndarray, form: Format, damping: float = DAMPING) -> Codes:
    """`gptq` of many small matrices at once, as depthwise convolutions have them: w [n, k], as many
    rows in turn for each of the hessians [groups, k, k]; a scale for each row."""
    groups, k = hessians.shape[:2]
    scale = clipped_scale(w, form).astype(np.float32)
    each = scale.reshape(groups, -1).astype(np.float64)
    order = np.argsort(-np.diagonal(hessians, axis1=1, axis2=2), kind="stable")
    sorted_ = np.take_along_axis(hessians, order[:, :, None], 1)
    upper = _inverse_factors(np.take_along_axis(sorted_, order[:, None], 2), damping)
    rows = w.reshape(groups, -1, k).astype(np.float64)
    rest = np.take_along_axis(rows, order[:, None], 2)  # [groups, rows, k]
    codes = np.empty_like(rest)
    for i in range(k):
        codes[:, :, i] = nearest(rest[:, :, i], each, form)
        errors = (rest[:, :, i] - codes[:, :, i] * each) / upper[:, None, i, i]
        rest[:, :, i + 1 :] -= errors[:, :, None] * upper[:, None, i, i + 1 :]
    found = np.empty_like(codes)
    np.put_along_axis(found, np.broadcast_to(order[:, None], codes.shape), codes, 2)
    return Codes(found.reshape(w.shape).astype(np.int8), scale[:, None], form)


def compensate(w: np.ndarray, factor: Factor, rounding: Rounding) -> None:
    """Round all places of w [n, k], each in its turn, by `rounding`, which gets the weights as the
    errors of those before have left them."""
    order, upper = factor
    rest = np.ascontiguousarray(w.T[order], np.float64)  # [k, n]
    for first in range(0, len(rest), _BLOCK):
        last = min(first + _BLOCK, len(rest))
        errors = np.empty((last - first, rest.shape[1]))
        for i in range(first, last):
            errors[i - first] = (rest[i] - rounding(rest[i], order[i])) / upper[i, i]
            rest[i + 1 : last] -= np.outer(upper[i, i + 1 : last], errors[i - first])
        rest[last:] -= upper[first:last, last:].T @ errors


def _inverse_factors(hessians: np.ndarray, damping: float) -> np.ndarray:
    """`inverse_factor` of each of many small hessians [groups, k, k]."""
    h = np.array(hessians, np.float64)
    if not np.isfinite(h).all():
        raise QuantizeError(_NOT_FINITE)
    k = h.shape[1]
    mean = np.trace(h, axis1=1, axis2=2) / k
    h[:, np.arange(k), np.arange(k)] += np.where(mean > 0, damping * mean, 1)[:, None]
    try:
        upper = np.linalg.cholesky(h[:, ::-1, ::-1])[:, ::-1, ::-1]
    except np.linalg.LinAlgError:
        raise QuantizeError(_SINGULAR.format(k, damping)) from None
    return np.linalg.inv(upper)


def inverse_factor(hessian: np.ndarray, damping: float = DAMPING) -> np.ndarray:
    """U [k, k], upper triangular, with U^T U the inverse of the damped hessian.

    Of H = R R^T with R upper triangular (Cholesky from the last place to the first) it is R^-1. An
    H of zeros, of a layer whose inputs are all zero, counts as the identity. Raises QuantizeError.
    """
    from scipy.linalg import LinAlgError, cholesky, solve_triangular

    h = np.array(hessian, np.float64)
    if not np.isfinite(h).all():
        raise QuantizeError(_NOT_FINITE)
    mean = np.diag(h).mean()
    if mean == 0:
        return np.eye(len(h))
    h[np.diag_indices_from(h)] += damping * mean
    try:
        upper = cholesky(h[::-1, ::-1], lower=True)[::-1, ::-1]
    except LinAlgError:
        raise QuantizeError(_SINGULAR.format(len(h), damping)) from None
    return solve_triangular(upper, np.eye(len(h)))
