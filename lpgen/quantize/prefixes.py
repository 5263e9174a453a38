"""Bit layers: one 8-bit code of a weight, whose first L bits are a code of their own for every L.

With u_L = u >> (8 - L), the weight that a call of L layers sees is s_L u_L + o_L, where each group
of neighbours along k has a scale and an offset for each L:

    s_L = cov(u_L, w) / var(u_L),    o_L = mean(w) - s_L mean(u_L)

the least squared error, and the errors of a group add up to zero. (An offset that leaves a mean
error ruins a layer: with inputs of one sign it adds up along k.) Means are weighted with the
diagonal of the Hessian where there is one.

Codes are chosen for all L at once, in the manner of MatGPTQ (arXiv 2602.03537):

    u = argmin over u of  sum over L of v_L (w - (s_L u_L + o_L))^2

and what GPTQ moves on is the mean of the errors, weighted with v_L.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lpgen.quantize.codes import joined, split, spread
from lpgen.quantize.gptq import DAMPING, compensate, factored

BITS = 8
LAYERS = (1, 2, 3, 4, 6, 8)
"""Of which scales and offsets are stored, by default."""

CLIPS = np.linspace(0.4, 1.0, 13)
"""Ends of the range of the code, as parts of the largest absolute value."""

_VALUES = np.arange(1 << BITS)


@dataclass(frozen=True)
class BitLayers:
    """codes: uint8 [n, k]; scale, offset: float32 [n, groups] by the number of layers; group:
    neighbours in a row that share them, 0: all of it."""

    codes: np.ndarray
    scale: Mapping[int, np.ndarray]
    offset: Mapping[int, np.ndarray]
    group: int = 0

    def real(self, layers: int) -> np.ndarray:
        """What the first `layers` bits stand for, float32 [n, k]."""
        k = self.codes.shape[1]
        scale, offset = (spread(v[layers], k, self.group) for v in (self.scale, self.offset))
        return (self.codes >> (BITS - layers)).astype(np.float32) * scale + offset


def value(layers: int) -> float:
    """v_L: squared errors fall by 4 with each bit. With 4^L all would count alike in proportion,
    and outliers would not be clipped, as 8 bits want; with 2^L the prefixes below count more."""
    return 2.0**layers


def bit_layers(
    w: np.ndarray,
    hessian: np.ndarray | None = None,
    group: int = 0,
    layers: Sequence[int] = LAYERS,
    damping: float = DAMPING,
) -> BitLayers:
    """Bit layers of w [n, k]: rounded for all of `layers` at once, and, with a hessian [k, k] of
    the inputs, with GPTQ. Raises QuantizeError where it is singular in spite of the damping."""
    k = w.shape[1]
    groups = split(w.astype(np.float64), group)
    importance = np.ones((1, k)) if hessian is None else np.diag(hessian)[None]
    # What fills up the last group counts nothing; where no input was seen, all count alike.
    weights = split(np.maximum(importance, 1e-9 * importance.max() + 1e-30), group)
    codes = _clipped(groups, weights, layers)
    fit = _fitted(codes, groups, weights, layers)
    table = _Table(fit, layers)
    if hessian is None:
        codes = np.stack([table.codes(groups[:, j], j) for j in range(groups.shape[1])], axis=1)
    else:
        codes = split(_compensated(w, hessian, table, group, damping), group)
    scale, offset = _fitted(codes, groups, weights, layers)
    return BitLayers(
        joined(codes, k).astype(np.uint8),
        {n: scale[i].astype(np.float32) for i, n in enumerate(layers)},
        {n: offset[i].astype(np.float32) for i, n in enumerate(layers)},
        group,
    )


class _Table:
    """For every code of every group what the objective is made of: with T_L(u) = s_L u_L + o_L it
    is A w^2 - 2 w B(u) + C(u), A = sum of v_L, B = sum of v_L T_L, C = sum of v_L T_L^2."""

    def __init__(self, fit: tuple[np.ndarray, np.ndarray], layers: Sequence[int]) -> None:
        total = sum(value(n) for n in layers)
        self.b = self.c = np.zeros(())
        for scale, offset, n in zip(*fit, layers, strict=True):
            t = scale[:, :, None] * (_VALUES >> (BITS - n)) + offset[:, :, None]
            self.b = self.b + value(n) / total * t
            self.c = self.c + value(n) / total * t**2

    def codes(self, w: np.ndarray, j: int) -> np.ndarray:
        """The best codes of weights [n] or [n, some] of group j."""
        if w.ndim == 1:
            return np.argmin(self.c[:, j] - 2 * w[:, None] * self.b[:, j], axis=1)
        return np.stack([self.codes(column, j) for column in w.T], axis=1)

    def means(self, codes: np.ndarray, j: int) -> np.ndarray:
        """B of codes [n]: the mean of what the prefixes stand for."""
        return np.take_along_axis(self.b[:, j], codes[:, None], axis=1)[:, 0]


def _compensated(
    w: np.ndarray, hessian: np.ndarray, table: _Table, group: int, damping: float
) -> np.ndarray:
    """Codes [n, k] by GPTQ."""
    codes = np.empty(w.shape, np.int64)

    def place(values: np.ndarray, i: int) -> np.ndarray:
        j = i // group if group else 0
        codes[:, i] = table.codes(values, j)
        return table.means(codes[:, i], j)

    compensate(w, factored(hessian, damping), place)
    return codes


def _clipped(groups: np.ndarray, weights: np.ndarray, layers: Sequence[int]) -> np.ndarray:
    """The codes u = round((w + m) / 2m * 255), m = c max |w|, of the c of each group with the least
    sum of v_L times the errors."""
    largest = np.abs(groups).max(2, keepdims=True)
    largest = np.where(largest > 0, largest, 1)
    best = least = None
    for clip in CLIPS[::-1]:
        m = clip * largest
        top = _VALUES[-1]
        codes = np.clip(np.rint((groups + m) / (2 * m) * top), 0, top).astype(np.int64)
        error = np.zeros(groups.shape[:2])
        for scale, offset, n in zip(*_fitted(codes, groups, weights, layers), layers, strict=True):
            t = scale[:, :, None] * (codes >> (BITS - n)) + offset[:, :, None]
            error += value(n) * ((t - groups) ** 2 * weights).sum(2)
        if least is None:
            best, least = codes, error
        better = error < least
        best = np.where(better[:, :, None], codes, best)
        least = np.minimum(least, error)
    return best


def _fitted(
    codes: np.ndarray, groups: np.ndarray, weights: np.ndarray, layers: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """(scales, offsets) [layers, n, groups] for codes of weights [n, groups, group]; weights: of
    the means, [1, groups, group], zero where a group was filled up."""
    share = weights / weights.sum(2, keepdims=True)
    mean = (groups * share).sum(2)
    scales, offsets = [], []
    for n in layers:
        u = (codes >> (BITS - n)).astype(np.float64)
        middle = (u * share).sum(2)
        apart = (u - middle[:, :, None]) * share
        spread_of = (apart * u).sum(2)
        scale = (apart * groups).sum(2) / np.where(spread_of > 0, spread_of, 1)
        scales.append(scale)
        offsets.append(mean - scale * middle)
    return np.stack(scales), np.stack(offsets)
