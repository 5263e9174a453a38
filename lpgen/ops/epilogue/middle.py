"""Middle: a quantization between the product and a residual, as of a tensor that lies there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lpgen.formats import Format
from lpgen.ops.epilogue.quantize import Quantize
from lpgen.ops.epilogue.residual import Residual
from lpgen.ops.epilogue.step import Chain, Given, Place, Readers, Step, Sums, check_quantized, find
from lpgen.ops.parameter import FLOAT_LIMIT, Parameter, real
from lpgen.ops.words import read_number

LEAST_DIVISOR = 2.0**-40
"""Kernels multiply by what the divisor's inverse is, in two parts (`lpgen.tir.quotient`)."""


def _read(text: str) -> Format | str:
    return text if text == "none" else Format.parse(text)


@dataclass(frozen=True)
class Middle(Step):
    """Rounds to a value of the format, as Quantize does, and goes on with the real number that it
    stands for: what a quantized network computes where a residual is added to a quantized tensor.

    `scale` is then that to steps of this format, `middle_scale` what one of these is worth, and the
    sum with the residual is divided by `output_scale`, that of the result.
    """

    format: Format | str
    zero: int = 0
    place: ClassVar[Place] = Place.MIDDLE
    needs_scale: ClassVar[bool] = True

    READ: ClassVar[Readers] = {"middle": _read, "zero_middle": read_number}

    def __post_init__(self) -> None:
        object.__setattr__(self, "format", Format.parse(self.format))

    def check(self) -> str | None:
        return check_quantized("middle", self.format, self.zero)

    def check_within(self, chain: Chain) -> str | None:
        """Why the chain cannot have it, or None."""
        residual = find(chain, Residual)
        if residual is None or residual.format == "f32" or not find(chain, Quantize):
            return f"middle={self.format} is for a quantized residual= and out=FORMAT"
        return None

    def words(self) -> dict[str, str]:
        words = {"middle": str(self.format)}
        return words | ({"zero_middle": str(self.zero)} if self.zero else {})

    @property
    def integers(self) -> tuple[int, int]:
        """(low, high) of the rounded value before the zero point."""
        return self.format.min - self.zero, self.format.max - self.zero

    def parameters(self, chain: Chain, sums: Sums) -> dict[str, Parameter]:
        divisor = Parameter((1,), "float32", LEAST_DIVISOR, FLOAT_LIMIT)
        return {"middle_scale": real(1), "output_scale": divisor}

    def apply(self, v: np.ndarray, chain: Chain, given: Given) -> np.ndarray:
        low, high = map(np.float32, self.integers)
        v = np.where(v > low, v, low)
        v = np.rint(np.where(v < high, v, high)).astype(np.int32)
        return v.astype(np.float32) * given.parameters["middle_scale"]
