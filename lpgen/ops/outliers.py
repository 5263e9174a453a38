"""Float weights as a dense part of few bits and a sparse rest: for operators with `outliers=N`.

A few large weights make the step of a low-bit format coarse for all others. Kept apart, they leave
the others a finer one:

    w[c, k] ~ scale[c] * (dense[c, k] + sparse[c, k])

Both parts are integers in steps of the same scale, so that the kernel adds them before it scales.
Which weights are kept apart: those whose error shrinks most (Dettmers et al., "SpQR", 2023, keep
the ones with the largest error; Kim et al., "SqueezeLLM", 2023, the largest ones).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lpgen.errors import FormatError
from lpgen.formats import Format, as_array
from lpgen.ops.sparse import HIGH, LOW, NAMES

if TYPE_CHECKING:
    from scipy import sparse

    from lpgen.ops import Operator

_ROUNDS = 4
_CLIPPING = np.linspace(0.3, 1.0, 29)
"""Largest dense value over largest weight that is no outlier: what is tried for a scale."""


@dataclass(frozen=True)
class Split:
    """scale: float32[channels]; dense: values of the format, [the shape of the weights]; sparse:
    int8[channels, k], in canonical form."""

    scale: np.ndarray
    dense: np.ndarray
    sparse: sparse.csr_array

    @property
    def weights(self) -> np.ndarray:
        """What both parts stand for, float32[the shape of the weights]."""
        whole = self.dense.reshape(self.sparse.shape).astype(np.float32) + self.sparse.toarray()
        return (whole * self.scale[:, None]).reshape(self.dense.shape)


def split(weights: np.ndarray, form: Format | str, budget: float) -> Split:
    """The parts of float weights[channel, ...], with little squared error for the budget.

    form: the format of the dense part, with values of both signs; budget: how many outliers, in all
    channels together, or below 1 the fraction of the weights. Scales and outliers are chosen in
    turns, each the best for the other, so that the squared error never grows; fewer outliers come
    out where more do not help. Raises FormatError for a format without negative values, a budget
    that is negative or above the number of weights, and weights that are not finite.
    """
    from scipy import sparse  # here, for every process parses workloads

    form = Format.parse(form) if isinstance(form, str) else form
    weights = as_array("weights", weights)
    if weights.dtype.kind not in "iuf" or not weights.ndim:
        raise FormatError(f"weights: {weights.ndim} axes of {weights.dtype}, expected real numbers")
    w = weights.astype(np.float64).reshape(len(weights), -1)
    if not 0 <= budget <= w.size:
        raise FormatError(f"budget={budget} is outside 0..{w.size} (the number of weights)")
    count = round(budget * w.size) if budget < 1 else int(budget)
    if not form.min < 0 < form.max:
        raise FormatError(f"format {form} has no values of both signs")
    if not np.isfinite(w).all():
        raise FormatError("weights are not all finite")
    apart = _largest(
        np.abs(w) / np.maximum(np.sqrt(np.mean(w * w, 1, keepdims=True)), 1e-30), count
    )
    scale = _scales(w, apart, form, None)
    for _ in range(_ROUNDS):
        dense, rest = _parts(w, scale, form)
        gain = np.square(w - scale * dense) - np.square(w - scale * (dense + rest))
        apart = _largest(gain, count)
        scale = _scales(w, apart, form, scale)
    dense, rest = _parts(w, scale, form)
    found = sparse.csr_array(np.where(apart, rest, 0).astype(np.int8))
    dense = dense.astype(form.dtype).reshape(weights.shape)
    return Split(scale[:, 0].astype(np.float32), dense, found)


def parameters(op: Operator, matrix: sparse.sparray | sparse.spmatrix) -> dict[str, np.ndarray]:
    """The parameters of `op` (with `outliers=N`) for a sparse matrix [channels, k] of integers.

    Raises FormatError for another shape, more than N elements, or a value outside of int8.
    """
    from scipy import sparse

    given = matrix if sparse.issparse(matrix) else as_array("outliers", matrix)
    if given.dtype.kind not in "iu" or given.ndim != 2:
        raise FormatError(f"outliers: {given.ndim} axes of {given.dtype}, expected 2 of integers")
    entries = sparse.coo_array(given)  # an element may be in it several times
    _check_range(entries.data)
    rows = sparse.csr_array(entries.astype(np.int64))  # where their sum cannot wrap
    rows.eliminate_zeros()
    _check_range(rows.data)
    shape = (op.w_shape[0], op.matrix.k)
    if rows.shape != shape:
        raise FormatError(f"outliers have shape {rows.shape}, expected {shape}")
    if rows.nnz > op.outliers:
        raise FormatError(f"{rows.nnz} outliers, the operator has outliers={op.outliers}")
    more = op.outliers - rows.nnz
    arrays = (np.pad(rows.data, (0, more)), np.pad(rows.indices, (0, more)), rows.indptr)
    types = (np.int8, np.int32, np.int32)
    return {n: a.astype(t) for n, a, t in zip(NAMES, arrays, types, strict=True)}


def _check_range(data: np.ndarray) -> None:
    """Raise FormatError with the first value that an outlier cannot have."""
    wrong = (data < LOW) | (data > HIGH)
    if wrong.any():
        raise FormatError(f"outlier {data[wrong][0]} is outside {LOW}..{HIGH}")


def _largest(values: np.ndarray, count: int) -> np.ndarray:
    """Where the `count` largest values above 0 are."""
    flat, chosen = values.ravel(), np.zeros(values.size, bool)
    if count:
        chosen[np.argpartition(flat, flat.size - count)[flat.size - count :]] = True
    return (chosen & (flat > 0)).reshape(values.shape)


def _parts(w: np.ndarray, scale: np.ndarray, form: Format) -> tuple[np.ndarray, np.ndarray]:
    """(the nearest value of the format, the nearest int8 for what remains), in steps of scale."""
    steps, values = w / scale, np.sort(form.values()).astype(np.float64)
    dense = values[np.searchsorted((values[1:] + values[:-1]) / 2, steps)]
    return dense, np.clip(np.rint(steps - dense), LOW, HIGH)


def _scales(
    w: np.ndarray, apart: np.ndarray, form: Format, before: np.ndarray | None
) -> np.ndarray:
    """The scale of each channel, [channels, 1], that leaves the least squared error of those tried:
    `before` is one of them."""
    top = np.max(np.abs(np.where(apart, 0, w)), 1, keepdims=True) / form.max
    top = np.where(top > 0, top, np.maximum(np.max(np.abs(w), 1, keepdims=True) / form.max, 1e-30))
    best, least = before, None
    if before is not None:
        least = _error(w, apart, before, form)
    for share in _CLIPPING:
        # What the kernel multiplies by is a float32.
        tried = (top * share).astype(np.float32).astype(np.float64)
        error = _error(w, apart, tried, form)
        better = np.full_like(error, True, bool) if least is None else error < least
        best = np.where(better, tried, tried if best is None else best)
        least = error if least is None else np.minimum(error, least)
    return best


def _error(w: np.ndarray, apart: np.ndarray, scale: np.ndarray, form: Format) -> np.ndarray:
    """Squared error of each channel, [channels, 1]."""
    dense, rest = _parts(w, scale, form)
    return np.sum(np.square(w - scale * (dense + np.where(apart, rest, 0))), 1, keepdims=True)
