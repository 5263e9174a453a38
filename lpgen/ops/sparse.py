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

import numpy as np

from lpgen.errors import FormatError
from lpgen.ops.parameter import Parameter

LOW, HIGH = -128, 127
NAMES = ("outlier_data", "outlier_indices", "outlier_indptr")


def parameters_of(count: int, channels: int, k: int) -> dict[str, Parameter]:
    """The parameters of `count` outliers by name, none without outliers."""
    if not count:
        return {}
    each = (
        Parameter((count,), "int8", LOW, HIGH),
        Parameter((count,), "int32", 0, k - 1),
        Parameter((channels + 1,), "int32", 0, count),
    )
    return dict(zip(NAMES, each, strict=True))


def check(count: int, weights: tuple[int, ...], group_size: int) -> str | None:
    """Why weights of the shape, with scales of groups of that size, cannot have so many outliers,
    or None."""
    if count > math.prod(weights):
        return f"outliers={count} is more than the {math.prod(weights)} weights"
    if count and group_size:
        return f"outliers={count} cannot be added to sums with scales of groups of {group_size}"
    return None


def bound(count: int, k: int, act: int) -> int:
    """The most that outliers add to a sum, where `act` is the largest factor."""
    return min(count, k) * act * -LOW


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


def dense(
    weights: tuple[int, ...], data: np.ndarray, indices: np.ndarray, indptr: np.ndarray
) -> np.ndarray:
    """r as int16, for weights of the shape."""
    channels = weights[0]
    r = np.zeros((channels, math.prod(weights[1:])), np.int16)
    count = indptr[-1]
    r[np.repeat(np.arange(channels), np.diff(indptr)), indices[:count]] = data[:count]
    return r.reshape(weights)


def random(rng: np.random.Generator, most: int, weights: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Outliers anywhere, `most` of them or a few less, with both ends of their range among them."""
    channels, k = weights[0], math.prod(weights[1:])
    count = most - int(rng.integers(0, most // 8 + 2))
    places = rng.choice(channels * k, max(count, 0), replace=False, shuffle=False)
    rows, indices = np.divmod(np.sort(places), k)
    data = rng.integers(LOW, HIGH + 1, places.size)
    data[: places.size // 4] = rng.choice([LOW, HIGH], places.size // 4)
    more = most - places.size
    starts = np.searchsorted(rows, np.arange(channels + 1))
    values = (np.pad(data, (0, more), constant_values=1), np.pad(indices, (0, more)), starts)
    dtypes = (p.dtype for p in parameters_of(most, channels, k).values())
    return {n: v.astype(d) for n, v, d in zip(NAMES, values, dtypes, strict=True)}
