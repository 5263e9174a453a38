"""Epilogues: every template, at any point of its space, against the oracle."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from kernels import (
    LEVELS,
    assert_exact,
    assert_exact_on,
    bits,
    runs_here,
    template,
)
from packers import assert_packers_agree
from strategies import convs, denses, depthwise_convs, grouped_convs, texts, with_epilogues

from lpgen.errors import ScheduleRefused
from lpgen.ops import Dense, parse
from lpgen.ops.add import Add
from lpgen.ops.epilogue import Quantize
from lpgen.runtime.memory import aligned_copy

PRODUCTS = ["generic/generic", "avx2/dot", "avx512vnni/dot", "amx/mma"]
TEMPLATES = pytest.mark.parametrize("name", PRODUCTS)
HEALTH = [HealthCheck.filter_too_much, HealthCheck.too_slow]
low = st.sampled_from(["u1", "u2", "s2", "b1", "t2", "c2:-7,-2,1,6"])
larger = st.builds(
    Dense, *(st.integers(1, limit) for limit in (20, 70, 70)), act=texts, weight=texts
)


@st.composite
def few_bits(draw):
    """Operators that tables and planes of bits serve."""
    return replace(draw(convs() | larger), act=draw(low), weight=draw(low))


KINDS = {
    "products": (convs() | larger, PRODUCTS),
    "few bits": (
        few_bits(),
        [
            *("avx2/lut_product", "avx512bw/lut_sum", "avx2/lut_sum"),
            *("avx512vnni/telescoped", "generic/bitserial", "icelake/bitserial"),
        ],
    ),
    "depthwise": (
        depthwise_convs(),
        ["generic/generic", "avx2/depthwise", "avx512vnni/depthwise"],
    ),
    "grouped": (grouped_convs(), ["avx2/grouped_conv", "avx512vnni/grouped_conv"]),
}
"""Operators, and the templates that are tried with epilogues behind them."""


def _any_epilogue(data, operators, names):
    name = data.draw(st.sampled_from(names))
    chosen, target = template(name)
    op = data.draw(with_epilogues(operators))
    assume(chosen.why_not(op, target) is None)
    seed = data.draw(st.integers(0, 2**31))
    assert_exact(name, op, chosen.space(op, target).sample(np.random.default_rng(seed)))


@pytest.mark.parametrize("kind", KINDS)
def test_any_epilogue_at_any_point_of_the_space(kind):
    operators, names = KINDS[kind]
    if not (here := [name for name in names if runs_here(name)]):
        pytest.skip(f"this CPU has no level of {', '.join(names)}")

    @settings(max_examples=8, suppress_health_check=HEALTH)
    @given(data=st.data())
    def draw(data):
        _any_epilogue(data, operators, here)

    draw()


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, (_, names) in KINDS.items() for name in names]
)
@settings(max_examples=50, suppress_health_check=HEALTH)
@given(data=st.data())
def test_many_epilogues(kind, name, data):
    template(name)
    _any_epilogue(data, KINDS[kind][0], [name])


@settings(max_examples=10, deadline=None)
@given(op=with_epilogues(st.one_of(convs(), denses())), seed=st.integers(0, 2**32 - 1))
def test_both_packers_give_the_same_bytes(op, seed):
    chosen, target = template("generic/generic")
    layout = chosen.kernel(op, target, chosen.default(op, target)).layout
    rng = np.random.default_rng(seed)
    _, w = op.random(rng)
    parameters = op.random_parameters(rng)
    assert_packers_agree(layout, w, target, **parameters)


@pytest.mark.sample(2)
@TEMPLATES
def test_ties_go_to_even(name):
    # Sums -8..8 by 0.5 and a zero point that is odd: half of the results are ties.
    op = parse("dense m=17 n=16 k=1 act=s5 weight=s2 zero_act=0 out=s8 scale=tensor zero_out=3")
    x = np.arange(-8, 9, dtype=np.int8)[:, None]
    w, scale = np.ones((16, 1), np.int8), np.float32([0.5])
    y = op.reference(x, w, scale=scale)
    np.testing.assert_array_equal(y[:, 0], [-1, -1, 0, 1, 1, 1, 2, 3, 3, 3, 4, 5, 5, 5, 6, 7, 7])
    np.testing.assert_array_equal(y, run(name, op, x, w, scale=scale))


@pytest.mark.sample(2)
@pytest.mark.matrix
@TEMPLATES
@pytest.mark.parametrize("form", ["u8", "s8", "u1", "s2", "u4"])
def test_far_sums_saturate(name, form):
    op = parse(f"dense m=2 n=20 k=8 act=s8 weight=s8 out={form} scale=channel bias=s32 zero_out=1")
    x = np.array([[127] * 8, [-128] * 8], np.int8)
    w = np.full((20, 8), 127, np.int8)
    scale = np.resize(np.float32([2.0**63, -(2.0**63), 1e-30, 2.0**-40, 0.0]), 20)
    bias = np.resize(np.int32([0, 2**31 - 1 - op.bound, -(2**31) + 1 + op.bound]), 20)
    y = run(name, op, x, w, scale=scale, bias=bias)
    low, high = op.epilogue[-1].format.min, op.epilogue[-1].format.max
    np.testing.assert_array_equal(y[:, :5], [[high, low, 1, 1, 1], [low, low, 1, 1, 1]])
    np.testing.assert_array_equal(y, op.reference(x, w, scale=scale, bias=bias))


@pytest.mark.sample(2)
@TEMPLATES
def test_products_and_additions_are_rounded_apart(name):
    op = parse("dense m=32 n=64 k=64 act=u8 weight=s8 out=f32 scale=channel bias=f32 residual=u8")
    rng = np.random.default_rng(0)
    x, w = op.random(rng)
    parameters, residual = op.random_parameters(rng), op.random_residual(rng)
    exact = {name: value.astype(np.float64) for name, value in parameters.items()}
    sums = replace(op, epilogue=()).reference(x, w)
    # What one rounding would make of the product and the sum with the bias.
    fused = (sums.astype(np.float32) * exact["scale"] + exact["bias"]).astype(np.float32)
    fused = (fused + residual * exact["residual_scale"]).astype(np.float32)
    y = run(name, op, x, w, residual, **parameters)
    assert np.count_nonzero(y != fused) > y.size // 10
    np.testing.assert_array_equal(bits(y), bits(op.reference(x, w, residual, **parameters)))


def run(name, op, x, w, residual=None, **parameters):
    """The result of the template's default kernel."""
    import tvm_ffi

    from lpgen.build.lower import jit

    chosen, target = template(name)
    if chosen.why_not(op, target):
        pytest.skip(f"{name}: {chosen.why_not(op, target)}")
    kernel = chosen.kernel(op, target, chosen.default(op, target))
    y = np.zeros(op.y_shape, op.y_dtype)
    packed = aligned_copy(kernel.layout.pack(w, **parameters), 0)
    more = [] if residual is None else [residual]
    jit(kernel, target)(*map(tvm_ffi.from_dlpack, (x, packed, *more, y)))
    return y


