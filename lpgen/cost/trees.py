"""Gradient-boosted trees as arrays: what xgboost trained, evaluated by NumPy alone.

All trees are complete binary trees of one depth: node i has the children 2 i + 1 and 2 i + 2. A
branch that ended earlier goes left to the end.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

PARTS = (("feature", "u1"), ("threshold", "<f4"), ("value", "<f2"))
"""The names of a forest's parts in a file, and of what numbers they are there."""


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

    def first(self, count: int) -> Forest:
        """So many of these trees, those that were trained first."""
        return Forest(*(part[:count] for part in self._parts()))

    def _parts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.feature, self.threshold, self.value

    def to_json(self) -> dict[str, Any]:
        """As JSON values: each part's shape and its bytes, packed, as text; values in 16 bits."""
        parts = zip(PARTS, self._parts(), strict=True)
        return {name: _to_text(part.astype(kind)) for (name, kind), part in parts}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Forest:
        """What `to_json` gave."""
        feature, threshold, value = (_of_text(content[name], kind) for name, kind in PARTS)
        return cls(feature.astype(np.int16), threshold, value.astype(np.float32))


def _to_text(part: np.ndarray) -> list[Any]:
    return [*part.shape, base64.b64encode(zlib.compress(part.tobytes(), 9)).decode()]


def _of_text(content: Sequence[Any], kind: str) -> np.ndarray:
    *shape, text = content
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), kind).reshape(shape)
