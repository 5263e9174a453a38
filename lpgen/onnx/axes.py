"""Axes of tensors that are reshaped, transposed, or broadcast with each other."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from lpgen.onnx.values import Stored
from lpgen.ops.movement import MOST_AXES

MOST_TURNS = 3
"""Extents of operators on two tensors."""


def turns(a: Sequence[int], b: Sequence[int]) -> list[tuple[int, bool, bool]]:
    """Axes that two tensors, broadcast with each other, have both, or one alone, one after the
    other: (size of both, whether a has it, whether b has it)."""
    axes = [(max(m, n), m > 1, n > 1) for m, n in zip(a, b, strict=True) if max(m, n) > 1]
    return [
        (math.prod(size for size, *_ in group), *has)
        for has, group in itertools.groupby(axes, key=lambda axis: axis[1:])
    ]


def few_axes(
    shape: tuple[int, ...], axes: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The same transposition; where it has more axes than the operator, those that stay together
    are one, and those of size 1 are none."""
    if len(axes) <= MOST_AXES:
        return shape, axes
    runs: list[list[int]] = []
    for axis in (axis for axis in axes if shape[axis] > 1):
        before = runs[-1][-1] if runs else axis
        if axis > before and math.prod(shape[before + 1 : axis]) == 1:
            runs[-1].append(axis)
        else:
            runs.append([axis])
    order = sorted(runs)
    sizes = tuple(math.prod(shape[axis] for axis in run) for run in order)
    return sizes or (1,), tuple(order.index(run) for run in runs) or (0,)


def reshaped_order(tensor: Stored, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """The order of the axes of `shape` in memory if nothing moves, None if it has to."""
    order: list[int] = []
    place = {axis: i for i, axis in enumerate(a for a in tensor.order if tensor.type.shape[a] > 1)}
    groups = _groups(tensor.type.shape, shape)
    for old, _ in groups:
        places = [place[axis] for axis in old]
        if places != list(range(min(places, default=0), min(places, default=0) + len(places))):
            return None
    for _, new in sorted((group for group in groups if group[0]), key=lambda g: place[g[0][0]]):
        order += new
    rest = [axis for axis in range(len(shape)) if axis not in order]  # of size 1
    return (*rest, *order)


def _groups(old: tuple[int, ...], new: tuple[int, ...]) -> list[tuple[list[int], list[int]]]:
    """Axes of one shape and of another that are made of each other, smallest sets; axes of size 1
    are in none."""
    groups, i, j = [], 0, 0
    while i < len(old) or j < len(new):
        a, b = [i] if i < len(old) else [], [j] if j < len(new) else []
        i, j = i + 1, j + 1
        while math.prod(old[k] for k in a) != math.prod(new[k] for k in b):
            if math.prod(old[k] for k in a) < math.prod(new[k] for k in b):
                a.append(i)
                i += 1
            else:
                b.append(j)
                j += 1
        groups.append(([k for k in a if old[k] > 1], [k for k in b if new[k] > 1]))
    return groups
