"""Number formats: how the values of a tensor are coded in 1..8 bits.

| text           | encoding         | values                            |
|----------------|------------------|-----------------------------------|
| u1..u8         | unsigned         | 0 .. 2^bits - 1                   |
| s2..s8         | two's complement | -2^(bits-1) .. 2^(bits-1) - 1     |
| b1..b7         | bipolar          | odd integers, |value| <= 2^bits-1 |
| t2             | ternary          | -1, 0, 1                          |
| c2:-7,-2,1,6   | code book, c1..4 | those given: 2 .. 2^bits of int8  |

A tensor in a format holds the integer *values* themselves, one per byte. Packed weights hold
*codes* instead, `bits` bits each: a value's place among all values in ascending order, so the
smallest value has code 0.

The values of a code book may be given in any order. That order means nothing, as tensors hold
values and not codes: the canonical text lists them in ascending order.
"""

import operator
import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lpgen.errors import FormatError

# Fewest and most bits of each encoding. Bipolar values of 8 bits (up to +-255) do not fit one byte;
# a code book has to fit the 16 bytes of a shuffle instruction's table.
_BITS = {"u": (1, 8), "s": (2, 8), "b": (1, 7), "t": (2, 2), "c": (1, 4)}
_KNOWN = "u1..u8, s2..s8, b1..b7, t2, c1..c4:VALUE,VALUE,..."


