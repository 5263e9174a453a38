"""Multiplying two quantized tensors, such as an image and the factors of its channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lpgen.ops.pairs import QuantizedPair
from lpgen.ops.words import Word


@dataclass(frozen=True, kw_only=True)
class Mul(QuantizedPair):
    """y = (a - zero_a) * (b - zero_b) * (scale_a * scale_b / scale_y) + zero_y, rounded half to
    even, saturated.

    The first product is an exact integer, all others are float32 and in the order written, as
    QLinearMul of onnxruntime has them. With rounded=quotient it is, all in float32,
    (scale_a * (a - zero_a)) * (scale_b * (b - zero_b)) / scale_y, rounded, + zero_y.
    Source: QLinearMul, https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
    """

    kind: ClassVar[str] = "mul"
    WORDS: ClassVar[dict[str, Word]] = {
        **QuantizedPair.SIZES,
        **QuantizedPair.FORMATS,
        **QuantizedPair.ROUNDED,
        **QuantizedPair.AXES,
    }

    @property
    def label(self) -> str:
        """mul 1x3136x64 b:oi u8 * u8 -> u8"""
        return f"mul {self.sizes} {self.a} * {self.b} -> {self.out}"

    @property
    def _largest(self) -> float:
        return self.a.levels * self.b.levels / 4

    def _result(
        self, a: np.ndarray, b: np.ndarray, scales: np.ndarray, zeros: np.ndarray
    ) -> np.ndarray:
        if self.rounded == "quotient":
            v = self._real("a", a, scales, zeros) * self._real("b", b, scales, zeros) / scales[2]
        else:
            products = self._numbers("a", a, zeros) * self._numbers("b", b, zeros)
            v = products.astype(np.float32) * (scales[0] * scales[1] / scales[2])
        return self._quantized(v, zeros[2])
