"""Cases whose float activations are quantized by the operator, as no other library does it."""

from dataclasses import dataclass

import numpy as np

from lpgen.bench.case import Case
from lpgen.ops import Operator
from lpgen.runtime.memory import aligned_copy


@dataclass(frozen=True)
class FloatCase(Case):
    """As a Case, with x float32 and the oracle's result for sums."""

    @classmethod
    def random(cls, op: Operator, seed: int = 0) -> "FloatCase":
        """Random inputs and parameters."""
        rng = np.random.default_rng(seed)
        x, w = op.random(rng)
        parameters, residual = op.random_parameters(rng), op.random_residual(rng)
        expected = op.reference(x, w, residual, **parameters)
        scales = np.ones(op.y_shape[-1], np.float32)
        rest = None, 1.0, scales, 1.0, 0
        return cls(op, aligned_copy(x), w, residual, parameters, expected, expected, *rest)

    @property
    def beyond(self) -> str | None:
        if self.op.hadamard:
            return "rotates its activations before it quantizes them"
        if self.op.lhs.group:
            return "quantizes its activations with scales of groups"
        return "quantizes float activations, which is another operator elsewhere"
