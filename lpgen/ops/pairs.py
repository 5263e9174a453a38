"""Operators on two tensors element by element, one of them repeated along axes that it lacks."""

from __future__ import annotations

import re
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lpgen.formats import Format
from lpgen.ops.elementwise import quantized
from lpgen.ops.operator import Example
from lpgen.ops.signature import Argument, Role, Signature
from lpgen.ops.unweighted import Unweighted, Values, example_scales
from lpgen.ops.words import FORMAT, NUMBER, Word, one_of

ALL_AXES = "omi"
ROUNDED = ("sum", "quotient")
_AXES = re.compile(r"o?m?i?")


def _read_axes(text: str) -> str:
    if text != "none" and not (text and _AXES.fullmatch(text)):
        raise ValueError(f"{text!r} is none of o, m, i, om, oi, mi, omi, none")
    return text


_COUNT = Word(NUMBER.read, str, quiet=True)
_AXES_WORD = Word(_read_axes, str, quiet=True)


@dataclass(frozen=True, kw_only=True)
class Pair(Unweighted):
    """Base of operators on a and b, of which y has all extents: [outer, middle, inner].

    a_axes, b_axes: which of the extents a and b have, as their letters ("omi": all, "oi": the same
    for all in the middle, "none": one number). A shape has those in order, [1] where there are
    none; without a middle (1), the result is [outer, inner].
    """

    outer: int = 1
    middle: int = 1
    inner: int
    a_axes: str = ALL_AXES
    b_axes: str = "i"

    # What the words of a subclass begin and end with.
    SIZES: ClassVar[dict[str, Word]] = {"outer": NUMBER, "middle": _COUNT, "inner": NUMBER}
    AXES: ClassVar[dict[str, Word]] = {"a_axes": _AXES_WORD, "b_axes": _AXES_WORD}

    def _take_shapes(self) -> None:
        """Check sizes and axes."""
        for key in self.SIZES:
            self._take_sizes(key, 1)
        for key in self.AXES:
            try:
                _read_axes(getattr(self, key))
            except ValueError as error:
                self._fail(f"{key}: {error}")
        self._check_elements(a=self._extents)

    @property
    def _extents(self) -> tuple[int, int, int]:
        return (self.outer, self.middle, self.inner)

    def axes_of(self, operand: str) -> str:
        """The letters of the axes of "a" or "b", "" for none."""
        return getattr(self, f"{operand}_axes").replace("none", "")

    def shape_of(self, axes: str) -> tuple[int, ...]:
        """The shape of a tensor with these axes."""
        extents = {"o": self.outer, "m": self.middle, "i": self.inner}
        shape = [extents[axis] for axis in axes if axis != "m" or self.middle > 1]
        return tuple(shape) or (1,)

    def _signature(self, a: Values, b: Values, out: Values, *more: Argument) -> Signature:
        """(a, b, more, y)"""
        return Signature(
            (
                Argument.of_values("a", self.shape_of(self.axes_of("a")), a),
                Argument.of_values("b", self.shape_of(self.axes_of("b")), b),
                *more,
                Argument.of_values("y", self.shape_of(ALL_AXES), out, Role.OUTPUT),
            )
        )

    def _repeated(self, operand: str, values: np.ndarray) -> np.ndarray:
        """The operand with 1 for every extent that it lacks, [outer, middle, inner]."""
        axes = self.axes_of(operand)
        extents = zip(ALL_AXES, self._extents, strict=True)
        return values.reshape([extent if axis in axes else 1 for axis, extent in extents])

    @property
    def sizes(self) -> str:
        """1x200704, 2x3136x64; behind it the axes of an operand that is repeated."""
        found = "x".join(map(str, self.shape_of(ALL_AXES)))
        for key in self.AXES:
            if getattr(self, key) != getattr(type(self), key):
                found += f" {key[0]}:{getattr(self, key)}"
        return found


@dataclass(frozen=True, kw_only=True)
class QuantizedPair(Pair):
    """Base of operators on two quantized tensors; a call gives `scales` (float32) and `zeros`
    (int32, values of the formats) of a, b and y.

    rounded: "sum", as a node of com.microsoft: of the quotient and zero_y; "quotient": as
    DequantizeLinear, the operation and QuantizeLinear, where zero_y is added behind the rounding.
    Raises WorkloadError when a size is outside its limits or a format is not u1..u8 or s2..s8.
    """

    a: Format
    b: Format
    out: Format
    rounded: str = "sum"

    # The ends of their formats that fill a and b.
    EXTREMES: ClassVar[tuple[str, ...]] = ("max-max", "max-min", "min-max", "min-min")
    FORMATS: ClassVar[dict[str, Word]] = {"a": FORMAT, "b": FORMAT, "out": FORMAT}
    ROUNDED: ClassVar[dict[str, Word]] = {"rounded": Word(one_of(*ROUNDED), str, quiet=True)}

    def __post_init__(self) -> None:
        for key in ("a", "b", "out"):
            self._take_values(key, real=False)
        if self.rounded not in ROUNDED:
            self._fail(f"rounded={self.rounded} is unknown; known: {', '.join(ROUNDED)}")
        self._take_shapes()

    @property
    def zeros_of(self) -> dict[str, Format]:
        return {"a": self.a, "b": self.b, "y": self.out}

    @property
    def signature(self) -> Signature:
        """(a, b, scales, zeros, y)"""
        return self._signature(self.a, self.b, self.out, *self._scales_and_zeros())

    @property
    def identifier(self) -> str:
        """add_1x200704_u8u8u8"""
        sizes = self.sizes.replace(" ", "_").replace(":", "_")
        return f"{self.kind}_{sizes}_{self.a}{self.b}{self.out}"

    @property
    def ops(self) -> int:
        """Two for each element of a and b, and two for the result."""
        return 6 * super().ops

    def example(self, rng: np.random.Generator, name: str = "random") -> Example:
        """a and b random, or the ends that EXTREMES say; scales with which about all values of y
        come out."""
        self._check_example(name)
        ends = ("random", "random") if name == "random" else name.split("-")
        found = {}
        for argument, end in zip(self.signature.inputs[:2], ends, strict=True):
            found[argument.name] = super()._example_of(argument, rng, end)
        scales = example_scales(rng, (3,))
        scales[2] *= np.float32(2.0 ** np.rint(np.log2(self._largest / self.out.levels)))
        zeros = [rng.integers(f.min, f.max + 1) for f in self.zeros_of.values()]
        found |= {"scales": scales, "zeros": np.array(zeros, np.int32)}
        return Example(name, found, None, {})

    @property
    @abstractmethod
    def _largest(self) -> float:
        """About the largest result that there is where scales are 1."""

    def _numbers(self, operand: str, values: np.ndarray, zeros: np.ndarray) -> np.ndarray:
        """The operand less its zero point, int32[outer, middle, inner], 1 where it is repeated."""
        return self._repeated(operand, values).astype(np.int32) - zeros["ab".index(operand)]

    def _real(
        self, operand: str, values: np.ndarray, scales: np.ndarray, zeros: np.ndarray
    ) -> np.ndarray:
        """The operand in float32: less its zero point, times its scale."""
        scale = scales["ab".index(operand)]
        return self._numbers(operand, values, zeros).astype(np.float32) * scale

    def _quantized(self, v: np.ndarray, zero: np.int32) -> np.ndarray:
        """y from quotients, as `rounded` says."""
        if self.rounded == "quotient":
            y = quantized(v, zero, self.out)
        else:
            y = quantized(v + np.float32(zero), np.int32(0), self.out)
        return np.broadcast_to(y, self._extents).reshape(self.shape_of(ALL_AXES))
