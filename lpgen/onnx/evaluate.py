"""Nodes whose inputs are known, by the reference evaluator of ONNX."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from lpgen.errors import OnnxError
from lpgen.onnx.values import Constant

if TYPE_CHECKING:
    import onnx

MAX_ELEMENTS = 2**28
"""Of a result that is computed while a model is read."""


def evaluate(
    node: onnx.NodeProto, inputs: Mapping[str, np.ndarray], opsets: Mapping[str, int]
) -> list[np.ndarray]:
    """The outputs of a node for these inputs. Raises OnnxError where ONNX has no meaning for it,
    or a result of more than MAX_ELEMENTS."""
    from onnx import helper
    from onnx.reference import ReferenceEvaluator

    _check_size(node, inputs)
    names = [name for name in node.input if name]
    kinds = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(inputs[name].dtype), inputs[name].shape
        )
        for name in dict.fromkeys(names)
    ]
    results = [helper.make_empty_tensor_value_info(name) for name in node.output if name]
    graph = helper.make_graph([node], "node", kinds, results)
    if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
        # The evaluator has them from this version on; what they mean stayed.
        opsets = {domain: max(version, 19) for domain, version in opsets.items()}
    versions = [helper.make_opsetid(domain, version) for domain, version in opsets.items()]
    try:
        with np.errstate(all="ignore"):
            model = helper.make_model(graph, opset_imports=versions)
            return ReferenceEvaluator(model).run(None, {name: inputs[name] for name in names})
    except Exception as error:  # the evaluator raises whatever NumPy does
        reason = str(error).strip().splitlines()
        raise OnnxError(reason[0] if reason else type(error).__name__) from None


def constants(
    node: onnx.NodeProto, inputs: Mapping[str, np.ndarray], opsets: Mapping[str, int]
) -> list[Constant]:
    """The outputs of a node all of whose inputs are known."""
    return [Constant(np.asarray(array)) for array in evaluate(node, inputs, opsets)]


def _check_size(node: onnx.NodeProto, inputs: Mapping[str, np.ndarray]) -> None:
    """Raise OnnxError for the two nodes whose result may be much larger than their inputs."""
    if node.op_type in ("ConstantOfShape", "Expand", "Tile", "Range"):
        *_, last = (inputs[name] for name in node.input)
        sizes = np.abs(last.astype(np.float64))
        if node.op_type == "Range":
            start, limit, step = (inputs[name].astype(np.float64) for name in node.input)
            sizes = np.abs((limit - start) / np.where(step, step, 1))
        if not np.prod(np.maximum(sizes, 1)) <= MAX_ELEMENTS:
            raise OnnxError(f"its result has more than {MAX_ELEMENTS} elements")
