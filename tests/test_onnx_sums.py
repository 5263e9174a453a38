"""Sums and products of two tensors in models of ONNX."""

import numpy as np
import pytest

pytest.importorskip("onnx")

from onnx.reference import ReferenceEvaluator
from onnx_graphs import Graph, network_of


def test_a_relu_behind_an_addition_is_part_of_it(tmp_path):
    """Whatever the zero point: no table behind it bounds the codes once more."""
    graph = Graph(np.random.default_rng(0), (1, 4, 3, 3))
    how = [graph.constant(v) for v in (np.float32(0.25), np.int8(-5))]
    x = graph.add_node("QuantizeLinear", ["x", *how], (1, 4, 3, 3))
    x = graph.add_node("DequantizeLinear", [x, *how], (1, 4, 3, 3))
    y = graph.add_node("MaxPool", [graph.quantized(x)], (1, 4, 3, 3), kernel_shape=[1, 1])
    total = graph.add_node("Relu", [graph.add_node("Add", [x, y], (1, 4, 3, 3))], (1, 4, 3, 3))
    total = graph.add_node("QuantizeLinear", [total, *how], (1, 4, 3, 3))
    model = graph.model(graph.add_node("DequantizeLinear", [total, *how], (1, 4, 3, 3)))
    network = network_of(model, tmp_path)
    (added,) = (step for step in network.steps if step.op.kind == "add")
    assert added.op.clamp == "relu"
    readers = [step.op.kind for step in network.steps if added.output in step.inputs.values()]
    assert "lookup" not in readers
    x = np.float32(graph.rng.integers(-64, 64, (1, 4, 3, 3))) / 8
    (y,) = network.reference({"x": x}).values()
    (expected,) = ReferenceEvaluator(model).run(None, {"x": x})
    assert np.array_equal(y, expected)


@pytest.mark.parametrize("constant", [False, True])
def test_products_of_quantized_tensors_are_those_of_onnxruntime(constant, tmp_path):
    """QLinearMul of an image and one factor for each channel; scales are powers of two."""
    onnxruntime = pytest.importorskip("onnxruntime")
    graph = Graph(np.random.default_rng(0), (2, 5, 3, 4))
    rng = graph.rng
    how = [[graph.constant(v) for v in (graph.scale(), np.uint8(z))] for z in (128, 9, 31)]
    x = graph.add_node("QuantizeLinear", ["x", *how[0]], (2, 5, 3, 4))
    if constant:
        factors = graph.constant(rng.integers(0, 256, (5, 1, 1)).astype(np.uint8))
    else:
        real = graph.add_node("DequantizeLinear", [x, *how[0]], (2, 5, 3, 4))
        top = graph.add_node("GlobalMaxPool", [real], (2, 5, 1, 1))
        factors = graph.add_node("QuantizeLinear", [top, *how[1]], (2, 5, 1, 1))
    sides = [factors, *how[1], x, *how[0]] if constant else [x, *how[0], factors, *how[1]]
    y = graph.add_node("QLinearMul", [*sides, *how[2]], (2, 5, 3, 4), domain="com.microsoft")
    y = graph.add_node("DequantizeLinear", [y, *how[2]], (2, 5, 3, 4))
    network = network_of(graph.model(y), tmp_path)
    assert [step.op.kind for step in network.steps].count("mul") == 1
    x = np.float32(rng.integers(-64, 64, (2, 5, 3, 4))) / 16
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    (expected,) = session.run(None, {"x": x})
    (y,) = network.reference({"x": x}).values()
    assert np.array_equal(y, expected)


@pytest.mark.parametrize("seed", range(40))
def test_what_is_added_to_a_product_is_in_its_epilogue(seed, tmp_path):
    """Codes or another product, quantized behind the sum or not."""
    rng = np.random.default_rng(seed)
    graph = Graph(rng, (1, 3, 4, 5))
    x = graph.quantized("x")
    product = graph.add_node("Conv", [x, graph.weights((3, 3, 1, 1), 0)], (1, 3, 4, 5))
    other = x
    if seed % 2:
        inputs = [x, graph.weights((3, 3, 3, 3), 0), graph.constant(np.float32([1, -2, 0.5]))]
        other = graph.add_node("Conv", inputs, (1, 3, 4, 5), pads=[1, 1, 1, 1])
    sides = [product, other] if seed % 4 < 2 else [other, product]
    total = graph.add_node("Add", sides, (1, 3, 4, 5))
    total = graph.relu(total) if seed % 3 else total
    model = graph.model(graph.quantized(total) if seed % 8 < 4 else total)
    network = network_of(model, tmp_path)
    convolutions = [step.op for step in network.steps if step.op.kind == "conv2d"]
    assert [op.residual is not None for op in convolutions] == [False] * (seed % 2) + [True]
    assert "binary" not in {step.op.kind for step in network.steps}
    x = np.float32(rng.integers(-64, 64, (1, 3, 4, 5))) / 16
    (y,) = network.reference({"x": x}).values()
    (expected,) = ReferenceEvaluator(model).run(None, {"x": x})
    assert np.array_equal(y, expected)


def test_a_product_that_is_read_in_two_ways_is_computed_once(tmp_path):
    """Real numbers that are added, and codes of them."""
    graph = Graph(np.random.default_rng(0), (1, 3, 4, 5))
    first = graph.add_node(
        "Conv", [graph.quantized("x"), graph.weights((3, 3, 1, 1), 0)], (1, 3, 4, 5)
    )
    first = graph.relu(first)
    second = [graph.quantized(first), graph.weights((3, 3, 1, 1), 0)]
    total = graph.add_node(
        "Add", [graph.add_node("Conv", second, (1, 3, 4, 5)), first], (1, 3, 4, 5)
    )
    model = graph.model(total)
    network = network_of(model, tmp_path)
    assert [step.op.kind for step in network.steps].count("conv2d") == 2
    x = np.float32(graph.rng.integers(-64, 64, (1, 3, 4, 5))) / 16
    (y,) = network.reference({"x": x}).values()
    (expected,) = ReferenceEvaluator(model).run(None, {"x": x})
    assert np.array_equal(y, expected)
