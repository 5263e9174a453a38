"""Float32 in models of ONNX: products and axes."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from onnx.reference import ReferenceEvaluator  # noqa: E402
from onnx_graphs import Graph, network_of  # noqa: E402

from lpgen.onnx import UnservedNodes, read_network  # noqa: E402


@pytest.mark.parametrize(
    ("nodes", "moved"),
    [
        ([("Softmax", {"axis": 1})], 1),  # of channels, which lie last: the output alone moves
        ([("Softmax", {"axis": -2})], 2),
        ([("ReduceMean", {"axes": [2, 3], "keepdims": 0})], 0),
        ([("ReduceMax", {"axes": [1, 3]})], 0),
        ([("ReduceSum", {"axes": [1, 2]})], 1),
        ([("ReduceMean", {"axes": [1]}), ("Sqrt", {})], 0),
    ],
)
def test_axes_of_float32_as_they_lie_in_memory(nodes, moved, tmp_path):
    graph = Graph(np.random.default_rng(1), (2, 3, 5, 4))
    w = graph.weights((6, 3, 1, 1), 0)
    y = graph.add_node("Conv", [graph.quantized("x"), w], (2, 6, 5, 4))
    y = graph.quantized(graph.add_node("Relu", [y], (2, 6, 5, 4)))
    for kind, given in nodes:
        inputs, shape = [y], np.zeros(graph.shapes[y])
        if "axes" in given:
            inputs.append(graph.constant(np.array(given["axes"])))
            axes, kept = tuple(given["axes"]), given.get("keepdims", 1)
            shape = shape.sum(axes, keepdims=bool(kept))
            given = {"keepdims": kept}
        y = graph.add_node(kind, inputs, shape.shape, **given)
    model = graph.model(y)
    x = np.float32(graph.rng.integers(-64, 64, (2, 3, 5, 4))) / 16
    (expected,) = ReferenceEvaluator(model).run(None, {"x": x})
    network = network_of(model, tmp_path)
    (y,) = network.reference({"x": x}).values()
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-7)
    moves = [s for s in network.steps if s.op.kind == "transpose" and s.op.dtype == "float32"]
    assert len([s for s in moves if s.op.out is None]) == moved


def normal(rng, *shape):
    return rng.normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("seed", range(12))
def test_convolutions_of_float32(seed, tmp_path):
    """Behind a quantized one, too, and with batch norm, bounds and a bias."""
    graph = Graph(np.random.default_rng(seed), (2, 6, 7, 5))
    rng = graph.rng
    x = graph.relu(graph.conv(graph.quantized("x"))) if seed % 3 == 0 else "x"
    n, c, h, w = graph.shapes[x]
    group = c if seed % 2 else 1
    inputs = [x, graph.constant(normal(rng, 2 * c, c // group, 1, 3))]
    inputs += [graph.constant(normal(rng, 2 * c))] if seed % 4 < 2 else []
    y = graph.add_node("Conv", inputs, (n, 2 * c, h, w), pads=[0, 1, 0, 1], group=group)
    if seed % 3:
        parts = [normal(rng, 2 * c) for _ in range(3)] + [np.abs(normal(rng, 2 * c)) + 0.5]
        inputs = [y, *map(graph.constant, parts)]
        y = graph.add_node("BatchNormalization", inputs, graph.shapes[y])
    y = graph.relu(y) if seed % 4 else graph.quantized(y, np.float32(0.25))
    model, x = graph.model(y), normal(rng, 2, 6, 7, 5)
    network = network_of(model, tmp_path)
    assert "conv2d_f32" in {step.op.kind for step in network.steps}
    (y,) = network.reference({"x": x}).values()
    (expected,) = ReferenceEvaluator(model).run(None, {"x": x})
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("bias", ["none", "Gemm", "Add"])
def test_products_of_float32_matrices(bias, tmp_path):
    graph = Graph(np.random.default_rng(0), (3, 4, 10))
    w, b = normal(graph.rng, 10, 33), graph.constant(normal(graph.rng, 33))
    if bias == "Gemm":
        flat = graph.add_node("Flatten", ["x"], (12, 10), axis=2)
        y = graph.add_node("Gemm", [flat, graph.constant(w.T), b], (12, 33), transB=1)
    else:
        y = graph.add_node("MatMul", ["x", graph.constant(w)], (3, 4, 33))
    if bias == "Add":
        y = graph.add_node("Add", [b, y], (3, 4, 33))
    model, x = graph.model(y), normal(graph.rng, 3, 4, 10)
    network = network_of(model, tmp_path)
    assert [step.op.kind for step in network.steps] == ["conv2d_f32"]
    (y,) = network.reference({"x": x}).values()
    (expected,) = ReferenceEvaluator(model).run(None, {"x": x})
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
def test_transposed_convolutions_of_float32(stride, tmp_path):
    graph = Graph(np.random.default_rng(0), (2, 6, 4, 5))
    inputs = ["x", *(graph.constant(normal(graph.rng, *s)) for s in ((6, 3, 2, 2), (3,)))]
    size = [(s - 1) * stride + 2 for s in (4, 5)]
    y = graph.add_node("ConvTranspose", inputs, (2, 3, *size), strides=[stride, stride])
    model, x = graph.model(y), normal(graph.rng, 2, 6, 4, 5)
    (y,) = network_of(model, tmp_path).reference({"x": x}).values()
    (expected,) = ReferenceEvaluator(model).run(None, {"x": x})
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dynamic", ["", "f32", "s8"])
def test_quantized_weights_alone(dynamic, tmp_path):
    graph = Graph(np.random.default_rng(0), (4, 16))
    y = graph.matmul("x")
    model, x = graph.model(y), normal(graph.rng, 4, 16)
    onnx.save(model, tmp_path / "model.onnx")
    if not dynamic:
        with pytest.raises(UnservedNodes, match="--dynamic s8"):
            read_network(tmp_path / "model.onnx")
        return
    network = read_network(tmp_path / "model.onnx", dynamic=dynamic)
    (y,) = network.reference({"x": x}).values()
    (expected,) = ReferenceEvaluator(model).run(None, {"x": x})
    error = {"f32": 1e-5, "s8": 0.02}[dynamic]
    np.testing.assert_allclose(y, expected, rtol=error, atol=error * np.abs(expected).max())


@pytest.mark.parametrize("axes", [3, 4])
def test_quantized_weights_of_a_convolution_alone(axes, tmp_path):
    """One scale for the tensor."""
    graph = Graph(np.random.default_rng(0), (2, 3, 6, 5)[:axes])
    n, c, *image = graph.shapes["x"]
    bias = graph.constant(normal(graph.rng, 4))
    weights = graph.weights((4, c, *[1] * len(image)), 0)
    y = graph.add_node("Conv", ["x", weights, bias], (n, 4, *image))
    model, x = graph.model(graph.relu(y)), normal(graph.rng, n, c, *image)
    onnx.save(model, tmp_path / "model.onnx")
    network = read_network(tmp_path / "model.onnx", dynamic="s8")
    (op,) = (step.op for step in network.steps if step.op.kind == "conv2d")
    assert op.input == "f32:tensor"
    (y,) = network.reference({"x": x}).values()
    (expected,) = ReferenceEvaluator(model).run(None, {"x": x})
    np.testing.assert_allclose(y, expected, atol=0.02 * np.abs(expected).max())
