"""Float activations rotated in blocks before they are quantized: the oracle, and kernels."""

from dataclasses import replace

import numpy as np
import pytest
from kernels import assert_exact, assert_exact_on, template

from lpgen.errors import WorkloadError
from lpgen.ops import hadamard, parse
from lpgen.records.choose import choose
from lpgen.target import Target

MATRIX = np.float32([[(-1) ** bin(i & j).count("1") for j in range(256)] for i in range(256)])


@pytest.mark.parametrize("block", hadamard.BLOCKS)
def test_sums_are_products_with_the_matrix(block):
    x = np.random.default_rng(0).integers(-9, 10, (3, 2 * block)).astype(np.float32)
    expected = x.reshape(3, 2, block) @ MATRIX[:block, :block]
    np.testing.assert_array_equal(hadamard.sums(x, block), expected.reshape(x.shape))


def test_rotations_of_both_sides_keep_a_product():
    x, w = np.random.default_rng(0).normal(size=(2, 8, 384))
    turned = hadamard.sums(x, 128) * float(hadamard.factor(128))
    np.testing.assert_allclose(turned @ hadamard.rotated(w, 128).T, x @ w.T, atol=1e-5)
    np.testing.assert_allclose(hadamard.rotated(hadamard.rotated(w, 128), 128), w)


def test_an_outlier_leaves_more_levels_to_the_others():
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(16, 256)).astype(np.float32), rng.normal(size=(64, 256))
    x[:, 17] *= 50
    expected, errors = x @ w.T, []
    for block in (0, 128):
        real = hadamard.rotated(w, block) if block else w
        scale = np.float32([np.abs(real).max() / 127])
        op = parse("dense m=16 n=64 k=256 act=s5 weight=s8 input=f32:row out=f32 scale=tensor")
        y = replace(op, hadamard=block).reference(x, np.rint(real / scale).astype(int), scale=scale)
        errors.append(np.abs(y - expected).mean())
    assert errors[1] < 0.5 * errors[0]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("generic/generic", "k=96 act=s8 weight=s8 input=f32:row hadamard=32 out=f32"),
        ("sse4/dot", "k=128 act=u8 weight=s4 zero_act=9 input=f32:tensor hadamard=128 out=f32"),
        ("avx2/dot", "k=256 act=s5 weight=s4 input=f32:row hadamard=256 out=u8 zero_out=3"),
        ("avx512bw/dot", "k=64 act=u8 weight=s8 input=f32 hadamard=64 out=s8 relu"),
        ("avx512vnni/dot", "k=384 act=s4 weight=s4 input=f32:row hadamard=128 out=f32 bias=f32"),
        (
            "avx512vnni/telescoped",
            "k=64 act=s7 weight=u2 input=f32:row hadamard=16 out=f32",
        ),
        ("avx2/lut_sum", "k=64 act=s6 weight=s2 input=f32:tensor hadamard=32 out=f32"),
        ("avx512bw/bitserial", "k=64 act=u2 weight=b1 input=f32 hadamard=64 out=f32"),
        ("amx/mma", "k=64 act=s8 weight=s8 input=f32:row hadamard=64 out=f32"),
    ],
)
def test_dense(name, words):
    op = parse(f"dense m=5 n=20 {words} scale=channel")
    chosen, target = template(name)
    assert parse(str(op)) == op
    assert chosen.why_not(op, target) is None
    assert_exact_on(chosen, target, op, chosen.default(op, target), special=True)


@pytest.mark.parametrize("name", ["generic/blockwise_dot", "avx512vnni/blockwise_dot"])
def test_scales_of_groups(name):
    words = "act=s8 weight=s4 input=f32:row hadamard=64 out=f32 scale=group32"
    assert_exact(name, parse(f"dense m=3 n=40 k=128 {words}"))


@pytest.mark.parametrize("name", ["generic/generic", "avx2/dot"])
def test_channels_of_convolutions(name):
    shape = "n=2 h=5 w=6 ic=64 oc=9 kernel=3 pad=1 stride=2"
    for words in ("input=f32 hadamard=64 act=u4 zero_act=7", "input=f32:tensor hadamard=16 act=s8"):
        assert_exact(name, parse(f"conv2d {shape} weight=s8 {words} out=f32 scale=channel"))


def test_groups_of_channels():
    shape = "h=4 w=4 ic=64 oc=8 groups=2 kernel=3"
    words = "act=s8 weight=s8 input=f32:tensor hadamard=32 out=f32 scale=channel"
    assert_exact("avx2/grouped_conv", parse(f"conv2d {shape} {words}"))


def test_large_inputs_in_parallel():
    words = "act=s8 weight=s8 input=f32:row hadamard=128 out=f32 scale=tensor"
    assert_exact("avx512vnni/dot", parse(f"dense m=70 n=16 k=512 {words}"))


def test_records_without_it_are_borrowed():
    plain = "dense m=4 n=32 k=64 act=s8 weight=s8"
    op = parse(f"{plain} input=f32:row hadamard=64 out=f32 scale=tensor")
    assert op.plain == parse(plain)
    assert choose(op, Target.parse("avx2")).template


def test_the_smallest_operator_has_a_block():
    words = "act=s8 weight=s8 input=f32 hadamard=64"
    assert parse(f"dense m=4 n=3 k=128 {words}").smallest().k == 64
    assert parse(f"conv2d h=3 w=3 ic=64 oc=3 kernel=1 {words}").smallest().ic == 64


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("input=f32 hadamard=8", "hadamard=8 is none of 16, 32, 64, 128, 256$"),
        ("input=f32 hadamard=96", "hadamard=96 is none of 16, 32, 64, 128, 256$"),
        ("hadamard=16", "hadamard=16 is for float activations: input=f32, f32:tensor or f32:row$"),
        ("input=f32 hadamard=64", "hadamard=64 does not divide k=96$"),
        ("input=f32 hadamard=-1", r"hadamard=-1 is outside 0\.\."),
    ],
)
def test_what_cannot_be_rotated(words, message):
    with pytest.raises(WorkloadError, match=message):
        parse(f"dense m=1 n=2 k=96 act=s8 weight=s8 {words}")


def test_blocks_lie_in_the_channels_of_a_group():
    words = "kernel=1 act=s8 weight=s8 input=f32 hadamard=32"
    with pytest.raises(WorkloadError, match=r"hadamard=32 does not divide ic=48$"):
        parse(f"conv2d h=3 w=3 ic=48 oc=4 {words}")
    with pytest.raises(WorkloadError, match=r"hadamard=32 does not divide ic / groups=16$"):
        parse(f"conv2d h=3 w=3 ic=64 oc=4 groups=4 {words}")
