"""Activations that several products read are quantized once: which graphs, and the same bits."""

from dataclasses import replace

import numpy as np
import pytest

from lpgen import runtime
from lpgen.network import Network, Step, TensorType, build
from lpgen.network.coded import coded
from lpgen.network.rounding import rounded_for
from lpgen.ops import parse
from lpgen.ops.unary import Unary
from lpgen.target import Target

rng = np.random.default_rng(0)
ROWS = 13


def product(name, x, n, k, more="", act="s8"):
    op = parse(
        f"dense m={ROWS} n={n} k={k} act={act} weight=s8 input=f32:row out=f32 scale=channel {more}"
    )
    scale = rng.uniform(0.01, 0.1, n).astype(np.float32)
    return Step(name, op, {"x": x}, name, op.weight.random(rng, op.w_shape), {"scale": scale})


def network(*steps, outputs):
    """Of an input x [ROWS, 21]."""
    made = {step.output: step.op.signature.output for step in steps}
    wanted = {n: TensorType(made[n].shape, made[n].dtype) for n in outputs}
    return Network({"x": TensorType((ROWS, 21), "float32")}, wanted, steps)


def three(act="s8"):
    """Three products of an input, and two of a GELU of one of them."""
    return network(
        *(product(name, "x", n, 21, act=act) for name, n in (("q", 40), ("k", 7), ("v", 40))),
        Step("bent", Unary(size=ROWS * 40, function="gelu"), {"x": "v"}, "bent"),
        *(product(name, "bent", n, 40, act=act) for name, n in (("y", 5), ("z", 21))),
        outputs=["q", "k", "y", "z"],
    )


@pytest.mark.parametrize("act", ["s8", "s4"])
def test_products_share_codes(act):
    whole = three(act)
    short = coded(whole)
    assert [step.op.kind for step in short.steps] == [
        *("quantize_rows", "dense", "dense", "dense", "quantize_rows", "dense", "dense")
    ]
    kept = {("s8", 0): ("u8", 128)}.get((act, 0), (act, 0))
    assert {
        (str(s.op.act), s.op.zero_act, s.op.input) for s in short.steps if s.weights is not None
    } == {(*kept, "act:row")}
    assert [s.op.function for s in short.steps if s.weights is None] == ["none", "gelu"]
    x = {"x": rng.normal(size=(ROWS, 21)).astype(np.float32)}
    x["x"][3] = 0
    for name, y in whole.reference(x).items():
        assert np.array_equal(short.reference(x)[name], y)


def test_what_stays_as_it_is():
    """One product; a function whose values are wanted; other rows, formats and products."""
    one = network(product("y", "x", 4, 21), outputs=["y"])
    assert coded(one) == one
    bent = Step("bent", Unary(size=ROWS * 21, function="gelu"), {"x": "x"}, "bent")
    wanted = network(bent, product("y", "bent", 4, 21), outputs=["y", "bent"])
    assert coded(wanted) == wanted
    assert len(coded(replace(wanted, outputs={"y": wanted.outputs["y"]})).steps) == 2
    clip = replace(bent, op=Unary(size=ROWS * 21, function="clip"))
    clipped = network(clip, product("y", "bent", 4, 21), outputs=["y"])
    assert coded(clipped) == clipped
    formats = network(
        product("y", "x", 4, 21), product("z", "x", 4, 21, act="s5"), outputs=["y", "z"]
    )
    assert coded(formats) == formats
    added = product("y", "x", 21, 21, "residual=f32")
    added = replace(added, inputs={"x": "x", "residual": "x"})
    both = network(added, product("z", "x", 4, 21), outputs=["y", "z"])
    assert coded(both) == both


def test_a_tensor_that_others_read_is_there_too():
    bent = Step("bent", Unary(size=ROWS * 21, function="gelu"), {"x": "x"}, "bent")
    whole = network(
        *(bent, product("y", "bent", 4, 21), product("z", "bent", 3, 21, act="s5")),
        *(product("w", "bent", 6, 21), product("v", "bent", 6, 21, act="s5")),
        outputs=["v", "w", "y", "z", "bent"],
    )
    short = coded(whole)
    kinds = [step.op.kind for step in short.steps]
    assert kinds == ["unary", "quantize_rows", "quantize_rows", *["dense"] * 4]
    x = {"x": rng.normal(size=(ROWS, 21)).astype(np.float32)}
    for name, y in whole.reference(x).items():
        assert np.array_equal(short.reference(x)[name], y)


def test_a_library_of_it(tmp_path):
    short = coded(three())
    short = rounded_for(short, [Target.parse("native")])
    net = runtime.load(build(short, "native", tmp_path / "shared.so")).network
    x = rng.normal(size=(ROWS, 21)).astype(np.float32)
    made = net(x)
    for name, y in short.reference({"x": x}).items():
        np.testing.assert_array_equal(made[name], y)
