"""One operator with inputs, scales and the exact result: what every contender has to compute."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from lpgen.errors import LpgenError
from lpgen.ops import Operator
from lpgen.runtime.arrays import aligned

Output = Literal["s32", "u8", "f32"]

U8 = np.iinfo(np.uint8)
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
    Case, "f32" multiplied by them; weight: the type in which the library keeps the weights.
    """

    call: Callable[[], Any]
    fetch: Callable[[], np.ndarray]
    out: Output
    weight: str


@dataclass(frozen=True)
class Case:
    """Inputs of an operator and the scales that all libraries share.

    x, w: values in the operator's formats; sums: int32[y_shape], the oracle's. A value of x stands
    for x * x_scale, one of output channel c of w for w * w_scale[c], a requantized result for
    y * y_scale with a zero point of 0 (negative ones become 0, as a ReLU leaves them).
    """

    op: Operator
    x: np.ndarray
    w: np.ndarray
    sums: np.ndarray
    x_scale: float
    w_scale: np.ndarray
    y_scale: float

    @classmethod
    def random(cls, op: Operator, seed: int = 0) -> "Case":
        """Random inputs and scales; results fill the whole range of uint8."""
        rng = np.random.default_rng(seed)
        x, w = op.random(rng)
        if op.weight.encoding == "s":
            # Symmetric, as quantizers make them: else the lowest value, whose negative there is
            # not, makes most results negative, and -128 is outside of what some libraries define.
            w = rng.integers(-op.weight.max, op.weight.max + 1, w.shape).astype(w.dtype)
        sums = op.reference(x, w)
        w_scale = (rng.uniform(0.5, 1.5, op.y_shape[-1]) * _W_SCALE).astype(np.float32)
        largest = float(np.max(sums * (_X_SCALE * w_scale)))
        y_scale = max(largest, _X_SCALE * _W_SCALE) / U8.max
        return cls(op, settled(x), w, sums, _X_SCALE, w_scale, float(np.float32(y_scale)))

    @cached_property
    def real(self) -> np.ndarray:
        """What the result stands for, float64[y_shape]."""
        return self.sums * (np.float32(self.x_scale) * self.w_scale.astype(np.float64))

    @cached_property
    def requantized(self) -> np.ndarray:
        """The result in uint8 steps of y_scale: rounded half to even and saturated, [y_shape]."""
        return np.clip(np.rint(self.real / self.y_scale), U8.min, U8.max).astype(np.uint8)

    def signed_weights(self) -> np.ndarray:
        """The weights as int8[w_shape]. Raises Unsupported if their format has larger values."""
        if self.op.weight.max > np.iinfo(np.int8).max:
            raise Unsupported(f"weights {self.op.weight} do not fit int8")
        return self.w.astype(np.int8)

    def widths(self, *bits: int) -> list[int]:
        """Those of the given widths whose signed integers hold all values of the weights."""
        form = self.op.weight
        return [b for b in bits if -(1 << b - 1) <= form.min and form.max < 1 << b - 1]

    def shifted_input(self, dtype: type[np.integer]) -> tuple[np.ndarray, int]:
        """(x, zero point) as `dtype`, uint8 or int8: where the sign differs, shifted by 128."""
        zero = 0
        if np.dtype(dtype) != self.x.dtype:
            zero = 128 if dtype == np.uint8 else -128
        return settled((self.x.astype(np.int16) + zero).astype(dtype)), zero

    def check(self, contender: Contender) -> None:
        """Compare the result of the last call. Raises Disagrees when it is another one.

        Sums have to be equal; requantized results may be off by one in 1 % of the places; floats,
        for which libraries may round the activations to 8 bits, by 2 % (root mean squares).
        """
        got = np.asarray(contender.fetch())
        if got.shape != self.sums.shape:
            raise Disagrees(f"result has shape {got.shape}, expected {self.sums.shape}")
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


def settled(array: np.ndarray) -> np.ndarray:
    """A copy that starts on a 64-byte boundary, so that no library is slowed by a bad address."""
    copy = aligned(array.nbytes).view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values))))
