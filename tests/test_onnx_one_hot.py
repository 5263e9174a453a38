"""Rows of a table by places as zeros and a 1."""

import numpy as np
import pytest

pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx_graphs import OPSETS, network_of

from lpgen.onnx import UnservedNodes

DEPTH, COLUMNS = 5, 3


def model_of(nodes, constants):
    value = helper.make_tensor_value_info
    table = np.random.default_rng(0).normal(size=(DEPTH, COLUMNS)).astype(np.float32)
    tensors = [numpy_helper.from_array(v, n) for n, v in (constants | {"table": table}).items()]
    nodes = [*nodes, helper.make_node("MatMul", ["ones", "table"], ["y"])]
    graph = helper.make_graph(
        *(nodes, "graph", [value("x", TensorProto.INT32, (2, 4))]),
        [value("y", TensorProto.FLOAT, (2, 4, COLUMNS))],
        tensors,
    )
    return helper.make_model(graph, opset_imports=OPSETS, ir_version=9)


def compared(expanded, numbers=range(DEPTH)):
    """Equal of the tensor, as often as there are rows or once, and 0, 1, 2, ..."""
    constants = {
        "shape": np.array([2, 4, 1]),
        "wide": np.array([2, 4, DEPTH]),
        "numbers": np.array([[[*numbers]]], np.int32),
    }
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["column"])]
    if expanded:
        nodes.append(helper.make_node("Expand", ["column", "wide"], ["many"]))
    sides = ["many" if expanded else "column", "numbers"]
    nodes.append(helper.make_node("Equal", sides, ["same"]))
    nodes.append(helper.make_node("Cast", ["same"], ["ones"], to=TensorProto.FLOAT))
    return model_of(nodes, constants)


def by_places():
    constants = {"depth": np.array(DEPTH), "values": np.float32([0, 1])}
    return model_of([helper.make_node("OneHot", ["x", "depth", "values"], ["ones"])], constants)


@pytest.mark.parametrize("model", [compared(True), compared(False), by_places()])
def test_rows_of_a_table(model, tmp_path):
    network = network_of(model, tmp_path)
    assert [step.op.kind for step in network.steps].count("gather") == 1
    least = 0 if model.graph.node[0].op_type == "OneHot" else -7  # counted from the end there
    x = np.random.default_rng(1).integers(least, DEPTH + 3, (2, 4)).astype(np.int32)
    x[0, :2] = least, 2**31 - 1
    (expected,) = ReferenceEvaluator(model).run(None, {"x": x})
    (y,) = network.reference({"x": x}).values()
    assert np.array_equal(y, expected)


def test_other_comparisons_are_not_served(tmp_path):
    with pytest.raises(UnservedNodes, match="the numbers 0, 1, 2, "):
        network_of(compared(True, (0, 1, 2, 4, 3)), tmp_path)
