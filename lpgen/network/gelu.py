"""GELU spelt out: x * (1 + erf(x / sqrt(2))) * 0.5, the products in any order."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from lpgen.network.network import Step
from lpgen.ops.binary import Binary
from lpgen.ops.unary import Unary

CLOSE = 1e-6
"""Relative difference of a constant from what it should be."""


def found(
    step: Step, before: dict[str, Step], readers: Counter[str]
) -> tuple[Step, tuple[str, ...]] | None:
    """The function for the last product of its arithmetic, and the tensors that are not needed any
    more; None for any other step. before: the steps by what they write."""
    if not _is(step, "mul"):
        return None
    gone: list[str] = []
    factors = list(_factors(step, before, readers, gone))
    numbers = [factor for factor in factors if isinstance(factor, float)]
    tensors = [factor for factor in factors if isinstance(factor, str)]
    if len(tensors) != 2 or not math.isclose(math.prod(numbers), 0.5, rel_tol=CLOSE):
        return None
    for x, total in (tensors, tensors[::-1]):
        inner = _inner(total, before, readers)
        if inner is not None and inner[0] == x:
            op = Unary(size=math.prod(step.op.signature.output.shape), function="gelu")
            made = replace(step, op=op, inputs={"x": x}, constants={})
            return made, (*gone, *inner[1])
    return None


def _is(step: Step | None, *functions: str) -> bool:
    return step is not None and isinstance(step.op, Binary) and step.op.function in functions


def _factors(
    step: Step, before: dict[str, Step], readers: Counter[str], gone: list[str]
) -> Iterator[str | float]:
    """What is multiplied: tensors and numbers; what other products made of them goes to `gone`."""
    yield from (number for number in map(_number, step.constants.values()) if number is not None)
    for tensor in step.inputs.values():
        inner = before.get(tensor)
        if _is(inner, "mul") and readers[tensor] == 1:
            gone.append(tensor)
            yield from _factors(inner, before, readers, gone)
        else:
            yield tensor


def _inner(
    total: str, before: dict[str, Step], readers: Counter[str]
) -> tuple[str, tuple[str, ...]] | None:
    """(x, tensors in between) where `total` is 1 + erf(x / sqrt(2)), and nothing else reads it."""
    sums = before.get(total)
    if not _is(sums, "add") or _only_number(sums) != 1.0 or readers[total] != 1:
        return None
    (error,) = sums.inputs.values()
    function = before.get(error)
    if function is None or readers[error] != 1 or not isinstance(function.op, Unary):
        return None
    if function.op.function != "erf":
        return None
    (scaled,) = function.inputs.values()
    scale = before.get(scaled)
    number = _only_number(scale) if _is(scale, "mul", "div") else None
    if number is None or readers[scaled] != 1 or (_is(scale, "div") and "b" not in scale.constants):
        return None
    factor = number if _is(scale, "mul") else 1 / number
    if not math.isclose(factor, math.sqrt(0.5), rel_tol=CLOSE):
        return None
    (x,) = scale.inputs.values()
    return x, (total, error, scaled)


def _only_number(step: Step) -> float | None:
    """The number that a tensor is combined with, None where there is no such."""
    values = [*step.constants.values()]
    return _number(values[0]) if len(values) == 1 else None


def _number(array: np.ndarray) -> float | None:
    return float(array.reshape(())) if array.size == 1 else None
