"""Nodes that stand for several: those of onnxruntime's optimizer, and functions of ONNX."""

import math

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

from lpgen.onnx import UnservedNodes, read_network  # noqa: E402

rng = np.random.default_rng(0)
MICROSOFT = {"domain": "com.microsoft"}
X = rng.normal(size=(2, 6, 32)).astype(np.float32)
MASK = np.int32([[1] * 6, [1] * 4 + [0] * 2])


def normal(*shape):
    return rng.normal(size=shape).astype(np.float32)


def model_of(nodes, inputs, constants, shapes, opset=23, functions=()):
    """A model of these nodes; inputs: arrays by name; shapes: of outputs."""
    info = helper.make_tensor_value_info
    types = helper.np_dtype_to_tensor_dtype
    graph = helper.make_graph(
        nodes,
        "nodes",
        [info(name, types(array.dtype), array.shape) for name, array in inputs.items()],
        [info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    domains = {"": opset, "com.microsoft": 1, **{f.domain: 1 for f in functions}}
    opsets = [helper.make_opsetid(*each) for each in domains.items()]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10, functions=functions)


def results(folder, model, inputs, dynamic=""):
    path = folder / "model.onnx"
    onnx.save(model, path)
    return read_network(path, dynamic=dynamic).reference(inputs)


def attended(q, k, v, heads, added=0.0):
    """softmax(q k^T / root of the columns of a head + added) v, in float64."""

    def apart(x):
        batch, rows, columns = x.shape
        shape = (batch, rows, heads, columns // heads)
        return x.astype(np.float64).reshape(shape).transpose(0, 2, 1, 3)

    q, k, v = map(apart, (q, k, v))
    scores = q @ k.swapaxes(2, 3) / math.sqrt(q.shape[-1]) + added
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    made = weights / weights.sum(-1, keepdims=True) @ v
    return made.transpose(0, 2, 1, 3).reshape(made.shape[0], made.shape[2], -1)


HIDDEN = -10000.0 * (1 - MASK[:, None, None])
CAUSAL = np.triu(np.full((6, 6), -1e30), 1)


@pytest.mark.parametrize(
    ("mask", "how", "added"),
    [(True, {}, HIDDEN), (False, {}, 0.0), (False, {"unidirectional": 1}, CAUSAL)],
)
def test_attention(mask, how, added, tmp_path):
    w, b = normal(32, 96) / 5, normal(96)
    inputs = {"x": X} | ({"m": MASK} if mask else {})
    node = helper.make_node("Attention", [*"xwb", *"m"[: int(mask)]], ["y"], num_heads=4, **how)
    node.domain = "com.microsoft"
    model = model_of([node], inputs, {"w": w, "b": b}, {"y": X.shape})
    expected = attended(*np.split(X @ w + b, 3, -1), 4, added)
    made = results(tmp_path, model, inputs)["y"]
    np.testing.assert_allclose(made, expected, rtol=1e-4, atol=1e-5)


def test_attention_of_keys_of_another_length(tmp_path):
    inputs = {"q": X, "k": normal(2, 5, 32), "v": normal(2, 5, 64)}
    b = normal(128)
    node = helper.make_node("MultiHeadAttention", [*"qkvb"], ["y"], num_heads=8, **MICROSOFT)
    model = model_of([node], inputs, {"b": b}, {"y": (2, 6, 64)})
    parts = np.split(b, [32, 64])
    sides = [x + part for x, part in zip(inputs.values(), parts, strict=True)]
    made = results(tmp_path, model, inputs)["y"]
    np.testing.assert_allclose(made, attended(*sides, 8), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dynamic", ["", "s8"])
def test_quantized_attention(dynamic, tmp_path):
    """Codes with a known scale: exactly the products of what they stand for; else within the
    steps of 8 bits."""
    w = rng.integers(-127, 128, (32, 96)).astype(np.int8)
    constants = {"w": w, "b": normal(96), "ws": np.float32(2**-9), "wz": np.int8(0)}
    if dynamic:
        first = helper.make_node("DynamicQuantizeLinear", ["x"], ["xq", "s", "z"])
    else:
        first = helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"])
        constants |= {"s": np.float32(2**-5), "z": np.uint8(120)}
    names = ["xq", "w", "b", "s", "ws", "m", "z", "wz"]
    node = helper.make_node("QAttention", names, ["y"], num_heads=4, **MICROSOFT)
    inputs = {"x": X, "m": MASK}
    model = model_of([first, node], inputs, constants, {"y": X.shape})
    codes = np.clip(np.rint(X * 32) + 120, 0, 255) - 120
    real = X if dynamic else codes / 32
    expected = attended(*np.split(real @ (w / 512) + constants["b"], 3, -1), 4, HIDDEN)
    made = results(tmp_path, model, inputs, dynamic)["y"]
    tolerance = 0.03 * np.abs(expected).max() if dynamic else 1e-5
    np.testing.assert_allclose(made, expected, rtol=0 if dynamic else 1e-4, atol=tolerance)


def layer_normal(x, gamma, beta=0.0, epsilon=1e-12):
    x = x.astype(np.float64)
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + epsilon) * gamma + beta


def test_normalized_sums(tmp_path):
    names = ["x", "s", "g", "b", "c"]
    node = helper.make_node("SkipLayerNormalization", names, ["y", "", "", "t"], **MICROSOFT)
    inputs, constants = {"x": X, "s": normal(2, 6, 32)}, {n: normal(32) for n in "gbc"}
    model = model_of([node], inputs, constants, {"y": X.shape, "t": X.shape})
    made = results(tmp_path, model, inputs)
    total = X + inputs["s"] + constants["c"]
    np.testing.assert_allclose(made["t"], total, rtol=1e-5, atol=1e-6)
    expected = layer_normal(total, constants["g"], constants["b"])
    np.testing.assert_allclose(made["y"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("coded", [False, True])
def test_embeddings(coded, tmp_path):
    names = ["i", "s", "w", "p", "t", "g", "b"]
    shapes = {"w": (9, 16), "p": (5, 16), "t": (2, 16), "g": (16,), "b": (16,)}
    if coded:
        constants = {n: rng.integers(0, 256, s).astype(np.uint8) for n, s in shapes.items()}
        real = {n: (a.astype(np.float32) - 128) / 64 for n, a in constants.items()}
        constants |= {"scale": np.float32(2**-6), "zero": np.uint8(128)}
        names += ["", *["scale"] * 5, *["zero"] * 5]
    else:
        real = constants = {n: normal(*s) for n, s in shapes.items()}
    kind = "QEmbedLayerNormalization" if coded else "EmbedLayerNormalization"
    node = helper.make_node(kind, names, ["y", "lengths"], **MICROSOFT)
    inputs = {"i": np.int32([[1, 2, 3], [4, 5, 0]]), "s": np.int32([[0, 0, 1], [1, 1, 0]])}
    model = model_of([node], inputs, constants, {"y": (2, 3, 16)})
    total = real["w"][inputs["i"]] + real["p"][:3] + real["t"][inputs["s"]]
    made = results(tmp_path, model, inputs)["y"]
    expected = layer_normal(total, real["g"], real["b"])
    np.testing.assert_allclose(made, expected, rtol=1e-4, atol=1e-5)


def gelu_tanh(x):
    return x / 2 * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3)))


@pytest.mark.parametrize(
    ("kind", "how", "function"),
    [
        ("FastGelu", {}, gelu_tanh),
        ("QuickGelu", {"alpha": 1.5}, lambda x: x / (1 + np.exp(-1.5 * x))),
        ("BiasGelu", {}, lambda x: x / 2 * (1 + np.vectorize(math.erf)(x / 2**0.5))),
    ],
)
def test_functions(kind, how, function, tmp_path):
    constants = {} if kind == "QuickGelu" else {"b": normal(32)}
    node = helper.make_node(kind, ["x", *constants], ["y"], **how, **MICROSOFT)
    model = model_of([node], {"x": X}, constants, {"y": X.shape})
    expected = function((X + constants.get("b", 0)).astype(np.float64))
    made = results(tmp_path, model, {"x": X})["y"]
    np.testing.assert_allclose(made, expected, rtol=1e-5, atol=1e-6)


IMAGE = normal(2, 8, 4, 6)
ALONE = [
    ("RMSNormalization", {}, [X, normal(32)], 23),
    ("PRelu", {}, [IMAGE, normal(8, 1, 1)], 16),
    ("InstanceNormalization", {}, [IMAGE, normal(8), normal(8)], 17),
    ("GroupNormalization", {"num_groups": 2}, [IMAGE, normal(8), normal(8)], 21),
    ("DepthToSpace", {"blocksize": 2}, [IMAGE], 13),
    ("DepthToSpace", {"blocksize": 2, "mode": "CRD"}, [IMAGE], 13),
    ("SpaceToDepth", {"blocksize": 2}, [IMAGE], 13),
    ("LogSoftmax", {"axis": -1}, [X], 13),
    ("ReduceMin", {"axes": [1]}, [X], 13),
    ("ReduceMin", {"keepdims": 1}, [X, np.int64([1, 2])], 18),
    ("MeanVarianceNormalization", {}, [IMAGE], 13),
    ("Gelu", {"approximate": "tanh"}, [X], 20),
    (
        "Attention",
        {"q_num_heads": 4, "kv_num_heads": 2, "is_causal": 1},
        [X, *normal(2, 2, 6, 16)],
        23,
    ),
    ("Attention", {}, [normal(1, 4, 6, 8), normal(1, 4, 5, 8), normal(1, 4, 5, 8)], 23),
]


@pytest.mark.parametrize(("kind", "how", "arrays", "opset"), ALONE)
def test_nodes_of_onnx_itself(kind, how, arrays, opset, tmp_path):
    names = [f"x{i}" for i in range(len(arrays))]
    given = dict(zip(names, arrays, strict=True))
    count = 3 if kind == "Attention" else 1
    inputs, constants = ({n: given[n] for n in part} for part in (names[:count], names[count:]))
    node = helper.make_node(kind, names, ["y"], **how)
    shape = [None] * 4 if kind == "Attention" and not how else [None] * arrays[0].ndim
    model = model_of([node], inputs, constants, {"y": shape}, opset)
    (expected,) = ReferenceEvaluator(model).run(None, inputs)
    made = results(tmp_path, model, inputs)["y"]
    np.testing.assert_allclose(made, expected, rtol=1e-4, atol=1e-5)


CONDITION = np.int32([[1, 0, 1, 1, 0, 1]])
CHOICES = [
    (normal(2, 6), np.float32(-1e4)),
    (np.float32(3), normal(2, 6)),
    (normal(2, 6), np.finfo(np.float32).min),
    (normal(2, 6), normal(2, 6)),
]


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize(("a", "b"), CHOICES)
def test_a_choice_between_tensors_and_numbers(a, b, known, tmp_path):
    inputs = {n: v for n, v in (("a", a), ("b", b)) if np.ndim(v)}
    constants = {n: v for n, v in (("a", a), ("b", b)) if not np.ndim(v)}
    nodes = [helper.make_node("Where", ["c", "a", "b"], ["y"])]
    if known:
        constants["c"] = CONDITION > 0
    else:
        inputs["i"] = CONDITION
        nodes.insert(0, helper.make_node("Cast", ["i"], ["c"], to=TensorProto.BOOL))
    made = results(tmp_path, model_of(nodes, inputs, constants, {"y": (2, 6)}), inputs)["y"]
    assert np.array_equal(made, np.where(CONDITION > 0, a, b))


def test_a_choice_between_codes(tmp_path):
    """QLinearWhere: each code for what the chosen one stands for."""
    node = helper.make_node
    nodes = [
        node("QuantizeLinear", ["a", "as", "z"], ["aq"]),
        node("QuantizeLinear", ["b", "bs", "z"], ["bq"]),
        node("Cast", ["i"], ["c"], to=TensorProto.BOOL),
        node(
            "QLinearWhere", ["c", "aq", "as", "z", "bq", "bs", "z", "ys", "z"], ["q"], **MICROSOFT
        ),
        node("DequantizeLinear", ["q", "ys", "z"], ["y"]),
    ]
    scales = {"as": np.float32(2**-4), "bs": np.float32(2**-5), "ys": np.float32(2**-3)}
    inputs = {"a": normal(2, 6), "b": normal(2, 6), "i": CONDITION}
    model = model_of(nodes, inputs, scales | {"z": np.uint8(100)}, {"y": (2, 6)})
    a, b = (np.rint(inputs[n] / scales[f"{n}s"]) * scales[f"{n}s"] for n in "ab")
    expected = np.rint(np.where(CONDITION > 0, a, b) * 8) / 8
    assert np.array_equal(results(tmp_path, model, inputs)["y"], expected)


def test_a_function_of_what_is_known_is_computed(tmp_path):
    """Range, whose body is a loop."""
    node = helper.make_node
    nodes = [node("Range", ["f", "t", "d"], ["r"]), node("Add", ["x", "r"], ["y"])]
    constants = {n: np.float32(v) for n, v in (("f", 0), ("t", 32), ("d", 1))}
    made = results(tmp_path, model_of(nodes, {"x": X}, constants, {"y": X.shape}, 17), {"x": X})
    assert np.array_equal(made["y"], X + np.arange(32, dtype=np.float32))


def test_functions_of_the_model_are_what_they_say(tmp_path):
    node = helper.make_node
    body = [node("Add", ["a", "b"], ["t"]), node("Relu", ["t"], ["o"])]
    opset = [helper.make_opsetid("", 17)]
    function = helper.make_function("own", "AddRelu", ["a", "b"], ["o"], body, opset)
    nodes = [node("AddRelu", ["x", "s"], ["y"], domain="own")]
    inputs = {"x": X, "s": normal(2, 6, 32)}
    model = model_of(nodes, inputs, {}, {"y": X.shape}, 17, [function])
    made = results(tmp_path, model, inputs)["y"]
    assert np.array_equal(made, np.maximum(X + inputs["s"], 0))


@pytest.mark.parametrize(
    ("kind", "names", "how", "reason"),
    [
        ("Attention", "xwb", {"num_heads": 5}, "5 heads do not divide 32 columns"),
        ("Attention", "xwb p", {"num_heads": 4}, "a past is not served"),
        ("MultiHeadAttention", "x", {"num_heads": 4}, "queries, keys and values in one"),
        ("SkipLayerNormalization", "xxb", {"epsilon": 1e-5, "axis": 1}, "axis is none"),
    ],
)
def test_what_is_not_served_says_why(kind, names, how, reason, tmp_path):
    names = [name.strip() for name in names]
    node = helper.make_node(kind, names, ["y"], name="here", **how, **MICROSOFT)
    constants = {"w": normal(32, 96), "b": normal(96), "p": normal(2, 2, 4, 3, 8)}
    model = model_of([node], {"x": X}, constants, {"y": X.shape})
    with pytest.raises(
        UnservedNodes, match=rf"^com.microsoft.{kind} here is not served: .*{reason}"
    ):
        results(tmp_path, model, {"x": X})
