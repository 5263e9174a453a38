"""The steps of an epilogue: their fields, their places in the chain, and what they do not allow.

What they compute is in the table of `ops.epilogue`.
"""

from __future__ import annotations

import operator
import re
from dataclasses import dataclass
from typing import ClassVar

from lpgen.errors import WorkloadError
from lpgen.formats import Format
from lpgen.ops import packed

SMALLEST_GROUP = 4
_GROUP = re.compile(r"group([1-9][0-9]{0,8})(:bf16)?")


@dataclass(frozen=True)
class Bias:
    """Adds bias[n]: "s32" to the int32 sum, "f32" to the scaled one."""

    dtype: str = "s32"

    @property
    def place(self) -> int:
        """Its place in the chain."""
        return 0 if self.dtype == "s32" else 2

    def check(self) -> str | None:
        """What is wrong with it, or None."""
        known = ("s32", "f32")
        return None if self.dtype in known else f"bias={self.dtype} is unknown; known: s32, f32"


@dataclass(frozen=True)
class Scale:
    """Multiplies by one number, per="tensor", by one for each output channel, per="channel", or the
    sums of groups of so many neighbours in k by one for each, per="group32" or "group32:bf16"."""

    per: str = "tensor"
    place: ClassVar[int] = 1

    @property
    def group(self) -> int:
        """Neighbours in k that share a scale, 0: all."""
        match = _GROUP.fullmatch(str(self.per))
        return int(match[1]) if match else 0

    @property
    def short(self) -> bool:
        """Whether the scales are bfloat16."""
        return str(self.per).endswith(":bf16")

    def check(self) -> str | None:
        """What is wrong with it, or None."""
        if self.per in ("tensor", "channel") or self.group >= SMALLEST_GROUP:
            return None
        if self.group:
            return f"scale={self.per}: a group has {SMALLEST_GROUP} neighbours in k or more"
        return f"scale={self.per} is unknown; known: tensor, channel, groupN, groupN:bf16"


@dataclass(frozen=True)
class Residual:
    """Adds another tensor of the result's shape: quantized with its scale and zero point, or "f32"
    as it is. It is an input of every call."""

    format: Format | str
    zero: int = 0
    place: ClassVar[int] = 3

    def __post_init__(self) -> None:
        object.__setattr__(self, "format", _output_format(self.format))

    @property
    def dtype(self) -> str:
        """The NumPy dtype of the tensor."""
        return "float32" if self.format == "f32" else self.format.dtype

    def check(self) -> str | None:
        """What is wrong with it, or None."""
        if self.format == "f32":
            return f"zero_residual={self.zero}: residual=f32 has no zero point" * bool(self.zero)
        return _check_quantized("residual", self.format, self.zero)


@dataclass(frozen=True)
class Clamp:
    """Bounds of the result, "relu", "relu6" or (low, high)."""

    bounds: str | tuple[int, int]
    place: ClassVar[int] = 4

    def __post_init__(self) -> None:
        if not isinstance(self.bounds, str):
            try:
                bounds = tuple(operator.index(bound) for bound in self.bounds)
            except TypeError:
                raise WorkloadError(f"clamp={self.bounds!r}: bounds are integers") from None
            object.__setattr__(self, "bounds", bounds)

    def check(self) -> str | None:
        """What is wrong with it, or None."""
        if isinstance(self.bounds, str):
            known = self.bounds in ("relu", "relu6")
            return (
                None if known else f"clamp={self.bounds} is unknown; known: relu, relu6, LOWxHIGH"
            )
        if len(self.bounds) != 2:
            return f"clamp has {len(self.bounds)} bounds, expected 2"
        low, high = self.bounds
        if not -(2**31) <= low <= high < 2**31:
            return f"clamp={low}x{high} is no range of int32"
        return None


@dataclass(frozen=True)
class Quantize:
    """Rounds half to even, adds the zero point and saturates to the format, one value per byte."""

    format: Format | str
    zero: int = 0
    place: ClassVar[int] = 5

    def __post_init__(self) -> None:
        object.__setattr__(self, "format", _output_format(self.format))

    def check(self) -> str | None:
        """What is wrong with it, or None."""
        if self.format == "f32":
            return "out=f32 is no format to quantize to"
        return _check_quantized("out", self.format, self.zero)


@dataclass(frozen=True)
class Pack:
    """Stores codes of the format packed, as the next kernel takes them with input=LAYOUT."""

    layout: str
    place: ClassVar[int] = 6

    def check(self) -> str | None:
        """What is wrong with it, or None."""
        known = self.layout in packed.LAYOUTS
        return None if known else f"out: layout {self.layout!r} is none of packed, planes"


def _output_format(form: Format | str) -> Format | str:
    return form if form == "f32" else Format.parse(form)


def _check_quantized(word: str, form: Format, zero: int) -> str | None:
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
