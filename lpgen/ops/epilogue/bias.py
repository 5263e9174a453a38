"""Bias: a number for each channel, added to the int32 sum or to the real number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lpgen.ops.epilogue.step import Chain, Given, Place, Readers, Step, Sums
from lpgen.ops.parameter import Parameter, real
from lpgen.ops.words import one_of


@dataclass(frozen=True)
class Bias(Step):
    """Adds bias[n]: "s32" to the int32 sum, "f32" to the scaled one."""

    dtype: str = "s32"

    READ: ClassVar[Readers] = {"bias": one_of("none", "s32", "f32")}

    @property
    def place(self) -> Place:
        """Before or behind the scale."""
        return Place.INTEGER_BIAS if self.dtype == "s32" else Place.REAL_BIAS

    @property
    def needs_scale(self) -> bool:
        """Where it is a real number."""
        return self.dtype == "f32"

    def check(self) -> str | None:
        known = ("s32", "f32")
        return None if self.dtype in known else f"bias={self.dtype} is unknown; known: s32, f32"

    def words(self) -> dict[str, str]:
        return {"bias": self.dtype}

    def parameters(self, chain: Chain, sums: Sums) -> dict[str, Parameter]:
        if self.dtype == "f32":
            return {"bias": real(sums.channels)}
        limit = 2**31 - 1 - sums.bound
        return {"bias": Parameter((sums.channels,), "int32", -limit, limit)}

    def apply(self, v: np.ndarray, chain: Chain, given: Given) -> np.ndarray:
        return v + given.parameters["bias"]
