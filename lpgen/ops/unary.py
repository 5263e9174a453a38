"""Functions of float32, element by element."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lpgen.formats import REAL
from lpgen.ops.functions import FUNCTIONS, Numbers, adds_products
from lpgen.ops.rounded import ROUNDED_WORD, Rounded
from lpgen.ops.signature import Argument, Role, Signature
from lpgen.ops.words import NUMBER, Word, one_of


def read_real(text: str) -> float:
    """The float32 nearest to the number written as `text`."""
    return float(np.float32(text))


REAL_NUMBER = Word(read_real, lambda value: f"{value:.9g}", quiet=True)


@dataclass(frozen=True, kw_only=True)
class Unary(Rounded):
    """y[size] = function(x[size]) in float32 (`lpgen.ops.functions` has them, with their errors).

    alpha, beta: the parameters of those that have any; of clip its bounds. By default ONNX's, and
    0 and 6. rounded: what of products and sums (`Rounded`), "product" where the function has no
    such sum. Raises WorkloadError for an unknown function, and parameters that it has not.
    """

    size: int
    function: str
    alpha: float | None = None
    beta: float | None = None

    kind: ClassVar[str] = "unary"
    WORDS: ClassVar[dict[str, Word]] = {
        "size": NUMBER,
        "function": Word(one_of(*FUNCTIONS), str),
        "alpha": REAL_NUMBER,
        "beta": REAL_NUMBER,
        "rounded": ROUNDED_WORD,
    }

    def __post_init__(self) -> None:
        self._take_sizes("size", 1)
        if self.function not in FUNCTIONS:
            self._fail(f"function={self.function} is unknown; known: {', '.join(FUNCTIONS)}")
        self._take_rounded()
        if not adds_products(self.function):
            self._set("rounded", "product")
        usual = FUNCTIONS[self.function][1]
        for key, value in zip(("alpha", "beta"), (*usual, None, None), strict=False):
            given = getattr(self, key)
            if value is None and given is not None:
                self._fail(f"{key}={given}: {self.function} has no such parameter")
            if value is not None:
                self._set(key, float(np.float32(value if given is None else given)))

    @property
    def parameters(self) -> tuple[float, ...]:
        """Those that the function has, in order."""
        return tuple(v for v in (self.alpha, self.beta) if v is not None)

    @property
    def signature(self) -> Signature:
        """(x, y)"""
        x, y = (
            Argument.of_values(name, (self.size,), REAL, role)
            for name, role in (("x", Role.INPUT), ("y", Role.OUTPUT))
        )
        return Signature((x, y))

    def _example_of(self, argument: Argument, rng: np.random.Generator, name: str) -> np.ndarray:
        x = super()._example_of(argument, rng, name)
        return np.abs(x) if self.function in ("log", "sqrt") else x  # else results are no numbers

    def _result(self, x: np.ndarray) -> np.ndarray:
        arithmetic = Numbers.rounding(self.rounded)
        return FUNCTIONS[self.function][0](arithmetic, x, *self.parameters)
