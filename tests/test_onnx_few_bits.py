"""Few bits in models of ONNX."""

import numpy as np
import pytest

pytest.importorskip("onnx")

from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from onnx_graphs import Graph, network_of


@pytest.mark.parametrize(
    ("codes", "form"),
    [
        ([-4, 3, 0], "s3"),
        ([-1, 1, 1], "b1"),
        ([-7, 3, 5], "b3"),
        ([-128, 1, 1], "s8"),
        ([0, 1, 1], "u1"),
    ],
)
def test_weights_whose_codes_need_few_bits_get_few(codes, form, tmp_path):
    graph = Graph(np.random.default_rng(0), (1, 3, 4, 5))
    w = np.resize(np.array(codes, np.int8), (2, 3, 1, 1))
    inputs = [graph.constant(w), graph.constant(np.float32(0.5))]
    w = graph.add_node("DequantizeLinear", inputs, w.shape)
    model = graph.model(graph.add_node("Conv", [graph.quantized("x"), w], (1, 2, 4, 5)))
    network = network_of(model, tmp_path)
    (conv,) = (step for step in network.steps if step.op.kind == "conv2d")
    assert str(conv.op.weight) == form
    x = np.float32(graph.rng.integers(-256, 256, (1, 3, 4, 5))) / 16
    (y,) = network.reference({"x": x}).values()
    (expected,) = ReferenceEvaluator(model).run(None, {"x": x})
    assert np.array_equal(y, expected)


def test_weights_of_few_bits_stay_few(tmp_path):
    """Types of 4 and 2 bits in QuantizeLinear and DequantizeLinear become formats."""
    graph = Graph(np.random.default_rng(0), (1, 8, 5, 5))
    rng, parts = graph.rng, [np.float32(0.25)]
    codes = rng.integers(-8, 8, (4, 8, 3, 3)).astype(np.int8)
    int4 = helper.make_tensor("w", TensorProto.INT4, codes.shape, codes.ravel())
    uint4 = helper.make_tensor("z", TensorProto.UINT4, (), [3])
    graph.constants += [int4, uint4]
    how = [graph.constant(parts[0]), "z"]
    x = graph.add_node("QuantizeLinear", ["x", *how], (1, 8, 5, 5))
    x = graph.add_node("DequantizeLinear", [x, *how], (1, 8, 5, 5))
    w = graph.add_node("DequantizeLinear", ["w", graph.constant(np.float32(0.5))], codes.shape)
    y = graph.add_node("Conv", [x, w], (1, 4, 3, 3))
    model = graph.model(y)
    model.opset_import[0].version = 21
    network = network_of(model, tmp_path)
    (conv,) = (step for step in network.steps if step.op.kind == "conv2d")
    assert (str(conv.op.act), str(conv.op.weight), conv.op.zero_act) == ("u4", "s4", 3)
    x = np.float32(rng.integers(-9, 9, (1, 8, 5, 5))) / 4
    (y,) = network.reference({"x": x}).values()
    (expected,) = ReferenceEvaluator(model).run(None, {"x": x})
    assert np.array_equal(y, expected)


def coded(graph, x, scale, zero, dtype="uint8"):
    """QuantizeLinear and DequantizeLinear."""
    how = [graph.constant(np.float32(scale)), graph.constant(np.array(zero, dtype))]
    codes = graph.add_node("QuantizeLinear", [x, *how], graph.shapes[x])
    return graph.add_node("DequantizeLinear", [codes, *how], graph.shapes[x])


@pytest.mark.parametrize(
    ("bounds", "zero", "dtype", "form"),
    [
        ((0, 3.875), 0, "uint8", "u5"),
        ((0, 3.875), 3, "uint8", "u6"),
        ((-1, 0.875), 0, "int8", "s4"),
        ((0, 0.875), 0, "int8", "s4"),
        ((-0.25, 0.125), 0, "int8", "s2"),
        ((-np.inf, np.inf), 0, "uint8", "u8"),
        ((12.5, 13), 0, "uint8", "u7"),
    ],
)
@pytest.mark.parametrize("of", ["input", "codes", "conv"])
def test_bounds_in_front_of_codes_are_a_format_of_fewer_bits(
    of, bounds, zero, dtype, form, tmp_path
):
    graph = Graph(np.random.default_rng(0), (1, 3, 4, 5))
    x = {
        "input": lambda: "x",
        "codes": lambda: coded(graph, "x", 0.125, 0, "int8"),
        "conv": lambda: graph.conv(graph.quantized("x", np.float32(0.25))),
    }[of]()
    limits = [graph.constant(np.float32(bound)) for bound in bounds]
    clipped = graph.add_node("Clip", [x, *limits], graph.shapes[x])
    codes = coded(graph, clipped, 0.125, zero, dtype)
    y = graph.add_node("MaxPool", [codes], (1, graph.shapes[x][1], 2, 2), kernel_shape=[2, 2])
    y = graph.add_node("Conv", [y, graph.weights((2, graph.shapes[x][1], 1, 1), 0)], (1, 2, 2, 2))
    model = graph.model(y)
    network = network_of(model, tmp_path)
    conv = [step for step in network.steps if step.op.kind == "conv2d"][-1]
    if of == "codes" and bounds[0] == -np.inf:
        form = "u7"  # there are no others
    assert str(conv.op.act) == form
    x = np.float32(graph.rng.integers(-256, 256, (1, 3, 4, 5))) / 16
    (y,) = network.reference({"x": x}).values()
    (expected,) = ReferenceEvaluator(model).run(None, {"x": x})
    assert np.array_equal(y, expected)
