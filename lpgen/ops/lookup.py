"""Any function of one quantized tensor: a table with its value for each value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lpgen.formats import Format
from lpgen.ops.signature import Argument, Role, Signature
from lpgen.ops.unweighted import VALUES, Unweighted, Values
from lpgen.ops.words import FORMAT, NUMBER, Word


@dataclass(frozen=True, kw_only=True)
class Lookup(Unweighted):
    """y = table[x - act.min]: x and y [size], table [2^bits] with y of each x in ascending order;
    out: a format, or f32.

    A sigmoid, hard-swish or clip of quantized values, and any other scale and zero point, are such
    tables: the oracle of what fills them is not here.
    Raises WorkloadError when the size is outside its limits or a format is not u1..u8 or
    s2..s8.
    """

    size: int
    act: Format
    out: Values

    kind: ClassVar[str] = "lookup"
    WORDS: ClassVar[dict[str, Word]] = {"size": NUMBER, "act": FORMAT, "out": VALUES}

    def __post_init__(self) -> None:
        self._take_sizes("size", 1)
        self._take_values("act", real=False)
        self._take_values("out")

    @property
    def signature(self) -> Signature:
        """(x, table, y)"""
        return Signature(
            (
                Argument.of_values("x", (self.size,), self.act),
                Argument.of_values("table", (self.act.levels,), self.out),
                Argument.of_values("y", (self.size,), self.out, Role.OUTPUT),
            )
        )

    def _example_of(self, argument: Argument, rng: np.random.Generator, name: str) -> np.ndarray:
        random = "random" if argument.name == "table" else name
        return super()._example_of(argument, rng, random)

    def _result(self, x: np.ndarray, table: np.ndarray) -> np.ndarray:
        return table[x.astype(np.int32) - self.act.min]
