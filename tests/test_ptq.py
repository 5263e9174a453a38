"""Post-training quantization of whole models: what is written, and how near it stays."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from float_models import image_model, images, rows, text_model
from onnx import helper, numpy_helper
from plan_models import swish_cnn

from lpgen.errors import PlanError, QuantizeError
from lpgen.formats import Format
from lpgen.onnx import read_network
from lpgen.plans import Group, Plan, Precision, groups_of, plan_of, uniform
from lpgen.quantize import Calibration, Kept, Settings, quantize, write
from lpgen.quantize.between import Between, Coded, ranges_between
from lpgen.quantize.biases import Biases
from lpgen.quantize.ranges import chosen
from lpgen.quantize.session import Session


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


def apart(made: onnx.ModelProto, model: onnx.ModelProto, calls: list) -> float:
    """Error of a model's results in parts of the float model's, root of the mean square."""
    first, second = (Session(each) for each in (made, model))
    pairs = [(first(call)["y"], second(call)["y"]) for call in calls]
    lost = sum(float(((a - b) ** 2).sum()) for a, b in pairs)
    return (lost / sum(float((b**2).sum()) for _, b in pairs)) ** 0.5


def test_a_model_of_images_with_static_ranges(rng, tmp_path):
    model, calls = image_model(rng, opset=12), images(rng, 40)
    for key in ("author", "letters"):
        model.metadata_props.add(key=key, value="kept")
    calibration = Calibration(model, calls[:30])
    made = {
        text: quantize(calibration, uniform(groups_of(model), text)).model
        for text in ("w8a8 static", "w4a6 static")
    }
    assert apart(made["w8a8 static"], model, calls[30:]) < 0.06
    assert apart(made["w4a6 static"], model, calls[30:]) < 0.2
    path = tmp_path / "q.onnx"
    write(made["w4a6 static"], path)
    keys = [entry.key for entry in onnx.load(path).metadata_props]
    assert keys == ["author", "letters", "lpgen.plan"]
    network = read_network(path)
    products = [step.op for step in network.steps if step.weights is not None]
    assert [str(op.act) for op in products] == ["u6"] * 4
    assert all(op.weight.bits <= 4 for op in products)
    x = calls[35]["x"]
    expected = Session(made["w4a6 static"])({"x": x})["y"]
    assert np.allclose(network.reference({"x": x})["y"], expected, atol=0.05)


def test_between_layers_are_codes(rng, tmp_path):
    model = swish_cnn()
    calls = [{"x": rng.normal(size=(1, 3, 8, 8)).astype(np.float32)} for _ in range(24)]
    calibration, plan = Calibration(model, calls[:16]), uniform(groups_of(model), "w8a8 static")
    graph = Between(model)
    assert graph.root("h1") == "h0"
    assert set(graph.coded(["x", "m0", "h2"])) == {
        Coded("h0", "h1"),
        Coded("h1", ""),
        Coded("m1", "m2"),
        Coded("m2", ""),
    }
    kinds = {}
    for between in (True, False):
        made = quantize(calibration, plan, Settings(between=between)).model
        assert apart(made, model, calls[16:]) < 0.03
        write(made, tmp_path / "q.onnx")
        steps = read_network(tmp_path / "q.onnx").steps
        kinds[between] = Counter(step.op.kind for step in steps)
    assert kinds[True]["conv2d"] == kinds[False]["conv2d"] == 3
    assert not {"binary", "unary"} & set(kinds[True])
    assert kinds[True]["lookup"] == 2
    assert kinds[False]["binary"] >= 3


def test_a_range_has_what_the_function_behind_it_tells_apart(rng):
    """Of a hard-swish everything below -3 is 0."""
    model = swish_cnn()
    values = np.sort(rng.uniform(-20, 8, 4000)).astype(np.float32)
    graph, scope = Between(model), chosen(np.float32([-0.5, 15]), Format("u", 8))
    coded = [Coded("h0", "h1")]
    found = ranges_between(graph, coded, {"h1": scope}, lambda edge: values)["h0"]
    low, high = found.ends
    assert -3.1 < low < -2.9
    assert 7.9 < high < 8.1


def test_weights_are_int4_and_the_plan_is_in_the_file(rng):
    model = text_model(rng)
    plan = uniform(groups_of(model), "w3a8")
    made = quantize(Calibration(model, rows(rng, 20)), plan).model
    kinds = {t.name: t.data_type for t in made.graph.initializer}
    assert kinds["query.codes"] == onnx.TensorProto.INT4
    stored = next(t for t in made.graph.initializer if t.name == "query.codes")
    assert set(np.unique(numpy_helper.to_array(stored).astype(int))) <= set(range(-4, 4))
    assert "wq" not in kinds
    assert plan_of(made) == plan


@pytest.mark.parametrize("text", ["w4a8", "w4a8 weight_group=32", "w4a8 hadamard=32"])
def test_products_whose_inputs_stay_float(rng, text):
    model, calls = text_model(rng), rows(rng, 60)
    plan = uniform(groups_of(model), text)
    calibration = Calibration(model, calls[:50])
    found, near = (quantize(calibration, plan, Settings(m)).model for m in ("gptq", "rtn"))
    assert apart(found, model, calls[50:]) < 0.8 * apart(near, model, calls[50:])
    assert apart(found, model, calls[50:]) < 0.2


def test_a_layer_that_the_plan_leaves_out_stays_float(rng):
    model = text_model(rng)
    plan = Plan((Group("q", ("query",), Precision.parse("w4a8")),))
    made = quantize(Calibration(model, rows(rng, 5)), plan)
    assert list(made.layers) == ["query"]
    assert {t.name for t in made.model.graph.initializer} >= {"wk", "wo"}


def test_biases_make_up_for_the_mean_error(rng):
    model, calls = image_model(rng), images(rng, 60)
    calibration = Calibration(model, calls)
    plan = Plan((Group("w", ("first",), Precision.parse("w2a8 static")),))
    edges = ["c1"]
    found = [
        quantize(calibration, plan, Settings("rtn", correct=correct)).model
        for correct in (False, True)
    ]
    runs = [Session(each, edges) for each in (model, *found)]
    plain, without, corrected = (
        np.mean([run(call)["c1"].mean((0, 2, 3)) for call in calls], axis=0) for run in runs
    )
    assert np.abs(corrected - plain).max() < 0.2 * np.abs(without - plain).max()


def test_hessians_in_several_passes_are_the_same(rng):
    model, calls = text_model(rng), rows(rng, 8)
    plan = uniform(groups_of(model), "w4a8")
    told = []
    parts = Calibration(model, calls, most_bytes=8 * 64**2)
    some = quantize(parts, plan, progress=lambda *done: told.append(done)).model
    whole = quantize(Calibration(model, calls), plan).model
    assert some.graph.initializer == whole.graph.initializer
    assert ("calibration", 16, 16) in told
    assert told[-1] == ("weights", 3, 3)
    with pytest.raises(QuantizeError, match="the Hessian of query"):
        quantize(Calibration(model, calls, most_bytes=100), plan)


def test_an_interrupted_run_goes_on(rng, tmp_path):
    model, calls = image_model(rng), images(rng, 12)
    plan = uniform(groups_of(model), "w4a7 static")
    whole = quantize(Calibration(model, calls), plan).model

    def stop(what: str, done: int, of: int) -> None:
        if (what, done) == ("weights", 3):
            raise KeyboardInterrupt

    def run(given: list, progress=lambda *_: None) -> onnx.ModelProto:
        kept = Kept(tmp_path / "part", "gptq")
        return quantize(Calibration(model, given), plan, progress=progress, kept=kept).model

    with pytest.raises(KeyboardInterrupt):
        run(calls, stop)
    told = []
    assert run(calls, lambda *done: told.append(done)) == whole
    assert [done for done in told if done[0] == "weights"] == [("weights", 4, 4)]
    assert ("calibration", 12, 12) in told
    told.clear()
    assert run(calls, lambda *done: told.append(done)) == whole
    assert not told
    run(calls[:6], lambda *done: told.append(done))  # other data: nothing is taken from there
    assert ("weights", 4, 4) in told
    Kept(tmp_path / "part", "gptq").remove()
    assert not (tmp_path / "part").exists()


def test_mistakes_are_said_in_one_line(rng):
    model, calls = text_model(rng), rows(rng, 3)
    plan = uniform(groups_of(model), "w4a8")
    with pytest.raises(QuantizeError, match="no calls to calibrate"):
        Calibration(model, [])
    with pytest.raises(PlanError, match="no layer queri"):
        quantize(
            Calibration(model, calls), Plan((Group("q", ("queri",), Precision.parse("w4a8")),))
        )
    with pytest.raises(QuantizeError, match="leaves every layer float"):
        quantize(Calibration(model, calls), Plan(()))
    with pytest.raises(QuantizeError, match="layer query: the Hessian of k=64 inputs is singular"):
        quantize(Calibration(model, calls[:1]), plan, Settings(damping=0))
    with pytest.raises(PlanError, match="bit_layers are of w8 or w1 with scales of each"):
        quantize(Calibration(model, calls), uniform(groups_of(model), "w4a8 bit_layers=4"))
    with pytest.raises(QuantizeError, match="method 'best' is none of gptq, rtn"):
        Settings("best")
    with pytest.raises(QuantizeError, match="the model refuses the data"):
        quantize(Calibration(model, [{"x": np.zeros((2, 5), np.float32)}]), plan)
    model.graph.initializer[0].CopyFrom(
        numpy_helper.from_array(np.full((64, 64), np.nan, np.float32), "wq")
    )
    with pytest.raises(QuantizeError, match="layer query: weights are not finite"):
        quantize(Calibration(model, calls), plan)


def product(nodes: list[onnx.NodeProto], **constants: np.ndarray) -> onnx.ModelProto:
    """A model x [rows, 32] -> y of some nodes and constants."""
    values = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in ("x", "y")
    ]
    tensors = [numpy_helper.from_array(np.float32(v), name) for name, v in constants.items()]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], tensors)
    opsets = [helper.make_opsetid("", 21)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def test_the_constant_behind_a_product_is_its_bias(rng):
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="product"),
        helper.make_node("Add", ["b", "h"], ["y"], name="add"),
    ]
    w, b = rng.normal(size=(32, 8)), rng.normal(size=(1, 8))
    model, x = (
        product(nodes, w=w, b=b),
        np.float32(rng.normal(size=(300, 32)) + rng.normal(size=32)),
    )
    calibration = Calibration(model, [{"x": x}])
    plan = uniform(groups_of(model), "w2a8")
    runs = [
        Session(quantize(calibration, plan, Settings(correct=correct)).model)
        for correct in (False, True)
    ]
    expected = x @ w + b
    without, corrected = (np.abs((run({"x": x})["y"] - expected).mean(0)) for run in runs)
    assert corrected.max() < 1e-4 < 0.01 < without.max()


@pytest.mark.parametrize(
    ("nodes", "place"),
    [
        ([("Gemm", "x w b", "y", {})], ("y", 2)),
        ([("Gemm", "x w b", "y", {"beta": 0.5})], None),
        ([("Gemm", "x w", "y", {})], None),
        ([("Gemm", "x w column", "y", {})], None),
        ([("MatMul", "x w", "h", {}), ("Add", "h b", "y", {})], ("y", 1)),
        ([("MatMul", "x w", "h", {}), ("Add", "one h", "y", {})], ("y", 0)),
        ([("MatMul", "x w", "h", {}), ("Add", "h h", "y", {})], None),
        ([("MatMul", "x w", "h", {}), ("Mul", "h b", "y", {})], None),
        ([("MatMul", "x w", "h", {}), ("Add", "h b", "y", {}), ("Relu", "h", "z", {})], None),
        ([("MatMul", "x w", "y", {}), ("Add", "y b", "z", {})], None),
    ],
)
def test_where_a_bias_is(nodes, place):
    made = [helper.make_node(kind, x.split(), [y], **how) for kind, x, y, how in nodes]
    zeros = {"w": (32, 8), "b": (8,), "one": (1,), "column": (8, 1)}
    model = product(made, **{name: np.zeros(shape) for name, shape in zeros.items()})
    found = Biases(model).of(model.graph.node[0], 8)
    assert (found and (found.node.output[0], found.place)) == place
    if found:
        found.replace("other")
        assert found.node.input[found.place] == "other"
        assert np.array_equal(found.corrected(np.arange(8)).ravel(), np.arange(8))
