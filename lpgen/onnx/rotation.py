"""Rotations of activations that a kernel does itself (hadamard=128 in a workload).

A model of standard nodes has them in front of a product as a Reshape to blocks, a MatMul with a
Hadamard matrix, and a Reshape back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from lpgen.errors import OnnxError
from lpgen.onnx.model import Model
from lpgen.ops import hadamard

if TYPE_CHECKING:
    import onnx

_CHAIN = ("Reshape", "MatMul", "Reshape")


def unrotated(model: Model, blocks: Mapping[str, int]) -> Model:
    """The model in which nodes read what is rotated in front of them; blocks: by the name of the
    node, 0 for one that stays. Raises OnnxError where a node's input is not rotated so."""
    makers = {name: node for node in model.nodes for name in node.output}
    nodes = []
    for node in model.nodes:
        block = blocks.get(node.name) or blocks.get(node.output[0], 0)
        if block:
            plain = type(node)()
            plain.CopyFrom(node)
            plain.input[0] = _source(model, makers, node, block)
            node = plain
        nodes.append(node)
    return replace(model, nodes=nodes)


def _source(
    model: Model, makers: Mapping[str, onnx.NodeProto], node: onnx.NodeProto, block: int
) -> str:
    """What is rotated into the first input of a node."""
    edge, turn = node.input[0], None
    for kind in _CHAIN:
        maker = makers.get(edge)
        if maker is None or maker.op_type != kind:
            raise OnnxError(f"{node.name}: the input is not rotated, and hadamard={block} is asked")
        if kind == "MatMul":
            turn = model.constants.get(maker.input[1])
        edge = maker.input[0]
    expected = hadamard.rotated(np.eye(block), block)
    if turn is None or turn.shape != expected.shape or not np.allclose(turn, expected, atol=1e-6):
        raise OnnxError(f"{node.name}: the input is not rotated by the matrix of hadamard={block}")
    return edge
