"""The steps of an epilogue together: which chains there are, what they need and what they give."""

from __future__ import annotations

import itertools

import numpy as np

from lpgen.ops.epilogue.bias import Bias
from lpgen.ops.epilogue.clamp import Clamp
from lpgen.ops.epilogue.middle import Middle
from lpgen.ops.epilogue.pack import Pack
from lpgen.ops.epilogue.quantize import Quantize
from lpgen.ops.epilogue.scale import Scale, group_size_of
from lpgen.ops.epilogue.step import Chain, Given, Step, Sums, find
from lpgen.ops.epilogue.threshold import Threshold
from lpgen.ops.parameter import Parameter, nearest_bfloat16


def out_of(chain: Chain) -> str:
    """What the chain leaves: "s32", "f32" or the text of a format, with ":LAYOUT" if packed."""
    last, pack = find(chain, Quantize | Threshold), find(chain, Pack)
    if last:
        return f"{last.format}:{pack.layout}" if pack else str(last.format)
    return "f32" if find(chain, Scale) else "s32"


def dtype_of(chain: Chain) -> str:
    """The NumPy dtype of the result, before it is packed."""
    last = find(chain, Quantize | Threshold)
    return last.format.dtype if last else {"s32": "int32", "f32": "float32"}[out_of(chain)]


def check_chain(chain: Chain) -> str | None:
    """Why the steps make no epilogue, or None."""
    for step in chain:
        if not isinstance(step, Step):
            return f"{step!r} is no step of an epilogue"
        if reason := step.check():
            return reason
    for before, after in itertools.pairwise(chain):
        if before.place >= after.place or type(before) is type(after):
            names = type(after).__name__, type(before).__name__
            return f"epilogue: {names[0]} cannot follow {names[1]}"
    pack, clamp = find(chain, Pack), find(chain, Clamp)
    if reason := pack and pack.check_within(chain):
        return reason
    if find(chain, Threshold):
        beside = (step for step in chain if not isinstance(step, Threshold | Pack))
        if others := [step for step in beside if step != Bias("s32")]:
            return f"epilogue: {type(others[0]).__name__} is part of the thresholds"
    elif not find(chain, Scale):
        if reals := [step for step in chain if step.needs_scale]:
            return f"epilogue: {type(reals[0]).__name__} needs scale=tensor or scale=channel"
    if group_size_of(chain) and find(chain, Bias) == Bias("s32"):
        return "bias=s32 is for sums over all of k, with scales of groups there are none"
    middle = find(chain, Middle)
    if reason := middle and middle.check_within(chain):
        return reason
    return clamp and clamp.check_within(chain)


def integer_bounds(chain: Chain) -> tuple[int | None, int | None]:
    """(low, high) that the last value before the zero point is kept in; None: no bound.

    For a quantized result the format's range is in it, and both are numbers. Clamping to integers
    may come before rounding or after, the result is the same.
    """
    clamp, quantize = find(chain, Clamp), find(chain, Quantize)
    bounds = [clamp.integers(quantize)] if clamp else []
    bounds += [quantize.integers] if quantize else []
    lows = [low for low, _ in bounds if low is not None]
    highs = [high for _, high in bounds if high is not None]
    return max(lows, default=None), min(highs, default=None)


def parameters_of(chain: Chain, sums: Sums) -> dict[str, Parameter]:
    """The parameters of the steps by name, in the order in which they are given."""
    found: dict[str, Parameter] = {}
    for step in chain:
        found |= step.parameters(chain, sums)
    return found


def apply(chain: Chain, sums: np.ndarray, given: Given) -> np.ndarray:
    """The result of the chain, step by step: the oracle of every kernel's epilogue.

    sums: int32, the channels in the last dimension; with scales of groups of k float32, what the
    groups add up to.
    """
    v = sums
    for step in chain:
        v = step.apply(v, chain, given)
    return v


def random_parameter(
    rng: np.random.Generator, name: str, parameter: Parameter, chain: Chain, spread: float
) -> np.ndarray:
    """Values for a parameter where sums are about +-spread."""
    shape, quantize = parameter.shape, find(chain, Middle) or find(chain, Quantize)
    if parameter.dtype != "float32":
        wide = 2 * spread if name in ("bias", "thresholds") else np.inf
        low, high = max(parameter.low, -wide), min(parameter.high, wide)
        return rng.integers(int(low), int(high) + 1, shape).astype(parameter.dtype)
    steps = quantize.format.max - quantize.format.min if quantize else 256
    if name == "scale":
        values = steps / 4 / spread * 2.0 ** rng.uniform(-2, 2, shape)
        values = np.where(rng.random(shape) < 0.5, values, 2.0 ** np.rint(np.log2(values)))
    elif name in ("bias", "offset"):
        values = rng.normal(scale=steps / 4, size=shape)
    elif name == "output_scale":
        values = 2.0 ** rng.choice([-1, 0, 0.3, 1], shape)
    else:
        values = rng.uniform(0, steps / 2 if name == "six" else 1.5, shape)
    return nearest_bfloat16(values) if parameter.short else values.astype(np.float32)
