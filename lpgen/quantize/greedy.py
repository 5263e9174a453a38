"""Greedy bit planes: w = sum of scale_i * sign_i, as in PrecisionBatching (arXiv 2003.00822).

Each plane is the sign of what the planes before left, with the scale of the least squared error,
the mean of its absolute values. The baseline that `prefixes` is measured against: errors stop
falling behind some four planes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lpgen.quantize.codes import joined, split, spread


@dataclass(frozen=True)
class Planes:
    """signs: int8 [layers, n, k], 1 and -1; scale: float32 [layers, n, groups]; group: neighbours
    in a row that share a scale, 0: all of it."""

    signs: np.ndarray
    scale: np.ndarray
    group: int = 0

    @property
    def stored(self) -> np.ndarray:
        """int8 [n, layers * k]: what kernels with weight=b1 layers=LOW..HIGH pack."""
        return np.ascontiguousarray(self.signs.transpose(1, 0, 2)).reshape(self.signs.shape[1], -1)

    def real(self, layers: int) -> np.ndarray:
        """What the first `layers` stand for, float32 [n, k]."""
        k = self.signs.shape[2]
        pairs = zip(self.signs[:layers], self.scale[:layers], strict=True)
        return sum(sign * spread(scale, k, self.group) for sign, scale in pairs)


def planes(w: np.ndarray, layers: int, group: int = 0) -> Planes:
    """So many planes of w [n, k]."""
    rest = split(w.astype(np.float64), group)
    inside = split(np.ones((1, w.shape[1])), group)  # 0 where a group was filled up
    signs, scales = [], []
    for _ in range(layers):
        sign = np.where(rest >= 0, 1, -1)
        scale = (np.abs(rest) * inside).sum(2) / inside.sum(2)
        rest = rest - scale[:, :, None] * sign * inside
        signs.append(joined(sign, w.shape[1]).astype(np.int8))
        scales.append(scale.astype(np.float32))
    return Planes(np.stack(signs), np.stack(scales), group)


def refitted(found: Planes, w: np.ndarray, layers: int) -> Planes:
    """The first `layers` planes with the scales of the least squared error for these alone."""
    signs = np.stack([split(plane.astype(np.float64), found.group) for plane in found.signs])
    a = signs[:layers].transpose(1, 2, 3, 0)  # [n, groups, group, layers]
    rows = split(w.astype(np.float64), found.group)[..., None]
    across = a.swapaxes(2, 3)
    scale = np.linalg.pinv(across @ a) @ (across @ rows)
    scale = scale[..., 0].transpose(2, 0, 1).astype(np.float32)
    return Planes(found.signs[:layers], scale, found.group)
