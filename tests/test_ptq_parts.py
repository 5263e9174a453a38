"""What quantization is made of beside codes of weights: data, ranges, equalization, smoothing, the
simulation of kernels."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from float_models import image_model, images, made, rows, text_model
from onnx import helper

from lpgen.errors import QuantizeError
from lpgen.formats import Format
from lpgen.onnx import read_network
from lpgen.onnx.values import Activations
from lpgen.plans import groups_of, uniform
from lpgen.plans.constants import Constants
from lpgen.quantize import (
    Calibration,
    calls_of,
    inputs_of,
    quantize,
    read_calls,
    simulated,
    usual,
    write,
)
from lpgen.quantize.equalize import equalized
from lpgen.quantize.patches import Place
from lpgen.quantize.ranges import Range, between, chosen
from lpgen.quantize.session import Session
from lpgen.quantize.smooth import smoothed, smoothing

U8, U4, S4 = Format("u", 8), Format("u", 4), Format("s", 4)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


# Data


def test_arrays_become_calls(tmp_path, rng):
    model = image_model(rng)
    array = rng.normal(size=(6, 1, 3, 8, 8))
    np.savez(tmp_path / "a.npz", x=array)
    found = read_calls(tmp_path / "a.npz", model)
    assert len(found) == 6
    assert found[2]["x"].dtype == np.float32
    assert np.array_equal(found[2]["x"], array[2].astype(np.float32))
    flat = calls_of({"x": array[:, 0]}, inputs_of(model))
    assert all(np.array_equal(a["x"], b["x"]) for a, b in zip(found, flat, strict=True))
    several = {f"x.{i}": np.zeros((i + 1, 64), np.float32) for i in range(3)}
    assert [c["x"].shape[0] for c in calls_of(several, inputs_of(text_model(rng)))] == [1, 2, 3]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"y": np.zeros((1, 3, 8, 8))}, "y is none of the inputs x"),
        ({"x": np.zeros((3, 8))}, "x has 2 axes, expected 4 or 5"),
        (
            {"x": np.zeros((2, 3, 8, 9))},
            r"x, call 0: shape \[1, 3, 8, 9\], expected \[1, 3, 8, 8\]",
        ),
        ({"x": np.full((1, 3, 8, 8), np.nan)}, r"x, call 0: values that are not finite \(NaN"),
        ({"x": np.zeros((1, 3, 8, 8), complex)}, "x has type complex128, expected float32"),
        ({"x": np.zeros((0, 3, 8, 8))}, "calls for some inputs only: x 0"),
        ({}, "calls for some inputs only: x 0"),
    ],
)
def test_arrays_that_do_not_fit_are_said_in_one_line(rng, arrays, message):
    with pytest.raises(QuantizeError, match=message):
        calls_of(arrays, inputs_of(image_model(rng)))


def test_files_that_are_no_data(tmp_path, rng):
    model = image_model(rng)
    with pytest.raises(QuantizeError, match="No such file"):
        read_calls(tmp_path / "none.npz", model)
    (tmp_path / "text.npz").write_text("text")
    with pytest.raises(QuantizeError, match="is no file of numpy"):
        read_calls(tmp_path / "text.npz", model)
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(QuantizeError, match="holds one array"):
        read_calls(tmp_path / "one.npy", model)
    np.savez(tmp_path / "cut.npz", x=np.zeros((4, 3, 8, 8)))
    whole = (tmp_path / "cut.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(QuantizeError, match="is no file of numpy"):
        read_calls(tmp_path / "cut.npz", model)


# Rows that convolutions see


@pytest.mark.parametrize(
    ("shape", "given"),
    [
        ((6, 4, 3, 3), {"pads": [1, 0, 2, 1], "strides": [2, 1]}),
        ((8, 2, 3, 2), {"group": 2, "dilations": [2, 1]}),
        ((4, 1, 3, 3), {"group": 4, "auto_pad": "SAME_UPPER", "strides": [2, 2]}),
        ((5, 4, 3), {"pads": [1, 1]}),
    ],
)
def test_patches_times_weights_are_the_convolution(rng, shape, given):
    w = rng.normal(size=shape)
    size = (2, 4, *[7, 9][: len(shape) - 2])
    x = rng.normal(size=size).astype(np.float32)
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="c", **given)
    model = made([node], {"w": w}, {"x": size}, {"y": [None] * len(size)})
    ((layer,),) = (group.layers for group in groups_of(model))
    place = Place(layer, node)
    x_rows = place.inputs(x, 10**6, rng)
    parts = np.split(place.rows(w), len(x_rows))
    y = np.concatenate([a @ b.T for a, b in zip(x_rows, parts, strict=True)], axis=1)
    expected = np.moveaxis(Session(model)({"x": x})["y"], 1, -1).reshape(y.shape)
    assert np.allclose(y, expected, atol=1e-4)
    assert place.inputs(x, 5, rng).shape[1] == 5
    assert np.array_equal(place.restored(place.rows(w)), w)


# Ranges


def test_ranges_hold_zero_and_their_ends():
    for low, high in ((-1.0, 3.0), (0.0, 2.0), (-5.0, 0.0)):
        found = between(low, high, U8)
        assert found.real(np.zeros(1))[0] == 0
        assert np.allclose(found.ends, [low, high], atol=float(found.scale))
    assert between(-1.0, 3.0, S4).zero == 0
    assert chosen(np.zeros(9), U8) == Range(np.float32(1), 0, U8)


def test_the_least_error_is_found(rng):
    sample = np.append(np.maximum(rng.standard_t(4, 20000), 0), 60.0).astype(np.float32)

    def error(found: Range) -> float:
        return float(((found.real(sample) - sample) ** 2).sum())

    best = min(error(between(0, high, U4)) for high in np.linspace(0.5, 60, 500))
    assert error(chosen(sample, U4, "mse")) <= 1.1 * best
    assert error(chosen(sample, U4, "mse")) < 0.5 * error(chosen(sample, U4, "minmax"))
    inner = chosen(sample, U8).ends[1]
    assert np.mean(sample > inner + 0.1) <= 2e-4


# The same function, easier to quantize


def test_equalized_channels_are_of_like_size(rng):
    model, calls = image_model(rng), images(rng, 3)
    first = model.graph.initializer[0]
    w = onnx.numpy_helper.to_array(first) * np.exp(2 * rng.normal(size=(8, 1, 1, 1)))
    first.CopyFrom(onnx.numpy_helper.from_array(w.astype(np.float32), "w1"))
    found = equalized(model)
    for call in calls:
        assert np.allclose(Session(found)(call)["y"], Session(model)(call)["y"], atol=1e-4)
    constants, nodes = Constants(found), {node.name: node for node in found.graph.node}
    sizes = [
        np.abs(constants[nodes[name].input[1]]).reshape(8, -1).max(1)
        for name in ("first", "depthwise")
    ]
    third = np.abs(constants[nodes["third"].input[1]]).max((0, 2, 3))
    assert np.allclose(sizes[0], sizes[1], rtol=0.01)
    assert np.allclose(sizes[1], third, rtol=0.01)


def test_smoothing_by_its_formula_and_without_changing_the_function(rng):
    model, calls = text_model(rng), rows(rng, 6)
    plan = uniform(groups_of(model), "w8a8")
    found = smoothed(model, calls, plan, 0.5)
    for call in calls:
        assert np.allclose(Session(found)(call)["y"], Session(model)(call)["y"], rtol=1e-3)
    largest = np.max([np.abs(call["x"]).max(0) for call in calls], axis=0)
    weights = [Constants(model)[name].T for name in ("wq", "wk")]
    across = np.maximum(*(np.abs(w).max(0) for w in weights))
    expected = np.sqrt(largest / across)
    assert np.allclose(smoothing(largest, weights, 0.5), expected)
    assert smoothing(np.zeros(64), weights, 0.5).tolist() == [1] * 64
    inputs = Session(found, ["x.smooth"])
    sizes = [np.abs(inputs(call)["x.smooth"]).max(0) for call in calls]
    assert np.allclose(np.max(sizes, axis=0), largest / expected, rtol=1e-4)


def test_smoothing_goes_into_a_layer_norm_that_nothing_else_reads(rng):
    node = helper.make_node
    nodes = [
        node("LayerNormalization", ["x", "g", "b"], ["n"], axis=-1),
        node("MatMul", ["n", "w"], ["y"], name="dense"),
    ]
    constants = {"g": rng.normal(size=16), "b": rng.normal(size=16), "w": rng.normal(size=(16, 8))}
    model = made(nodes, constants, {"x": (4, 16)}, {"y": (4, 8)})
    calls = [{"x": rng.normal(size=(4, 16)).astype(np.float32)} for _ in range(3)]
    found = smoothed(model, calls, uniform(groups_of(model), "w8a8"), 0.7)
    assert [n.op_type for n in found.graph.node] == ["LayerNormalization", "MatMul"]
    assert np.allclose(Session(found)(calls[0])["y"], Session(model)(calls[0])["y"], atol=1e-4)


# Activations that are quantized in each call


@pytest.mark.parametrize("text", ["w4a8", "w4a5", "w8a6 hadamard=16", "w4a8 weight_group=32"])
def test_the_simulation_is_what_kernels_compute(rng, tmp_path, text):
    model, calls = text_model(rng), rows(rng, 12)
    plan = uniform(groups_of(model), text)
    made_model = quantize(Calibration(model, calls), plan).model
    write(made_model, tmp_path / "q.onnx")
    x = calls[0]["x"]
    precision = plan.precision("out")
    how = Activations(precision.act, "f32:row", precision.hadamard)
    network = read_network(
        tmp_path / "q.onnx", {"x": x.shape}, dict.fromkeys(("query", "key", "out"), how)
    )
    expected = network.reference({"x": x})["y"]
    found = Session(simulated(made_model))({"x": x})["y"]
    plain = Session(made_model)({"x": x})["y"]
    # A sum in another order may move a value across the edge between two codes.
    assert np.abs(found - expected).max() < 0.02 * np.abs(expected).max()
    assert np.square(found - expected).sum() < 0.01 * np.square(plain - expected).sum()


def test_usual_plans_keep_first_and_depthwise_convolutions_wide(rng):
    plan = usual(groups_of(image_model(rng)), "w3a8 static")
    assert [str(plan.precision(n)) for n in ("first", "depthwise", "third", "last")] == [
        *["w8a8 static"] * 2,
        *["w3a8 static"] * 2,
    ]
