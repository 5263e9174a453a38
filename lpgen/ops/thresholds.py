"""The threshold form of an epilogue: a result of few levels by comparing and counting.

    y = format.min + format.step * (how many of the channel's thresholds t have v >= t)

or, in a channel whose `direction` is negative, v <= t. v is the int32 sum with its bias, so that
scale, batch normalization, clamp and rounding all disappear into `levels - 1` integers a channel,
as in FINN (Umuroglu et al., FPGA 2017). `batch_norm` and `thresholds` make them, exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from lpgen.errors import FormatError
from lpgen.formats import Format

if TYPE_CHECKING:
    from lpgen.ops.base import Operator

MAX_LEVELS = 8
"""More would cost more comparisons than a multiplication."""

_NEVER = 2**31 - 1


@dataclass(frozen=True)
class Threshold:
    """The last step: counts thresholds[n]. Any format of up to 8 levels, b1 and t2 included."""

    format: Format | str
    place: ClassVar[int] = 5

    def __post_init__(self) -> None:
        object.__setattr__(self, "format", Format.parse(self.format))

    def check(self) -> str | None:
        """What is wrong with it, or None."""
        if self.format.book or self.format.levels > MAX_LEVELS:
            return f"out={self.format} scale=thresholds: u, s, b or t of up to {MAX_LEVELS} levels"
        return None

    def apply(self, sums: np.ndarray, thresholds: np.ndarray, direction: np.ndarray) -> np.ndarray:
        """The result for int32 sums, the channels in the last dimension."""
        v = sums[..., None]
        reached = np.where(direction[:, None] < 0, v <= thresholds, v >= thresholds)
        count = np.count_nonzero(reached, axis=-1)
        return (self.format.min + self.format.step * count).astype(self.format.dtype)


def batch_norm(
    gamma: np.ndarray, beta: np.ndarray, mean: np.ndarray, variance: np.ndarray, epsilon: float
) -> tuple[np.ndarray, np.ndarray]:
    """(a, b) with gamma * (x - mean) / sqrt(variance + epsilon) + beta = a * x + b, float64.

    In an epilogue with scale=channel bias=f32 and the real scales s_x, s_w, s_y: scale =
    a * s_x * s_w / s_y and bias = b / s_y.
    """
    a = np.float64(gamma) / np.sqrt(np.float64(variance) + epsilon)
    return a, np.float64(beta) - a * np.float64(mean)


def thresholds(op: Operator, **parameters: np.ndarray) -> tuple[Operator, dict[str, np.ndarray]]:
    """(operator, parameters) in threshold form that gives what `op` gives, bit for bit.

    op: an operator whose epilogue quantizes to few levels, without a residual; parameters: its own.
    Each threshold is found by bisection over the sums that the operator can have: everything from
    the sum to the result rises or falls with it. Raises FormatError where there is no such form.
    """
    from lpgen.ops import epilogue

    pack = tuple(step for step in op.epilogue if isinstance(step, epilogue.Pack))
    last = epilogue.find(op.epilogue, epilogue.Quantize)
    if last is None or op.residual or op.group or op.input in ("f32:tensor", "f32:row"):
        raise FormatError(f"{op.name} has no threshold form: it needs out=FORMAT and no residual")
    first = epilogue.find(op.epilogue, epilogue.Bias)
    kept = (first,) if first == epilogue.Bias("s32") else ()
    new = replace(op, epilogue=(*kept, Threshold(last.format), *pack))
    given = op.legal_parameters(parameters)
    steps = tuple(step for step in op.epilogue if step not in (*kept, *pack))
    channels = op.w_shape[0]

    def result(sums: np.ndarray) -> np.ndarray:
        """int64[channels, levels - 1]: the results for values behind the integer bias."""
        return epilogue.apply(steps, sums.T, given, None).T.astype(np.int64)

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
