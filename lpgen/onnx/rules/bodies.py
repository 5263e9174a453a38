"""Functions of ONNX: nodes that are what others are together, as their schema says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lpgen.errors import OnnxError
from lpgen.onnx.values import Value

if TYPE_CHECKING:
    import onnx

    from lpgen.onnx.lowering import Lowering


def spelled(lowering: Lowering, node: onnx.NodeProto) -> Sequence[Value] | None:
    """The outputs of a node as the nodes of its function give them; None where it is none."""
    schema = _schema(lowering, node)
    if schema is None:
        return None
    whole = type(node)()
    whole.CopyFrom(node)
    given = {attribute.name for attribute in node.attribute}
    for name, attribute in schema.attributes.items():
        if name not in given and attribute.default_value.type:
            whole.attribute.append(attribute.default_value)
    nodes = _body(lowering, whole)
    if any(other.op_type == node.op_type for other in nodes):
        return None  # what it is depends on more than is known
    lowering.replaced(node, nodes)
    return [lowering.values[name] for name in node.output if name]


def _schema(lowering: Lowering, node: onnx.NodeProto) -> onnx.defs.OpSchema | None:
    """The schema of a function of ONNX in the opset of the model."""
    from onnx import defs

    version = lowering.model.opsets.get("", 0)
    if node.domain not in ("", "ai.onnx") or not defs.has(node.op_type, version, ""):
        return None
    schema = defs.get_schema(node.op_type, version, "")
    return schema if schema.has_function or schema.has_context_dependent_function else None


def _body(lowering: Lowering, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """The nodes of a function, their edges in between with names of their own."""
    from onnx import helper, inliner

    edges = [name for name in dict.fromkeys(node.input) if name]
    types = (lowering.values[name].type for name in edges)
    inputs = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(np.dtype(kind.dtype)), kind.shape
        )
        for name, kind in zip(edges, types, strict=True)
    ]
    outputs = [helper.make_empty_tensor_value_info(name) for name in node.output if name]
    graph = helper.make_graph([node], "node", inputs, outputs)
    opset = [helper.make_opsetid("", lowering.model.opsets[""])]
    try:
        model = helper.make_model(graph, opset_imports=opset)
        model = inliner.inline_selected_functions(model, [("", node.op_type)], False, True)
    except Exception as error:  # what the inliner raises is not documented
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise OnnxError(reason[0]) from None
    known = {"", *node.input, *node.output}
    for inner in model.graph.node:
        for names in (inner.input, inner.output):
            names[:] = [n if n in known else f"{node.output[0]}:{n}" for n in names]
    return list(model.graph.node)
