"""A step of an epilogue: what all of them have, and where in a chain each may stand."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from enum import IntEnum, auto
from typing import Any, ClassVar, NamedTuple

import numpy as np

from lpgen.formats import Format
from lpgen.ops.parameter import Parameter

Readers = dict[str, Callable[[str], Any]]
"""Words of a workload, each with what makes a value of its text."""


class Place(IntEnum):
    """Where a step stands: steps are in this order, one at most in each place."""

    INTEGER_BIAS = auto()
    SCALE = auto()
    REAL_BIAS = auto()
    MIDDLE = auto()
    RESIDUAL = auto()
    CLAMP = auto()
    FORMAT = auto()
    PACK = auto()


class Sums(NamedTuple):
    """The sums that a chain stands behind: their channels, the shape of what groups of k have for
    themselves, and the largest absolute value of a sum."""

    channels: int
    grouped: tuple[int, ...]
    bound: int


class Given(NamedTuple):
    """What the oracle is given beside the sums: parameters by name, the residual, the steps of
    dynamic quantization (`Lhs.quantized`)."""

    parameters: Mapping[str, np.ndarray]
    residual: np.ndarray | None = None
    input_step: np.ndarray | None = None


class Step(ABC):
    """Base of the steps, frozen dataclasses. `chain` is always the whole one with the step in it.

    READ: how the texts of its words are read. needs_scale: whether it works on real numbers, which
    there are behind a Scale.
    """

    place: Place
    needs_scale: ClassVar[bool] = False
    READ: ClassVar[Readers] = {}

    def check(self) -> str | None:
        """What is wrong with it, or None."""
        return None

    def words(self) -> dict[str, str]:
        """Its words in a workload, but for `out`, which is that of the chain."""
        return {}

    def parameters(self, chain: Chain, sums: Sums) -> dict[str, Parameter]:
        """The parameters that it needs, by name."""
        return {}

    @abstractmethod
    def apply(self, v: np.ndarray, chain: Chain, given: Given) -> np.ndarray:
        """What it makes of v, the channels in the last dimension."""


Chain = tuple[Step, ...]


def find(chain: Chain, kind: type) -> Any:
    """The step of that kind, or None."""
    return next((step for step in chain if isinstance(step, kind)), None)


def format_or_real(form: Format | str) -> Format | str:
    """The Format, or "f32" as it is."""
    return form if form == "f32" else Format.parse(form)


def check_quantized(word: str, form: Format, zero: int) -> str | None:
    """What is wrong with a tensor of quantized values of this format and zero point, or None."""
    if form.encoding not in "us":
        return f"{word}={form}: quantized values are u1..u8 or s2..s8"
    return check_zero(f"zero_{word}", form, zero)


def check_zero(word: str, form: Format, zero: int) -> str | None:
    """What is wrong with `zero` as the zero point of a tensor in `form`, or None."""
    if not isinstance(zero, int) or isinstance(zero, bool):
        return f"{word}={zero!r} is not a number"
    if zero and form.encoding not in "us":
        return f"{word}={zero}: format {form} has no zero point"
    if zero and not form.min <= zero <= form.max:
        return f"{word}={zero} is outside {form.min}..{form.max} ({form})"
    return None
