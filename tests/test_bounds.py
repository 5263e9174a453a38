"""Narrow accumulators hold what they are given, exactly up to their bound."""

import math

import pytest
from kernels import assert_exact, template

from lpgen.algorithms.weights.bit_fields import dense_planes
from lpgen.ops import Dense, parse
from lpgen.ops.reach import INT16_MAX
from lpgen.schedules.common import telescoped
from lpgen.schedules.common.dot.knobs import space as dot_space
from lpgen.schedules.common.dot.steps import chunk_of, operands_of, steps
from lpgen.schedules.x86.isa import isa_of
from lpgen.space import MAX_PRODUCT
from lpgen.target import Target

SSE4, AVX2, AVX512BW, AVX512VNNI = (
    isa_of(Target.parse(name)) for name in ("sse4", "avx2", "avx512bw", "avx512vnni")
)


@pytest.mark.parametrize(
    ("act", "weight", "first"),
    [("u8", "s8", "words"), ("s8", "s8", "words"), ("u8", "s7", "bytes"), ("u7", "s8", "bytes")],
)
def test_vpmaddubsw_is_used_only_where_it_cannot_saturate(act, weight, first):
    assert steps(Dense(8, 8, 64, act=act, weight=weight), AVX2)[0] == first


def test_vpdpbusd_has_no_bound():
    assert steps(Dense(8, 8, 64, act="u8", weight="s8"), AVX512VNNI) == ("bytes",)


def test_sums_too_large_for_top_bits_are_exact():
    # 2^17 products of 255 * -2 fit int32, of 255 * -128 they would not.
    assert_exact("avx512vnni/dot", Dense(1, 3, 2**17, act="u8", weight="s2"))


@pytest.mark.parametrize("act", ["u1", "u2", "u4", "s3", "b2"])
@pytest.mark.parametrize("weight", ["b1", "t2", "s4", "u3"])
def test_chunks_are_as_long_as_int16_holds(act, weight):
    op = Dense(8, 16, 4096, act=act, weight=weight)
    operands = operands_of(op, AVX2, "bytes")
    longest = max(chunk_of(step) for step in steps(op, AVX2))
    per_step = 2 * operands.left_max * operands.right_max
    assert longest * per_step <= INT16_MAX
    assert 2 * longest * per_step > INT16_MAX or longest == 1024


@pytest.mark.matrix
@pytest.mark.parametrize("name", ["sse4/dot", "avx2/dot", "avx512bw/dot"])
@pytest.mark.parametrize(
    ("act", "weight"), [("u4", "s4"), ("u7", "s8"), ("u8", "s7"), ("u2", "s2")]
)
def test_the_longest_chunk_is_exact_at_the_extremes(name, act, weight):
    chosen, target = template(name)
    op = Dense(5, 20, 1100, act=act, weight=weight)
    space = chosen.space(op, target)
    for step in space.knobs["step"]:
        knobs = next(point for point in space.enumerate() if point["step"] == step)
        assert_exact(name, op, knobs)


@pytest.mark.parametrize("weight", ["b1", "s2", "u3", "u4", "t2"])
@pytest.mark.parametrize("act", ["u8", "s8", "u7", "u1"])
def test_chunks_of_masked_weights_are_as_long_as_int16_holds(act, weight):
    op = Dense(8, 16, 4096, act=act, weight=weight)
    parts = [part for plane in dense_planes(op.weight) for part in plane.slices]
    largest = max(map(telescoped.nibble_mask, parts))
    values = op.act.values().astype(int) + telescoped.left_offset(op, AVX2)
    ends = [2 * largest * int(value) for value in (values.min(), values.max())]
    length = telescoped.chunk(op, AVX2)
    assert all(-(2**15) <= length * end < 2**15 for end in ends)
    assert any(not -(2**15) <= (length + 1) * end < 2**15 for end in ends)


@pytest.mark.parametrize("name", ["avx2/telescoped", "avx512vnni/telescoped"])
@pytest.mark.parametrize(("act", "weight"), [("s8", "u4"), ("u8", "u1"), ("u8", "s7")])
def test_the_longest_sums_of_masked_weights_are_exact(name, act, weight):
    chosen, target = template(name)
    longest = telescoped.longest_k(AVX2)
    assert_exact(name, Dense(1, 3, longest, act, weight))
    longer = Dense(1, 3, longest + 1, act, weight)
    assert "fit int32" in chosen.why_not(longer, target)


@pytest.mark.parametrize("m", [1, 8, 9, 64, 65, 4096])
@pytest.mark.parametrize("formats", ["act=u8 weight=s8", "act=u4 weight=s3", "act=u1 weight=b1"])
def test_spaces_stay_small_enough_to_enumerate(m, formats):
    side = math.isqrt(m)
    for text in (
        f"dense m={m} n=960 k=4608 {formats}",
        f"conv2d h={side} w={side} ic=3 oc=960 kernel=3 pad=1 {formats}",
    ):
        for isa in (SSE4, AVX2, AVX512BW, AVX512VNNI):
            assert dot_space(parse(text), isa).product < MAX_PRODUCT  # else Space raises
