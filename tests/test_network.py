"""Networks: what fits together, and what they compute by their oracles."""

from dataclasses import replace

import networks
import numpy as np
import pytest

from lpgen.errors import NetworkError
from lpgen.network import Network, Step, TensorType
from lpgen.network.fusion import fused
from lpgen.ops import parse
from lpgen.ops.binary import Binary
from lpgen.ops.rowwise import Softmax
from lpgen.ops.unary import Unary

rng = np.random.default_rng(0)


def two_layers():
    first = parse("dense m=2 n=12 k=6 act=u8 weight=s3 out=u4 scale=tensor")
    second = parse("dense m=6 n=5 k=4 act=u4 weight=s8")
    scale = np.float32([0.05])
    weights = [op.weight.random(rng, op.w_shape) for op in (first, second)]
    steps = (
        Step("first", first, {"x": "image"}, "hidden", weights[0], {"scale": scale}),
        Step("second", second, {"x": "hidden"}, "y", weights[1]),
    )
    return Network(
        {"image": TensorType((1, 2, 6), "uint8")}, {"y": TensorType((1, 30), "int32")}, steps
    )


def test_steps_see_tensors_in_their_own_shapes():
    network = two_layers()
    x = rng.integers(0, 256, (1, 2, 6)).astype(np.uint8)
    first, second = network.steps
    hidden = first.op.reference(x[0], first.weights, **first.parameters)
    y = second.op.reference(hidden.reshape(6, 4), second.weights)
    assert np.array_equal(network.reference({"image": x})["y"], y.reshape(1, 30))
    assert network.tensors["hidden"] == TensorType((2, 12), "uint8")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputs": {"x": "other"}}, "step first: tensor other is read before it is written"),
        ({"inputs": {}}, "step first: input x is missing"),
        ({"inputs": {"x": "image", "z": "image"}}, "step first: dense has no input z"),
        ({"constants": {"x": np.zeros((2, 6), np.uint8)}}, "step first: input x is given twice"),
        ({"output": "image"}, "step first: tensor image is written before"),
        ({"weights": None}, "step first: weights are missing"),
        ({"name": "second"}, "two steps are called second"),
    ],
)
def test_what_does_not_fit_is_said(change, message):
    network = two_layers()
    with pytest.raises(NetworkError) as raised:
        replace(network, steps=(replace(network.steps[0], **change), network.steps[1]))
    assert str(raised.value) == message


def test_sizes_and_dtypes_have_to_agree():
    network = two_layers()
    with pytest.raises(NetworkError, match=r"tensor image is uint8\[7\], x is uint8\[2, 6\]$"):
        replace(network, inputs={"image": TensorType((7,), "uint8")})
    with pytest.raises(NetworkError, match=r"output y: float32\[30\] is not what is computed"):
        replace(network, outputs={"y": TensorType((30,), "float32")})
    with pytest.raises(NetworkError, match=r"^output image is no result of a step$"):
        replace(network, outputs={"image": TensorType((2, 6), "uint8")})
    with pytest.raises(NetworkError, match=r"^input image is uint8\[2\], expected uint8\[1, 2, 6"):
        network.reference({"image": np.zeros(2, np.uint8)})
    with pytest.raises(NetworkError, match=r"^input image is missing$"):
        network.reference({})


