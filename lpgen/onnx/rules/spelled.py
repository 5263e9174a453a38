"""Nodes that stand for several, spelled out in ONNX's own, which are lowered in their place."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from lpgen.errors import OnnxError
from lpgen.onnx.values import Constant, Value

if TYPE_CHECKING:
    import onnx

    from lpgen.onnx.lowering import Lowering


class Spelled:
    """The nodes in place of one: called with an operator and the edges that it reads, it adds a
    node and gives the edge that it writes."""

    def __init__(self, lowering: Lowering, node: onnx.NodeProto) -> None:
        self.lowering, self.node = lowering, node
        self.nodes: list[onnx.NodeProto] = []
        self.inputs: list[str] = list(node.input)

    def __call__(self, kind: str, *inputs: str, writes: str = "", **attributes: Any) -> str:
        """writes: the edge, where that is one of the model's."""
        from onnx import helper

        edge = writes or self._edge(kind.lower())
        # A plan says by the name of the node how its products are quantized.
        made = helper.make_node(kind, list(inputs), [edge], name=self.node.name, **attributes)
        self.nodes.append(made)
        return edge

    def input(self, place: int) -> str:
        """The edge of an input, "" where it is left out."""
        return self.inputs[place] if place < len(self.inputs) else ""

    def shape(self, place: int) -> tuple[int, ...]:
        """The shape of an input. Raises OnnxError where it is left out."""
        if not self.input(place):
            raise OnnxError(f"input {place} is missing")
        return self.lowering.values[self.input(place)].type.shape

    def array(self, place: int, what: str) -> np.ndarray:
        """An input that has to be known."""
        value = self.lowering.values.get(self.input(place))
        if not isinstance(value, Constant):
            raise OnnxError(f"{what} is {'no constant' if value else 'missing'}")
        return value.array

    def constant(self, array: Any) -> str:
        """An edge of known numbers."""
        name = self._edge("constant")
        self.lowering.values[name] = Constant(np.asarray(array))
        return name

    def lowered(self, *results: str) -> list[Value]:
        """The values of these edges, once the nodes are lowered."""
        self.lowering.replaced(self.node, self.nodes)
        return [self.lowering.values[name] for name in results]

    def _edge(self, stem: str) -> str:
        """A name that no edge has."""
        first, taken = self.node.output[0], len(self.nodes)
        while (name := f"{first}:{stem}{taken}") in self.lowering.values:
            taken += 1
        self.lowering.values[name] = None
        return name


def refuse(given: Iterable[tuple[str, Any]]) -> None:
    """Raise OnnxError for the first of these options that is on."""
    for what, value in given:
        if value:
            raise OnnxError(f"{what} is not served")
