"""Plans at compile time: how the activations of a quantized model are quantized."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator
from plan_models import mlp, quantized_mlp

from lpgen.cli.app import run
from lpgen.errors import OnnxError, PlanError
from lpgen.onnx import read_network
from lpgen.plans import METADATA, activations_of, groups_of, plan_of, uniform
from lpgen.quantize.layers import for_kernels


def network_of(model: onnx.ModelProto, words: str, path, groups: int | None = None):
    plan = uniform(groups_of(model)[:groups], words)
    onnx.save(model, path)
    return read_network(path, {}, activations_of(plan, model))


def as_itself(op):
    """A product that quantizes its activations, for one that reads their codes."""
    if op.input != "act:row":
        return op
    act, zero = ("s8", 0) if (str(op.act), op.zero_act) == ("u8", 128) else (op.act, op.zero_act)
    return replace(op, input="f32:row", act=act, zero_act=zero)


@pytest.mark.parametrize(
    ("words", "made", "expected"),
    [
        ("w8a8", {}, "act=s8 weight=s8 input=f32:row out=f32 scale=channel"),
        ("w8a6 row", {}, "act=s6 weight=s8 input=f32:row out=f32 scale=channel"),
        ("w8a8 row weight_group=8", {"group": 8}, "input=f32:row out=f32 scale=group8"),
    ],
)
def test_products_quantize_as_the_plan_says(words, made, expected, tmp_path):
    model = quantized_mlp(**made)
    network = network_of(model, words, tmp_path / "model.onnx")
    products = [step.op for step in network.steps if step.weights is not None]
    assert len(products) == 4
    assert all(expected in as_itself(op).name for op in products)
    x = np.random.default_rng(0).normal(size=(4, 16)).astype(np.float32)
    (expected,) = ReferenceEvaluator(model).run(None, {"x": x})
    found = network.reference({"x": x})["y"]
    assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()


def test_a_rotation_goes_into_the_kernel(tmp_path):
    model = quantized_mlp(hadamard=16)
    _, first, *others = groups_of(model)  # the rotation itself is a product, too
    rotated = activations_of(uniform([first], "w8a8 row hadamard=16"), model)
    plain = activations_of(uniform(others, "w8a8"), model)
    onnx.save(model, tmp_path / "model.onnx")
    network = read_network(tmp_path / "model.onnx", {}, plain | rotated)
    assert [step.op.kind for step in network.steps].count("dense") == 4
    assert not [step for step in network.steps if step.op.kind == "matmul"]
    assert ["hadamard=16" in step.op.name for step in network.steps][:2] == [True, True]
    x = np.random.default_rng(0).normal(size=(4, 16)).astype(np.float32)
    (expected,) = ReferenceEvaluator(model).run(None, {"x": x})
    found = network.reference({"x": x})["y"]
    assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()


def test_a_rotation_that_is_not_there(tmp_path):
    model = quantized_mlp()
    with pytest.raises(OnnxError, match="first: the input is not rotated, and"):
        network_of(model, "w8a8 row hadamard=16", tmp_path / "model.onnx", groups=1)


def test_a_plan_that_the_model_was_not_made_by():
    with pytest.raises(PlanError, match="first has float weights, and the plan says w8a8"):
        activations_of(uniform(groups_of(mlp()), "w8a8"), mlp())
    model = quantized_mlp()
    with pytest.raises(PlanError, match="first has weights from -127 to 127, and the plan says s4"):
        activations_of(uniform(groups_of(model), "w4a8"), model)
    with pytest.raises(PlanError, match="first is quantized, and the plan leaves it float"):
        activations_of(uniform(groups_of(model), "float"), model)


def test_the_plan_in_a_model_is_what_import_takes(tmp_path, capsys):
    model = quantized_mlp()
    plan = uniform(groups_of(model), "w8a7")
    model.metadata_props.add(key=METADATA, value=plan.to_toml())
    assert plan_of(model) == plan
    path, other = tmp_path / "model.onnx", tmp_path / "plan.toml"
    onnx.save(model, path)
    assert run(["import", str(path)]) == 0
    assert "act=s7" in capsys.readouterr().out
    uniform(groups_of(model), "w8a5").write(other)
    assert run(["import", str(path), "--plan", str(other)]) == 0
    assert "act=s5" in capsys.readouterr().out
    assert run(["import", str(path), "--plan", str(other), "--dynamic", "s8"]) == 2
    assert "--plan and --dynamic both say" in capsys.readouterr().err


def test_layers_are_found_in_opsets_that_the_evaluator_does_not_quantize_in():
    model = quantized_mlp()
    model.opset_import[0].version = 17
    assert groups_of(model) == groups_of(quantized_mlp())


def test_weights_become_bit_layers(tmp_path):
    """Of float weights, as many as the plan says, or as a call of the network asks for."""
    from lpgen.planner.whole import with_layers

    model, x = mlp(4), np.random.default_rng(0).normal(size=(4, 16)).astype(np.float32)
    onnx.save(model, tmp_path / "model.onnx")
    (real,) = ReferenceEvaluator(model).run(None, {"x": x})
    errors = []
    for count in (2, 4, 8):
        plan = uniform(groups_of(model), f"w8a8 row bit_layers={count} weight_group=8")
        how = activations_of(plan, model, for_kernels)
        found = read_network(tmp_path / "model.onnx", {}, how).reference({"x": x})["y"]
        changed = with_layers(model, plan.precisions)
        (expected,) = ReferenceEvaluator(changed).run(None, {"x": x})
        assert np.abs(found - expected).max() < 0.05 * np.abs(real).max()
        errors.append(np.abs(found - real).max() / np.abs(real).max())
        asked = read_network(
            tmp_path / "model.onnx", {}, activations_of(plan, model, for_kernels, ask_layers=True)
        )
        assert [*asked.inputs] == ["x", "layers"]
        given = {"x": x, "layers": np.array(count, np.int32)}
        np.testing.assert_array_equal(asked.reference(given)["y"], found)
    assert errors[2] < errors[1] / 2 < errors[0] / 4
    steps = [step for step in asked.steps if step.weights is not None]
    assert len(steps) == 4
    assert all("layers=1..8" in step.op.name for step in steps)
    assert [step.op.residual is not None for step in steps].count(True) == 1


def test_planes_of_signs(tmp_path):
    """As PrecisionBatching has them."""
    model, x = mlp(4), np.random.default_rng(0).normal(size=(4, 16)).astype(np.float32)
    onnx.save(model, tmp_path / "model.onnx")
    (real,) = ReferenceEvaluator(model).run(None, {"x": x})
    errors = {}
    for count in (1, 4, 16):
        plan = uniform(groups_of(model), f"w1a8 row bit_layers={count} weight_group=8")
        assert plan.from_toml(plan.to_toml()) == plan
        how = activations_of(plan, model, for_kernels)
        network = read_network(tmp_path / "model.onnx", {}, how)
        assert all("weight=b1 layers=1..16" in s.op.name for s in network.steps if s.parameters)
        found = network.reference({"x": x})["y"]
        errors[count] = np.abs(found - real).max() / np.abs(real).max()
    assert errors[16] < errors[4] < errors[1]


def test_bit_layers_of_rotated_weights(tmp_path):
    pytest.importorskip("scipy")
    model, x = mlp(4), np.random.default_rng(0).normal(size=(4, 16)).astype(np.float32)
    onnx.save(model, tmp_path / "model.onnx")
    (real,) = ReferenceEvaluator(model).run(None, {"x": x})
    (first, *_) = groups_of(model)
    plan = uniform([first], "w8a8 row bit_layers=8 hadamard=16")
    how = activations_of(plan, model, for_kernels)
    network = read_network(tmp_path / "model.onnx", {}, how)
    assert ["hadamard=16" in step.op.name for step in network.steps][:2] == [True, True]
    assert np.abs(network.reference({"x": x})["y"] - real).max() < 0.05 * np.abs(real).max()


def test_bit_layers_that_cannot_be():
    model = quantized_mlp()
    with pytest.raises(PlanError, match="first has quantized weights, and the plan says w8a8"):
        activations_of(uniform(groups_of(model), "w8a8 row bit_layers=3"), model)
    with pytest.raises(PlanError, match="stores no weights as bit layers, whose number could be"):
        activations_of(uniform(groups_of(model), "w8a8"), model, ask_layers=True)
    with pytest.raises(PlanError, match="bit_layers are of w8 or w1 with scales of each row"):
        uniform(groups_of(mlp()), "w4a8 row bit_layers=3")
    with pytest.raises(PlanError, match="weight b1 goes with bit_layers: first"):
        uniform(groups_of(mlp()), "w1a8 row")
