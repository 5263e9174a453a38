"""What all operators share: words and their texts, shapes, inputs, the limits of int32."""

import math
import operator
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, dataclass, fields
from functools import cached_property
from typing import Any, ClassVar, NamedTuple, NoReturn

import numpy as np

from lpgen.errors import FormatError, WorkloadError
from lpgen.formats import Format

INT32_MAX = 2**31 - 1
# Sizes and indices are int32 in the generated code.
MAX_ELEMENTS = 2**31 - 1


class Matrix(NamedTuple):
    """An operator seen as `groups` matrix products [m, k] x [k, n] (m: output positions)."""

    groups: int
    m: int
    n: int
    k: int


class Word(NamedTuple):
    """How a field of an operator is written in a workload: value from text, and text from value."""

    read: Callable[[str], Any]
    write: Callable[[Any], str]


def read_number(text: str) -> int:
    """The number written as `text`; ValueError with the reason if it is none."""
    if not re.fullmatch(r"-?[0-9]+", text):
        raise ValueError(f"{text!r} is not a number")
    if len(text) > 18:
        raise ValueError(f"{text[:12]}... is above the limit {MAX_ELEMENTS}")
    return int(text)


def _read_numbers(text: str) -> tuple[int, ...]:
    return tuple(read_number(part) for part in text.split("x"))


def as_pair(value: int | Sequence[int]) -> tuple[int, ...]:
    """(height, width) from one number for both, or from the pair itself; else ValueError."""
    pair = tuple(value) if isinstance(value, Sequence) else (value,)
    if len(pair) not in (1, 2):
        raise ValueError(f"{len(pair)} numbers, expected 1 or 2")
    return pair * 2 if len(pair) == 1 else pair


