"""Cross-layer equalization (Nagel et al., arXiv 1906.04721): channels of like size.

Between two convolutions with nothing but a Relu, channel i may be divided by any s_i > 0 in the
first and multiplied with it in the second: the function stays. With the largest weights r_i of the
first and t_i of the second in channel i,

    s_i = sqrt(r_i / t_i)

makes both sqrt(r_i t_i), so that no channel is lost in the range of a tensor. With a scale for each
output channel of the weights, as here, it is the range of the activations in between that gains.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from lpgen.plans.constants import Constants
from lpgen.quantize.graph import Graph

if TYPE_CHECKING:
    import onnx

_HOMOGENEOUS = ("Relu", "LeakyRelu", "PRelu", "Identity", "MaxPool", "AveragePool")
"""Nodes f with f(s x) = s f(x) for s > 0, channel by channel."""

_ROUNDS = 20
_CLOSE = 1e-3

Pair = tuple["onnx.NodeProto", "onnx.NodeProto"]


def equalized(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which all pairs of convolutions that allow it are equalized, in turns, until no
    channel changes by more than a thousandth."""
    copy = type(model)()
    copy.CopyFrom(model)
    constants = Constants(copy)
    pairs = list(_pairs(copy, constants))
    values = {name: constants[name].astype(np.float64) for name in _weights(pairs)}
    for _ in range(_ROUNDS):
        if all([_even(values, *pair) < _CLOSE for pair in pairs]):
            break
    graph = Graph(copy)
    for name, value in values.items():
        made = graph.constant(f"{name}.equalized", value.astype(np.float32))
        for node in {id(node): node for pair in pairs for node in pair}.values():
            node.input[:] = [made if edge == name else edge for edge in node.input]
    graph.finish()
    return copy


def _pairs(model: onnx.ModelProto, constants: Constants) -> Iterator[Pair]:
    """Convolutions, the second of which alone reads what the first makes."""
    readers = Counter(edge for node in model.graph.node for edge in node.input)
    readers.update(value.name for value in model.graph.output)
    makers = {edge: node for node in model.graph.node for edge in node.output}
    for second in model.graph.node:
        edge = second.input[0] if second.input else ""
        if not _own_weights(second, constants, readers):
            continue
        while (first := makers.get(edge)) and readers[edge] == 1:
            if first.op_type not in _HOMOGENEOUS:
                break
            edge = first.input[0]
        if first is None or readers[edge] != 1 or not _own_weights(first, constants, readers):
            continue
        if _group(second) in (1, len(constants[second.input[1]])):
            yield first, second


def _own_weights(node: onnx.NodeProto, constants: Constants, readers: Counter[str]) -> bool:
    """Whether it is a convolution whose constants are read by nothing else."""
    return node.op_type == "Conv" and all(
        edge in constants and readers[edge] == 1 for edge in node.input[1:] if edge
    )


def _weights(pairs: list[Pair]) -> list[str]:
    edges = [edge for first, second in pairs for edge in (*first.input[1:], second.input[1])]
    return list(dict.fromkeys(filter(None, edges)))


def _group(node: onnx.NodeProto) -> int:
    return next((a.i for a in node.attribute if a.name == "group"), 1)


def _even(values: dict[str, np.ndarray], first: onnx.NodeProto, second: onnx.NodeProto) -> float:
    """Equalize a pair; how much the channel that changes most does."""
    w, *bias = [values[edge] for edge in first.input[1:] if edge]
    v = values[second.input[1]]
    axis = 1 if _group(second) == 1 else 0  # of the channels of a depthwise one
    r = np.abs(w).reshape(len(w), -1).max(1)
    t = np.abs(np.moveaxis(v, axis, 0)).reshape(v.shape[axis], -1).max(1)
    alive = (r > 0) & (t > 0)
    s = np.where(alive, np.sqrt(r / np.where(alive, t, 1)), 1)
    s = np.where(alive, s, 1)
    w /= s.reshape(-1, *[1] * (w.ndim - 1))
    for b in bias:
        b /= s
    v *= s.reshape([-1 if a == axis else 1 for a in range(v.ndim)])
    return float(np.abs(s - 1).max())
