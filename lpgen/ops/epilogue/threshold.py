"""The threshold form of an epilogue: a result of few levels by comparing and counting.

    y = format.min + format.step * (how many of the channel's thresholds t have v >= t)

or, in a channel whose `direction` is negative, v <= t. v is the int32 sum with its bias, so that
scale, batch normalization, clamp and rounding all disappear into `levels - 1` integers a channel,
as in FINN (Umuroglu et al., FPGA 2017). `ops.thresholds` makes them, exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lpgen.formats import Format
from lpgen.ops.epilogue.step import Chain, Given, Place, Step, Sums
from lpgen.ops.parameter import Parameter

MAX_LEVELS = 8
"""More would cost more comparisons than a multiplication."""


@dataclass(frozen=True)
class Threshold(Step):
    """The last step: counts thresholds[n]. Any format of up to 8 levels, b1 and t2 included."""

    format: Format | str
    place: ClassVar[Place] = Place.FORMAT

    def __post_init__(self) -> None:
        object.__setattr__(self, "format", Format.parse(self.format))

    def check(self) -> str | None:
        if self.format.book or self.format.levels > MAX_LEVELS:
            return f"out={self.format} scale=thresholds: u, s, b or t of up to {MAX_LEVELS} levels"
        return None

    def words(self) -> dict[str, str]:
        return {"scale": "thresholds"}

    def parameters(self, chain: Chain, sums: Sums) -> dict[str, Parameter]:
        shape = (sums.channels, self.format.levels - 1)
        return {
            "thresholds": Parameter(shape, "int32", -(2**31), 2**31 - 1),
            "direction": Parameter(shape[:1], "int8", -1, 1),
        }

    def apply(self, v: np.ndarray, chain: Chain, given: Given) -> np.ndarray:
        thresholds, direction = given.parameters["thresholds"], given.parameters["direction"]
        v = v[..., None]
        reached = np.where(direction[:, None] < 0, v <= thresholds, v >= thresholds)
        count = np.count_nonzero(reached, axis=-1)
        return (self.format.min + self.format.step * count).astype(self.format.dtype)
