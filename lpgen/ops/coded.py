"""Rows of float32 quantized once for all products that read them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lpgen.formats import REAL, Format
from lpgen.ops.functions import FUNCTIONS, Numbers
from lpgen.ops.lhs import Lhs, coded_bytes
from lpgen.ops.rounded import ROUNDED_WORD, Rounded
from lpgen.ops.signature import Argument, Role, Signature
from lpgen.ops.words import FORMAT, NUMBER, ZERO, Word, one_of

PLAIN = "none"
KNOWN = (PLAIN, *(name for name, (_, usual) in FUNCTIONS.items() if not usual))


@dataclass(frozen=True, kw_only=True)
class QuantizeRows(Rounded):
    """What a product with input=f32:row makes of x[rows, columns] of float32 before it multiplies,
    as one with input=act:row takes it (`ops.lhs`): codes of `act` around `zero`, then steps.

    function: of each element first, one of those without parameters (`ops.functions`), or none;
    rounded: what is in it (`Rounded`). Raises WorkloadError when a size is outside its limits, for
    an unknown function, and formats and zero points that such a product does not have.
    """

    rows: int = 1
    columns: int
    act: Format
    zero: int = 0
    function: str = PLAIN

    kind: ClassVar[str] = "quantize_rows"
    WORDS: ClassVar[dict[str, Word]] = {
        "rows": NUMBER,
        "columns": NUMBER,
        "act": FORMAT,
        "zero": ZERO,
        "function": Word(one_of(*KNOWN), str, quiet=True),
        "rounded": ROUNDED_WORD,
    }

    def __post_init__(self) -> None:
        self._take_sizes("rows", 1)
        self._take_sizes("columns", 1)
        self._take_format("act")
        self._take_rounded()
        if self.function not in KNOWN:
            self._fail(f"function={self.function} is unknown; known: {', '.join(KNOWN)}")
        if not isinstance(self.zero, int) or not self.act.min <= self.zero <= self.act.max:
            self._fail(f"zero={self.zero} is outside {self.act.min}..{self.act.max} ({self.act})")
        if reason := self.lhs.check(of_rows=True, scaled=True):
            self._fail(reason)
        self._check_elements(x=(self.rows, self.columns), y=self.signature.output.shape)

    @property
    def lhs(self) -> Lhs:
        """How a product takes x itself."""
        return Lhs("f32:row", self.act, self.zero)

    hadamard: ClassVar[int] = 0

    @property
    def signature(self) -> Signature:
        """(x, y)"""
        x = Argument.of_values("x", (self.rows, self.columns), REAL)
        nbytes = coded_bytes(self.rows, self.columns)
        return Signature((x, Argument("y", Role.OUTPUT, (nbytes,), "uint8")))

    @property
    def ops(self) -> int:
        """Two for each element: its size, and with the scale."""
        return 2 * self.rows * self.columns

    def _result(self, x: np.ndarray) -> np.ndarray:
        if self.function != PLAIN:
            x = FUNCTIONS[self.function][0](Numbers.rounding(self.rounded), x)
        return self.lhs.coded(x)
