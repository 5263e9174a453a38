"""Scales, and zero points, that groups of neighbours in k have for themselves, see `epilogue`.

k: the length of a sum; size: the neighbours of a group, 0: all of k are one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from lpgen.formats import Format

SMALLEST_GROUP = 4
"""Neighbours in k of the smallest group that may have a scale."""


def count(k: int, size: int) -> int:
    """How many groups share a scale each in every column of the weights."""
    return -(-k // size)


def shape(channels: int, k: int, size: int) -> tuple[int, ...]:
    """Of what has one number for each output channel, or for each of its groups: (channels,), or
    (channels, groups)."""
    return (channels, count(k, size)) if size else (channels,)


def check(size: int, of_x: int, zero: int | str, weight: Format, served: bool) -> str | None:
    """Why a product cannot have such groups or such zero points of its weights, or None.

    of_x: neighbours that share a scale of the activations, 0: all; served: x is a matrix, or the
    weights are bit layers.
    """
    if size and of_x and size != of_x:
        return f"input=f32:group{of_x} has other groups of k than scale=group{size}"
    if size and not served:
        return f"scale=group{size} is for dense, and for conv2d with layers=LOW..HIGH"
    if zero == "group" and not size:
        return "zero_weight=group needs scale=groupN"
    if zero == "channel" and size:
        return f"zero_weight=channel: with scale=group{size} it is a number or group"
    if zero == "channel" and of_x:
        return f"zero_weight=channel: with input=f32:group{of_x} it is a number"
    if zero in ("channel", "group") and weight.encoding not in "us":
        return f"zero_weight={zero}: format {weight} has no zero point"
    return None


def slices(k: int, size: int) -> Iterator[slice]:
    """The places of the groups in k."""
    return (slice(first, first + size) for first in range(0, k, size))


def spread(zero: int | np.ndarray, weights: tuple[int, ...], size: int) -> np.ndarray:
    """Zero points in int16, in a shape that broadcasts against weights of the shape."""
    zero = np.asarray(zero, np.int16)
    if zero.ndim == 2:
        return np.repeat(zero, size, axis=1)[:, : weights[1]]
    return zero.reshape(-1, *[1] * (len(weights) - 1))


def scaled(
    sums: Callable,
    x: np.ndarray,
    w: np.ndarray,
    size: int,
    scale: np.ndarray | None,
    steps: np.ndarray | None,
) -> np.ndarray:
    """float32[m, n]: what the groups add up to; sums(x, w): the exact sums of products.

    scale[n, groups], steps[m, groups]: those of the weights and of x, as far as groups have them.
    """
    total = np.zeros((x.shape[0], w.shape[0]), np.float32)
    for j, places in enumerate(slices(x.shape[1], size)):
        part = sums(x[:, places], w[:, places]).astype(np.float32)
        part = part if scale is None else part * scale[:, j]
        total += part if steps is None else part * steps[:, j : j + 1]
    return total
