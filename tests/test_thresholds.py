"""The threshold form: made from floats, it gives the same results with integers alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lpgen.errors import UserError
from lpgen.ops import parse
from lpgen.ops.thresholds import batch_norm, thresholds

CHAINS = (
    "out=u2 scale=channel bias=f32 relu",
    "out=s3 scale=channel bias=s32 zero_out=-1",
    "out=u3 scale=tensor clamp=2x5 zero_out=3",
    "out=u1 scale=channel relu6",
    "zero_act=3 zero_weight=channel out=u3 scale=channel bias=f32 zero_out=2",
)


@settings(deadline=None)
@given(st.sampled_from(CHAINS), st.integers(0, 2**32 - 1))
def test_the_same_results_as_with_floats(words, seed):
    op = parse(f"dense m=50 n=12 k=20 act=u4 weight=s4 {words}")
    rng = np.random.default_rng(seed)
    x, w = op.random(rng)
    parameters = op.random_parameters(rng)
    parameters["scale"] *= rng.choice(np.float32([-1, 0, 1]), parameters["scale"].shape)
    few, integers = thresholds(op, **parameters)
    assert few.out == op.out
    assert {array.dtype.kind for array in integers.values()} == {"i"}
    np.testing.assert_array_equal(few.reference(x, w, **integers), op.reference(x, w, **parameters))


def test_every_sum_gives_the_same():
    op = parse("dense m=121 n=2 k=1 act=s7 weight=s2 out=u3 scale=channel bias=f32 zero_out=3")
    x, w = np.arange(-60, 61, dtype=np.int8)[:, None], np.int8([[1], [1]])
    given = {"scale": np.float32([0.25, -0.125]), "bias": np.float32([0.125, -1.5])}
    few, integers = thresholds(op, **given)
    y = op.reference(x, w, **given)
    assert {0, 3, 7} <= set(y[:, 0].tolist())
    np.testing.assert_array_equal(few.reference(x, w, **integers), y)
    assert integers["direction"].tolist() == [1, -1]


def test_a_batch_norm_is_a_scale_and_a_bias():
    rng = np.random.default_rng(0)
    gamma, beta, mean = rng.normal(size=(3, 8))
    variance = rng.uniform(0.1, 2, 8)
    x = rng.normal(size=(5, 8))
    a, b = batch_norm(gamma, beta, mean, variance, 1e-5)
    expected = gamma * (x - mean) / np.sqrt(variance + 1e-5) + beta
    np.testing.assert_allclose(a * x + b, expected, rtol=1e-12)


@pytest.mark.parametrize(
    "words", ["", "out=f32 scale=tensor", "out=u2 scale=tensor residual=u8", "out=u8 scale=tensor"]
)
def test_operators_without_a_threshold_form(words):
    op = parse(f"dense m=1 n=2 k=3 act=u8 weight=s8 {words}")
    with pytest.raises(UserError, match=r"threshold") as caught:
        thresholds(op, **op.random_parameters(np.random.default_rng(0)))
    assert "\n" not in str(caught.value)
