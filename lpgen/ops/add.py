"""Adding two quantized tensors: what a residual connection does where no kernel has it fused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lpgen.ops.pairs import QuantizedPair
from lpgen.ops.words import Word, one_of

CLAMPS = ("none", "relu")


@dataclass(frozen=True, kw_only=True)
class Add(QuantizedPair):
    """y = (scale_a * (a - zero_a) + scale_b * (b - zero_b)) / scale_y + zero_y, rounded half to
    even, saturated; with clamp=relu the sum is bounded by 0 before it is divided.

    Every operation is one of IEEE 754 in float32, in the order written. The result is the lowest
    value where the quotient is no number (NaN), and zero_y where the sum is none and clamp=relu.
    Source: QLinearAdd, https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
    """

    clamp: str = "none"

    kind: ClassVar[str] = "add"
    WORDS: ClassVar[dict[str, Word]] = {
        **QuantizedPair.SIZES,
        **QuantizedPair.FORMATS,
        "clamp": Word(one_of(*CLAMPS), str, quiet=True),
        **QuantizedPair.ROUNDED,
        **QuantizedPair.AXES,
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.clamp not in CLAMPS:
            self._fail(f"clamp={self.clamp} is unknown; known: {', '.join(CLAMPS)}")

    @property
    def label(self) -> str:
        """add 1x200704 u8 + u8 -> u8"""
        relu = "" if self.clamp == "none" else f" {self.clamp}"
        return f"add {self.sizes} {self.a} + {self.b}{relu} -> {self.out}"

    @property
    def _largest(self) -> float:
        return (self.a.levels + self.b.levels) / 2

    def _result(
        self, a: np.ndarray, b: np.ndarray, scales: np.ndarray, zeros: np.ndarray
    ) -> np.ndarray:
        v = self._real("a", a, scales, zeros) + self._real("b", b, scales, zeros)
        v = np.where(v > 0, v, np.float32(0)) if self.clamp == "relu" else v
        return self._quantized(v / scales[2], zeros[2])
