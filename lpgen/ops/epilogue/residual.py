"""Residual: another tensor of the result's shape, added to the real number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lpgen.formats import REAL, Format, Real
from lpgen.ops.epilogue.step import (
    Chain,
    Given,
    Place,
    Readers,
    Step,
    Sums,
    check_quantized,
    format_or_real,
)
from lpgen.ops.parameter import Parameter, real
from lpgen.ops.words import read_number


def _read(text: str) -> Format | str:
    return text if text == "none" else format_or_real(text)


@dataclass(frozen=True)
class Residual(Step):
    """Adds another tensor of the result's shape: quantized with its scale and zero point, or "f32"
    as it is. It is an input of every call. Behind a Middle the sum is divided by `output_scale`."""

    format: Format | str
    zero: int = 0
    place: ClassVar[Place] = Place.RESIDUAL
    needs_scale: ClassVar[bool] = True

    READ: ClassVar[Readers] = {"residual": _read, "zero_residual": read_number}

    def __post_init__(self) -> None:
        object.__setattr__(self, "format", format_or_real(self.format))

    @property
    def dtype(self) -> str:
        """The NumPy dtype of the tensor."""
        return self.values.dtype

    @property
    def values(self) -> Format | Real:
        """What the values of the tensor are."""
        return REAL if self.format == "f32" else self.format

    def check(self) -> str | None:
        if self.format != "f32":
            return check_quantized("residual", self.format, self.zero)
        if self.zero:
            return f"zero_residual={self.zero}: residual=f32 has no zero point"
        return None

    def words(self) -> dict[str, str]:
        words = {"residual": str(self.format)}
        return words | ({"zero_residual": str(self.zero)} if self.zero else {})

    def parameters(self, chain: Chain, sums: Sums) -> dict[str, Parameter]:
        return {} if self.format == "f32" else {"residual_scale": real(1)}

    def apply(self, v: np.ndarray, chain: Chain, given: Given) -> np.ndarray:
        if self.format == "f32":
            return v + given.residual
        value = (given.residual.astype(np.int32) - self.zero).astype(np.float32)
        v = v + value * given.parameters["residual_scale"]
        return v / given.parameters["output_scale"] if "output_scale" in given.parameters else v

    def random(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """A tensor to add."""
        if self.format == "f32":
            return rng.normal(scale=50, size=shape).astype(np.float32)
        return self.format.random(rng, shape)
