"""Quantized layers as nodes of standard ONNX.

Weights are constants behind DequantizeLinear, int4 where they have 4 bits or fewer. Activations
with a static range go through QuantizeLinear and DequantizeLinear of 8 bits; with fewer bits a Clip
in front of them leaves only that many codes. Activations whose scales are found in each call stay
float here, and the plan, which the model holds as `lpgen.plan`, says what a kernel does with them.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np

from lpgen.ops import hadamard
from lpgen.plans import Precision
from lpgen.quantize.biases import Biases
from lpgen.quantize.graph import Graph
from lpgen.quantize.patches import Place
from lpgen.quantize.ranges import Range
from lpgen.quantize.weights import Quantized

if TYPE_CHECKING:
    import onnx


class Writer:
    """Layers of a graph, one after the other; inputs that they share are quantized once."""

    def __init__(self, graph: Graph) -> None:
        self.graph, self._biases = graph, Biases(graph.model)
        self._inputs: dict[tuple, str] = {}

    def layer(
        self,
        place: Place,
        precision: Precision,
        made: Quantized,
        scope: Range | None,
        correct: bool = True,
    ) -> None:
        """A layer with codes; scope: the range of its input where that is static; correct: whether
        its bias makes up for what results lose on average."""
        node = place.node
        node.input[0] = self._input(place.layer.input, precision, scope)
        node.input[1] = self._weights(place, made)
        if correct:
            self._correct(node, made.shift)

    def between(self, edge: str, scope: Range, readers: Collection[str]) -> None:
        """Codes on an edge, for nodes of these types that read it."""
        key = (edge, 0, scope)
        if key not in self._inputs:
            self._inputs[key] = self._static(edge, scope)
        for node in self.graph.model.graph.node:
            if node.op_type in readers:
                for place, name in enumerate(node.input):
                    if name == edge:
                        node.input[place] = self._inputs[key]

    def _weights(self, place: Place, made: Quantized) -> str:
        codes, name = made.codes, place.layer.node
        bits = 4 if codes.form.bits <= 4 else 8
        stored = self.graph.constant(f"{name}.codes", place.restored(codes.codes), bits)
        scale, how = codes.scale[:, 0], {"axis": 0 if place.rows_first else 1}
        if codes.group:
            scale = codes.scale if place.rows_first else np.ascontiguousarray(codes.scale.T)
            how = {"axis": 1 if place.rows_first else 0, "block_size": codes.group}
        inputs = [stored, self.graph.constant(f"{name}.scale", scale)]
        return self.graph.add("DequantizeLinear", inputs, f"{name}.weights", **how)

    def _input(self, edge: str, precision: Precision, scope: Range | None) -> str:
        key = (edge, precision.hadamard, scope)
        if key not in self._inputs:
            made = self._rotated(edge, precision.hadamard) if precision.hadamard else edge
            self._inputs[key] = self._static(made, scope) if scope else made
        return self._inputs[key]

    def _rotated(self, edge: str, block: int) -> str:
        """Every `block` of the last axis times a Hadamard matrix."""
        graph = self.graph
        turn = graph.constant(
            f"hadamard{block}", np.float32(hadamard.rotated(np.eye(block), block))
        )
        rows = graph.constant(f"{edge}.blocks", np.int64([-1, block]))
        shape = graph.add("Shape", [edge], f"{edge}.shape")
        cut = graph.add("Reshape", [edge, rows], f"{edge}.cut")
        turned = graph.add("MatMul", [cut, turn], f"{edge}.turned")
        return graph.add("Reshape", [turned, shape], f"{edge}.rotated")

    def _static(self, edge: str, scope: Range) -> str:
        graph, form = self.graph, scope.form
        x = edge
        if form.bits < 8:
            ends = zip(("low", "high"), scope.ends, strict=True)
            bounds = [graph.constant(f"{edge}.{name}", np.float32(end)) for name, end in ends]
            x = graph.add("Clip", [x, *bounds], f"{edge}.bounded")
        scale = graph.constant(f"{edge}.scale", np.float32(scope.scale))
        zero = graph.constant(f"{edge}.zero", np.array(scope.zero, form.dtype))
        codes = graph.add("QuantizeLinear", [x, scale, zero], f"{edge}.codes")
        return graph.add("DequantizeLinear", [codes, scale, zero], f"{edge}.seen")

    def _correct(self, node: onnx.NodeProto, shift: np.ndarray) -> None:
        """The bias with the mean that results lost, where there is one."""
        if bias := self._biases.of(node, len(shift)):
            bias.replace(self.graph.constant(f"{bias.name}.corrected", bias.corrected(shift)))
