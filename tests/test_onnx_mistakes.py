"""Files that are no models of ONNX, and models that are not served."""

from collections import Counter

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx_graphs import Graph, network_of  # noqa: E402

from lpgen.errors import OnnxError  # noqa: E402
from lpgen.onnx import UnservedNodes, read_model  # noqa: E402
from lpgen.ops.tensor_type import TensorType  # noqa: E402


def small_model(change=lambda graph: None):
    """x -> QuantizeLinear -> Conv -> QuantizeLinear -> y; `change` edits the graph."""
    graph = Graph(np.random.default_rng(0), (1, 2, 4, 4))
    model = graph.model(graph.quantized(graph.conv(graph.quantized("x"))))
    change(model.graph)
    return model


def test_sizes_that_are_open_have_to_be_said(tmp_path):
    def open_batch(graph):
        graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"

    model = small_model(open_batch)
    with pytest.raises(OnnxError) as raised:
        network_of(model, tmp_path)
    assert str(raised.value) == "input x has sizes [batch, 2, 4, 4]: say --shape x=1x2x4x4"
    network = network_of(model, tmp_path, x=(3, 2, 4, 4))
    assert network.inputs == {"x": TensorType((3, 2, 4, 4), "float32")}
    for shape, message in {
        (3, 2, 4): "input x has 4 axes, --shape gives 3",
        (3, 2, 4, 5): "input x has size 4 in axis 3, --shape gives 5",
        (2**29, 2, 4, 4): f"input x has sizes [{2**29}, 2, 4, 4]: more than 2 GiB",
    }.items():
        with pytest.raises(OnnxError) as raised:
            network_of(model, tmp_path, x=shape)
        assert str(raised.value) == message
    with pytest.raises(OnnxError, match=r"has no input 'z'; its inputs: x$"):
        network_of(model, tmp_path, z=(1,))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (lambda data: b"", "holds no graph of ONNX"),
        (lambda data: b"no model, but a text\n", "is no file of ONNX, or a truncated one"),
        (lambda data: data[: len(data) // 2], "is no file of ONNX, or a truncated one"),
    ],
)
def test_what_is_no_model_is_said(data, message, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(data(small_model().SerializeToString()))
    with pytest.raises(OnnxError) as raised:
        read_model(path)
    assert str(raised.value) == f"{path} {message}"


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(OnnxError, match=r"none\.onnx is not there$"):
        read_model(tmp_path / "none.onnx")
    with pytest.raises(OnnxError, match=r"is no regular file$"):
        read_model(tmp_path)
    model = small_model()
    onnx.save(
        *(model, tmp_path / "model.onnx"),
        save_as_external_data=True,
        location="data",
        size_threshold=0,
    )
    (tmp_path / "data").unlink()
    with pytest.raises(OnnxError, match="data") as raised:
        read_model(tmp_path / "model.onnx")
    assert "\n" not in str(raised.value)


def unknown_operator(graph):
    graph.node[-1].op_type = "NoSuchOperator"


def foreign_operator(graph):
    graph.node[-2].op_type, graph.node[-2].domain = "Secret", "com.example"


def unsorted(graph):
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend(reversed(nodes))


def cycle(graph):
    graph.node[0].input[0] = graph.node[-1].output[0]


def scale_of_nan(graph):
    name = graph.node[-1].input[1]
    (scale,) = (t for t in graph.initializer if t.name == name)
    scale.CopyFrom(numpy_helper.from_array(np.float32(np.nan), name))


def zero_of_another_type(graph):
    name = graph.node[-1].input[2]
    (zero,) = (t for t in graph.initializer if t.name == name)
    zero.CopyFrom(numpy_helper.from_array(np.int32(0), name))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (unknown_operator, "No Op registered for NoSuchOperator"),
        (foreign_operator, "com.example"),
        (unsorted, "Nodes in a graph must be topologically sorted"),
        (cycle, "Nodes in a graph must be topologically sorted"),
        (scale_of_nan, "the scale is nan, expected a positive number"),
        (zero_of_another_type, "y has type int32, lpgen has "),
    ],
)
def test_graphs_that_cannot_be_are_said(change, message, tmp_path):
    with pytest.raises(OnnxError, match=message) as raised:
        network_of(small_model(change), tmp_path)
    assert "\n" not in str(raised.value)


def test_all_that_is_not_served_is_listed(tmp_path):
    graph = Graph(np.random.default_rng(0), (1, 2, 4, 4))
    y = graph.quantized("x")
    y = graph.add_node("Det", [y], (1, 2))
    y = graph.add_node("Einsum", [y, y], (1,), equation="ij,ij->i")
    other = graph.add_node("NonZero", [graph.quantized("x")], (4, 9))
    model = graph.model(y)
    model.graph.output.append(helper.make_tensor_value_info(other, TensorProto.INT64, (4, "n")))
    with pytest.raises(UnservedNodes) as raised:
        network_of(model, tmp_path)
    # What only reads their results is not listed.
    assert Counter(node.operator for node in raised.value.nodes) == Counter(["Det", "NonZero"])
    assert str(raised.value) == (
        f"Det {model.graph.node[2].name} is not served: no operator computes it "
        "(and 1 more: lpgen import)"
    )


def test_a_huge_graph_is_refused_quickly(tmp_path):
    nodes = [helper.make_node("Relu", [f"t{i}"], [f"t{i + 1}"]) for i in range(100_001)]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        *(nodes, "graph", [value("t0", TensorProto.FLOAT, (1,))]),
        [value("t100001", TensorProto.FLOAT, (1,))],
    )
    with pytest.raises(OnnxError, match=r"has 100001 nodes, the limit is 100000$"):
        network_of(helper.make_model(graph), tmp_path)
    graph = helper.make_graph(
        [
            helper.make_node("ConstantOfShape", ["sizes"], ["y"]),
            helper.make_node("Add", ["t0", "y"], ["z"]),
        ],
        *("graph", [value("t0", TensorProto.FLOAT, (1,))], [value("z", TensorProto.FLOAT, (1,))]),
        [numpy_helper.from_array(np.full(3, 10**9), "sizes")],
    )
    with pytest.raises(UnservedNodes, match=r"has more than 268435456 elements$"):
        network_of(helper.make_model(graph), tmp_path)


def test_a_long_chain_and_a_huge_result_take_no_time(tmp_path):
    """A chain of nodes that become one step, which names them all; places that are not made."""
    value = helper.make_tensor_value_info
    count = 5000
    nodes = [helper.make_node("Relu", [f"t{i}"], [f"t{i + 1}"]) for i in range(count)]
    graph = helper.make_graph(
        *(nodes, "graph", [value("t0", TensorProto.FLOAT, (1,))]),
        [value(f"t{count}", TensorProto.FLOAT, (1,))],
    )
    (step,) = network_of(helper.make_model(graph), tmp_path).steps
    assert step.sources == tuple(f"t{i + 1}" for i in range(count))
    graph = helper.make_graph(
        *([helper.make_node("Expand", ["t0", "sizes"], ["y"])], "graph"),
        *([value("t0", TensorProto.FLOAT, (1,))], [value("y", TensorProto.FLOAT, (None,))]),
        [numpy_helper.from_array(np.full(1, 10**9), "sizes")],
    )
    with pytest.raises(UnservedNodes, match=r"repeated to \[1000000000\], more than 268435456$"):
        network_of(helper.make_model(graph), tmp_path)
