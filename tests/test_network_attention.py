"""Attention becomes one step: which graphs, and the same bits."""

from dataclasses import replace

import numpy as np
import pytest

from lpgen.network import Network, Step, TensorType
from lpgen.network.fusion import fused
from lpgen.ops import parse
from lpgen.ops.binary import Binary
from lpgen.ops.movement import Transpose
from lpgen.ops.rowwise import MatMul, Softmax

rng = np.random.default_rng(0)


def attention_block(batch, heads, m, n, k, columns, factor, mask, turned):
    """Tensors of all heads, apart, and what is made of them, together again."""
    pairs = batch * heads
    shapes = {"q": (batch, m, heads, k), "k": (batch, n, heads, k), "v": (batch, n, heads, columns)}
    inputs = {name: TensorType(shape, "float32") for name, shape in shapes.items()}

    def apart(name, axes=(0, 2, 1, 3)):
        op = Transpose(shape=shapes[name], axes=axes, dtype="float32")
        return Step(f"{name} apart", op, {"x": name}, f"{name} apart")

    first = MatMul(batch=pairs, m=m, n=n, k=k, order="kn" if turned else "nk")
    steps = [
        *(apart("q"), apart("v"), apart("k", (0, 2, 3, 1) if turned else (0, 2, 1, 3))),
        Step("scores", first, {"a": "q apart", "b": "k apart"}, "scores"),
    ]
    if factor != 1:
        op = Binary(function="mul", inner=pairs * m * n, b_axes="none")
        number = {"b": np.float32([factor])}
        steps.append(Step("scaled", op, {"a": steps[-1].output}, "scaled", constants=number))
    if mask:
        inputs["mask"] = TensorType((batch, m, n), "float32")
        op = Binary(function="add", outer=batch, middle=heads, inner=m * n, b_axes="oi")
        steps.append(Step("sum", op, {"a": steps[-1].output, "b": "mask"}, "sum"))
    back = Transpose(shape=(batch, heads, m, columns), axes=(0, 2, 1, 3), dtype="float32")
    steps += [
        Step("p", Softmax(rows=pairs * m, columns=n), {"x": steps[-1].output}, "p"),
        Step("made", MatMul(batch=pairs, m=m, n=columns, k=n), {"a": "p", "b": "v apart"}, "made"),
        Step("y", back, {"x": "made"}, "y"),
    ]
    return Network(inputs, {"y": TensorType((batch, m, heads * columns), "float32")}, tuple(steps))


@pytest.mark.parametrize(
    "sizes",
    [
        (2, 3, 7, 9, 5, 4, 0.25, True, False),
        (1, 3, 5, 5, 8, 8, 1, True, True),
        (2, 1, 6, 3, 4, 5, 2, False, False),
        (1, 1, 40, 33, 6, 6, 1, False, True),
    ],
)
def test_attention_becomes_one_step_that_reads_heads_where_they_are(sizes):
    batch, heads, *_ = sizes
    network = attention_block(*sizes)
    short = fused(network)
    (step,) = short.steps
    assert (step.op.batch, step.op.heads, step.op.factor) == (batch, heads, sizes[6])
    assert {str(h) for h in (step.op.queries, step.op.keys, step.op.values, step.op.result)} == {
        "beside"
    }
    inputs = {
        n: rng.normal(size=kind.shape).astype(np.float32) for n, kind in network.inputs.items()
    }
    assert np.array_equal(short.reference(inputs)["y"], network.reference(inputs)["y"])


@pytest.mark.parametrize(("number", "left"), [(5.6, 0), (-2.0, 0), (0.0, 1), (1e-39, 1)])
def test_a_quotient_by_a_number_is_a_factor(number, left):
    """Where its reciprocal is a number; not a number divided by scores."""
    network = attention_block(2, 3, 7, 9, 5, 4, 0.25, True, False)
    divided = Binary(function="div", inner=378, b_axes="none")
    constants = {"b": np.float32([number])}

    def with_quotient(step):
        made = step.name == "scaled"
        return replace(step, op=divided, constants=constants) if made else step

    network = replace(network, steps=tuple(map(with_quotient, network.steps)))
    short = fused(network)
    assert [step.op.kind for step in short.steps].count("binary") == left
    inputs = {
        n: rng.normal(size=kind.shape).astype(np.float32) for n, kind in network.inputs.items()
    }
    ours, theirs = (n.reference(inputs)["y"] for n in (short, network))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_what_others_read_stays_beside_attention():
    network = attention_block(2, 3, 7, 9, 5, 4, 0.25, True, False)
    outputs = {name: network.tensors[name] for name in ("q apart", "made")}
    short = fused(replace(network, outputs={**network.outputs, **outputs}))
    assert [step.op.kind for step in short.steps] == ["transpose", "attention", "transpose"]
    weights = fused(replace(network, outputs={**network.outputs, "p": network.tensors["p"]}))
    assert "attention" not in [step.op.kind for step in weights.steps]
    inputs = {
        n: rng.normal(size=kind.shape).astype(np.float32) for n, kind in network.inputs.items()
    }
    for made in (short, weights):
        assert np.array_equal(made.reference(inputs)["y"], network.reference(inputs)["y"])


def test_a_number_goes_through_a_transposition_into_the_product():
    dense = parse("dense m=6 n=8 k=4 act=s8 weight=s8 input=f32:row out=f32 scale=channel")
    steps = (
        Step("d", dense, {"x": "x"}, "d", np.ones((8, 4), np.int8), {"scale": np.ones(8, "f4")}),
        Step("t", Transpose(shape=(6, 8), axes=(1, 0), dtype="float32"), {"x": "d"}, "t"),
        Step(
            *("m", Binary(function="mul", inner=48, b_axes="none"), {"a": "t"}, "m"),
            constants={"b": np.float32([0.5])},
        ),
    )
    network = Network(
        {"x": TensorType((6, 4), "float32")}, {"m": TensorType((8, 6), "float32")}, steps
    )
    short = fused(network)
    assert [step.op.kind for step in short.steps] == ["dense", "transpose"]
    x = {"x": rng.normal(size=(6, 4)).astype(np.float32)}
    assert np.array_equal(short.reference(x)["m"], network.reference(x)["m"])
