"""Arithmetic on two tensors of float32."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lpgen.formats import REAL
from lpgen.ops.pairs import ALL_AXES, Pair
from lpgen.ops.signature import Argument, Signature
from lpgen.ops.words import Word, one_of

FUNCTIONS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "min": lambda a, b: np.where(a < b, a, b),
    "max": lambda a, b: np.where(a > b, a, b),
}


@dataclass(frozen=True, kw_only=True)
class Binary(Pair):
    """y = a + b, a - b, a * b, a / b, or the smaller or larger one (b where one is no number), in
    float32; a and b as `Pair` says.

    Raises WorkloadError when a size is outside its limits.
    """

    function: str

    kind: ClassVar[str] = "binary"
    WORDS: ClassVar[dict[str, Word]] = {
        "function": Word(one_of(*FUNCTIONS), str),
        **Pair.SIZES,
        **Pair.AXES,
    }

    def __post_init__(self) -> None:
        if self.function not in FUNCTIONS:
            self._fail(f"function={self.function} is unknown; known: {', '.join(FUNCTIONS)}")
        self._take_shapes()

    @property
    def signature(self) -> Signature:
        """(a, b, y)"""
        return self._signature(REAL, REAL, REAL)

    @property
    def label(self) -> str:
        """binary add 1x200704 b:i"""
        return f"binary {self.function} {self.sizes}"

    def _example_of(self, argument: Argument, rng: np.random.Generator, name: str) -> np.ndarray:
        values = super()._example_of(argument, rng, name)
        return np.where(values == 0, np.float32(1), values)  # 0 / 0 is no number

    def _result(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        operands = (self._repeated(name, values) for name, values in (("a", a), ("b", b)))
        y = FUNCTIONS[self.function](*operands)
        return np.broadcast_to(y, self._extents).reshape(self.shape_of(ALL_AXES)).copy()
