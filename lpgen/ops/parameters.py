"""Parameters: the arrays that an epilogue needs, given together with the weights."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lpgen.errors import FormatError
from lpgen.ops.epilogue import Bias, Chain, Clamp, Quantize, Residual, Scale, find

FLOAT_LIMIT = 2.0**63
"""Largest absolute value of a float parameter: nothing computed from them leaves float32."""


class Parameter(NamedTuple):
    """An array given with the weights: its shape, dtype and the limits of its values."""

    shape: tuple[int, ...]
    dtype: str
    low: float
    high: float


def parameters_of(chain: Chain, channels: int, sum_limit: int) -> dict[str, Parameter]:
    """The parameters of the steps by name, in the order in which they are given.

    sum_limit: the largest absolute value of a sum.
    """
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
                shape = (channels if per == "channel" else 1,)
                found["scale"] = Parameter(shape, "float32", *real)
            case Residual() if step.format != "f32":
                found["residual_scale"] = Parameter((1,), "float32", *real)
            case Clamp("relu6") if find(chain, Quantize):
                found["six"] = Parameter((1,), "float32", 0.0, FLOAT_LIMIT)
    return found


def legal(name: str, value: object, parameter: Parameter) -> np.ndarray:
    """`value` as the array that the parameter `name` has to be; FormatError if it cannot be."""
    array = np.asarray(value)
    if array.shape != parameter.shape and not (parameter.shape == (1,) and array.shape == ()):
        raise FormatError(f"{name} has shape {array.shape}, expected {parameter.shape}")
    real = parameter.dtype == "float32"
    if array.dtype.kind not in ("iuf" if real else "iu"):
        raise FormatError(f"{name}: dtype {array.dtype}, expected {parameter.dtype}")
    array = array.reshape(parameter.shape).astype(parameter.dtype if real else np.int64)
    wrong = ~((array >= parameter.low) & (array <= parameter.high))  # also not a number
    if wrong.any():
        first = int(np.argmax(wrong))
        limits = (
            f"{parameter.low:.4g}..{parameter.high:.4g}"
            if real
            else (f"{parameter.low}..{parameter.high}")
        )
        raise FormatError(f"{name}[{first}] = {array[first]} is outside {limits}")
    return array.astype(parameter.dtype)


def random_parameter(
    rng: np.random.Generator, name: str, parameter: Parameter, chain: Chain, spread: float
) -> np.ndarray:
    """Values for a parameter where sums are about +-spread."""
    shape, quantize = parameter.shape, find(chain, Quantize)
    if parameter.dtype != "float32":
        wide = 2 * spread if name == "bias" else np.inf
        low, high = max(parameter.low, -wide), min(parameter.high, wide)
        return rng.integers(int(low), int(high) + 1, shape).astype(parameter.dtype)
    steps = quantize.format.max - quantize.format.min if quantize else 256
    if name == "scale":
        values = steps / 4 / spread * 2.0 ** rng.uniform(-2, 2, shape)
        values = np.where(rng.random(shape) < 0.5, values, 2.0 ** np.rint(np.log2(values)))
    elif name == "bias":
        values = rng.normal(scale=steps / 4, size=shape)
    else:
        values = rng.uniform(0, steps / 2 if name == "six" else 1.5, shape)
    return values.astype(np.float32)
