"""SmoothQuant (Xiao et al., arXiv 2211.10438): large channels of inputs move into the weights.

For matrix products that share an input x, with the largest |x_j| and |w_j| of place j along k,

    s_j = max|x_j|^alpha / max|w_j|^(1 - alpha),    x_j / s_j,    w_j * s_j

so that one scale for a row fits more of it. The division goes into the LayerNormalization that
makes x where nothing else reads it, else it is a product of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lpgen.plans import Plan, groups_of
from lpgen.plans.constants import Constants
from lpgen.plans.groups import node_names
from lpgen.quantize.calibration import Calibration
from lpgen.quantize.data import Call
from lpgen.quantize.graph import Graph
from lpgen.quantize.patches import Place

if TYPE_CHECKING:
    import onnx


def smoothed(
    model: onnx.ModelProto, calls: Sequence[Call], plan: Plan, alpha: float
) -> onnx.ModelProto:
    """A copy in which the matrix products that the plan quantizes have smooth inputs."""
    copy = type(model)()
    copy.CopyFrom(model)
    nodes = dict(zip(node_names(copy.graph), copy.graph.node, strict=True))
    sharing: dict[str, list[Place]] = {}
    for layer in (layer for group in groups_of(copy) for layer in group.layers):
        if layer.kind != "Conv" and plan.precision(layer.node).weight is not None:
            sharing.setdefault(layer.input, []).append(Place(layer, nodes[layer.node]))
    places = [place for same in sharing.values() for place in same]
    largest = {p.layer.input: seen.largest[0] for p, seen in Calibration(copy, calls).seen(places)}
    constants, graph = Constants(copy), Graph(copy)
    for edge, same in sharing.items():
        weights = [place.rows(constants[place.layer.weight]) for place in same]
        factors = smoothing(largest[edge], weights, alpha)
        _divide(graph, constants, edge, same, factors)
        for place, w in zip(same, weights, strict=True):
            made = place.restored((w * factors).astype(np.float32))
            place.node.input[1] = graph.constant(f"{place.layer.weight}.smooth", made)
    graph.finish()
    return copy


def smoothing(largest: np.ndarray, weights: Sequence[np.ndarray], alpha: float) -> np.ndarray:
    """s [k] for inputs with the largest |x_j| [k] and weights [n, k] that share them; 1 where
    either is zero throughout."""
    across = np.max([np.abs(w).max(0) for w in weights], axis=0).astype(np.float64)
    alive = (largest > 0) & (across > 0)
    x, w = np.where(alive, largest, 1), np.where(alive, across, 1)
    return np.where(alive, x**alpha / w ** (1 - alpha), 1)


def _divide(
    graph: Graph, constants: Constants, edge: str, same: Sequence[Place], factors: np.ndarray
) -> None:
    """The input of layers divided by the factors."""
    nodes = graph.model.graph.node
    readers = Counter(name for node in nodes for name in node.input)
    readers.update(value.name for value in graph.model.graph.output)
    maker = next((node for node in nodes if edge in node.output), None)
    normed = maker is not None and maker.op_type == "LayerNormalization"
    if normed and readers[edge] == len(same) and _last_axis(maker):
        for i, name in enumerate(maker.input[1:], 1):
            made = (constants[name] / factors).astype(np.float32)
            maker.input[i] = graph.constant(f"{name}.smooth", made)
        return
    inverse = graph.constant(f"{edge}.inverse", (1 / factors).astype(np.float32))
    made = graph.add("Mul", [edge, inverse], f"{edge}.smooth")
    for place in same:
        place.node.input[0] = made


def _last_axis(node: onnx.NodeProto) -> bool:
    """Whether a LayerNormalization is over the last axis alone."""
    return next((a.i for a in node.attribute if a.name == "axis"), -1) == -1
