"""Scales (and zero points) of groups of neighbours in k, see `epilogue`: shapes, checks, values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from lpgen.ops.epilogue import group_of

if TYPE_CHECKING:
    from lpgen.ops.base import Operator


def count(op: Operator) -> int:
    """How many groups share a scale each in every column of the weights."""
    return -(-op.matrix.k // op.group)


def shape(op: Operator) -> tuple[int, ...]:
    """Of what has one number for each output channel, or for each of its groups: (channels,), or
    (channels, groups)."""
    channels = op.w_shape[0]
    return (channels, count(op)) if op.group else (channels,)


def check(op: Operator) -> str | None:
    """Why the operator's groups or its zero points are none, or None."""
    group, zero = group_of(op.epilogue), op.zero_weight
    if group and op.kind != "dense":
        return f"scale=group{group} is for dense"
    if zero == "group" and not group:
        return "zero_weight=group needs scale=groupN"
    if zero == "channel" and group:
        return f"zero_weight=channel: with scale=group{group} it is a number or group"
    if zero in ("channel", "group") and op.weight.encoding not in "us":
        return f"zero_weight={zero}: format {op.weight} has no zero point"
    return None


def slices(op: Operator) -> Iterator[slice]:
    """The places of the groups in k."""
    return (slice(first, first + op.group) for first in range(0, op.matrix.k, op.group))


def spread(op: Operator, zero: int | np.ndarray) -> np.ndarray:
    """Zero points of the weights in int16, in a shape that broadcasts against theirs."""
    zero = np.asarray(zero, np.int16)
    if zero.ndim == 2:
        return np.repeat(zero, op.group, axis=1)[:, : op.matrix.k]
    return zero.reshape(-1, *[1] * (len(op.w_shape) - 1))


def scaled(
    op: Operator, sums: Callable, x: np.ndarray, w: np.ndarray, scale: np.ndarray
) -> np.ndarray:
    """float32[m, n]: what the groups add up to; sums(x, w): the exact sums of products."""
    total = np.zeros(op.y_extents, np.float32)
    for j, places in enumerate(slices(op)):
        total += sums(x[:, places], w[:, places]).astype(np.float32) * scale[:, j]
    return total


def nearest_bfloat16(values: np.ndarray) -> np.ndarray:
    """float32 values rounded to bfloat16, half to even."""
    bits = values.astype(np.float32).view(np.uint32).astype(np.uint64)
    bits += 0x7FFF + (bits >> 16 & 1)
    return (bits & 0xFFFF0000).astype(np.uint32).view(np.float32)