@dataclass(frozen=True)
class Format:
    """A number format: an encoding ("u", "s", "b", "t" or "c") and its bits per value.

    book: the values of a code book ("c"), in any order; the field holds them in ascending order.
    Raises FormatError for a combination that does not exist, and for a code book of other than
    2 .. 2^bits values, with one of them twice, or outside of int8.
    """

    encoding: str
    bits: int
    book: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.encoding not in _BITS:
            raise FormatError(f"format encoding {self.encoding!r} is unknown; formats are {_KNOWN}")
        low, high = _BITS[self.encoding]
        if not low <= self._take_bits() <= high:
            raise FormatError(
                f"format {self.encoding}{self.bits}: bits must be {low}..{high}; "
                f"formats are {_KNOWN}"
            )
        self._check_book()
        object.__setattr__(self, "book", tuple(sorted(self.book)))

    def _take_bits(self) -> int:
        """The field as an int of Python; 0 where it is no integer."""
        if isinstance(self.bits, bool):
            return 0
        try:
            bits = operator.index(self.bits)
        except TypeError:
            return 0
        object.__setattr__(self, "bits", bits)
        return bits

    def _check_book(self) -> None:
        name = f"format {self.encoding}{self.bits}"
        if self.encoding != "c":
            if self.book:
                raise FormatError(f"{name} has no values to give; only code books c1..c4 have")
            return
        if not 2 <= len(self.book) <= 1 << self.bits:
            raise FormatError(
                f"{name} has {len(self.book)} values, expected 2..{1 << self.bits}, "
                f"such as c2:-7,-2,1,6"
            )
        for value in self.book:
            if not -128 <= value <= 127:
                raise FormatError(f"{name}: value {value} is outside -128..127")
            if self.book.count(value) > 1:
                raise FormatError(f"{name}: value {value} is given twice")

    @classmethod
    def parse(cls, text: "str | Format") -> "Format":
        """The format written as `text`, such as "u8", "b1" or "c2:-7,-2,1,6". A Format is returned
        as it is.

        Raises FormatError when there is no such format.
        """
        if isinstance(text, Format):
            return text
        pattern = r"([a-z])([0-9]{1,3})(?::(-?[0-9]{1,4}(?:,-?[0-9]{1,4})*))?"
        match = re.fullmatch(pattern, text) if isinstance(text, str) else None
        if not match:
            raise FormatError(f"{text!r} is not a format; formats are {_KNOWN}")
        book = tuple(map(int, match[3].split(","))) if match[3] else ()
        return cls(match[1], int(match[2]), book)

    @classmethod
    def of_values(cls, values: np.ndarray) -> "Format":
        """The format of the fewest bits that holds these integers of int8 or uint8: unsigned where
        none is negative, bipolar where all are odd and that takes fewer bits, else two's
        complement."""
        low, high = int(values.min()), int(values.max())
        if low >= 0:
            return cls("u", max(1, high.bit_length()))
        signed, odd = cls("s", 2).within(low, high), max(-low, high).bit_length()
        return cls("b", odd) if odd < signed.bits and (values & 1).all() else signed

    def within(self, low: int, high: int) -> "Format":
        """The unsigned or two's complement format, as this one is, of the fewest bits that holds
        low..high."""
        if self.encoding == "u":
            return Format("u", max(1, high.bit_length()))
        return Format("s", max(2, (max(-low - 1, high, 0)).bit_length() + 1))

    def __str__(self) -> str:
        book = f":{','.join(map(str, self.book))}" if self.book else ""
        return f"{self.short}{book}"

    @property
    def short(self) -> str:
        """The encoding and bits alone: for all but code books the whole text."""
        return f"{self.encoding}{self.bits}"

    @property
    def min(self) -> int:
        """The smallest value."""
        if self.book:
            return self.book[0]
        return {"u": 0, "s": -(1 << self.bits - 1), "b": 1 - (1 << self.bits), "t": -1}[
            self.encoding
        ]

    @property
    def max(self) -> int:
        """The largest value."""
        if self.book:
            return self.book[-1]
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
        """The distance of neighbouring values: 2 for bipolar formats, 0 (none) for code books, else
        1."""
        return {"b": 2, "c": 0}.get(self.encoding, 1)

    @property
    def levels(self) -> int:
        """How many values there are (3 for t2, those given for a code book, else 2^bits)."""
        return len(self.book) or (self.max - self.min) // self.step + 1

    @property
    def dtype(self) -> str:
        """The NumPy dtype of a tensor of values: "uint8" for unsigned formats, else "int8"."""
        return "uint8" if self.encoding == "u" else "int8"

    @property
    def has_zero(self) -> bool:
        """Whether 0 is a value (it is not in bipolar formats nor in all code books)."""
        return 0 in self.book if self.book else self.encoding != "b"

    def values(self) -> np.ndarray:
        """All values in ascending order, `dtype`[levels]; the index of a value is its code."""
        if self.book:
            return np.array(self.book, self.dtype)
        return np.arange(self.min, self.max + 1, self.step).astype(self.dtype)

    def encode(self, values: np.ndarray) -> np.ndarray:
        """The codes (places in `values()`) of integer `values`, as uint8 of the same shape.

        Values are trusted; use `check` first on what a user gave.
        """
        return self._codes[np.asarray(values).astype(np.uint8)]

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """The values of `codes` (integers 0..levels-1), as `dtype` of the same shape."""
        return self.values()[np.asarray(codes)]

    @cached_property
    def _codes(self) -> np.ndarray:
        """uint8[256]: the code of the value whose low byte is the index."""
        codes = np.zeros(256, np.uint8)
        codes[self.values().astype(np.uint8)] = np.arange(self.levels)
        return codes

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
        elif self.book:
            legal &= np.isin(array.astype(np.int8), self.values())
        if legal.all():
            return
        first = np.unravel_index(int(np.argmin(legal)), array.shape)
        where = ", ".join(str(int(i)) for i in first)
        raise FormatError(
            f"{what}[{where}] = {int(array[first])} is not a value of {self.described}"
        )

    @property
    def described(self) -> str:
        """The format and its values in words: "b2: odd integers -3..3"."""
        if self.book:
            return f"{self}"
        return f"{self}: {'odd ' if self.step == 2 else ''}integers {self.min}..{self.max}"

    def random(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """Values drawn uniformly from all of them, `dtype`[shape]."""
        return self.values()[rng.integers(0, self.levels, size=shape, dtype=np.uint8)]


def as_array(what: str, value: object) -> np.ndarray:
    """`value` as an array, of whatever dtype; FormatError, naming it, where it is none."""
    try:
        return np.asarray(value)
    except (TypeError, ValueError, OverflowError) as error:
        reason = str(error).splitlines()[0]
        raise FormatError(f"{what}: {type(value).__name__} is no array ({reason})") from None


@dataclass(frozen=True)
class Real:
    """float32, where an operator takes real numbers: what of a Format makes sense for them."""

    encoding = short = "f32"
    bits, step, book, dtype = 32, 0, (), "float32"
    max = float(np.finfo(np.float32).max)
    min = -max

    def __str__(self) -> str:
        return self.short

    def check(self, array: np.ndarray, what: str) -> None:
        """Raise FormatError unless `array` is one of float32."""
        if np.asarray(array).dtype != self.dtype:
            raise FormatError(f"{what}: dtype {np.asarray(array).dtype}, expected {self.dtype}")

    def random(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """Values around 1, half of them multiples of 1/64."""
        values = rng.normal(size=shape)
        some = rng.random(shape) < 0.5
        return np.where(some, np.rint(values * 64) / 64, values).astype(np.float32)


REAL = Real()
