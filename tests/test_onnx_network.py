"""Models of ONNX as networks."""

import numpy as np
import pytest

pytest.importorskip("onnx")

from onnx.reference import ReferenceEvaluator
from onnx_graphs import GROWN, Graph, network_of, random_model


@pytest.mark.parametrize("seed", range(300))
def test_random_graphs_give_the_numbers_of_onnx(seed, tmp_path):
    model, x = random_model(np.random.default_rng(seed))
    (expected,) = ReferenceEvaluator(model).run(None, {"x": x})
    (y,) = network_of(model, tmp_path).reference({"x": x}).values()
    assert y.shape == expected.shape
    assert np.array_equal(y, expected)


@pytest.mark.parametrize("seed", range(100))
def test_graphs_of_text_recognisers_give_the_numbers_of_onnx(seed, tmp_path):
    """Constants that are quantized, batch norm, images that grow, products of two tensors."""
    model, x = random_model(np.random.default_rng(seed), GROWN)
    (expected,) = ReferenceEvaluator(model).run(None, {"x": x})
    (y,) = network_of(model, tmp_path).reference({"x": x}).values()
    assert y.shape == expected.shape
    assert np.array_equal(y, expected)


@pytest.mark.parametrize(
    "layer", ["conv", "add", "multiply", "largest", "upsampled", "squared", "concat", "shifted"]
)
def test_bounds_of_results_that_stay_real(layer, tmp_path):
    graph = Graph(np.random.default_rng(len(layer)), (1, 3, 5, 4))
    y = getattr(graph, layer)(graph.quantized("x"))
    bounds = [graph.constant(np.float32(bound)) for bound in (-0.3, 0.7)]
    y = graph.add_node("Clip", [y, *bounds], graph.shapes[y])
    model, x = graph.model(y), np.float32(graph.rng.integers(-64, 64, (1, 3, 5, 4))) / 16
    (expected,) = ReferenceEvaluator(model).run(None, {"x": x})
    (y,) = network_of(model, tmp_path).reference({"x": x}).values()
    assert len(np.unique(expected)) > 1
    assert np.array_equal(y, expected)


def test_what_waits_is_quantized_in_front_of_its_maximum(tmp_path):
    graph = Graph(np.random.default_rng(0), (1, 3, 6, 6))
    x = graph.relu(graph.conv(graph.quantized("x", np.float32(0.25))))
    model = graph.model(graph.quantized(graph.max_pool(x)))
    network = network_of(model, tmp_path)
    assert [s.op.kind for s in network.steps].count("quantize") == 0
    (pool,) = (step.op for step in network.steps if step.op.kind == "pool")
    assert str(pool.act) != "f32"
    x = np.float32(graph.rng.integers(-64, 64, (1, 3, 6, 6))) / 16
    (y,) = network.reference({"x": x}).values()
    (expected,) = ReferenceEvaluator(model).run(None, {"x": x})
    assert np.array_equal(y, expected)


@pytest.mark.parametrize("mode", ["reflect", "edge", "wrap"])
@pytest.mark.parametrize("coded", [True, False])
def test_padding_with_elements(mode, coded, tmp_path):
    graph = Graph(np.random.default_rng(0), (2, 3, 5, 4))
    x = graph.quantized("x") if coded else "x"
    edges = graph.constant(np.array([0, 0, 2, 1, 0, 0, 0, 3], np.int64))
    model = graph.model(graph.add_node("Pad", [x, edges], (2, 3, 7, 8), mode=mode))
    x = np.float32(graph.rng.integers(-64, 64, (2, 3, 5, 4))) / 16
    (y,) = network_of(model, tmp_path).reference({"x": x}).values()
    (expected,) = ReferenceEvaluator(model).run(None, {"x": x})
    assert np.array_equal(y, expected)


@pytest.mark.parametrize(
    "seed",
    [1, 2, 3, *(pytest.param(seed, marks=pytest.mark.nightly) for seed in range(4, 304))],
)
def test_compiled_graphs_give_the_numbers_of_onnx(seed, tmp_path):
    from lpgen.network import build
    from lpgen.runtime import load

    model, x = random_model(np.random.default_rng(seed))
    (expected,) = ReferenceEvaluator(model).run(None, {"x": x})
    library = build(network_of(model, tmp_path), "native", tmp_path / "model.so")
    assert np.array_equal(load(library).network(x), expected)


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(30))
def test_compiled_graphs_of_text_recognisers_give_the_numbers_of_onnx(seed, tmp_path):
    from lpgen.network import build
    from lpgen.runtime import load

    model, x = random_model(np.random.default_rng(seed), GROWN)
    (expected,) = ReferenceEvaluator(model).run(None, {"x": x})
    library = build(network_of(model, tmp_path), "native", tmp_path / "model.so")
    assert np.array_equal(load(library).network(x), expected)
