"""LSTM and GRU of ONNX as networks."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx_graphs import OPSETS  # noqa: E402

from lpgen.onnx import UnservedNodes, read_network  # noqa: E402
from lpgen.target import Target  # noqa: E402

STEPS, BATCH, INPUTS, COLUMNS = 5, 2, 7, 9


def recurrent_model(kind, direction="forward", states=True, outputs="ynd", **attributes):
    """X, and initial states, to Y and the last states, with random weights."""
    rng, gates = np.random.default_rng(0), 4 if kind == "LSTM" else 3
    count = 2 if direction == "bidirectional" else 1
    size = gates * COLUMNS
    shapes = {"W": (count, size, INPUTS), "R": (count, size, COLUMNS), "B": (count, 2 * size)}
    constants = [
        numpy_helper.from_array(rng.normal(0, 0.4, shape).astype(np.float32), name)
        for name, shape in shapes.items()
    ]
    first = ["h"] + ["c"] * (kind == "LSTM") if states else []
    value = helper.make_tensor_value_info
    state = (count, BATCH, COLUMNS)
    x = [value("X", TensorProto.FLOAT, (STEPS, BATCH, INPUTS))]
    x += [value(name, TensorProto.FLOAT, state) for name in first]
    made = {"Y": (STEPS, *state[:1], *state[1:]), "Y_h": state, "Y_c": state}
    made = dict(list(made.items())[: 3 if kind == "LSTM" else 2])
    node = helper.make_node(
        *(kind, ["X", "W", "R", "B", "", *first], list(made)),
        **{"hidden_size": COLUMNS, "direction": direction, **attributes},
    )
    y = [value(name, TensorProto.FLOAT, shape) for name, shape in made.items()]
    graph = helper.make_graph([node], "graph", x, y, constants)
    return helper.make_model(graph, opset_imports=OPSETS, ir_version=9)


def inputs_of(model):
    rng = np.random.default_rng(1)
    return {
        v.name: rng.normal(size=[d.dim_value for d in v.type.tensor_type.shape.dim]).astype("f4")
        for v in model.graph.input
    }


def expected_of(model, inputs):
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, inputs)


@pytest.mark.parametrize("states", [True, False])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize(
    ("kind", "more"),
    [("LSTM", {}), ("GRU", {"linear_before_reset": 1}), ("GRU", {"linear_before_reset": 0})],
)
def test_recurrent_layers_of_float32(kind, more, direction, states, tmp_path):
    model = recurrent_model(kind, direction, states, **more)
    onnx.save(model, tmp_path / "model.onnx")
    network = read_network(tmp_path / "model.onnx")
    inputs = inputs_of(model)
    found = network.reference(inputs)
    for y, expected in zip(found.values(), expected_of(model, inputs), strict=True):
        assert y.shape == expected.shape
        np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


def test_steps_in_time_share_their_kernels(tmp_path):
    onnx.save(recurrent_model("LSTM"), tmp_path / "model.onnx")
    network = read_network(tmp_path / "model.onnx")
    kinds = [step.op.kind for step in network.steps]
    assert kinds.count("lstm_cell") == 2 * STEPS
    assert len({step.op for step in network.steps if step.op.kind == "lstm_cell"}) == 2
    assert len({step.op for step in network.steps if step.op.kind == "conv2d_f32"}) == 2


def test_a_compiled_layer(tmp_path):
    from lpgen.network import build, rounded_for
    from lpgen.runtime import load

    model, target = recurrent_model("LSTM"), Target.parse("native")
    onnx.save(model, tmp_path / "model.onnx")
    network, inputs = read_network(tmp_path / "model.onnx"), inputs_of(model)
    library = load(build(network, target, tmp_path / "model.so")).network
    network = rounded_for(network, [target])
    found, expected = library(inputs), network.reference(inputs)
    for name, y in expected.items():
        np.testing.assert_array_equal(found[name], y)


def quantized(model):
    """The model with W and R of int8, one scale for each direction."""
    plain = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    node, added, constants = model.graph.node[0], [], []
    for place, name in ((1, "W"), (2, "R")):
        scale = np.float32(np.abs(plain[name]).max() / 127)
        codes = np.rint(plain[name] / scale).astype(np.int8)
        constants += [numpy_helper.from_array(codes, f"{name}_codes")]
        constants += [numpy_helper.from_array(scale, f"{name}_scale")]
        names = [f"{name}_codes", f"{name}_scale"]
        added.append(helper.make_node("DequantizeLinear", names, [f"{name}_real"]))
        node.input[place] = f"{name}_real"
    kept = [t for t in model.graph.initializer if t.name == "B"]
    graph = helper.make_graph(
        *([*added, node], "graph", list(model.graph.input), list(model.graph.output)),
        [*kept, *constants],
    )
    return helper.make_model(graph, opset_imports=OPSETS, ir_version=9)


@pytest.mark.parametrize("dynamic", ["", "f32", "s8"])
def test_quantized_weights_of_a_layer(dynamic, tmp_path):
    model = quantized(recurrent_model("LSTM"))
    onnx.save(model, tmp_path / "model.onnx")
    if not dynamic:
        with pytest.raises(UnservedNodes, match="--dynamic s8"):
            read_network(tmp_path / "model.onnx")
        return
    network = read_network(tmp_path / "model.onnx", dynamic=dynamic)
    kinds = {step.op.kind for step in network.steps}
    assert ("dense" in kinds, "conv2d_f32" in kinds) == (dynamic == "s8", dynamic == "f32")
    inputs = inputs_of(model)
    error = {"f32": 1e-5, "s8": 0.03}[dynamic]
    found = network.reference(inputs).values()
    for y, expected in zip(found, expected_of(model, inputs), strict=True):
        np.testing.assert_allclose(y, expected, rtol=error, atol=error)


def test_dynamic_quantize_lstm(tmp_path):
    from onnxruntime.quantization import quantize_dynamic

    model = recurrent_model("LSTM", "bidirectional")
    onnx.save(model, tmp_path / "float.onnx")
    quantize_dynamic(tmp_path / "float.onnx", tmp_path / "model.onnx")
    assert onnx.load(tmp_path / "model.onnx").graph.node[0].op_type == "DynamicQuantizeLSTM"
    network, inputs = read_network(tmp_path / "model.onnx", dynamic="s8"), inputs_of(model)
    for y, expected in zip(
        network.reference(inputs).values(), expected_of(model, inputs), strict=True
    ):
        np.testing.assert_allclose(y, expected, atol=0.05)


@pytest.mark.parametrize(
    ("kind", "attributes", "message"),
    [
        ("LSTM", {"clip": 1.0}, "clip=1.0, lpgen has none"),
        ("LSTM", {"activations": ["Tanh"] * 3}, "activations=.*, lpgen has Sigmoid, Tanh, Tanh"),
    ],
)
def test_layers_that_are_not_served(kind, attributes, message, tmp_path):
    onnx.save(recurrent_model(kind, **attributes), tmp_path / "model.onnx")
    with pytest.raises(UnservedNodes, match=message):
        read_network(tmp_path / "model.onnx")


def test_silero_vad(tmp_path):
    """The speech detector: its LSTM and convolutions of float32, beside onnxruntime."""
    onnxruntime = pytest.importorskip("onnxruntime")
    found = find_spec("silero_vad")
    if found is None:
        pytest.skip("silero-vad is not installed")
    path = Path(found.submodule_search_locations[0]) / "data" / "silero_vad_16k_sequence.onnx"
    network = read_network(path, {"input": (3, 576)})
    rng = np.random.default_rng(0)
    x = {n: (rng.normal(size=t.shape) * 0.1).astype("f4") for n, t in network.inputs.items()}
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for y, expected in zip(network.reference(x).values(), session.run(None, x), strict=True):
        np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
