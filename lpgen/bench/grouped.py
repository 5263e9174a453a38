"""Cases whose weights have a scale, and perhaps a zero point, for each group of k."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lpgen.bench.case import Case, Unsupported
from lpgen.ops import Operator
from lpgen.ops.epilogue import Clamp, Quantize, find
from lpgen.ops.parameter import nearest_bfloat16
from lpgen.runtime.memory import aligned_copy

_X_SCALE = 0.02
_W_SCALE = 0.01


@dataclass(frozen=True)
class GroupedCase(Case):
    """As a Case, with w_scale float32[n, groups], and x perhaps real numbers already (x_scale 1).

    Other libraries take real numbers as activations and quantize them themselves.
    """

    @classmethod
    def random(cls, op: Operator, seed: int = 0) -> "GroupedCase":
        """Random inputs, scales and zero points."""
        rng = np.random.default_rng(seed)
        x, w = op.random(rng)
        if isinstance(op.zero_weight, int) and op.weight.encoding == "s":
            w = rng.integers(-op.weight.max, op.weight.max + 1, w.shape).astype(w.dtype)
        parameters, residual = op.random_parameters(rng), op.random_residual(rng)
        x_scale = 1.0 if op.lhs.dynamic else _X_SCALE
        x_scale = float(parameters.get("input_scale", [x_scale])[0])
        scale = rng.uniform(0.5, 1.5, op.scale_shape) * _W_SCALE * x_scale
        short = op.parameters["scale"].short
        scale = nearest_bfloat16(scale) if short else scale.astype(np.float32)
        parameters["scale"] = scale
        expected = op.reference(x, w, residual, **parameters)
        bias = parameters.get("bias")
        w_scale = (scale / np.float32(x_scale)).astype(np.float32)
        rest = bias, x_scale, w_scale, 1.0, 0
        return cls(op, aligned_copy(x), w, residual, parameters, expected, expected, *rest)

    @cached_property
    def real(self) -> np.ndarray:
        return self.expected.astype(np.float64)

    @cached_property
    def real_bias(self) -> np.ndarray | None:
        return self.bias

    @property
    def beyond(self) -> str | None:
        if self.residual is not None or find(self.op.epilogue, Clamp):
            return "adds a residual or clamps its results, which are other operators elsewhere"
        if find(self.op.epilogue, Quantize):
            return "requantizes what weights with scales of groups gave"
        if self.op.input == "f32":
            return "quantizes its activations with a static scale"
        return None

    def real_input(self) -> np.ndarray:
        return aligned_copy(self.x) if self.op.lhs.dynamic else super().real_input()

    def codes(self, *bits: int) -> tuple[np.ndarray, np.ndarray]:
        """(weights, zero points) as unsigned numbers, uint8[n, k] and [n, groups].

        Raises Unsupported where their width is none of `bits`.
        """
        op, form = self.op, self.op.weight
        if form.encoding not in "us" or form.bits not in bits:
            raise Unsupported(f"no weights in {form} with scales of groups")
        zero = self.parameters.get("zero_weight", np.full(op.scale_shape, op.zero_weight))
        return (
            (self.w.astype(np.int16) - form.min).astype(np.uint8),
            (zero.astype(np.int16) - form.min).astype(np.uint8),
        )
