"""Arrays that are given once, before the calls: shapes, dtypes and the limits of their values."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from lpgen.errors import FormatError
from lpgen.formats import Format, as_array

FLOAT_LIMIT = 2.0**63
"""Largest absolute value of a float parameter: nothing computed from them leaves float32."""


class Parameter(NamedTuple):
    """An array that is given once: its shape, dtype and the limits of its values.

    short: whether they are bfloat16 values, in float32.
    """

    shape: tuple[int, ...]
    dtype: str
    low: float
    high: float
    short: bool = False

    @property
    def real(self) -> bool:
        """Whether its values are floats."""
        return self.dtype == "float32"

    @property
    def zeros(self) -> int:
        """Bits of a value that have to be 0."""
        return 0xFFFF if self.short else 0


def real(*shape: int, short: bool = False) -> Parameter:
    """A float parameter of this shape."""
    return Parameter(shape, "float32", -FLOAT_LIMIT, FLOAT_LIMIT, short)


def values(shape: tuple[int, ...], form: Format) -> Parameter:
    """Values of a format with a zero point: all numbers between its ends."""
    return Parameter(shape, form.dtype, form.min, form.max)


def legal(name: str, value: object, parameter: Parameter) -> np.ndarray:
    """`value` as the array that the parameter `name` has to be; FormatError if it cannot be.

    Integers may have any dtype, floats are rounded to float32: after they were checked.
    """
    array = as_array(name, value)
    if array.shape != parameter.shape and not (parameter.shape == (1,) and array.shape == ()):
        raise FormatError(f"{name} has shape {array.shape}, expected {parameter.shape}")
    real = parameter.real
    if array.dtype.kind not in ("iuf" if real else "iu") and not _is_python_ints(array):
        raise FormatError(f"{name}: dtype {array.dtype}, expected {parameter.dtype}")
    array = array.reshape(parameter.shape)
    low, high = parameter.low, parameter.high
    limits = f"{low:.4g}..{high:.4g}" if real else f"{low}..{high}"
    if array.dtype.kind != "f":
        low, high = math.ceil(low), math.floor(high)  # compared exactly
    elif array.dtype == np.float16:
        array = array.astype(np.float32)  # whose range holds the limits
    wrong = ~((array >= low) & (array <= high))  # also not a number
    _refuse(name, array, wrong, f"is outside {limits}")
    if parameter.short:
        _refuse(name, array, array != nearest_bfloat16(array), "is no bfloat16")
    return array.astype(parameter.dtype)


def _is_python_ints(array: np.ndarray) -> bool:
    """Whether the elements are int: where one of them is above 64 bits, there is no other dtype."""
    return array.dtype == object and all(type(value) is int for value in array.flat)


def _refuse(name: str, array: np.ndarray, wrong: np.ndarray, reason: str) -> None:
    """FormatError with the first of the wrong elements, if there is one."""
    if wrong.any():
        first = np.unravel_index(int(np.argmax(wrong)), array.shape)
        raise FormatError(f"{name}[{', '.join(map(str, first))}] = {array[first]} {reason}")


def nearest_bfloat16(values: np.ndarray) -> np.ndarray:
    """float32 values rounded to bfloat16, half to even."""
    bits = values.astype(np.float32).view(np.uint32).astype(np.uint64)
    bits += 0x7FFF + (bits >> 16 & 1)
    return (bits & 0xFFFF0000).astype(np.uint32).view(np.float32)
