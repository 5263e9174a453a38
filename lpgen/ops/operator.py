"""What all operators are: words and their text, tensors, parameters, an oracle, inputs to try."""

from __future__ import annotations

import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, replace
from functools import cached_property
from typing import Any, ClassVar, NamedTuple, NoReturn, Self

import numpy as np

from lpgen.errors import FormatError, WorkloadError
from lpgen.formats import Format, Real, as_array
from lpgen.ops.rows import Range
from lpgen.ops.signature import Signature
from lpgen.ops.words import MAX_ELEMENTS, Word


class Example(NamedTuple):
    """One set of arguments of an operator.

    name: "random", or one of `Operator.EXTREMES`; inputs: what every call takes, by name; weights:
    None where there are none; parameters: what is given once, with the weights, by name.
    """

    name: str
    inputs: dict[str, np.ndarray]
    weights: np.ndarray | None
    parameters: dict[str, np.ndarray]

    @property
    def given(self) -> dict[str, np.ndarray]:
        """All of them by the names that `Operator.reference` has for them."""
        weights = {} if self.weights is None else {"w": self.weights}
        return self.inputs | weights | self.parameters

    def with_layers(self, count: int) -> Self:
        """The same of another number of bit layers (`ops.layers`)."""
        return self._replace(inputs=self.inputs | {"layers": count})