def test_the_schedule_still_refuses():
    chosen, target = template("generic/generic")
    op = parse("dense m=4 n=20 k=3 act=u8 weight=s8 out=u8 scale=tensor")
    with pytest.raises(ScheduleRefused, match="n_block"):
        chosen.kernel(op, target, {**chosen.default(op, target), "n_block": 4})


# No template is for all shapes and formats: the first of these that it serves.
SHAPES = (
    "dense m=6 n=37 k=32 act=u2 weight=s2 scale=channel",
    "conv2d h=5 w=6 ic=36 oc=36 kernel=3 groups=36 act=u8 weight=s8 scale=channel",
    "conv2d h=5 w=6 ic=36 oc=36 kernel=3 groups=9 act=u8 weight=s8 scale=channel",
    "dense m=70 n=37 k=32 act=u1 weight=s2 scale=channel",
    "dense m=6 n=37 k=64 act=u8 weight=s4 scale=group32",
    "conv2d h=5 w=6 ic=7 oc=37 kernel=3 pad=1 act=u2 weight=s2 scale=channel",
)


def first_served(chosen, ops, target):
    """The first operator that a template serves; without one the test is skipped (bit layers have
    an epilogue of their own)."""
    served = [op for op in ops if chosen.why_not(op, target) is None]
    if not served:
        pytest.skip(f"{chosen.name} serves none: {chosen.why_not(ops[0], target)}")
    return served[0]


