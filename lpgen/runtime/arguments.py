"""Argument of a kernel, as the manifest describes it."""

import math
from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Argument:
    """One argument: its name and role, "input" (a tensor), "packed" (weights), "scalar" (an
    integer) or "output"; shape and dtype; format: the text of what its values are, or ""; low,
    high: the limits of a scalar; rows: the scalar that is the first extent at a call, of which
    `shape` has the largest, or ""."""

    name: str
    role: str
    shape: tuple[int, ...]
    dtype: np.dtype
    format: str = ""
    low: int = 0
    high: int = 0
    rows: str = ""

    @classmethod
    def of_entry(cls, entry: dict) -> "Argument":
        """From an entry of the manifest."""
        limits = (int(entry["min"]), int(entry["max"])) if entry["role"] == "scalar" else (0, 0)
        shape, dtype = tuple(entry["shape"]), np.dtype(entry["dtype"])
        form, rows = entry.get("format", ""), entry.get("rows", "")
        return cls(entry["name"], entry["role"], shape, dtype, form, *limits, rows)

    def at(self, rows: int) -> "Argument":
        """The argument in a call with so many rows."""
        return replace(self, shape=(rows, *self.shape[1:])) if self.rows else self

    @property
    def nbytes(self) -> int:
        """Its size in bytes."""
        return self.dtype.itemsize * math.prod(self.shape)
