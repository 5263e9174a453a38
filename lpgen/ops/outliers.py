"""Outliers: a sparse matrix beside the weights, in integers of 8 bits.

The sum of an element of an operator with `outliers=N` is

    sum of (x - zero_act) * (w - zero_weight)  +  sum of (x - zero_act) * r

over all k; r has the shape of w and N non-zero elements at most, int8. They are given as three
parameters, a row of the matrix w[channel, k] after the other (compressed sparse rows, the names of
scipy.sparse):

| parameter       | elements          | what                                                      |
|-----------------|-------------------|-----------------------------------------------------------|
| outlier_data    | int8[N]           | values                                                    |
| outlier_indices | int32[N]          | k of each, ascending within a channel                     |
| outlier_indptr  | int32[channels+1] | where each channel starts; the last: how many there are   |

What lies behind the last one is not used. Values are bytes because all of a channel could be
outliers, and its sums have to fit int32.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from lpgen.errors import FormatError
from lpgen.ops.parameters import Parameter

if TYPE_CHECKING:
    from lpgen.ops.base import Operator

LOW, HIGH = -128, 127
NAMES = ("outlier_data", "outlier_indices", "outlier_indptr")


def parameters_of(op: Operator) -> dict[str, Parameter]:
    """The parameters by name, none without outliers."""
    if not op.outliers:
        return {}
    count = op.outliers
    each = (
        Parameter((count,), "int8", LOW, HIGH),
        Parameter((count,), "int32", 0, op.matrix.k - 1),
        Parameter((op.w_shape[0] + 1,), "int32", 0, count),
    )
    return dict(zip(NAMES, each, strict=True))


def check(op: Operator) -> str | None:
    """Why the operator cannot have its outliers, or None."""
    if op.outliers > math.prod(op.w_shape):
        return f"outliers={op.outliers} is more than the {math.prod(op.w_shape)} weights"
    if op.outliers and op.group:
        return f"outliers={op.outliers} cannot be added to sums scaled by scale=group{op.group}"
    return None


def bound(op: Operator, act: int) -> int:
    """The most that outliers add to a sum, where `act` is the largest factor."""
    return min(op.outliers, op.matrix.k) * act * -LOW


def check_order(data: np.ndarray, indices: np.ndarray, indptr: np.ndarray) -> None:
    """Raise FormatError unless indptr ascends from 0, and the indices of a channel ascend."""
    backwards = np.flatnonzero(np.diff(indptr) < 0)
    if indptr[0] != 0:
        raise FormatError(f"outlier_indptr[0] = {indptr[0]} is not 0")
    if backwards.size:
        i = backwards[0] + 1
        raise FormatError(f"outlier_indptr[{i}] = {indptr[i]} is less than the one before")
    starts = np.zeros(data.size + 1, bool)
    starts[indptr] = True
    used = indices[: indptr[-1]]
    wrong = np.flatnonzero((np.diff(used) <= 0) & ~starts[1 : max(used.size, 1)])
    if wrong.size:
        i = wrong[0] + 1
        raise FormatError(f"outlier_indices[{i}] = {used[i]} does not ascend within its channel")


def dense(op: Operator, data: np.ndarray, indices: np.ndarray, indptr: np.ndarray) -> np.ndarray:
    """r as int16[w_shape]."""
    r = np.zeros((op.w_shape[0], op.matrix.k), np.int16)
    count = indptr[-1]
    channels = np.repeat(np.arange(op.w_shape[0]), np.diff(indptr))
    r[channels, indices[:count]] = data[:count]
    return r.reshape(op.w_shape)


def random(op: Operator, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Outliers anywhere, N of them or a few less, with both ends of their range among them."""
    count = op.outliers - int(rng.integers(0, op.outliers // 8 + 2))
    places = rng.choice(math.prod(op.w_shape), max(count, 0), replace=False, shuffle=False)
    channels, indices = np.divmod(np.sort(places), op.matrix.k)
    data = rng.integers(LOW, HIGH + 1, places.size)
    data[: places.size // 4] = rng.choice([LOW, HIGH], places.size // 4)
    more = op.outliers - places.size
    starts = np.searchsorted(channels, np.arange(op.w_shape[0] + 1))
    values = (np.pad(data, (0, more), constant_values=1), np.pad(indices, (0, more)), starts)
    dtypes = (p.dtype for p in parameters_of(op).values())
    return {n: v.astype(d) for n, v, d in zip(NAMES, values, dtypes, strict=True)}