@dataclass(frozen=True)
class Operator(ABC):
    """Base of the operators: frozen dataclasses whose fields are the words of the workload.

    A subclass states its `kind` and its `WORDS`, one for each field that has one, in canonical
    order; the `signature` of its kernels; examples and `reference`, the oracle.
    """

    kind: ClassVar[str]
    WORDS: ClassVar[dict[str, Word]]
    FUSES: ClassVar[bool] = False
    """Whether it has an epilogue, whose words a workload may have."""
    EXTREMES: ClassVar[tuple[str, ...]] = ()
    """What `example` knows beside random arguments: the worst cases."""
    ROWS: ClassVar[str] = ""
    """The size that may be a range, given at each call (`ops.rows`)."""
    layers = None  # no annotation: a field of that name would come before the others
    """The Range of bit layers of its weights that a call may use (`ops.layers`), None: all."""

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """The fields that a workload may leave out, with their values."""
        return {f.name: f.default for f in fields(cls) if f.default is not MISSING}

    @cached_property
    def name(self) -> str:
        """The canonical workload text; `ops.workload.parse` reads it back to an equal operator."""
        return " ".join([self.kind, *(f"{key}={text}" for key, text in self._texts().items())])

    def _texts(self) -> dict[str, str]:
        """The words of the canonical text."""
        usual = self.defaults()
        return {
            key: word.write(getattr(self, key))
            for key, word in self.WORDS.items()
            if not (word.quiet and getattr(self, key) == usual[key])
        }

    def __str__(self) -> str:
        return self.name

    @property
    @abstractmethod
    def label(self) -> str:
        """A short name for tables: kind, sizes, formats."""

    @property
    @abstractmethod
    def identifier(self) -> str:
        """Kind, sizes and formats as a part of a C name."""

    @property
    def needs(self) -> tuple[str, ...]:
        """What a template has to say that it serves (`lpgen.templates`): the kind, and words for
        what not all templates of the kind do."""
        return (self.kind,)

    @property
    @abstractmethod
    def signature(self) -> Signature:
        """The arguments of a kernel; of how many bytes packed weights are its layout says."""

    @property
    @abstractmethod
    def ops(self) -> int:
        """Arithmetic operations: two for each multiply-accumulate, or for each element."""

    @property
    def ops_timed(self) -> int:
        """Those of what is timed when it is tuned: a call, or with a range of rows or bit layers a
        round of them (`Range.round`, `Layers.round`)."""
        by_layers = sum(self.bit_layers.round().values()) if self.layers else 1
        if self.range is None:
            return self.ops * by_layers
        round_ = self.range.round().items()
        return sum(self.at(rows).ops * calls for rows, calls in round_) * by_layers

    @property
    def plain(self) -> Self:
        """The operator without what costs next to nothing: its records serve this one, too."""
        return self

    @property
    def range(self) -> Range | None:
        """The sizes that a call may have, None: the operator has one."""
        size = getattr(self, self.ROWS) if self.ROWS else None
        return size if isinstance(size, Range) else None

    def at(self, rows: int | Range) -> Self:
        """The operator with this size of a call, or with a part of the range.

        Raises WorkloadError where it is outside of the range.
        """
        low, high = (rows, rows) if isinstance(rows, int) else rows
        if self.range is None or not self.range.low <= low <= high <= self.range.high:
            size = getattr(self, self.ROWS) if self.ROWS else "no range"
            self._fail(f"{self.ROWS} is {rows}, the operator has {size}")
        return self.with_rows(rows)

    def with_rows(self, rows: int | Range) -> Self:
        """The operator with any other size or range."""
        return replace(self, **{self.ROWS: rows})

    @abstractmethod
    def example(self, rng: np.random.Generator, name: str = "random") -> Example:
        """Random arguments of a call, or one of EXTREMES."""

    @property
    def far_ends(self) -> list[str]:
        """Those of EXTREMES that show the most."""
        return list(self.EXTREMES)

    @abstractmethod
    def reference(self, *tensors: np.ndarray, **named: np.ndarray) -> np.ndarray:
        """The exact result, the signature's output, computed by NumPy alone: the oracle of every
        test.

        Raises WorkloadError on another shape and on an argument that is missing or not asked for,
        and FormatError on a value outside its format.
        """

    def _checked(
        self, what: str, value: Any, shape: tuple[int, ...], form: Format | Real | None
    ) -> np.ndarray:
        """`value` as an array of this shape, with values of the format."""
        array = as_array(what, value)
        if array.shape != shape:
            self._fail(f"{what} has shape {array.shape}, expected {shape}")
        if form is not None:
            form.check(array, what)
        return array

    # What operators check when they are created.

    def _set(self, key: str, value: Any) -> None:
        object.__setattr__(self, key, value)

    def _fail(self, reason: str) -> NoReturn:
        raise WorkloadError(f"{self.kind}: {reason}")

    def _check_example(self, name: str) -> None:
        """Raise WorkloadError unless there is an example of the name."""
        if name not in ("random", *self.EXTREMES):
            raise WorkloadError(f"extreme {name!r} is unknown; known: {', '.join(self.EXTREMES)}")

    def _take_format(self, key: str) -> None:
        """Make field `key` a Format."""
        try:
            self._set(key, Format.parse(getattr(self, key)))
        except FormatError as error:
            self._fail(f"{key}: {error}")

    def _take_sizes(self, key: str, low: int, spread: Callable[[Any], tuple] | None = None) -> None:
        """Make field `key` an int, or the tuple that `spread` makes of it, of low..MAX_ELEMENTS."""
        value = getattr(self, key)
        try:
            sizes = spread(value) if spread else (value,)
            if any(isinstance(size, bool) for size in sizes):
                raise TypeError("True and False are no numbers here")
            sizes = tuple(int(operator.index(size)) for size in sizes)
        except (TypeError, ValueError) as error:
            self._fail(f"{key}={value!r} is not a size: {error}")
        self._set(key, sizes if spread else sizes[0])
        if not all(low <= size <= MAX_ELEMENTS for size in sizes):
            text = self.WORDS[key].write(getattr(self, key))
            self._fail(f"{key}={text} is outside {low}..{MAX_ELEMENTS}")

    def _take_rows(self, key: str) -> None:
        """Make field `key` an int, or a Range, of 1..MAX_ELEMENTS."""
        value = getattr(self, key)
        if not isinstance(value, Range):
            self._take_sizes(key, 1)
        elif not 1 <= value.low < value.high <= MAX_ELEMENTS:
            self._fail(f"{key}={value} is no range LOW..HIGH, LOW < HIGH, within 1..{MAX_ELEMENTS}")

    def _check_elements(self, **shapes: tuple[int, ...]) -> None:
        """Tensors are indexed with int32."""
        for what, shape in shapes.items():
            if (count := math.prod(shape)) > MAX_ELEMENTS:
                self._fail(f"{what} has {count} elements {shape}, the limit is {MAX_ELEMENTS}")