@pytest.mark.sample(2)
@pytest.mark.matrix
@pytest.mark.parametrize("name", LEVELS)
def test_a_quantization_in_the_middle(name):
    """What a product, quantized, and `add` behind it give."""
    chosen, target = template(name)
    words = "middle=s8 zero_middle=-7 residual=u8 zero_residual=90 out=u8 zero_out=31 relu"
    ops = [parse(f"{shape} {words}") for shape in SHAPES]
    op = first_served(chosen, ops, target)
    assert_exact_on(chosen, target, op, chosen.default(op, target), extremes=False)
    example = op.example(np.random.default_rng(3))
    given, residual = dict(example.given), example.inputs["residual"]
    del given["residual"]
    names = ("middle_scale", "residual_scale", "output_scale")
    scales = np.concatenate([given.pop(name) for name in names])
    steps = op.epilogue[:-4]  # in front of Middle, Residual, Clamp, Quantize
    product = replace(op, epilogue=(*steps, Quantize("s8", -7)))
    a = product.reference(**given).reshape(1, -1)
    add = Add(inner=residual.size, a="s8", b="u8", out="u8", clamp="relu", rounded="quotient")
    y = add.reference(a, residual.ravel(), scales, np.int32([-7, 90, 31]))
    assert np.array_equal(op.reference(**example.given), y.reshape(residual.shape))


@pytest.mark.sample(2)
@pytest.mark.matrix
@pytest.mark.parametrize("name", LEVELS)
@pytest.mark.parametrize("words", ["out=f32 relu6", "out=u8 zero_out=9 relu"])
def test_what_is_no_number_has_one_result(name, words):
    chosen, target = template(name)
    ops = [parse(f"{shape} residual=f32 {words}") for shape in SHAPES]
    op = first_served(chosen, ops, target)
    knobs = chosen.default(op, target)
    assert_exact_on(chosen, target, op, knobs, extremes=False, special=True)


@pytest.mark.sample(2)
@pytest.mark.matrix
@pytest.mark.parametrize("name", ["generic/generic", "sse4/dot", "avx2/dot", "avx512vnni/dot"])
@pytest.mark.parametrize(
    "words",
    ["out=f32", "out=f32 clamp=1x5", "out=s8 zero_out=-3", "out=u8 relu6", "out=u4 clamp=1x5"],
)
def test_what_is_no_number_has_one_result_with_every_clamp(name, words):
    op = parse(f"dense m=6 n=37 k=9 act=u8 weight=s8 scale=channel residual=f32 {words}")
    chosen, target = template(name)
    assert_exact_on(chosen, target, op, chosen.default(op, target), special=True)


@pytest.mark.parametrize("name", ["sse4/dot", "avx2/dot", "avx512vnni/dot", "amx/mma"])
@pytest.mark.parametrize(("m", "n"), [(24, 64), (25, 48), (7, 33)])
def test_results_are_narrowed_together(name, m, n):
    from lpgen.build.lower import jit_module

    op = parse(f"dense m={m} n={n} k=20 act=u8 weight=s8 out=u5 scale=tensor relu zero_out=9")
    assert_exact(name, op)
    chosen, target = template(name)
    kernel = chosen.kernel(op, target, chosen.default(op, target))
    if n % 16 == 0:
        assert "packssdw" in jit_module(kernel, target).inspect_source("asm")
