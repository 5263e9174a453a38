"""Plans: files that people edit, and the groups of layers of a model."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from plan_models import mlp, small_cnn

from lpgen.errors import PlanError
from lpgen.plans import (
    FLOAT,
    Group,
    Plan,
    Precision,
    bits_of,
    bytes_of,
    check_plan,
    groups_of,
    read_plan,
    uniform,
)

TEXTS = (
    "float",
    "w4a8 row",
    "w2a8 static",
    "w8a8 static act=s8",
    "w4a5 group32 hadamard=128",
    "w4a8 row weight_group=64",
    "w8a8 row bit_layers=3",
)


@pytest.mark.parametrize("text", TEXTS)
def test_a_precision_is_written_as_it_is_read(text):
    precision = Precision.parse(text)
    assert str(precision) == text
    assert Precision.from_values(precision.values()) == precision


def test_words_left_out_have_defaults():
    assert str(Precision.parse("w4a8")) == "w4a8 row"
    assert Precision.parse("w4a8 static").act.encoding == "u"
    assert Precision.parse("w8a8 bit_layers=3").bits == 3
    assert FLOAT.bits == 32


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("w4", "'w4' is no precision, such as w4a8, w4a8 static or float"),
        ("w9a8", "weight 's9' is unknown; did you mean s8?"),
        ("w4a8 rows", "scales 'rows' is unknown; did you mean row?"),
        ("w4a8 hadamrd=64", "key 'hadamrd' is unknown; did you mean hadamard?"),
        ("w4a8 hadamard=96", "hadamard is 96, expected one of 16, 32, 64, 128, 256"),
        ("w4a8 hadamard=x", "hadamard is 'x', expected a number from 0"),
        ("w4a8 static hadamard=64", "hadamard=64 needs scales found in each call, not static"),
        ("w4a8 row act=u8", "act u8 goes with static scales, not with row"),
        ("w8a8 bit_layers=9", "bit_layers is 9, the limit is 8"),
    ],
)
def test_no_kernel(text, message):
    with pytest.raises(PlanError, match=message.replace("?", r"\?")):
        Precision.parse(text)


_names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)


@given(
    st.lists(st.tuples(_names, st.sampled_from(TEXTS)), max_size=4, unique_by=lambda g: g[0]),
    _names,
    st.dictionaries(st.sampled_from(["metric", "milliseconds", "bytes"]), st.floats(0, 1e9)),
)
def test_a_plan_is_read_as_it_was_written(groups, text, figures):
    made = [
        Group(name, (f"{name} 0", f"{name} 1"), Precision.parse(words)) for name, words in groups
    ]
    plan = Plan(tuple(made), text, text, text, figures)
    read = Plan.from_toml(plan.to_toml())
    assert (read.groups, read.model) == (plan.groups, plan.model)
    assert read.predicted == pytest.approx(figures, rel=1e-5)


def test_a_plan_is_text_that_people_read(tmp_path):
    plan = uniform(groups_of(mlp()), "w4a8", "mlp.onnx")
    plan.write(tmp_path / "plan.toml")
    text = (tmp_path / "plan.toml").read_text()
    assert 'name = "first"\nnodes = [\n    "first",\n    "beside",\n]\nweight = "s4"' in text
    assert read_plan(tmp_path / "plan.toml") == plan


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[group]", "is no TOML"),
        ("modle = 'x'", "key 'modle' is unknown; did you mean model"),
        ("group = 1", "group is no list of tables"),
        ("[predicted]\nmetric = 'x'", "predicted.metric is 'x', expected a number"),
        ("[[group]]\nname = 'a'", "a: weight is missing: s2..s8 or float"),
        ("[[group]]\nname = 'a'\nweight = 's1'", "a: weight 's1' is unknown"),
        ("[[group]]\nname = 'a'\nnodes = []\nweight = 's4'", r"a: nodes is \[\], expected names"),
        ("[[group]]\nname='a'\nweight='s4'\nact='f8'", "a: act 'f8' is unknown; did you mean"),
        ("[[group]]\nname='a'\nweight='float'\nact='s8'", "a: act goes with quantized weights"),
        (
            "[[group]]\nname='a'\nnodes=['n']\nweight='s4'\n"
            "[[group]]\nname='b'\nnodes=['n']\nweight='s4'",
            "node n is named twice: in a, b",
        ),
    ],
)
def test_a_damaged_plan(text, message):
    with pytest.raises(PlanError, match=message):
        Plan.from_toml(text)


def test_a_plan_that_is_not_there(tmp_path):
    with pytest.raises(PlanError, match="No such file"):
        read_plan(tmp_path / "plan.toml")


def test_layers_that_share_an_input_are_a_group():
    first, second, last = groups_of(mlp())
    assert first.nodes == ("first", "beside")
    assert [(layer.n, layer.k) for layer in first.layers] == [(24, 16), (24, 16)]
    assert (second.nodes, last.nodes) == (("second",), ("last",))
    assert last.layers[0].kind == "Gemm"
    assert (last.layers[0].n, last.layers[0].k) == (5, 24)  # transB


def test_convolutions_are_layers_of_im2col():
    conv, depthwise, dense = groups_of(small_cnn())
    assert [(g.layers[0].n, g.layers[0].k, g.layers[0].groups) for g in (conv, depthwise)] == [
        (8, 27, 1),
        (8, 9, 8),
    ]
    assert dense.layers[0].kind == "MatMul"
    plan = uniform([conv, depthwise, dense], "w4a8 row")
    assert [str(group.precision) for group in plan.groups] == [
        *("w4a8 static", "w4a8 static"),
        "w4a8 row",
    ]


def test_weights_behind_constant_nodes_are_constant():
    model = mlp()
    names = {t.name for t in model.graph.initializer}
    assert any(layer.weight not in names for g in groups_of(model) for layer in g.layers)


def test_average_bits_and_bytes():
    groups = groups_of(mlp())
    plan = uniform(groups, "w4a8")
    assert bits_of(plan, groups) == 4
    count = sum(group.count for group in groups)
    channels = 24 + 24 + 24 + 5
    assert bytes_of(plan, groups) == count / 2 + 4 * channels
    assert bits_of(Plan(plan.groups[:1]), groups) == pytest.approx(32 - 28 * 768 / count)


@pytest.mark.parametrize(
    ("node", "words", "message"),
    [
        (
            "frist",
            "w4a8",
            "the model has no layer frist to quantize; did you mean first",
        ),
        ("first", "w4a8 hadamard=32", "hadamard=32 does not divide k=16 of first"),
        ("first", "w4a8 group32", "act_group=32 does not divide k=16 of first"),
    ],
)
def test_a_plan_that_does_not_fit_its_model(node, words, message):
    plan = Plan((Group(node, (node,), Precision.parse(words)),))
    with pytest.raises(PlanError, match=message):
        check_plan(plan, groups_of(mlp()))


def test_a_convolution_has_static_scales():
    groups = groups_of(small_cnn())
    plan = Plan((Group("conv", ("conv",), Precision.parse("w4a8 row")),))
    with pytest.raises(PlanError, match="scales of a convolution are static, not row: conv"):
        check_plan(plan, groups)


def test_the_models_compute():
    from onnx.reference import ReferenceEvaluator

    rng = np.random.default_rng(0)
    for model, shape in ((mlp(), (4, 16)), (small_cnn(), (2, 3, 8, 8))):
        (y,) = ReferenceEvaluator(model).run(None, {"x": rng.normal(size=shape).astype("f4")})
        assert np.isfinite(y).all()