def as_edges(value: int | Sequence[int]) -> tuple[int, ...]:
    """(top, left, bottom, right) from one number, (height, width), or the four; else ValueError."""
    edges = tuple(value) if isinstance(value, Sequence) else (value,)
    if len(edges) not in (1, 2, 4):
        raise ValueError(f"{len(edges)} numbers, expected 1, 2 or 4")
    return edges * (4 // len(edges))


def _write_pair(pair: tuple[int, ...]) -> str:
    return "x".join(map(str, pair[:1] if pair[0] == pair[1] else pair))


def _write_edges(edges: tuple[int, ...]) -> str:
    return _write_pair(edges[:2]) if edges[:2] == edges[2:] else "x".join(map(str, edges))


NUMBER = Word(read_number, str)
KERNEL = Word(lambda text: as_pair(_read_numbers(text)), lambda pair: "x".join(map(str, pair)))
PAIR = Word(lambda text: as_pair(_read_numbers(text)), _write_pair)
EDGES = Word(lambda text: as_edges(_read_numbers(text)), _write_edges)
FORMAT = Word(Format.parse, str)
TEXT = Word(str, str)


@dataclass(frozen=True)
class Operator:
    """Base of the operators: frozen dataclasses whose fields are the words of the workload.

    A subclass states its `kind`, its `WORDS` (one per field, in canonical order), its shapes, its
    `matrix` and `_sums`; it has fields `act`, `weight` (Format) and `out` ("s32").
    """

    kind: ClassVar[str]
    WORDS: ClassVar[dict[str, Word]]
    # The pairs of ends that `extreme` knows: which end of its format fills x, and which fills w.
    EXTREMES: ClassVar[tuple[str, ...]] = ("max-max", "max-min", "min-max", "min-min")

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """The fields that a workload may leave out, with their values."""
        return {f.name: f.default for f in fields(cls) if f.default is not MISSING}

    @cached_property
    def name(self) -> str:
        """The canonical workload text; `ops.workload.parse` reads it back to an equal operator."""
        words = (f"{key}={word.write(getattr(self, key))}" for key, word in self.WORDS.items())
        return f"{self.kind} {' '.join(words)}"

    def __str__(self) -> str:
        return self.name

    @property
    def matrix(self) -> Matrix:
        """The operator as matrix products."""
        raise NotImplementedError

    @property
    def x_shape(self) -> tuple[int, ...]:
        """Shape of the activations."""
        raise NotImplementedError

    @property
    def w_shape(self) -> tuple[int, ...]:
        """Shape of the weights."""
        raise NotImplementedError

    @property
    def y_shape(self) -> tuple[int, ...]:
        """Shape of the result."""
        raise NotImplementedError

    @property
    def macs(self) -> int:
        """Multiply-accumulates, those on padding included."""
        return math.prod(self.matrix)

    @property
    def ops(self) -> int:
        """Arithmetic operations: two for each multiply-accumulate."""
        return 2 * self.macs

    @property
    def weight_bits_total(self) -> int:
        """Bits of all weights when each is stored at exactly its bits."""
        return math.prod(self.w_shape) * self.weight.bits

    @property
    def bound(self) -> int:
        """The largest absolute value a result could have, by shape and formats."""
        return self.matrix.k * self.act.largest * self.weight.largest

    def random(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Inputs (x, w) of uniformly drawn values."""
        return self.act.random(rng, self.x_shape), self.weight.random(rng, self.w_shape)

    def extreme(self, which: str) -> tuple[np.ndarray, np.ndarray]:
        """Inputs (x, w) of one value each; `which` is one of EXTREMES, such as "max-min"."""
        if which not in self.EXTREMES:
            raise WorkloadError(f"extreme {which!r} is unknown; known: {', '.join(self.EXTREMES)}")
        x_end, w_end = which.split("-")
        return (
            np.full(self.x_shape, getattr(self.act, x_end), self.act.dtype),
            np.full(self.w_shape, getattr(self.weight, w_end), self.weight.dtype),
        )

    def extremes(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The worst-case inputs: every pair of ends of the two formats."""
        return (self.extreme(which) for which in self.EXTREMES)

    def reference(self, x: np.ndarray, w: np.ndarray) -> np.ndarray:
        """The exact result, int32[y_shape], computed by NumPy alone: the oracle of every test.

        x: integers[x_shape] in format `act`; w: integers[w_shape] in format `weight`. Values on
        padding count as 0, also in formats that have no zero.
        Raises WorkloadError on another shape and FormatError on a value outside its format.
        """
        x, w = np.asarray(x), np.asarray(w)
        for what, array, shape, form in (
            ("x", x, self.x_shape, self.act),
            ("w", w, self.w_shape, self.weight),
        ):
            if array.shape != shape:
                raise WorkloadError(
                    f"{self.kind}: {what} has shape {array.shape}, expected {shape}"
                )
            form.check(array, what)
        return self._sums(x, w).astype(np.int32)

    def _sums(self, x: np.ndarray, w: np.ndarray) -> np.ndarray:
        """The sums of products, exact integers of any dtype, [y_shape]."""
        raise NotImplementedError

    @property
    def _exact_float(self) -> type:
        """The narrowest float in which every partial sum is an exact integer.

        That makes BLAS exact in whatever order it adds: bound <= 2^24 for float32, and the int32
        limit keeps it below 2^53 for float64.
        """
        return np.float32 if self.bound <= 2**24 else np.float64

    # The checks that all operators make when they are created.

    def _set(self, key: str, value: Any) -> None:
        object.__setattr__(self, key, value)

    def _fail(self, reason: str) -> NoReturn:
        raise WorkloadError(f"{self.kind}: {reason}")

    def _check_formats(self) -> None:
        for key in ("act", "weight"):
            try:
                self._set(key, Format.parse(getattr(self, key)))
            except FormatError as error:
                self._fail(f"{key}: {error}")
        if self.out != "s32":
            self._fail(f"out={self.out} is unknown; known: s32")

    def _take_sizes(self, key: str, low: int, spread: Callable[[Any], tuple] | None = None) -> None:
        """Make field `key` an int, or the tuple that `spread` makes of it, of low..MAX_ELEMENTS."""
        value = getattr(self, key)
        try:
            sizes = spread(value) if spread else (value,)
            sizes = tuple(int(operator.index(size)) for size in sizes)
        except (TypeError, ValueError) as error:
            self._fail(f"{key}={value!r} is not a size: {error}")
        self._set(key, sizes if spread else sizes[0])
        if not all(low <= size <= MAX_ELEMENTS for size in sizes):
            text = self.WORDS[key].write(getattr(self, key))
            self._fail(f"{key}={text} is outside {low}..{MAX_ELEMENTS}")

    def _check_sizes(self) -> None:
        """Tensors can be indexed with int32, and no exact result can leave int32."""
        for what, shape in (("x", self.x_shape), ("w", self.w_shape), ("y", self.y_shape)):
            if math.prod(shape) > MAX_ELEMENTS:
                self._fail(
                    f"{what} has {math.prod(shape)} elements {shape}, the limit is {MAX_ELEMENTS}"
                )
        if self.bound > INT32_MAX:
            self._fail(
                f"k={self.matrix.k} with act={self.act} weight={self.weight} may reach "
                f"{self.bound}, above the int32 limit {INT32_MAX}; "
                f"k may be {INT32_MAX // (self.act.largest * self.weight.largest)} at most"
            )


def rows_per_block(row: int) -> int:
    """How many rows of `row` floats keep a block of an oracle's operands at 32 MiB or less."""
    return max(1, 2**22 // row)
