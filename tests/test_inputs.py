"""Float activations, quantized by the kernel: the oracle, and every template against it."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernels import assert_exact, assert_exact_on, template
from strategies import convs, depthwise_convs, texts, with_epilogues

from lpgen.errors import WorkloadError
from lpgen.ops import Dense, parse
from lpgen.ops.epilogue import Scale, find

BUILDS = settings(
    max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
denses = st.builds(Dense, *(st.integers(1, n) for n in (20, 70, 70)), act=texts, weight=texts)


@st.composite
def with_floats(draw, operators):
    """One of `operators` with an epilogue and float activations."""
    op = draw(with_epilogues(operators))
    if op.act.encoding not in "us":
        op = replace(op, act="s4", zero_act=0)
    kinds = ["f32"]
    if find(op.epilogue, Scale) and op.lhs.levels > 0:
        kinds += ["f32:tensor", *(["f32:row", "act:row"] if op.kind == "dense" else [])]
    return replace(op, input=draw(st.sampled_from(kinds)))


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    "name", ["generic/generic", "avx2/dot", "avx512vnni/dot", "amx/mma", "avx2/lut_sum"]
)
@BUILDS
@given(data=st.data())
def test_any_point_of_the_space(name, data):
    chosen, target = template(name)
    op = data.draw(with_floats(st.one_of(denses, convs())))
    if chosen.why_not(op, target):
        return
    assert parse(str(op)) == op
    seed = data.draw(st.integers(0, 2**31))
    assert_exact(name, op, chosen.space(op, target).sample(np.random.default_rng(seed)))


@pytest.mark.sample(2)
@pytest.mark.matrix
@pytest.mark.parametrize("name", ["generic/generic", "sse4/dot", "avx2/dot", "avx512vnni/dot"])
@pytest.mark.parametrize("kind", ["f32", "f32:tensor", "f32:row"])
@pytest.mark.parametrize(
    "words", ["k=37 act=s8 weight=s8 out=f32", "k=24 act=u4 weight=s4 zero_act=6 out=u8 relu"]
)
def test_what_is_no_number_has_one_result(name, kind, words):
    op = parse(f"dense m=9 n=20 {words} input={kind} scale=channel")
    chosen, target = template(name)
    assert_exact_on(chosen, target, op, chosen.default(op, target), special=True)


def test_what_is_no_number_is_quantized_to_the_lowest_value():
    x, w = np.float32([[np.nan, np.inf, -np.inf, 1]]), np.eye(4, dtype=np.int8)
    op = parse("dense m=1 n=4 k=4 act=u4 weight=s8 zero_act=3 input=f32")
    y = op.reference(x, w, input_scale=np.float32([0.5]))
    np.testing.assert_array_equal(y, [[-3, 12, -3, 2]])
    op = parse("dense m=1 n=4 k=4 act=s4 weight=s8 input=f32:row out=f32 scale=tensor")
    scale = np.float32([1])
    np.testing.assert_array_equal(op.reference(x, w, scale=scale), [[np.nan] * 4])
    # 1 is 0 in steps of infinity, and 0 times infinity is no number.
    x[0, 0] = 1
    y = op.reference(x, w, scale=scale)
    np.testing.assert_array_equal(y, [[np.nan, -np.inf, -np.inf, np.nan]])


@BUILDS
@given(op=with_floats(depthwise_convs()))
def test_depthwise_convolutions(op):
    chosen, target = template("avx2/depthwise")
    if not chosen.why_not(op, target):
        assert_exact("avx2/depthwise", op)


@pytest.mark.parametrize("kind", ["f32", "f32:tensor", "f32:row", "act:row"])
@pytest.mark.parametrize("name", ["generic/blockwise_dot", "avx512vnni/blockwise_dot"])
def test_scales_of_groups(name, kind):
    op = parse(f"dense m=5 n=40 k=128 act=s8 weight=s4 input={kind} out=f32 scale=group32")
    assert_exact(name, op)


@pytest.mark.parametrize("name", ["generic/generic", "avx2/dot", "avx512vnni/telescoped"])
def test_sums_of_rows_see_the_quantized_values(name):
    words = "input=f32 out=u8 scale=channel zero_out=9 bias=f32 relu"
    for formats in ("act=u2 weight=u1 zero_weight=channel", "act=s8 weight=b3 zero_act=5"):
        assert_exact(name, parse(f"dense m=3 n=9 k=130 {formats} {words}"))
    shape = "n=2 h=5 w=6 ic=16 oc=9 kernel=3 pad=1"
    assert_exact(name, parse(f"conv2d {shape} act=u8 weight=u4 zero_weight=channel {words}"))


@pytest.mark.parametrize("name", ["generic/generic", "avx512vnni/dot", "amx/mma"])
def test_large_inputs_in_parallel(name):
    assert_exact(
        name, parse("dense m=300 n=16 k=600 act=s8 weight=s8 input=f32:row out=f32 scale=tensor")
    )
    assert_exact(
        name, parse("conv2d h=40 w=40 ic=90 oc=8 kernel=1 act=u8 weight=s8 zero_act=9 input=f32")
    )


def test_rows_are_quantized_to_their_largest_value():
    op = parse("dense m=4 n=1 k=3 act=s8 weight=s8 input=f32:row out=f32 scale=tensor")
    x = np.float32([[1, -2, 0.5], [127, 1, -3], [0, 0, 0], [1e-35, 0, 0]])
    w, scale = np.int8([[1, 2, 4]]), np.float32([0.5])
    # round(63.5) and round(31.75) of 127 levels; whole numbers; nothing; less than 2^-100.
    sums = [64 - 2 * 127 + 4 * 32, 127 + 2 - 12, 0, 0]
    steps = np.float32([2, 127, 0, 1e-35]) / np.float32(127)
    expected = np.float32(sums) * scale * steps
    np.testing.assert_array_equal(op.reference(x, w, scale=scale)[:, 0], expected)


def test_a_static_scale_saturates_and_rounds_to_even():
    op = parse("dense m=1 n=5 k=1 act=u4 weight=s8 zero_act=3 input=f32")
    w = np.ones((5, 1), np.int8)
    for x, q in ((0.5, 0), (1.5, 2), (2.5, 2), (-0.5, 0), (-9.0, -3), (1e30, 12), (5.6, 6)):
        y = op.reference(np.float32([[x * 0.25]]), w, input_scale=np.float32([0.25]))
        assert (y == q).all(), x


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "act=u8 weight=s8 input=f16",
            "'input=f16': 'f16' is none of act, packed, planes, f32, f32:tensor, f32:row, act:row",
        ),
        (
            "act=b1 weight=s8 input=f32",
            r"activations are quantized to u1\.\.u8 or s2\.\.s8, not b1$",
        ),
        ("act=u8 weight=s8 input=f32:row out=f32 scale=tensor", "zero_act=0 leaves no level below"),
        ("act=s8 weight=s8 input=act:row", "input=act:row gives real numbers: it needs a scale=$"),
        ("act=s8 weight=s8 input=f32:row", "input=f32:row gives real numbers: it needs a scale=$"),
    ],
)
def test_inputs_that_cannot_be(words, message):
    with pytest.raises(WorkloadError, match=message):
        parse(f"dense m=1 n=2 k=3 {words}")


def test_rows_of_a_convolution_share_their_values():
    words = "act=s8 weight=s8 input=f32:row out=f32 scale=tensor"
    with pytest.raises(WorkloadError, match=r"input=f32:row is for dense"):
        parse(f"conv2d h=3 w=3 ic=2 oc=2 kernel=2 {words}")
