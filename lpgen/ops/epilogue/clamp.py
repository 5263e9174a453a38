"""Clamp: bounds of the result, ReLU and ReLU6 among them."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lpgen.errors import WorkloadError
from lpgen.ops.epilogue.quantize import Quantize
from lpgen.ops.epilogue.scale import Scale
from lpgen.ops.epilogue.step import Chain, Given, Place, Readers, Step, Sums, find
from lpgen.ops.parameter import FLOAT_LIMIT, Parameter
from lpgen.ops.words import read_number

NAMED = ("relu", "relu6")


def _read(text: str) -> str | tuple[int, int]:
    if text in ("none", *NAMED):
        return text
    low, x, high = text.partition("x")
    if not x:
        raise ValueError(f"{text!r} is none of none, relu, relu6, LOWxHIGH")
    return read_number(low), read_number(high)


@dataclass(frozen=True)
class Clamp(Step):
    """Bounds of the result, "relu", "relu6" or (low, high)."""

    bounds: str | tuple[int, int]
    place: ClassVar[Place] = Place.CLAMP

    READ: ClassVar[Readers] = {"clamp": _read}

    def __post_init__(self) -> None:
        if not isinstance(self.bounds, str):
            try:
                bounds = tuple(operator.index(bound) for bound in self.bounds)
            except TypeError:
                raise WorkloadError(f"clamp={self.bounds!r}: bounds are integers") from None
            object.__setattr__(self, "bounds", bounds)

    def check(self) -> str | None:
        if isinstance(self.bounds, str):
            if self.bounds in NAMED:
                return None
            return f"clamp={self.bounds} is unknown; known: relu, relu6, LOWxHIGH"
        if len(self.bounds) != 2:
            return f"clamp has {len(self.bounds)} bounds, expected 2"
        low, high = self.bounds
        if not -(2**31) <= low <= high < 2**31:
            return f"clamp={low}x{high} is no range of int32"
        return None

    def check_within(self, chain: Chain) -> str | None:
        """Why the chain cannot have these bounds, or None."""
        quantize = find(chain, Quantize)
        if self.bounds == "relu6" and not find(chain, Scale):
            return "clamp=relu6 is for real numbers, out=s32 has none"
        if quantize and not isinstance(self.bounds, str):
            (low, high), form = self.bounds, quantize.format
            if not form.min <= low <= high <= form.max:
                return f"clamp={low}x{high} is outside {form.min}..{form.max} ({form})"
        return None

    def words(self) -> dict[str, str]:
        named = isinstance(self.bounds, str)
        return {"clamp": self.bounds if named else "x".join(map(str, self.bounds))}

    def parameters(self, chain: Chain, sums: Sums) -> dict[str, Parameter]:
        """six: what 6 is in steps of a quantized result."""
        if self.bounds == "relu6" and find(chain, Quantize):
            return {"six": Parameter((1,), "float32", 0.0, FLOAT_LIMIT)}
        return {}

    def integers(self, quantize: Quantize | None) -> tuple[int | None, int | None]:
        """(low, high) of v where this step stands, None: no bound, or no integer."""
        if isinstance(self.bounds, tuple):
            zero = quantize.zero if quantize else 0
            return self.bounds[0] - zero, self.bounds[1] - zero
        return 0, 6 if self.bounds == "relu6" and not quantize else None

    def apply(self, v: np.ndarray, chain: Chain, given: Given) -> np.ndarray:
        quantize = find(chain, Quantize)
        if "six" in given.parameters:
            v = np.where(given.parameters["six"] < v, given.parameters["six"], v)
        low, high = (b if b is None else v.dtype.type(b) for b in self.integers(quantize))
        # Not np.maximum: which zero it takes of 0.0 and -0.0 is not said.
        v = np.where(v < low, low, v)
        v = v if high is None else np.where(v > high, high, v)
        return np.where(np.isnan(v), low, v) if quantize else v
