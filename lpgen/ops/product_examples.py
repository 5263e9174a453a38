"""Inputs to try a product with: random ones, and the worst case of every sum."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from lpgen.formats import Format
from lpgen.ops import epilogue, sparse
from lpgen.ops.epilogue import Chain, Residual
from lpgen.ops.layers import NAME
from lpgen.ops.lhs import Lhs
from lpgen.ops.operator import Example, Operator
from lpgen.ops.parameter import Parameter


class ProductExamples(Operator):
    """The part of a `Product` that makes examples; its fields and shapes are stated there."""

    act: Format
    weight: Format
    outliers: int
    epilogue: Chain
    lhs: Lhs
    residual: Residual | None
    parameters: dict[str, Parameter]
    x_extents: tuple[int, ...]
    w_shape: tuple[int, ...]
    y_extents: tuple[int, ...]
    bound: int

    # Pairs of ends: which end of its format fills x, and which fills w.
    EXTREMES: ClassVar[tuple[str, ...]] = ("max-max", "max-min", "min-max", "min-min")

    def example(self, rng: np.random.Generator, name: str = "random") -> Example:
        """x and weights random or of one of EXTREMES, the rest random; all layers of weights that
        have them (`Example.with_layers`)."""
        x, w = self.random(rng) if name == "random" else self.extreme(name)
        parameters, residual = self.random_parameters(rng), self.random_residual(rng)
        inputs = {"x": x} if residual is None else {"x": x, "residual": residual}
        inputs |= {NAME: self.layers.high} if self.layers else {}
        return Example(name, inputs, w, parameters)

    @property
    def far_ends(self) -> list[str]:
        """The two of EXTREMES whose sums are the largest and the smallest."""

        def product(which: str) -> int:
            x_end, w_end = which.split("-")
            return getattr(self.act, x_end) * getattr(self.weight, w_end)

        return sorted({max(self.EXTREMES, key=product), min(self.EXTREMES, key=product)})

    def random(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Inputs (x, w) of uniformly drawn values; floats as `ops.lhs` draws them."""
        return self.lhs.random(rng, self.x_extents), self.weight.random(rng, self.w_shape)

    def extreme(self, which: str) -> tuple[np.ndarray, np.ndarray]:
        """Inputs (x, w) of one value each; `which` is one of EXTREMES, such as "max-min"."""
        self._check_example(which)
        x_end, w_end = which.split("-")
        w = np.full(self.w_shape, getattr(self.weight, w_end), self.weight.dtype)
        return self.lhs.extreme(x_end, self.x_extents), w

    def extremes(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The worst-case inputs: every pair of ends of the two formats."""
        return (self.extreme(which) for which in self.EXTREMES)

    def random_parameters(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Parameters that bring typical sums into the range of the result; scales are powers of
        two in every other place, so that ties are common."""
        spread = max(1.0, self.bound / 6 / math.sqrt(math.prod(self.w_shape[1:])))
        special = sparse.random(rng, self.outliers, self.w_shape) if self.outliers else {}
        if self.lhs.input == "f32":
            special["input_scale"] = self.lhs.random_scale()
        return {
            name: special[name]
            if name in special
            else epilogue.random_parameter(rng, name, parameter, self.epilogue, spread)
            for name, parameter in self.parameters.items()
        }

    def random_residual(self, rng: np.random.Generator) -> np.ndarray | None:
        """A tensor for the residual step, None where there is no such step."""
        return self.residual and self.residual.random(rng, self.y_extents)
