"""GELU spelt out: x * (1 + erf(x / sqrt(2))) * 0.5, or x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 *
x * x * x))) * 0.5, the products in any order."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import permutations

import numpy as np

from lpgen.network.network import Step
from lpgen.ops.binary import Binary
from lpgen.ops.unary import Unary

CLOSE = 1e-6
"""Relative difference of a constant from what it should be; where one is written with few digits,
1e-4."""

TANH, CUBE = math.sqrt(2 / math.pi), 0.044715
"""What the approximation by tanh has."""


def found(
    step: Step, before: dict[str, Step], readers: Counter[str]
) -> tuple[Step, tuple[str, ...]] | None:
    """The function for the last product of its arithmetic, and the tensors that are not needed any
    more; None for any other step. before: the steps by what they write."""
    if not _is(step, "mul"):
        return None
    gone: list[str] = []
    number, tensors = _split(_factors(step, before, readers, gone))
    if len(tensors) != 2 or not math.isclose(number, 0.5, rel_tol=CLOSE):
        return None
    for x, total in (tensors, tensors[::-1]):
        inner = _inner(total, before, readers)
        if inner is not None and inner[1] == x:
            op = Unary(size=math.prod(step.op.signature.output.shape), function=inner[0])
            made = replace(step, op=op, inputs={"x": x}, constants={})
            return made, (*gone, *inner[2])
    return None


def _is(step: Step | None, *functions: str) -> bool:
    return step is not None and isinstance(step.op, Binary) and step.op.function in functions


def _factors(
    step: Step, before: dict[str, Step], readers: Counter[str], gone: list[str]
) -> Iterator[str | float]:
    """What is multiplied: tensors and numbers; what other products made of them goes to `gone`."""
    for constant in step.constants.values():
        if (number := _number(constant)) is not None:
            yield 1 / number if _is(step, "div") else number
    for tensor in step.inputs.values():
        inner = before.get(tensor)
        if _multiplies(inner) and readers[tensor] == 1 and not _squares(step):
            gone.append(tensor)
            yield from _factors(inner, before, readers, gone)
        else:
            yield from [tensor] * (2 if _squares(step) else 1)


def _multiplies(step: Step | None) -> bool:
    """Whether it is a product, or a quotient by a number."""
    divided = _is(step, "div") and _number(step.constants.get("b", np.zeros(2))) not in (None, 0.0)
    return _is(step, "mul") or divided or _squares(step)


def _squares(step: Step | None) -> bool:
    return step is not None and isinstance(step.op, Unary) and step.op.function == "square"


def _inner(
    total: str, before: dict[str, Step], readers: Counter[str]
) -> tuple[str, str, tuple[str, ...]] | None:
    """(function, x, tensors in between) where `total` is 1 + what a GELU of x multiplies x with,
    and nothing else reads it."""
    sums = before.get(total)
    if not _is(sums, "add") or _only_number(sums) != 1.0 or readers[total] != 1:
        return None
    (bent,) = sums.inputs.values()
    function = before.get(bent)
    if function is None or readers[bent] != 1 or not isinstance(function.op, Unary):
        return None
    (scaled,) = function.inputs.values()
    if not _multiplies(before.get(scaled)) or readers[scaled] != 1:
        return None
    gone: list[str] = [total, bent, scaled]
    number, tensors = _split(_factors(before[scaled], before, readers, gone))
    if len(tensors) != 1:
        return None
    if function.op.function == "erf" and math.isclose(number, math.sqrt(0.5), rel_tol=CLOSE):
        return "gelu", tensors[0], tuple(gone)
    if function.op.function == "tanh" and math.isclose(number, TANH, rel_tol=1e-4):
        x = _with_cube(tensors[0], before, readers, gone)
        return None if x is None else ("gelu_tanh", x, tuple(gone))
    return None


def _split(factors: Iterable[str | float]) -> tuple[float, list[str]]:
    """The product of the numbers, and the tensors."""
    factors = list(factors)
    numbers = [factor for factor in factors if isinstance(factor, float)]
    return math.prod(numbers), [factor for factor in factors if isinstance(factor, str)]


def _with_cube(
    total: str, before: dict[str, Step], readers: Counter[str], gone: list[str]
) -> str | None:
    """x where `total` is x + 0.044715 x^3."""
    sums = before.get(total)
    if not _is(sums, "add") or sums.constants or readers[total] != 1:
        return None
    for x, cubes in permutations(sums.inputs.values()):
        if not _multiplies(before.get(cubes)) or readers[cubes] != 1:
            continue
        between = [total, cubes]
        number, tensors = _split(_factors(before[cubes], before, readers, between))
        if tensors == [x] * 3 and math.isclose(number, CUBE, rel_tol=1e-4):
            gone += between
            return x
    return None


def _only_number(step: Step) -> float | None:
    """The number that a tensor is combined with, None where there is no such."""
    values = [*step.constants.values()]
    return _number(values[0]) if len(values) == 1 else None


def _number(array: np.ndarray) -> float | None:
    return float(array.reshape(())) if array.size == 1 else None
