"""Outliers: the oracle, every kind of kernel, and both packers."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from kernels import LEVELS, assert_exact, runs_here, template, template_of
from packers import assert_packers_agree
from scipy import sparse
from strategies import convs, denses, depthwise_convs, with_epilogues

from lpgen.errors import WorkloadError
from lpgen.ops import Dense, outliers, parse
from lpgen.ops.sparse import dense
from lpgen.runtime.memory import aligned_copy

BUILDS = settings(max_examples=10, suppress_health_check=[HealthCheck.filter_too_much])
larger = st.builds(
    Dense,
    *(st.integers(1, limit) for limit in (70, 40, 70)),
    act=st.sampled_from(["u8", "s8", "u2"]),
    weight=st.sampled_from(["s4", "s2", "b1", "u3"]),
)
SHAPES = [
    "dense m=1 n=37 k=50 act=u8 weight=s4 outliers=90",
    "dense m=130 n=33 k=50 act=s8 weight=s2 zero_act=-5 outliers=90",
    "dense m=17 n=5 k=17 act=u4 weight=b1 outliers=85",
    "conv2d h=9 w=40 ic=17 oc=20 kernel=3x5 pad=1x2 dilation=2x1 act=u8 weight=s4 outliers=77",
    "conv2d h=6 w=7 ic=3 oc=20 kernel=3 stride=3x2 pad=2x0x1x1 act=u8 weight=s4 zero_act=3 "
    "outliers=9",
    "conv2d h=30 w=3 ic=16 oc=9 kernel=3 act=u8 weight=s4 outliers=60",
    "dense m=20 n=33 k=64 act=u2 weight=u3 zero_weight=5 outliers=40 input=planes",
    "conv2d h=7 w=9 ic=32 oc=24 kernel=3 pad=1 act=u2 weight=s2 outliers=40 input=planes "
    "out=u2:planes scale=channel",
    "conv2d h=7 w=19 ic=18 oc=8 groups=2 kernel=3 stride=2 pad=1 act=s4 weight=s4 zero_act=-3 "
    "outliers=40 input=packed out=u2:packed scale=thresholds bias=s32",
    "dense m=17 n=20 k=50 act=s8 weight=s4 outliers=30 input=f32:row out=f32 scale=channel",
    "conv2d h=5 w=6 ic=20 oc=20 groups=20 kernel=3 pad=1 act=s8 weight=s8 zero_act=5 outliers=9 "
    "input=f32:tensor out=f32 scale=channel zero_weight=channel",
]


@st.composite
def with_outliers(draw, operators):
    """One of `operators` with some outliers, perhaps all weights."""
    op = draw(with_epilogues(operators))
    return replace(op, outliers=draw(st.integers(1, math.prod(op.w_shape))))


def problem(op, seed=0):
    """(x, w, residual, parameters)."""
    rng = np.random.default_rng(seed)
    return *op.random(rng), op.random_residual(rng), op.random_parameters(rng)


@settings(deadline=None)
@given(st.one_of(denses(), convs()), st.data())
def test_outliers_are_added_to_the_weights(op, data):
    count = data.draw(st.integers(1, math.prod(op.w_shape)))
    op = replace(op, outliers=count)
    x, w, _, parameters = problem(op, data.draw(st.integers(0, 2**31)))
    # An operator that is linear in w: the dense part, and the outliers as planes of s8.
    r = dense(op.w_shape, *(parameters[name] for name in op.parameters))
    rest = replace(op, weight="s8", outliers=0)
    expected = replace(op, outliers=0).reference(x, w) + rest.reference(x, r.astype(np.int8))
    np.testing.assert_array_equal(op.reference(x, w, **parameters), expected)
    assert np.count_nonzero(r) <= count
    assert np.abs(expected.astype(np.int64)).max() <= op.bound


@given(with_outliers(st.one_of(convs(), denses())))
def test_the_word_survives_its_text(op):
    assert f"outliers={op.outliers}" in str(op)
    assert parse(str(op)) == op


def test_names_without_outliers_stay():
    text = "dense m=1 n=2 k=3 act=u8 weight=s4 out=s32"
    assert str(parse(f"{text} outliers=0")) == text


def _served() -> list:
    """Each template with the shapes that it serves: by day every third, as no template knows of the
    outliers that come before it; each algorithm begins with another one."""
    algorithms = sorted({name.rpartition("/")[2] for name in LEVELS})
    found = []
    for name in LEVELS:
        (chosen, target), first = template_of(name), algorithms.index(name.rpartition("/")[2])
        served = [text for text in SHAPES if chosen.why_not(parse(text), target) is None]
        for number, text in enumerate(served, first):
            marks = pytest.mark.nightly if number % 3 else ()
            found.append(pytest.param(name, text, marks=marks))
    return found


@pytest.mark.sample(2)
@pytest.mark.matrix
@pytest.mark.parametrize(("name", "text"), _served())
def test_every_template(name, text):
    assert_exact(name, parse(text))


@BUILDS
@given(data=st.data())
def test_any_operator_with_outliers(data):
    names = ["generic/generic", "avx2/dot", "avx512vnni/dot"]
    name = data.draw(st.sampled_from([name for name in names if runs_here(name)]))
    chosen, target = template(name)
    op = data.draw(with_outliers(st.one_of(convs(), larger, depthwise_convs())))
    assume(chosen.why_not(op, target) is None)
    seed = data.draw(st.integers(0, 2**31))
    assert_exact(name, op, chosen.space(op, target).sample(np.random.default_rng(seed)))


@pytest.mark.parametrize("end", [-128, 127])
def test_the_largest_outliers_everywhere(end):
    import tvm_ffi

    from lpgen.build.lower import jit

    op = parse("dense m=20 n=20 k=300 act=u8 weight=s4 zero_act=200 outliers=6000")
    chosen, target = template("avx2/dot")
    kernel = chosen.kernel(op, target, chosen.default(op, target))
    matrix = sparse.csr_array(np.full((20, 300), end))
    parameters = outliers.parameters(op, matrix)
    run = jit(kernel, target)
    for which in op.EXTREMES:
        x, w = op.extreme(which)
        y = np.zeros(op.y_shape, op.y_dtype)
        packed = aligned_copy(kernel.layout.pack(w, **parameters), 0)
        run(*map(tvm_ffi.from_dlpack, (x, packed, y)))
        np.testing.assert_array_equal(y, op.reference(x, w, **parameters))


@BUILDS
@given(op=with_outliers(st.one_of(convs(), denses())), seed=st.integers(0, 2**31))
def test_both_packers_give_the_same_bytes(op, seed):
    chosen, target = template("generic/generic")
    layout = chosen.kernel(op, target, chosen.default(op, target)).layout
    _, w, _, parameters = problem(op, seed)
    assert_packers_agree(layout, w, target, **parameters)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("outliers=7", "^dense: outliers=7 is more than the 6 weights$"),
        ("outliers=-1", r"^dense: outliers=-1 is outside 0\.\."),
        ("outliers=x", "'outliers=x': 'x' is not a number$"),
        (
            "outliers=2 out=f32 scale=group32",
            "^dense: outliers=2 cannot be added to sums with scales of groups of 32$",
        ),
    ],
)
def test_outliers_that_cannot_be(words, message):
    with pytest.raises(WorkloadError, match=message):
        parse(f"dense m=1 n=2 k=3 act=u8 weight=s8 {words}")


def test_outliers_count_for_int32():
    k = 2**31 // (255 * 128) - 1
    parse(f"dense m=1 n=1 k={k} act=u8 weight=s8")
    with pytest.raises(WorkloadError, match=f"weight=s8 outliers={k} may reach"):
        parse(f"dense m=1 n=1 k={k} act=u8 weight=s8 outliers={k}")
