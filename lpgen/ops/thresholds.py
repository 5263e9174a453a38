"""From an epilogue that quantizes to few levels to its threshold form (`epilogue.threshold`), which
gives the same bits; and from batch normalization to a scale and a bias."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from lpgen.errors import FormatError
from lpgen.formats import Format
from lpgen.ops.epilogue import Bias, Given, Pack, Quantize, Threshold, apply, find
from lpgen.ops.product import Product

_NEVER = 2**31 - 1


def batch_norm(
    gamma: np.ndarray, beta: np.ndarray, mean: np.ndarray, variance: np.ndarray, epsilon: float
) -> tuple[np.ndarray, np.ndarray]:
    """(a, b) with gamma * (x - mean) / sqrt(variance + epsilon) + beta = a * x + b, float64.

    In an epilogue with scale=channel bias=f32 and the real scales s_x, s_w, s_y: scale =
    a * s_x * s_w / s_y and bias = b / s_y.
    """
    a = np.float64(gamma) / np.sqrt(np.float64(variance) + epsilon)
    return a, np.float64(beta) - a * np.float64(mean)


def thresholds(op: Product, **parameters: np.ndarray) -> tuple[Product, dict[str, np.ndarray]]:
    """(operator, parameters) in threshold form that gives what `op` gives, bit for bit.

    op: an operator whose epilogue quantizes to few levels, without a residual; parameters: its own.
    Each threshold is found by bisection over the sums that the operator can have: everything from
    the sum to the result rises or falls with it. Raises FormatError where there is no such form.
    """
    pack = tuple(step for step in op.epilogue if isinstance(step, Pack))
    last = find(op.epilogue, Quantize)
    if last is None or op.residual or op.group_size or op.lhs.dynamic:
        raise FormatError(f"{op.name} has no threshold form: it needs out=FORMAT and no residual")
    first = find(op.epilogue, Bias)
    kept = (first,) if first == Bias("s32") else ()
    new = replace(op, epilogue=(*kept, Threshold(last.format), *pack))
    given = op.legal_parameters(parameters)
    steps = tuple(step for step in op.epilogue if step not in (*kept, *pack))
    channels = op.w_shape[0]

    def result(sums: np.ndarray) -> np.ndarray:
        """int64[channels, levels - 1]: the results for values behind the integer bias."""
        return apply(steps, sums.T, Given(given)).T.astype(np.int64)

    limit = _NEVER - 1 if kept else min(op.bound, _NEVER - 1)
    found, direction = _bisect(result, (channels, last.format.levels - 1), last.format, limit)
    passed = {name: given[name] for name in new.parameters if name in given}
    return new, passed | {"thresholds": found, "direction": direction}


def _bisect(
    result: Callable, shape: tuple[int, int], form: Format, limit: int
) -> tuple[np.ndarray, np.ndarray]:
    """(thresholds, direction) of monotone results between -limit and limit."""
    wanted = form.min + 1 + np.arange(shape[1])
    ends = [result(np.full(shape, end, np.int32)) for end in (-limit, limit)]
    falls = (ends[0] > ends[1]).any(axis=1)
    sign = np.where(falls, -1, 1)[:, None]
    low, high = np.full(shape, -limit - 1, np.int64), np.full(shape, limit + 1, np.int64)
    while (high - low > 1).any():  # result(sign * high) reaches what is wanted, of low it does not
        middle = (low + high) // 2
        inside = np.clip(middle, -limit, limit)
        reached = result((sign * inside).astype(np.int32)) >= wanted
        low, high = np.where(reached, low, middle), np.where(reached, middle, high)
    return (sign * high).astype(np.int32), sign[:, 0].astype(np.int8)
