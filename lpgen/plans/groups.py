"""Groups of layers of a model of ONNX that share an input, and so the precision of that."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lpgen.errors import PlanError, WorkloadError
from lpgen.formats import Format
from lpgen.ops import Dense
from lpgen.ops.layers import MOST_PLANES
from lpgen.plans.constants import Constants
from lpgen.plans.plan import Group, Plan
from lpgen.plans.precision import FLOAT, Precision

if TYPE_CHECKING:
    import onnx

KINDS = ("Conv", "MatMul", "Gemm")
"""Nodes that can be quantized, where their weights are constant."""


@dataclass(frozen=True)
class Layer:
    """A node with constant weights.

    node: its name; kind: one of KINDS; weight, input: the edges of its weights and of its
    activations; shape: of the weights as ONNX has them; n, k: output channels and the length of a
    sum; groups: of a convolution.
    """

    node: str
    kind: str
    weight: str
    input: str
    shape: tuple[int, ...]
    n: int
    k: int
    groups: int = 1

    @property
    def count(self) -> int:
        """How many weights there are."""
        return self.n * self.k

    def nbytes(self, precision: Precision) -> int:
        """Bytes of the weights and their scales in a library, about."""
        if precision.weight is None:
            return 4 * self.count
        stored, floats = precision.weight.bits, 1
        if precision.bit_layers:  # all of them, with a scale and an offset, or a scale for each
            stored, floats = (MOST_PLANES, MOST_PLANES) if stored == 1 else (stored, 2 * stored)
        groups = -(-self.k // precision.weight_group) if precision.weight_group else 1
        return -(-self.count * stored // 8) + 4 * self.n * groups * floats

    def why_not(self, precision: Precision) -> str | None:
        """Why no kernel computes the layer in this precision, in one line, or None."""
        if precision.weight is None:
            return None
        if self.kind == "Conv":
            for key in ("weight_group", "hadamard", "bit_layers"):
                if value := getattr(precision, key):
                    return f"{key}={value} is for matrix products: {self.node} is a convolution"
            if precision.scales != "static":
                return f"scales of a convolution are static, not {precision.scales}: {self.node}"
        layered, form = precision.bit_layers, str(precision.weight)
        if layered and (form not in ("s8", "b1") or precision.scales != "row"):
            return f"bit_layers are of w8 or w1 with scales of each row: {self.node}"
        if form == "b1" and not layered:
            return f"weight b1 goes with bit_layers: {self.node}"
        for key in ("hadamard", "act_group"):
            if (size := getattr(precision, key)) and self.k % size:
                return f"{key}={size} does not divide k={self.k} of {self.node}"
        try:
            Dense(1, self.n, self.k, precision.act, precision.weight)
        except WorkloadError as error:
            return f"{self.node}: {error}"
        return None


@dataclass(frozen=True)
class LayerGroup:
    """Layers that share an input, the edge `input`; name: that of the first."""

    name: str
    input: str
    layers: tuple[Layer, ...]

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names of the nodes."""
        return tuple(layer.node for layer in self.layers)

    @property
    def count(self) -> int:
        """How many weights there are."""
        return sum(layer.count for layer in self.layers)

    def nbytes(self, precision: Precision) -> int:
        """Bytes of the weights and their scales, about."""
        return sum(layer.nbytes(precision) for layer in self.layers)

    def why_not(self, precision: Precision) -> str | None:
        """Why no kernel computes one of the layers in this precision, or None."""
        return next(filter(None, (layer.why_not(precision) for layer in self.layers)), None)


def groups_of(model: onnx.ModelProto | str | os.PathLike[str]) -> list[LayerGroup]:
    """The groups of a model in the order of their first nodes.

    Weights are constants of two axes (MatMul, Gemm) or three and four (Conv), also behind nodes
    that read constants alone. Raises OnnxError for a file that holds no model.
    """
    model = _loaded(model)
    names, constants = node_names(model.graph), Constants(model)
    found: dict[str, list[Layer]] = {}
    for node, name in zip(model.graph.node, names, strict=True):
        layer = _layer(node, name, constants)
        if layer is not None:
            found.setdefault(layer.input, []).append(layer)
    return [LayerGroup(layers[0].node, edge, tuple(layers)) for edge, layers in found.items()]


def node_names(graph: onnx.GraphProto) -> list[str]:
    """What a plan calls the nodes: their names, and that of the first result where a node has none
    or shares it."""
    counts = Counter(node.name for node in graph.node)
    return [
        node.name if node.name and counts[node.name] == 1 else node.output[0] for node in graph.node
    ]


def uniform(groups: Iterable[LayerGroup], text: str, model: str = "") -> Plan:
    """The plan that gives every group the precision of a text, such as "w4a8".

    Convolutions have static scales, and nothing that is for matrix products alone; a group that has
    both has what convolutions have. Raises PlanError for a layer that no kernel serves.
    """
    asked = Precision.parse(text)
    return Plan(tuple(_with(group, asked) for group in groups), model=model)


def _with(group: LayerGroup, asked: Precision) -> Group:
    precision = asked
    if any(layer.kind == "Conv" for layer in group.layers) and asked.weight is not None:
        layers = {"bit_layers": asked.bit_layers}
        precision = Precision(asked.weight, Format("u", asked.act.bits), "static", **layers)
    if reason := group.why_not(precision):
        raise PlanError(f"{precision}: {reason}")
    return Group(group.name, group.nodes, precision)


def check_plan(plan: Plan, groups: Sequence[LayerGroup]) -> None:
    """Raise PlanError for a layer that the model has not, with the nearest name, and for a
    precision that no kernel computes the layer in."""
    layers = {layer.node: layer for group in groups for layer in group.layers}
    plan.check_nodes(list(layers))
    for node, precision in plan.precisions.items():
        if reason := layers[node].why_not(precision):
            raise PlanError(f"{precision}: {reason}")


def bits_of(plan: Plan, groups: Sequence[LayerGroup]) -> float:
    """Bits of a weight, on average over all weights that can be quantized."""
    layers = [layer for group in groups for layer in group.layers]
    total = sum(layer.count for layer in layers)
    return sum(layer.count * plan.precision(layer.node).bits for layer in layers) / max(1, total)


def bytes_of(plan: Plan, groups: Sequence[LayerGroup]) -> int:
    """Bytes of all weights that can be quantized, about."""
    layers = [layer for group in groups for layer in group.layers]
    return sum(layer.nbytes(plan.precisions.get(layer.node, FLOAT)) for layer in layers)


def _loaded(model: onnx.ModelProto | str | os.PathLike[str]) -> onnx.ModelProto:
    if isinstance(model, str | os.PathLike):
        from lpgen.onnx.model import load

        return load(Path(model))
    return model


def _layer(node: onnx.NodeProto, name: str, constants: Constants) -> Layer | None:
    """A node as a layer; None for one that is none."""
    if node.op_type not in KINDS or node.domain not in ("", "ai.onnx") or len(node.input) < 2:
        return None
    x, w = node.input[:2]
    if x in constants or w not in constants:
        return None
    shape = constants[w].shape
    given = {a.name: a.i for a in node.attribute}
    if node.op_type == "Conv":
        n, k, groups = shape[0], math.prod(shape[1:]), given.get("group", 1)
        return Layer(name, "Conv", w, x, shape, n, k, groups) if len(shape) in (3, 4) else None
    if len(shape) != 2 or given.get("transA"):
        return None
    k, n = reversed(shape) if given.get("transB") else shape
    return Layer(name, node.op_type, w, x, shape, n, k)