def float_block():
    """x -> dense -> + residual -> GELU spelt out, in float32."""
    dense = parse("dense m=3 n=8 k=8 act=s8 weight=s8 input=f32:row out=f32 scale=channel")
    one = {"outer": 1, "inner": 24}
    number = {"b_axes": "none"}
    step = {
        name: Step(
            name, Binary(function=function, **one, **axes), inputs, name, constants=constants
        )
        for name, function, axes, inputs, constants in (
            ("sum", "add", {"b_axes": "omi"}, {"a": "y", "b": "x"}, {}),
            ("part", "div", number, {"a": "sum"}, {"b": np.float32([2**0.5])}),
            ("more", "add", number, {"a": "erf"}, {"b": np.float32([1])}),
            ("half", "mul", number, {"a": "more"}, {"b": np.float32([0.5])}),
            ("gelu", "mul", {"b_axes": "omi"}, {"a": "half", "b": "sum"}, {}),
        )
    }
    erf = Step("erf", Unary(size=24, function="erf"), {"x": "part"}, "erf")
    weights = dense.weight.random(rng, dense.w_shape)
    scale = {"scale": np.full(8, 0.01, np.float32)}
    steps = (
        Step("y", dense, {"x": "x"}, "y", weights, scale),
        *(step["sum"], step["part"], erf, step["more"], step["half"], step["gelu"]),
    )
    kind = TensorType((3, 8), "float32")
    return Network({"x": kind}, {"gelu": kind}, steps)


def test_a_residual_of_float32_and_a_gelu_become_two_steps():
    network = float_block()
    short = fused(network)
    assert [str(step.op) for step in short.steps] == [
        "dense m=3 n=8 k=8 act=s8 weight=s8 input=f32:row out=f32 scale=channel residual=f32",
        "unary size=24 function=gelu",
    ]
    x = rng.normal(size=(3, 8)).astype(np.float32)
    ours, theirs = (n.reference({"x": x})["gelu"] for n in (short, network))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("axes", ["i", "oi", "mi", "omi"])
