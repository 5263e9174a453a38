"""Elements of one type as elements of another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lpgen.ops.signature import Argument, Role, Signature
from lpgen.ops.unweighted import Unweighted
from lpgen.ops.words import NUMBER, Word, one_of

DTYPES = ("uint8", "int8", "int32", "int64", "float32")
TO = (*DTYPES, "bool")
REACH = 2.0**31
"""float32 outside of it becomes the nearest int32 on its way to an integer; NaN becomes 0."""


@dataclass(frozen=True, kw_only=True)
class Cast(Unweighted):
    """y[size] = x[size] as another type.

    to=bool: 1 where x is not 0 (nor NaN), else 0, as uint8. Integers keep their low bits; float32
    is cut towards 0 (and bounded, see REACH), and is the nearest one to an integer of more than 24
    bits. Raises WorkloadError for other types.
    """

    size: int
    dtype: str
    to: str

    kind: ClassVar[str] = "cast"
    WORDS: ClassVar[dict[str, Word]] = {
        "size": NUMBER,
        "dtype": Word(one_of(*DTYPES), str),
        "to": Word(one_of(*TO), str),
    }

    def __post_init__(self) -> None:
        self._take_sizes("size", 1)
        for key, known in (("dtype", DTYPES), ("to", TO)):
            if (word := getattr(self, key)) not in known:
                self._fail(f"{key}={word} is unknown; known: {', '.join(known)}")

    @property
    def signature(self) -> Signature:
        """(x, y)"""
        out = "uint8" if self.to == "bool" else self.to
        x = Argument("x", Role.INPUT, (self.size,), self.dtype)
        return Signature((x, Argument("y", Role.OUTPUT, (self.size,), out)))

    def _example_of(self, argument: Argument, rng: np.random.Generator, name: str) -> np.ndarray:
        if self.dtype == "float32":
            x = rng.normal(0, 1e3, argument.shape) * 10.0 ** rng.integers(-5, 9, argument.shape)
            x = np.where(rng.random(argument.shape) < 0.1, [np.nan, np.inf][rng.integers(2)], x)
            return x.astype(np.float32)
        info = np.iinfo(self.dtype)
        ends = {"max": info.max, "min": info.min}
        if name in ends:
            return np.full(argument.shape, ends[name], self.dtype)
        x = rng.integers(info.min, info.max, argument.shape, self.dtype, endpoint=True)
        return np.where(rng.random(argument.shape) < 0.3, 0, x).astype(self.dtype)

    def _result(self, x: np.ndarray) -> np.ndarray:
        if self.to == "bool":
            return ((x != 0) & (x == x)).astype(np.uint8)
        if self.dtype == "float32" and self.to != "float32":
            x = np.where(x == x, x, np.float32(0)).clip(-REACH, np.nextafter(np.float32(REACH), 0))
            x = x.astype(np.int32)
        return x.astype(self.to)
