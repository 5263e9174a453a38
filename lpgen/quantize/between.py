"""Edges between layers that become codes as well, so that nothing there is computed in float32.

Between two convolutions stands a function of single elements, such as a hard-swish of ten nodes.
Where what it is computed of is quantized, too, it is a table of codes (`lpgen.onnx`), else float32
that goes through memory node by node. So the `root` of an edge that is quantized with a static
scale becomes codes, and so do tensors whose sum, product or mean it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lpgen.formats import Format
from lpgen.onnx.evaluate import evaluate
from lpgen.onnx.rules import functions
from lpgen.plans.constants import Constants
from lpgen.quantize.ranges import METHODS, Range, between, chosen

if TYPE_CHECKING:
    import onnx

FORM = Format("u", 8)

FUNCTIONS = (*functions.UNARY, *functions.BINARY)
MOVES = ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Identity")
POOLS = ("GlobalAveragePool", "AveragePool", "MaxPool")
READERS = (*FUNCTIONS, *MOVES, *POOLS, "Concat", "Resize")
"""Nodes that can read codes."""


class Coded(NamedTuple):
    """An edge that becomes codes; of: the edge, coded too, that is a function of it alone; "": none
    is."""

    edge: str
    of: str


class Between:
    """The graph of a model as edges and what makes them."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model, self.constants = model, Constants(model)
        self._makers = {name: node for node in model.graph.node for name in node.output}
        self._opsets = {entry.domain: entry.version for entry in model.opset_import}
        self._roots: dict[str, str] = {}

    def coded(self, edges: Iterable[str]) -> list[Coded]:
        """The edges that become codes because these do, each once, those that are a function of
        another one before that."""
        waiting, done = list(edges), set()
        found: dict[str, Coded] = {}
        while waiting:
            edge = waiting.pop()
            if edge in done:
                continue
            done.add(edge)
            root = self.root(edge)
            if root != edge and root not in found and root in self._makers:
                found[root] = Coded(root, edge)
            for needed in self._parts(root):
                found.setdefault(needed, Coded(needed, ""))
                waiting.append(needed)
        return list(found.values())

    def root(self, edge: str) -> str:
        """The edge that this one is a function of, element by element, wherever they move: as far
        back as there is one alone."""
        if edge not in self._roots:
            node, root = self._makers.get(edge), edge
            if node is not None and node.op_type in (*FUNCTIONS, *MOVES) and self._single(node):
                roots = {self.root(name) for name in self._tensors(node)}
                root = roots.pop() if len(roots) == 1 else edge
            self._roots[edge] = root
        return self._roots[edge]

    def function(self, root: str, edge: str, values: np.ndarray) -> np.ndarray:
        """What becomes of values of a root on the way to an edge."""
        if edge == root:
            return values
        node = self._makers[edge]
        given = {name: self.function(root, name, values) for name in self._tensors(node)}
        if node.op_type in MOVES:
            return next(iter(given.values()))
        known = [name for name in node.input if name in self.constants]
        given |= {name: self.constants[name].reshape(()) for name in known}
        (made,) = evaluate(node, given, self._opsets)
        return made

    def _tensors(self, node: onnx.NodeProto) -> Iterator[str]:
        """What a node reads that is not constant."""
        return (name for name in node.input if name and name not in self.constants)

    def _single(self, node: onnx.NodeProto) -> bool:
        """Whether the constants of a function are single numbers, so that it can be a table."""
        if node.op_type in MOVES:
            return True
        known = [name for name in node.input if name in self.constants]
        return all(self.constants[name].size == 1 for name in known)

    def _parts(self, root: str) -> list[str]:
        """The tensors that a root is the sum, product, mean or row of."""
        node = self._makers.get(root)
        if node is None or node.op_type not in (*functions.BINARY, *POOLS, "Concat"):
            return []
        tensors = list(dict.fromkeys(self._tensors(node)))
        return tensors if node.op_type in (*POOLS, "Concat") or len(tensors) > 1 else []


def ranges_between(
    graph: Between,
    coded: Iterable[Coded],
    scopes: Mapping[str, Range],
    sample: Callable[[str], np.ndarray],
    method: str = METHODS[0],
) -> dict[str, Range]:
    """The ranges of edges that become codes; scopes: those of inputs of layers; sample: some values
    of an edge. What the function behind an edge does not tell apart is left out of its range."""
    found = dict(scopes)
    for edge, of in coded:
        if edge in found:
            continue
        found[edge] = chosen(sample(edge), FORM, "minmax" if of in found else method)
        if of in found:
            values = np.sort(sample(edge))
            codes = found[of].codes(graph.function(edge, of, values))
            found[edge] = _narrowed(found[edge], values, codes)
    return {edge: found[edge] for edge, _ in coded}


def _narrowed(scope: Range, values: np.ndarray, codes: np.ndarray) -> Range:
    """A range without the ends of the sorted values that all become the same code."""
    low, high = scope.ends
    if (codes == codes[0]).all():
        return scope
    first, last = np.flatnonzero(codes != codes[0])[0], np.flatnonzero(codes != codes[-1])[-1]
    low, high = max(low, values[first - 1]), min(high, values[last + 1])
    return between(min(0.0, float(low)), max(0.0, float(high)), scope.form)
