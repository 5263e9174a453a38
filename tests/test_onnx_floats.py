"""Nodes on float32: the imported operator is near ONNX's reference implementation."""

import numpy as np
import pytest

from lpgen.errors import OnnxError

onnx = pytest.importorskip("onnx")

from lpgen.onnx import TensorType, import_node  # noqa: E402

RNG = np.random.default_rng(0)


def real(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def node(kind, inputs, opset=22, domain="", **attributes):
    """(the node, ONNX's result)"""
    from onnx.reference import ReferenceEvaluator

    to_type = onnx.helper.np_dtype_to_tensor_dtype
    names = [name if value is not None else "" for name, value in inputs.items()]
    made = onnx.helper.make_node(kind, names, ["y"], **attributes)
    given = {name: value for name, value in inputs.items() if value is not None}
    infos = [
        onnx.helper.make_tensor_value_info(n, to_type(v.dtype), v.shape) for n, v in given.items()
    ]
    y = onnx.helper.make_empty_tensor_value_info("y")
    graph = onnx.helper.make_graph([made], "node", infos, [y])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    return made, ReferenceEvaluator(model).run(None, given)[0]


def check(kind, inputs, constants=(), opset=22, **attributes):
    """The operator's result is ONNX's, for all inputs that are no constants."""
    made, expected = node(kind, inputs, opset, **attributes)
    given = {
        name: value if name in constants else TensorType(value.shape, value.dtype.name)
        for name, value in inputs.items()
        if value is not None
    }
    first = next(iter(given))
    imported = import_node(made, given[first], given)
    y = imported.reference(*(v for n, v in inputs.items() if v is not None and n not in constants))
    assert y.shape == expected.shape
    np.testing.assert_allclose(y, expected, 1e-5, 1e-6)
    return imported.op


UNARY = (
    *("Abs", "Erf", "Exp", "HardSigmoid", "HardSwish", "LeakyRelu", "Log", "Neg", "Reciprocal"),
    *("Relu", "Sigmoid", "Sqrt", "Tanh", "Gelu"),
)


@pytest.mark.parametrize("kind", UNARY)
def test_functions(kind):
    x = real(2, 3, 5)
    op = check(kind, {"x": np.abs(x) if kind in ("Log", "Sqrt") else x})
    assert (op.kind, op.size) == ("unary", 30)


def test_parameters_of_functions():
    assert check("LeakyRelu", {"x": real(7)}, alpha=0.25).alpha == 0.25
    assert check("HardSigmoid", {"x": real(7)}, alpha=0.5, beta=0.25).beta == 0.25
    low, high = np.float32(-0.5), np.float32(0.75)
    bounds = {"low": np.asarray(low), "high": np.asarray(high)}
    assert check("Clip", {"x": real(7)} | bounds, bounds).parameters == (-0.5, 0.75)
    assert check("Clip", {"x": real(7), "low": np.asarray(low)}, ("low",)).beta == np.inf


@pytest.mark.parametrize("kind", ["Add", "Sub", "Mul", "Div", "Min", "Max"])
@pytest.mark.parametrize(
    ("a", "b"),
    [((2, 3, 4), (2, 3, 4)), ((2, 3, 4), (4,)), ((3, 1), (2, 3, 4)), ((2, 3, 4, 5), (2, 3, 1, 1))],
)
def test_arithmetic(kind, a, b):
    inputs = {"a": real(*a), "b": real(*b)}
    assert check(kind, inputs).kind == "binary"
    for constant in inputs:
        check(kind, inputs, (constant,))


@pytest.mark.parametrize("exponent", [2.0, 0.5, -1.0])
def test_powers(exponent):
    inputs = {"x": np.abs(real(3, 4)), "e": np.asarray(np.float32(exponent))}
    assert check("Pow", inputs, ("e",)).kind == "unary"


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_softmax(axis):
    check("Softmax", {"x": real(3, 4, 5)}, axis=axis)


@pytest.mark.parametrize("axis", [1, -1])
def test_layer_norm(axis):
    shape = (3, 4, 5)[axis:]
    inputs = {"x": real(3, 4, 5), "scale": real(*shape), "bias": real(*shape)}
    check("LayerNormalization", inputs, ("scale", "bias"), axis=axis, epsilon=0.01)
    check("LayerNormalization", inputs | {"bias": None}, ("scale",), axis=axis)


@pytest.mark.parametrize("kind", ["ReduceMean", "ReduceSum", "ReduceMax"])
@pytest.mark.parametrize("axes", [[-1], [1], [0, 2], [2, 3], None])
@pytest.mark.parametrize("keepdims", [0, 1])
def test_reductions(kind, axes, keepdims):
    inputs = {"x": real(2, 3, 4, 5), "axes": None if axes is None else np.int64(axes)}
    check(kind, inputs, ("axes",), keepdims=keepdims)
    if axes and kind != "ReduceSum":
        check(kind, {"x": inputs["x"]}, opset=13, keepdims=keepdims, axes=axes)


@pytest.mark.parametrize(
    ("a", "b"), [((3, 4), (4, 5)), ((2, 3, 3, 4), (2, 3, 4, 5)), ((2, 3, 4), (4, 5))]
)
def test_matrix_products(a, b):
    inputs = {"a": real(*a), "b": real(*b)}
    check("MatMul", inputs)
    check("MatMul", inputs, ("b",))


def test_resize():
    x, coordinates = real(1, 3, 4, 5), "coordinate_transformation_mode"
    scales = np.float32([1, 1, 2, 2])
    for words in (
        {
            "mode": "nearest",
            coordinates: "asymmetric",
            "nearest_mode": "floor",
        },
        {"mode": "linear", coordinates: "half_pixel"},
        {"mode": "linear", coordinates: "align_corners"},
    ):
        check("Resize", {"x": x, "roi": None, "scales": scales}, ("scales",), **words)
        sizes = {"x": x, "roi": None, "scales": None, "sizes": np.int64([1, 3, 7, 9])}
        check("Resize", sizes, ("sizes",), **words)


@pytest.mark.parametrize(
    ("kind", "inputs", "constants", "attributes", "message"),
    [
        ("Relu", {"x": np.float64([1])}, (), {}, "x has type float64, lpgen has float32"),
        ("Pow", {"x": real(3), "e": np.float32([3])}, ("e",), {}, "a power of 3.0, lpgen has 2.0"),
        ("MatMul", {"a": real(4), "b": real(4, 5)}, (), {}, "lpgen multiplies matrices"),
        ("MatMul", {"a": real(1, 3, 4), "b": real(2, 4, 5)}, (), {}, r"b has axes \(2,\) in front"),
        (
            "Gelu",
            {"x": real(3)},
            (),
            {"approximate": "quick"},
            "approximate=quick, lpgen has none and tanh",
        ),
    ],
)
def test_nodes_that_are_not_served(kind, inputs, constants, attributes, message):
    made, _ = node(kind, inputs, **attributes)
    types = {name: TensorType(v.shape, v.dtype.name) for name, v in inputs.items()}
    given = types | {name: inputs[name] for name in constants}
    with pytest.raises(OnnxError, match=message):
        import_node(made, given[next(iter(given))], given)


def lowered(folder, nodes, constants, given, outputs):
    """(the network of a model, ONNX's results by name)"""
    from onnx.reference import ReferenceEvaluator

    from lpgen.onnx.lowering import read_network

    infos = [onnx.helper.make_tensor_value_info(n, 1, v.shape) for n, v in given.items()]
    made = [onnx.helper.make_tensor_value_info(n, 1, shape) for n, shape in outputs.items()]
    kept = [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = onnx.helper.make_graph(nodes, "floats", infos, made, kept)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 22)])
    onnx.save(model, folder / "model.onnx")
    results = ReferenceEvaluator(model).run(None, given)
    return read_network(folder / "model.onnx"), dict(zip(outputs, results, strict=True))


