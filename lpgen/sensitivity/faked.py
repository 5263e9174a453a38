"""Float models in which some layers compute as if they were quantized.

Nodes in front of a layer take its input to the values that codes stand for, x -> step * round(x /
step), with the step of a whole tensor, of each row, or of each group along k, as kernels find it
(`lpgen.ops.lhs`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lpgen.ops import hadamard
from lpgen.plans import Layer, Precision
from lpgen.plans.groups import node_names
from lpgen.quantize.biases import Biases
from lpgen.quantize.graph import Graph
from lpgen.quantize.ranges import Range
from lpgen.quantize.simulation import by_row

if TYPE_CHECKING:
    import onnx


class Act(NamedTuple):
    """How the input of a layer is seen; scope: the range where scales are static; rotated: whether
    the model rotates the input already where the precision says so."""

    precision: Precision
    scope: Range | None = None
    rotated: bool = False


def faked(
    model: onnx.ModelProto, acts: Mapping[str, Act], given: Iterable[Layer] = ()
) -> onnx.ModelProto:
    """A copy of a model whose layers, by name, see their inputs so; given: layers whose weights are
    inputs of the model, called `weights_input(node)`, and their biases, where they have any
    (`Biases`), called `bias_input(node)`."""
    from onnx import TensorProto, helper

    copy = type(model)()
    copy.CopyFrom(model)
    graph = Graph(copy)
    nodes = dict(zip(node_names(copy.graph), copy.graph.node, strict=True))
    made: dict[tuple, str] = {}
    for name, act in acts.items():
        edge = nodes[name].input[0]
        key = (edge, str(act.precision.act), act.precision.scales, act.precision.hadamard)
        if key not in made:
            made[key] = _seen(graph, edge, act)
        nodes[name].input[0] = made[key]
    biases = Biases(copy)
    for name, n in ((layer.node, layer.n) for layer in given):
        nodes[name].input[1] = weights_input(name)
        inputs = [weights_input(name)]
        if bias := biases.of(nodes[name], n):
            bias.replace(bias_input(name))
            inputs.append(bias_input(name))
        kinds = (helper.make_tensor_value_info(each, TensorProto.FLOAT, None) for each in inputs)
        copy.graph.input.extend(kinds)
    graph.finish()
    return copy


def weights_input(node: str) -> str:
    """The name of the input for the weights of a node."""
    return f"{node}:weights"


def bias_input(node: str) -> str:
    """The name of the input for the bias of a node."""
    return f"{node}:bias"


def _seen(graph: Graph, edge: str, act: Act) -> str:
    """The edge as it is seen through its codes."""
    precision = act.precision
    if precision.scales == "static":
        assert act.scope is not None
        return _static(graph, edge, act.scope)
    block = 0 if act.rotated else precision.hadamard
    x = _rotated(graph, edge, block) if block else edge
    group = precision.act_group
    cut = _cut(graph, x, group) if group else x
    seen = by_row(graph, cut, precision.act.max)
    if group:
        seen = graph.add(
            "Reshape", [seen, graph.add("Shape", [x], f"{edge}.shape")], f"{edge}.whole"
        )
    return _rotated(graph, seen, block) if block else seen


def _static(graph: Graph, x: str, scope: Range) -> str:
    """(code - zero) * scale."""

    def add(kind: str, *inputs: str) -> str:
        return graph.add(kind, inputs, f"{x}.{kind.lower()}")

    low, high = (
        graph.constant("limit", np.float32(v - scope.zero))
        for v in (scope.form.min, scope.form.max)
    )
    scale = graph.constant("scale", np.float32(scope.scale))
    steps = add("Round", add("Div", x, scale))
    return add("Mul", add("Min", add("Max", steps, low), high), scale)


def _cut(graph: Graph, x: str, size: int) -> str:
    shape = graph.constant("cut", np.int64([-1, size]))
    return graph.add("Reshape", [x, shape], f"{x}.cut")


def _rotated(graph: Graph, x: str, block: int) -> str:
    """Blocks of the last axis times the Hadamard matrix, which is its own inverse."""
    turn = hadamard.rotated(np.eye(block), block).astype(np.float32)
    turned = graph.add(
        "MatMul", [_cut(graph, x, block), graph.constant("turn", turn)], f"{x}.turned"
    )
    return graph.add("Reshape", [turned, graph.add("Shape", [x], f"{x}.shape")], f"{x}.rotated")
