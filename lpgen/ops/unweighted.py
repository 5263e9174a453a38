"""Operators without weights: what networks need between their products."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from lpgen.errors import FormatError
from lpgen.formats import REAL, Format, Real
from lpgen.ops.operator import Example, Operator
from lpgen.ops.parameter import Parameter, legal
from lpgen.ops.signature import Argument, Role
from lpgen.ops.words import Word

Values = Format | Real

REAL_END = 1e4
"""What stands for the ends of float32 in examples, so that results are numbers."""


@dataclass(frozen=True, kw_only=True)
class Unweighted(Operator):
    """Base of operators whose calls take all they need: tensors, scales, zero points, tables.

    A subclass states its words, its signature and `_result`, the oracle on checked arrays. Float
    operations are those of IEEE 754 in float32, each rounded, in the order that the subclass says.
    """

    # The ends of their formats that fill all tensors of an example.
    EXTREMES: ClassVar[tuple[str, ...]] = ("max", "min")

    @property
    def label(self) -> str:
        """Kind and words without their keys: "pool 1x56x56x64 3x3 ..."."""
        return " ".join([self.kind, *self._texts().values()])

    @property
    def identifier(self) -> str:
        """The same as a part of a C name."""
        parts = "_".join([self.kind, *self._texts().values()])
        return "".join(c if c.isalnum() else "_" for c in parts.replace("-", "m"))

    @property
    def ops(self) -> int:
        """One for each element of the result."""
        return math.prod(self.signature.output.shape)

    def example(self, rng: np.random.Generator, name: str = "random") -> Example:
        """Random values, or the ends that EXTREMES say; scales and zero points are random."""
        self._check_example(name)
        given = {a.name: self._example_of(a, rng, name) for a in self.signature.inputs}
        return Example(name, given, None, {})

    def _example_of(self, argument: Argument, rng: np.random.Generator, name: str) -> np.ndarray:
        """The array of one input."""
        if argument.name == "scales":
            return example_scales(rng, argument.shape)
        if argument.name == "zeros":
            return np.array(
                [rng.integers(f.min, f.max + 1) for f in self.zeros_of.values()], np.int32
            )
        if argument.dtype == "int32" and argument.limits:
            low, high = int(argument.limits.low), int(argument.limits.high)
            return rng.integers(low, high + 1, argument.shape).astype(np.int32)
        form = values_of(argument)
        if form is None:
            limits = np.iinfo(argument.dtype)
            return rng.integers(limits.min, limits.max, argument.shape, argument.dtype, True)
        if name == "random":
            return form.random(rng, argument.shape)
        end = {"max": REAL_END, "min": -REAL_END}[name] if form == REAL else getattr(form, name)
        return np.full(argument.shape, end, form.dtype)

    @property
    def zeros_of(self) -> dict[str, Format]:
        """The formats of the tensors whose zero points a call gives as `zeros`, in order."""
        return {}

    def _scales_and_zeros(self) -> tuple[Argument, Argument]:
        """The arguments `scales` (float32) and `zeros` (int32), one for each of `zeros_of`."""
        shape = (len(self.zeros_of),)
        return Argument.of_values("scales", shape, REAL), Argument(
            "zeros", Role.INPUT, shape, "int32"
        )

    def _take_values(self, key: str, real: bool = True) -> None:
        """Make field `key` a Format of quantized values, or float32 where that may be (`real`)."""
        if real and getattr(self, key) in (REAL, "f32"):
            self._set(key, REAL)
            return
        self._take_format(key)
        if (form := getattr(self, key)).encoding not in "us":
            also = " or f32" if real else ""
            self._fail(f"{key}={form}: quantized values are u1..u8 or s2..s8{also}")

    def reference(self, *tensors: np.ndarray, **named: np.ndarray) -> np.ndarray:
        """The exact result for the inputs of the signature, in its order or by their names."""
        expected = {argument.name: argument for argument in self.signature.inputs}
        inputs = dict(zip(expected, tensors, strict=False)) | named
        if wrong := sorted({*inputs} ^ {*expected}):
            self._fail(f"{wrong[0]} is {'missing' if wrong[0] in expected else 'no input'}")
        checked = {name: self._checked_input(a, inputs[name]) for name, a in expected.items()}
        with np.errstate(all="ignore"):  # infinities and what is no number have results, too
            return self._result(**checked)

    def _checked_input(self, argument: Argument, value: Any) -> np.ndarray:
        name, shape = argument.name, argument.shape
        if argument.dtype != "int32" or (argument.limits is None and name != "zeros"):
            array = self._checked(name, value, shape, values_of(argument))
            if array.dtype != argument.dtype:
                raise FormatError(f"{name}: dtype {array.dtype}, expected {argument.dtype}")
            return array
        low, high = argument.limits[:2] if argument.limits else (-(2**31), 2**31 - 1)
        array = legal(name, value, Parameter(shape, "int32", low, high))
        if name == "zeros":
            for zero, (tensor, form) in zip(array, self.zeros_of.items(), strict=True):
                if not form.min <= zero <= form.max:
                    limits = f"{form.min}..{form.max} ({form})"
                    raise FormatError(f"zeros: {zero} of {tensor} is outside {limits}")
        return array

    @abstractmethod
    def _result(self, **inputs: np.ndarray) -> np.ndarray:
        """The exact result for checked inputs."""


def values_of(argument: Argument) -> Values | None:
    """What the values of an argument are; None where its dtype says it all."""
    if not argument.format:
        return REAL if argument.dtype == "float32" else None
    return REAL if argument.format == "f32" else Format.parse(argument.format)


def read_values(text: str) -> Values:
    """The format that `text` names, or float32 for "f32"."""
    return REAL if text == "f32" else Format.parse(text)


VALUES = Word(read_values, str)
"""A format, or f32, in a workload."""


def example_scales(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Scales around 1, powers of two every other time, so that ties are common."""
    scales = 2.0 ** rng.uniform(-2, 2, shape)
    return (2.0 ** np.rint(np.log2(scales)) if rng.random() < 0.5 else scales).astype(np.float32)
