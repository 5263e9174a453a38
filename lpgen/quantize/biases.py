"""Biases of layers: where what results lose on average is made up for.

A convolution can always have one. That of a product is the constant which it or the Add behind it
has already: one more addition would cost time.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lpgen.plans.constants import Constants

if TYPE_CHECKING:
    import onnx


class Bias(NamedTuple):
    """What is added to the results of a layer: input `place` of a node, the layer or the Add behind
    it; value: float32, n numbers along its last axis or one for all; name: of the constant."""

    node: onnx.NodeProto
    place: int
    value: np.ndarray
    name: str

    def corrected(self, shift: np.ndarray) -> np.ndarray:
        """With so much more, [n]: float32."""
        return np.float32(self.value + shift)

    def replace(self, name: str) -> None:
        """Let the node read another edge in its place."""
        inputs = list(self.node.input)[: self.place]
        self.node.input[:] = [*inputs, name, *list(self.node.input)[self.place + 1 :]]


class Biases:
    """The biases of a model as it is; nodes that are found are those of the model."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._constants = Constants(model)
        self._readers: defaultdict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in model.graph.node:
            for name in node.input:
                self._readers[name].append(node)
        self._outputs = {value.name for value in model.graph.output}

    def of(self, node: onnx.NodeProto, n: int) -> Bias | None:
        """That of a layer (Conv, Gemm, MatMul) of n output channels; None where it has none that
        could be another one."""
        if node.op_type == "MatMul":
            return self._behind(node, n)
        given = list(node.input)
        if len(given) > 2 and given[2]:
            factors = {a.name: a.f for a in node.attribute}
            return self._constant(node, 2, n) if factors.get("beta", 1.0) == 1 else None
        none = np.zeros(n, np.float32)
        return Bias(node, 2, none, f"{node.output[0]}.bias") if node.op_type == "Conv" else None

    def _behind(self, node: onnx.NodeProto, n: int) -> Bias | None:
        readers = self._readers[node.output[0]]
        if len(readers) != 1 or readers[0].op_type != "Add" or node.output[0] in self._outputs:
            return None
        place = 1 - list(readers[0].input).index(node.output[0])
        return self._constant(readers[0], place, n)

    def _constant(self, node: onnx.NodeProto, place: int, n: int) -> Bias | None:
        name = node.input[place]
        if name not in self._constants:
            return None
        value = self._constants[name]
        fits = value.size == 1 or (value.size == n and value.shape[-1] == n)
        return Bias(node, place, value, name) if fits and value.dtype == np.float32 else None