@pytest.mark.parametrize("first", ["a", "b"])
def test_a_softmax_takes_what_is_added_and_replaced(axes, first):
    """Also where a whole row is no number; not where something else reads the sum, or a mask does
    not consist of rows."""
    second = "b" if first == "a" else "a"
    given = {f"{first}_axes": "omi", f"{second}_axes": axes}
    add = Binary(function="add", outer=2, middle=3, inner=20, **given)
    mask = TensorType(add.shape_of(axes), "float32")
    x = TensorType((2, 3, 20), "float32")

    def network(columns, *outputs):
        steps = (
            Step("sum", add, {first: "x", second: "mask"}, "sum"),
            Step("p", Softmax(rows=120 // columns, columns=columns), {"x": "sum"}, "p"),
            Step("y", Unary(size=120, function="replace_nan", alpha=2), {"x": "p"}, "y"),
        )
        return Network({"x": x, "mask": mask}, dict.fromkeys(outputs, x), steps)

    whole = network(5, "y")
    short = fused(whole)
    assert [step.op.kind for step in short.steps] == ["softmax"]
    inputs = {
        name: rng.normal(size=kind.shape).astype(np.float32)
        for name, kind in (("x", x), ("mask", mask))
    }
    inputs["mask"].reshape(-1, 5)[1] = -np.inf
    ours, theirs = (n.reference(inputs)["y"] for n in (short, whole))
    assert np.array_equal(ours, theirs)
    assert (theirs == 2).any()
    assert len(fused(network(5, "y", "sum")).steps) == 2
    assert len(fused(network(40, "y")).steps) == 2


@pytest.mark.parametrize("bias", ["", " bias=f32", " bias=s32"])
def test_a_number_behind_a_product_goes_into_its_scales(bias):
    """But where something else reads the product, or its result is bounded."""
    text = f"dense m=3 n=8 k=8 act=s8 weight=s8 input=f32:row out=f32 scale=channel{bias}"
    x, kind = rng.normal(size=(3, 8)).astype(np.float32), TensorType((3, 8), "float32")
    factor = {"b": np.float32([0.3])}

    def network(text, *outputs):
        product = networks.step(rng, "p", text, "p", x="x")
        by = Binary(function="mul", inner=24, b_axes="none")
        steps = (product, Step("y", by, {"a": "p"}, "y", None, {}, factor))
        return Network({"x": kind}, {name: kind for name in outputs}, steps)

    whole = network(text, "y")
    short = fused(whole)
    assert [str(step.op) for step in short.steps] == [str(whole.steps[0].op)]
    ours, theirs = (n.reference({"x": x})["y"] for n in (short, whole))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6 * np.abs(theirs).max())
    assert len(fused(network(text, "y", "p")).steps) == 2
    assert len(fused(network(f"{text} relu", "y")).steps) == 2


def test_a_gelu_by_tanh_becomes_one_step():
    """With the cube as products or as a square, and numbers on either side."""
    one, kind = {"outer": 1, "inner": 24}, TensorType((24,), "float32")

    def pair(name, function, number=None, **inputs):
        axes = {"b_axes": "omi" if number is None else "none"}
        constants = {} if number is None else {"b": np.float32([number])}
        return Step(
            name, Binary(function=function, **one, **axes), inputs, name, None, {}, constants
        )

    for square in (
        pair("square", "mul", a="x", b="x"),
        Step("square", Unary(size=24, function="square"), {"x": "x"}, "square"),
    ):
        steps = (
            square,
            pair("cube", "mul", a="square", b="x"),
            pair("part", "mul", 0.044715, a="cube"),
            pair("sum", "add", a="x", b="part"),
            pair("inner", "mul", 0.7978845608, a="sum"),
            Step("tanh", Unary(size=24, function="tanh"), {"x": "inner"}, "tanh"),
            pair("more", "add", 1, a="tanh"),
            pair("half", "mul", 0.5, a="more"),
            pair("y", "mul", a="half", b="x"),
        )
        network = Network({"x": kind}, {"y": kind}, steps)
        short = fused(network)
        assert [str(step.op) for step in short.steps] == ["unary size=24 function=gelu_tanh"]
        x = rng.normal(size=24).astype(np.float32)
        ours, theirs = (n.reference({"x": x})["y"] for n in (short, network))
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
        other = replace(steps[2], constants={"b": np.float32([0.05])})
        assert len(fused(replace(network, steps=(*steps[:2], other, *steps[3:]))).steps) == 9


def test_a_relu_goes_into_the_product_whose_codes_are_no_less_than_zero():
    dense = parse("dense m=3 n=8 k=8 act=s8 weight=s8 input=f32:row out=f32 scale=channel")
    weights, kind = dense.weight.random(rng, dense.w_shape), TensorType((3, 8), "float32")

    def network(zero, outputs=("bound", "codes", "more")):
        quantize = parse("quantize axis=24 format=u8")
        given = {"scale": np.float32([0.1]), "zero": np.uint8([zero])}
        relu, unary = Unary(size=24, function="relu"), Unary(size=24, function="sigmoid")
        steps = (
            Step("y", dense, {"x": "x"}, "y", weights, {"scale": np.full(8, 0.01, np.float32)}),
            Step("bound", relu, {"x": "y"}, "bound"),
            Step("codes", quantize, {"x": "y"}, "codes", constants=given),
            Step("more", unary, {"x": "bound"}, "more"),
        )
        types = {"bound": kind, "codes": TensorType((3, 8), "uint8"), "more": kind, "y": kind}
        return Network({"x": kind}, {name: types[name] for name in outputs}, steps)

    x = {"x": rng.normal(size=(3, 8)).astype(np.float32)}
    for outputs in (("bound", "codes", "more"), ("codes", "more")):
        whole = network(0, outputs)
        short = fused(whole)
        assert [step.name for step in short.steps] == ["y", "codes", "more"]
        assert "clamp=relu" in str(short.steps[0].op)
        ours, theirs = short.reference(x), whole.reference(x)
        assert all(np.array_equal(ours[name], theirs[name]) for name in outputs)
    assert len(fused(network(3)).steps) == 4  # codes below 3 stand for negative numbers
    assert len(fused(network(0, ("codes", "more", "y"))).steps) == 4


def test_what_something_else_reads_stays():
    network = float_block()
    outputs = {**network.outputs, "y": TensorType((24,), "float32")}
    kept = fused(replace(network, outputs=outputs))
    assert [step.name for step in kept.steps] == ["y", "sum", "gelu"]
    outputs = {**network.outputs, "erf": TensorType((24,), "float32")}
    assert len(fused(replace(network, outputs=outputs)).steps) == len(network.steps) - 1
