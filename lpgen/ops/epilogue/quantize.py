"""Quantize: from the real number to a value of a format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lpgen.formats import Format
from lpgen.ops.epilogue.step import (
    Chain,
    Given,
    Place,
    Readers,
    Step,
    check_quantized,
    format_or_real,
)
from lpgen.ops.words import read_number


@dataclass(frozen=True)
class Quantize(Step):
    """Rounds half to even, adds the zero point and saturates to the format, one value per byte."""

    format: Format | str
    zero: int = 0
    place: ClassVar[Place] = Place.FORMAT
    needs_scale: ClassVar[bool] = True

    READ: ClassVar[Readers] = {"zero_out": read_number}

    def __post_init__(self) -> None:
        object.__setattr__(self, "format", format_or_real(self.format))

    def check(self) -> str | None:
        if self.format == "f32":
            return "out=f32 is no format to quantize to"
        return check_quantized("out", self.format, self.zero)

    def words(self) -> dict[str, str]:
        return {"zero_out": str(self.zero)} if self.zero else {}

    @property
    def integers(self) -> tuple[int, int]:
        """(low, high) of the rounded value before the zero point."""
        return self.format.min - self.zero, self.format.max - self.zero

    def apply(self, v: np.ndarray, chain: Chain, given: Given) -> np.ndarray:
        low, high = map(np.float32, self.integers)
        v = np.where(v < low, low, v)
        v = np.where(v > high, high, v)
        v = np.where(np.isnan(v), low, v)
        return (np.rint(v).astype(np.int32) + self.zero).astype(self.format.dtype)
