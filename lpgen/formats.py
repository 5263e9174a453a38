"""Number formats: how the values of a tensor are coded in 1..8 bits.

| text   | encoding         | values                            |
|--------|------------------|-----------------------------------|
| u1..u8 | unsigned         | 0 .. 2^bits - 1                   |
| s2..s8 | two's complement | -2^(bits-1) .. 2^(bits-1) - 1     |
| b1..b7 | bipolar          | odd integers, |value| <= 2^bits-1 |
| t2     | ternary          | -1, 0, 1                          |

A tensor in a format holds the integer *values* themselves, one per byte. Packed weights hold
*codes* instead, `bits` bits each: code = (value - min) / step, so the smallest value has code 0.
"""

import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lpgen.errors import FormatError

# Fewest and most bits of each encoding. Bipolar values of 8 bits (up to +-255) do not fit one byte.
_BITS = {"u": (1, 8), "s": (2, 8), "b": (1, 7), "t": (2, 2)}
_KNOWN = "u1..u8, s2..s8, b1..b7, t2"


@dataclass(frozen=True)
class Format:
    """A number format: an encoding ("u", "s", "b" or "t") and its bits per value.

    Raises FormatError for a combination that does not exist.
    """

    encoding: str
    bits: int

    def __post_init__(self) -> None:
        if self.encoding not in _BITS:
            raise FormatError(f"format encoding {self.encoding!r} is unknown; formats are {_KNOWN}")
        low, high = _BITS[self.encoding]
        if not isinstance(self.bits, int) or not low <= self.bits <= high:
            raise FormatError(
                f"format {self.encoding}{self.bits}: bits must be {low}..{high}; "
                f"formats are {_KNOWN}"
            )

    @classmethod
    def parse(cls, text: "str | Format") -> "Format":
        """The format written as `text`, such as "u8", "b1" or "t2". A Format is returned as it is.

        Raises FormatError when there is no such format.
        """
        if isinstance(text, Format):
            return text
        match = re.fullmatch(r"([a-z])([0-9]{1,3})", text) if isinstance(text, str) else None
        if not match:
            raise FormatError(f"{text!r} is not a format; formats are {_KNOWN}")
        return cls(match[1], int(match[2]))

    def __str__(self) -> str:
        return f"{self.encoding}{self.bits}"

    @property
    def min(self) -> int:
        """The smallest value."""
        return {"u": 0, "s": -(1 << self.bits - 1), "b": 1 - (1 << self.bits), "t": -1}[
            self.encoding
        ]

    @property
    def max(self) -> int:
        """The largest value."""
        return {
            "u": (1 << self.bits) - 1,
            "s": (1 << self.bits - 1) - 1,
            "b": (1 << self.bits) - 1,
            "t": 1,
        }[self.encoding]

    @property
    def largest(self) -> int:
        """The largest absolute value."""
        return max(-self.min, self.max)

    @property
    def step(self) -> int:
        """The distance of neighbouring values: 2 for bipolar formats, else 1."""
        return 2 if self.encoding == "b" else 1

    @property
    def levels(self) -> int:
        """How many different values there are (3 for t2, else 2^bits)."""
        return (self.max - self.min) // self.step + 1

    @property
    def dtype(self) -> str:
        """The NumPy dtype of a tensor of values: "uint8" for unsigned formats, else "int8"."""
        return "uint8" if self.encoding == "u" else "int8"

    @property
    def has_zero(self) -> bool:
        """Whether 0 is a value (it is not in bipolar formats)."""
        return self.encoding != "b"

    def values(self) -> np.ndarray:
        """All values in ascending order, `dtype`[levels]; the index of a value is its code."""
        return np.arange(self.min, self.max + 1, self.step).astype(self.dtype)

    def encode(self, values: np.ndarray) -> np.ndarray:
        """The codes (value - min) / step of integer `values`, as uint8 of the same shape.

        Values are trusted; use `check` first on what a user gave.
        """
        return self._codes[np.asarray(values).astype(np.uint8)]

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """The values of `codes` (integers 0..levels-1), as `dtype` of the same shape."""
        return self.values()[np.asarray(codes)]

    @cached_property
    def _codes(self) -> np.ndarray:
        """uint8[256]: the code of the value whose low byte is the index."""
        value = np.arange(256, dtype=np.uint8).view(self.dtype).astype(np.int16)
        return ((value - self.min) // self.step).astype(np.uint8)

    def check(self, array: np.ndarray, what: str) -> None:
        """Raise FormatError, naming the first illegal value, unless `array` holds only values.

        `array` is of any integer dtype and shape; `what` names it in the message.
        """
        array = np.asarray(array)
        if array.dtype.kind not in "iu":
            raise FormatError(
                f"{what}: dtype {array.dtype} holds no integers; {self} is {self.dtype}"
            )
        if self.levels == 256 and array.dtype == self.dtype:
            return
        legal = (array >= self.min) & (array <= self.max)
        if self.step == 2:
            legal &= (array & 1).astype(bool)
        if legal.all():
            return
        first = np.unravel_index(int(np.argmin(legal)), array.shape)
        where = ", ".join(str(int(i)) for i in first)
        odd = "odd " if self.step == 2 else ""
        raise FormatError(
            f"{what}[{where}] = {int(array[first])} is not a value of {self}: "
            f"{odd}integers {self.min}..{self.max}"
        )

    def random(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """Values drawn uniformly from all of them, `dtype`[shape]."""
        return self.values()[rng.integers(0, self.levels, size=shape, dtype=np.uint8)]
