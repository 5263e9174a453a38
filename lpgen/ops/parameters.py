"""Parameters: the arrays that an epilogue needs, given together with the weights."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from lpgen.errors import FormatError
from lpgen.formats import as_array
from lpgen.ops import groups
from lpgen.ops.epilogue import Bias, Chain, Clamp, Quantize, Residual, Scale, find
from lpgen.ops.thresholds import Threshold

FLOAT_LIMIT = 2.0**63
"""Largest absolute value of a float parameter: nothing computed from them leaves float32."""


class Parameter(NamedTuple):
    """An array given with the weights: its shape, dtype and the limits of its values.

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


def parameters_of(chain: Chain, grouped: tuple[int, ...], sum_limit: int) -> dict[str, Parameter]:
    """The parameters of the steps by name, in the order in which they are given.

    grouped: (channels,), with scales of groups (channels, groups); sum_limit: the largest absolute
    value of a sum.
    """
    channels = grouped[0]
    found: dict[str, Parameter] = {}
    real = (-FLOAT_LIMIT, FLOAT_LIMIT)
    for step in chain:
        match step:
            case Bias("s32"):
                limit = 2**31 - 1 - sum_limit
                found["bias"] = Parameter((channels,), "int32", -limit, limit)
            case Bias():
                found["bias"] = Parameter((channels,), "float32", *real)
            case Scale(per):
                shape = (1,) if per == "tensor" else grouped
                found["scale"] = Parameter(shape, "float32", *real, step.short)
            case Residual() if step.format != "f32":
                found["residual_scale"] = Parameter((1,), "float32", *real)
            case Threshold(form):
                shape = (channels, form.levels - 1)
                found["thresholds"] = Parameter(shape, "int32", -(2**31), 2**31 - 1)
                found["direction"] = Parameter((channels,), "int8", -1, 1)
            case Clamp("relu6") if find(chain, Quantize):
                found["six"] = Parameter((1,), "float32", 0.0, FLOAT_LIMIT)
    return found


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
        _refuse(name, array, array != groups.nearest_bfloat16(array), "is no bfloat16")
    return array.astype(parameter.dtype)


def _is_python_ints(array: np.ndarray) -> bool:
    """Whether the elements are int: where one of them is above 64 bits, there is no other dtype."""
    return array.dtype == object and all(type(value) is int for value in array.flat)


def _refuse(name: str, array: np.ndarray, wrong: np.ndarray, reason: str) -> None:
    """FormatError with the first of the wrong elements, if there is one."""
    if wrong.any():
        first = np.unravel_index(int(np.argmax(wrong)), array.shape)
        raise FormatError(f"{name}[{', '.join(map(str, first))}] = {array[first]} {reason}")


def random_parameter(
    rng: np.random.Generator, name: str, parameter: Parameter, chain: Chain, spread: float
) -> np.ndarray:
    """Values for a parameter where sums are about +-spread."""
    shape, quantize = parameter.shape, find(chain, Quantize)
    if parameter.dtype != "float32":
        wide = 2 * spread if name in ("bias", "thresholds") else np.inf
        low, high = max(parameter.low, -wide), min(parameter.high, wide)
        return rng.integers(int(low), int(high) + 1, shape).astype(parameter.dtype)
    steps = quantize.format.max - quantize.format.min if quantize else 256
    if name == "scale":
        values = steps / 4 / spread * 2.0 ** rng.uniform(-2, 2, shape)
        values = np.where(rng.random(shape) < 0.5, values, 2.0 ** np.rint(np.log2(values)))
        values = groups.nearest_bfloat16(values) if parameter.short else values
    elif name == "bias":
        values = rng.normal(scale=steps / 4, size=shape)
    else:
        values = rng.uniform(0, steps / 2 if name == "six" else 1.5, shape)
    return values.astype(np.float32)