def test_a_network_of_them(tmp_path):
    """Attention with what is around it, and a resized image."""
    make = onnx.helper.make_node
    nodes = [
        make("MatMul", ["x", "w"], ["q"]),
        make("Add", ["b", "q"], ["qb"]),
        make("Reshape", ["qb", "split"], ["heads"]),
        make("Transpose", ["heads"], ["k"], perm=[0, 2, 3, 1]),
        make("Transpose", ["heads"], ["v"], perm=[0, 2, 1, 3]),
        make("MatMul", ["v", "k"], ["scores"]),
        make("Mul", ["scores", "factor"], ["scaled"]),
        make("Softmax", ["scaled"], ["p"], axis=-1),
        make("MatMul", ["p", "v"], ["o"]),
        make("Transpose", ["o"], ["back"], perm=[0, 2, 1, 3]),
        make("Reshape", ["back", "shape"], ["joined"]),
        make("Add", ["joined", "x"], ["sum"]),
        make("LayerNormalization", ["sum", "scale", "bias"], ["normal"], axis=-1),
        make("Gelu", ["normal"], ["active"]),
        make("ReduceMean", ["active", "axes"], ["y"], keepdims=0),
        make("HardSwish", ["image"], ["bright"]),
        make("Resize", ["bright", "", "scales"], ["large"], mode="linear"),
        make("Concat", ["large", "large"], ["z"], axis=1),
    ]
    constants = {
        "w": real(16, 16) / 4,
        "b": real(16),
        "split": np.int64([2, 5, 4, 4]),
        "shape": np.int64([2, 5, 16]),
        "factor": np.asarray(np.float32(0.5)),
        "scale": real(16),
        "bias": real(16),
        "axes": np.int64([1]),
        "scales": np.float32([1, 1, 2, 2]),
    }
    given = {"x": real(2, 5, 16), "image": real(1, 3, 4, 5)}
    network, expected = lowered(
        tmp_path, nodes, constants, given, {"y": (2, 16), "z": (1, 6, 8, 10)}
    )
    kinds = {step.op.kind for step in network.steps}
    assert {"attention", "layer_norm", "reduce", "resize", "unary", "binary"} <= kinds
    found = network.reference(given)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, 1e-4, 1e-5)


@pytest.mark.parametrize(
    "attributes",
    [
        {"strides": [2, 2]},
        {"strides": [2, 3], "pads": [1, 0, 0, 1], "output_padding": [1, 0]},
        {"dilations": [2, 1]},
    ],
)
@pytest.mark.parametrize("biased", [True, False])
def test_transposed_convolutions(tmp_path, attributes, biased):
    names = ["x", "w", "b"] if biased else ["x", "w"]
    nodes = [onnx.helper.make_node("ConvTranspose", names, ["y"], **attributes)]
    constants = {"w": real(3, 4, 2, 2)} | ({"b": real(4)} if biased else {})
    given = {"x": real(2, 3, 4, 5)}
    network, expected = lowered(tmp_path, nodes, constants, given, {"y": tuple("nchw")})
    np.testing.assert_allclose(network.reference(given)["y"], expected["y"], 1e-4, 1e-5)
    kinds = {step.op.kind for step in network.steps}
    assert ("fold" in kinds) == (attributes != {"strides": [2, 2]})
