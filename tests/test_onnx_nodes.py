"""Models in parts: networks of lpgen as nodes of onnxruntime, beside nodes that stay."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from onnx_graphs import Graph  # noqa: E402

from lpgen.errors import OnnxError  # noqa: E402
from lpgen.network import build_nodes  # noqa: E402
from lpgen.onnx.partition import partition, write_model  # noqa: E402


def mixed_model():
    """Two convolutions with a CumSum between them, the first of which is read behind it, too."""
    graph = Graph(np.random.default_rng(0), (1, 4, 6, 6))
    y = graph.quantized(graph.conv(graph.quantized("x")))
    shape = graph.shapes[y]
    total = graph.add_node("CumSum", [y, graph.constant(np.array(2))], shape)
    z = graph.quantized(graph.conv(graph.quantized(total)))
    z, y = (
        graph.add_node("Flatten", [t], (1, int(np.prod(graph.shapes[t]))))
        for t in (z, graph.quantized(graph.relu(y)))
    )
    size = graph.shapes[z][1] + graph.shapes[y][1]
    return graph.model(graph.add_node("Concat", [z, y], (1, size), axis=1))


@pytest.fixture(scope="module")
def parted(tmp_path_factory):
    """(folder with model.onnx, left.onnx and nodes.so; the partition)."""
    folder = tmp_path_factory.mktemp("nodes")
    onnx.save(mixed_model(), folder / "model.onnx")
    parts = partition(folder / "model.onnx", "nodes")
    build_nodes(parts.networks, "native", folder / "nodes.so")
    write_model(parts, folder / "left.onnx", threads=2)
    return folder, parts


def session(folder):
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(str(folder / "nodes.so"))
    return onnxruntime.InferenceSession(folder / "left.onnx", options)


def test_as_few_networks_as_can_be(parted):
    folder, parts = parted
    assert [node.operator for node in parts.unserved] == ["CumSum"]
    assert [node.op_type for node in parts.nodes] == ["nodes_0", "CumSum", "nodes_1"]
    onnx.checker.check_model(onnx.load(folder / "left.onnx"))


def test_a_session_gives_the_numbers_of_the_model(parted):
    folder, _ = parted
    ours = session(folder)
    whole = onnxruntime.InferenceSession(folder / "model.onnx")
    rng = np.random.default_rng(1)
    for _ in range(3):
        x = rng.integers(-64, 64, (1, 4, 6, 6)).astype(np.float32) / 16
        (y,), (expected,) = ours.run(None, {"x": x}), whole.run(None, {"x": x})
        assert np.array_equal(y, expected)


def test_threads_that_cannot_be_are_an_error_of_the_session(parted):
    folder, parts = parted
    write_model(parts, folder / "wrong.onnx", threads=5000)
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(str(folder / "nodes.so"))
    with pytest.raises(Exception, match=r"attribute threads is not within 1\.\.1024"):
        onnxruntime.InferenceSession(folder / "wrong.onnx", options)


def test_a_model_of_which_nothing_is_served(tmp_path):
    graph = Graph(np.random.default_rng(0), (1, 4, 6, 6))
    y = graph.add_node("CumSum", ["x", graph.constant(np.array(2))], (1, 4, 6, 6))
    onnx.save(graph.model(y), tmp_path / "model.onnx")
    with pytest.raises(OnnxError, match=r"^nothing of the model is served$"):
        partition(tmp_path / "model.onnx", "nodes")


def test_the_command(tmp_path, lpgen):
    onnx.save(mixed_model(), tmp_path / "model.onnx")
    paths = [str(tmp_path / name) for name in ("model.onnx", "nodes.so", "left.onnx")]
    said = lpgen("compile", paths[0], "-o", paths[1], "--ort", paths[2])
    assert "left.onnx: 2 nodes of lpgen, 1 that stay" in said
    assert "CumSum" in said
    assert session(tmp_path).get_outputs()[0].shape == [1, 648]
