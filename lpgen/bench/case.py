"""One operator with inputs, scales and the exact result: what every contender has to compute."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from lpgen.errors import LpgenError
from lpgen.ops import Operator
from lpgen.ops.epilogue import Bias, Clamp, Quantize, Scale, find
from lpgen.runtime.memory import aligned_copy

U8 = np.iinfo(np.uint8)
U8_BITS = 8
_X_SCALE = 0.02
_W_SCALE = 0.01
# A requantized result may be off by one where its library rounds scale or product differently.
_OFF_BY_ONE = 0.01
# Libraries that quantize float activations by themselves lose up to a bit of 8-bit activations.
_RELATIVE_ERROR = 0.02


class Unsupported(LpgenError):
    """A peer cannot run an operator, or not in one of its ways; the message is the reason."""


class Disagrees(LpgenError):
    """A peer computed something else than the oracle."""


@dataclass(frozen=True)
class Contender:
    """An operator prepared in some library: a call to be timed, and what it leaves.

    call: computes the result once, weights prepared before; fetch: the result of the last call,
    [y_shape], of the type that `out` names: "s32" the sums, "u8" requantized by the scales of the
    Case, "f32" multiplied by them (for lpgen the operator's own `out`); weight: the type in which
    the library keeps the weights.
    """

    call: Callable[[], Any]
    fetch: Callable[[], np.ndarray]
    out: str
    weight: str


@dataclass(frozen=True)
class Case:
    """Inputs of an operator, its exact result, and the quantization that all libraries share.

    x, w, residual, parameters: what the operator takes; expected: its result; sums: int32[y_shape],
    those of products alone. In other libraries a value of x stands for (x - zero point) * x_scale,
    one of output channel c of w for w * w_scale[c], bias[c] is added to the sum, and a result in
    uint8 stands for (y - y_zero) * y_scale. The operator's own epilogue has the same scales where
    it requantizes to 8 bits.
    """

    op: Operator
    x: np.ndarray
    w: np.ndarray
    residual: np.ndarray | None
    parameters: dict[str, np.ndarray]
    expected: np.ndarray
    sums: np.ndarray
    bias: np.ndarray | None
    x_scale: float
    w_scale: np.ndarray
    y_scale: float
    y_zero: int

    @classmethod
    def random(cls, op: Operator, seed: int = 0) -> "Case":
        """Random inputs, and scales by which results fill the range of the output."""
        rng = np.random.default_rng(seed)
        x, w = op.random(rng)
        if op.weight.encoding == "s":
            # Symmetric, as quantizers make them: else the lowest value, whose negative there is
            # not, makes most results negative, and -128 is outside of what some libraries define.
            w = rng.integers(-op.weight.max, op.weight.max + 1, w.shape).astype(w.dtype)
        parameters, residual = op.random_parameters(rng), op.random_residual(rng)
        bare = replace(op, epilogue=())
        sums = bare.reference(x, w, **{k: parameters[k] for k in bare.parameters})
        channels = op.y_shape[-1]
        scale, bias = find(op.epilogue, Scale), None
        w_scale = rng.uniform(0.5, 1.5, 1 if scale and scale.per == "tensor" else channels)
        w_scale = np.broadcast_to((w_scale * _W_SCALE).astype(np.float32), channels).copy()
        if "bias" in parameters:
            spread = int(sums.std()) + 1
            bias = rng.integers(-spread, spread, channels, dtype=np.int32)
        real = (sums + (0 if bias is None else bias)) * (_X_SCALE * w_scale)
        quantize = find(op.epilogue, Quantize)
        y_zero = 0
        if quantize and quantize.format.bits == U8_BITS:
            y_zero = quantize.zero - quantize.format.min
        y_scale = _filling(real, y_zero, U8.max)
        parameters |= _own_parameters(op, real, bias, w_scale, y_scale)
        expected = op.reference(x, w, residual, **parameters)
        quantization = bias, _X_SCALE, w_scale, y_scale, y_zero
        return cls(op, aligned_copy(x), w, residual, parameters, expected, sums, *quantization)

    @cached_property
    def real(self) -> np.ndarray:
        """What the result stands for, float64[y_shape]."""
        sums = self.sums if self.bias is None else self.sums + self.bias
        return sums * (np.float32(self.x_scale) * self.w_scale.astype(np.float64))

    @cached_property
    def real_bias(self) -> np.ndarray | None:
        """What the bias stands for, float32, or None."""
        if self.bias is None:
            return None
        return (self.bias * (np.float32(self.x_scale) * self.w_scale)).astype(np.float32)

    @cached_property
    def requantized(self) -> np.ndarray:
        """The result in uint8 steps of y_scale: rounded half to even and saturated, [y_shape]."""
        codes = np.rint(self.real / self.y_scale) + self.y_zero
        return np.clip(codes, U8.min, U8.max).astype(np.uint8)

    @property
    def beyond(self) -> str | None:
        """Why no other library runs the operator, or None: what its epilogue does beyond theirs."""
        if self.op.outliers:
            return "adds outliers to the weights, which is another operator elsewhere"
        if self.residual is not None:
            return "adds a residual, which is another operator elsewhere"
        clamp, quantize = find(self.op.epilogue, Clamp), find(self.op.epilogue, Quantize)
        lowest_is_zero = quantize and quantize.zero == quantize.format.min
        if clamp and not (clamp.bounds == "relu" and lowest_is_zero):
            return "clamps its results by more than the range of the output"
        return None

    def signed_weights(self) -> np.ndarray:
        """The weights less their zero points, int8[w_shape]. Raises Unsupported if they do not fit.

        They are symmetric then: what a library computes with is the same.
        """
        zero = self.parameters.get("zero_weight", self.op.zero_weight)
        zero = np.reshape(zero, (-1, *[1] * (self.w.ndim - 1)))
        centred = self.w.astype(np.int16) - zero.astype(np.int16)
        fitting = np.iinfo(np.int8)
        if centred.min() < fitting.min or self._largest_weight > fitting.max:
            raise Unsupported(f"weights {self.op.weight} do not fit int8")
        return centred.astype(np.int8)

    @property
    def _largest_weight(self) -> int:
        zero = self.parameters.get("zero_weight", np.asarray(self.op.zero_weight))
        return self.op.weight.max - int(zero.min())

    def widths(self, *bits: int) -> list[int]:
        """Those of the given widths whose signed integers hold all values of the weights."""
        zero = self.parameters.get("zero_weight", np.asarray(self.op.zero_weight))
        low, high = self.op.weight.min - int(zero.max()), self._largest_weight
        return [b for b in bits if -(1 << b - 1) <= low and high < 1 << b - 1]

    def shifted_input(self, dtype: type[np.integer]) -> tuple[np.ndarray, int]:
        """(x, zero point) as `dtype`, uint8 or int8: where the sign differs, shifted by 128."""
        shift = 0
        if np.dtype(dtype) != self.x.dtype:
            shift = 128 if dtype == np.uint8 else -128
        codes = (self.x.astype(np.int16) + shift).astype(dtype)
        return aligned_copy(codes), self.op.zero_act + shift

    def real_input(self) -> np.ndarray:
        """What x stands for, float32."""
        values = self.x.astype(np.float32) - np.float32(self.op.zero_act)
        return aligned_copy(values * np.float32(self.x_scale))

    def check(self, contender: Contender) -> None:
        """Compare another library's result of the last call. Raises Disagrees if it is another.

        Sums have to be equal; requantized results may be off by one in 1 % of the places; floats,
        for which libraries may round the activations to 8 bits, by 2 % (root mean squares).
        """
        got = np.asarray(contender.fetch())
        if got.shape != self.op.y_shape:
            raise Disagrees(f"result has shape {got.shape}, expected {self.op.y_shape}")
        if contender.out == "f32":
            error = _rms(got.astype(np.float64) - self.real) / max(_rms(self.real), 1e-30)
            if not error <= _RELATIVE_ERROR:
                raise Disagrees(f"result differs by {error:.1%} from the oracle's")
            return
        expected = self.sums if contender.out == "s32" else self.requantized
        off = np.abs(got.astype(np.int64) - expected)
        share = np.count_nonzero(off) / off.size
        if share and (contender.out == "s32" or off.max() > 1 or share > _OFF_BY_ONE):
            raise Disagrees(f"{share:.1%} of the results differ from the oracle's, by {off.max()}")


def _own_parameters(
    op: Operator,
    real: np.ndarray,
    bias: np.ndarray | None,
    w_scale: np.ndarray,
    y_scale: float,
) -> dict[str, np.ndarray]:
    """Scale and bias of the operator's own epilogue, by the quantization of the others."""
    scale, quantize = find(op.epilogue, Scale), find(op.epilogue, Quantize)
    found = {}
    if scale:
        step = 1.0
        if quantize:
            form = quantize.format
            eight = form.bits == U8_BITS
            step = y_scale if eight else _filling(real, quantize.zero - form.min, form.levels - 1)
        combined = (np.float32(_X_SCALE) * w_scale / np.float32(step)).astype(np.float32)
        found["scale"] = combined[:1] if scale.per == "tensor" else combined
    if bias is not None:
        floats = find(op.epilogue, Bias).dtype == "f32"
        found["bias"] = bias * found["scale"] if floats else bias
    return found


def _filling(real: np.ndarray, zero: int, top: int) -> float:
    """The step by which `real` values become codes that fill 0..top, around code `zero`."""
    above, below = float(real.max()), -float(real.min())
    steps = [above / (top - zero) if top > zero else 0.0, below / zero if zero else 0.0]
    return float(np.float32(max(*steps, _X_SCALE * _W_SCALE)))


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values))))
