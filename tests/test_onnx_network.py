"""Models of ONNX as networks."""

from collections import Counter

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402
from onnx_graphs import GROWN, Graph, random_model  # noqa: E402

from lpgen.errors import OnnxError  # noqa: E402
from lpgen.onnx import UnservedNodes, read_model, read_network  # noqa: E402
from lpgen.ops.tensor_type import TensorType  # noqa: E402


def network_of(model, tmp_path, **shapes):
    onnx.save(model, tmp_path / "model.onnx")
    return read_network(tmp_path / "model.onnx", shapes)


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
