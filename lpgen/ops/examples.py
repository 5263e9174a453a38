"""Inputs to try an operator with: random ones, and the worst case of every sum."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from lpgen.errors import WorkloadError
from lpgen.ops import inputs, outliers, parameters


class Examples:
    """What an `Operator` has of them; it adds its own to these."""

    # The pairs of ends that `extreme` knows: which end of its format fills x, and which fills w.
    EXTREMES: ClassVar[tuple[str, ...]] = ("max-max", "max-min", "min-max", "min-min")

    def random(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Inputs (x, w) of uniformly drawn values; floats as `ops.inputs` draws them."""
        if inputs.is_float(self):
            x = inputs.random(self, rng)
        else:
            x = inputs.given(self, self.act.random(rng, self.x_extents))
        return x, self.weight.random(rng, self.w_shape)

    def extreme(self, which: str) -> tuple[np.ndarray, np.ndarray]:
        """Inputs (x, w) of one value each; `which` is one of EXTREMES, such as "max-min"."""
        if which not in self.EXTREMES:
            raise WorkloadError(f"extreme {which!r} is unknown; known: {', '.join(self.EXTREMES)}")
        x_end, w_end = which.split("-")
        w = np.full(self.w_shape, getattr(self.weight, w_end), self.weight.dtype)
        if inputs.is_float(self):
            return np.full(self.x_shape, {"max": 1e9, "min": -1e9}[x_end], np.float32), w
        x = np.full(self.x_extents, getattr(self.act, x_end), self.act.dtype)
        return inputs.given(self, x), w

    def extremes(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The worst-case inputs: every pair of ends of the two formats."""
        return (self.extreme(which) for which in self.EXTREMES)

    def random_parameters(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Parameters that bring typical sums into the range of the result; scales are powers of
        two in every other place, so that ties are common."""
        spread = max(1.0, self.bound / 6 / math.sqrt(self.matrix.k))
        special = outliers.random(self, rng) if self.outliers else {}
        if self.input == "f32":
            special["input_scale"] = inputs.random_scale(self, rng)
        return {
            name: special[name]
            if name in special
            else parameters.random_parameter(rng, name, parameter, self.epilogue, spread)
            for name, parameter in self.parameters.items()
        }

    def random_residual(self, rng: np.random.Generator) -> np.ndarray | None:
        """A tensor for the residual step, None where there is no such step."""
        if self.residual is None:
            return None
        if self.residual.format == "f32":
            return rng.normal(scale=50, size=self.y_extents).astype(np.float32)
        return self.residual.format.random(rng, self.y_extents)
