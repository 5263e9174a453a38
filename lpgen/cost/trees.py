"""Gradient-boosted trees as arrays: what xgboost trained, evaluated by NumPy alone.

All trees are complete binary trees of one depth: node i has the children 2 i + 1 and 2 i + 2. A
branch that ended earlier goes left to the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Forest:
    """feature: int16[trees, nodes], threshold: float32[trees, nodes] (go left where a feature is
    below it), value: float32[trees, leaves]."""

    feature: np.ndarray
    threshold: np.ndarray
    value: np.ndarray

    def predict(self, rows: np.ndarray) -> np.ndarray:
        """The sum of all trees for each row: float32[rows, features] -> float64[rows]."""
        trees, nodes = self.feature.shape
        at = np.zeros((len(rows), trees), np.int64)
        number, row = np.arange(trees), np.arange(len(rows))[:, None]
        while at.size and at[0, 0] < nodes:
            right = rows[row, self.feature[number, at]] >= self.threshold[number, at]
            at = 2 * at + 1 + right
        return self.value[number, at - nodes].sum(axis=1, dtype=np.float64)

    def extended(self, other: Forest) -> Forest:
        """These trees and those of another forest of the same depth."""
        both = (np.concatenate(p) for p in zip(self._parts(), other._parts(), strict=True))
        return Forest(*both)

    def _parts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.feature, self.threshold, self.value

    def to_json(self) -> dict[str, Any]:
        """As JSON values; thresholds with all digits, values to four."""
        return {
            "feature": self.feature.tolist(),
            "threshold": [[float(f"{v:.9g}") for v in tree] for tree in self.threshold.tolist()],
            "value": [[float(f"{v:.4g}") for v in tree] for tree in self.value.tolist()],
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Forest:
        """What `to_json` gave."""
        return cls(
            np.array(content["feature"], np.int16),
            np.array(content["threshold"], np.float32),
            np.array(content["value"], np.float32),
        )
