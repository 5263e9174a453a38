"""Weights with several columns in a byte: the layouts, and the kernels of telescoped."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernels import LEVELS, template
from packers import assert_packers_agree

from lpgen.algorithms.lhs.k_split import cut
from lpgen.algorithms.weights.bit_fields import (
    FieldWeights,
    dense_planes,
    spread_planes,
    whole_codes,
)
from lpgen.formats import Format
from lpgen.ops import Conv2d, Dense

NAMES = [name for name in LEVELS if name.endswith("/telescoped")]
TEMPLATES = pytest.mark.parametrize("name", NAMES)
WEIGHTS = ["u1", "b1", "s2", "t2", "u3", "s4", "b5", "s6", "b7", "s7"]


def layout_of(op, planes, offset=0, lanes=4) -> FieldWeights:
    panel = lanes * max(plane.fields for plane in planes)
    groups, _, n, _ = op.matrix
    c = cut(op, 4, empty=True)
    panels = -(-n // panel)
    sizes = (groups, n, panels, panel)
    return FieldWeights(op.w_shape, op.weight, c, *sizes, offset, planes, lanes)


@settings(max_examples=15, deadline=None)
@given(
    weight=st.sampled_from(WEIGHTS),
    n=st.integers(1, 40),
    k=st.integers(1, 30),
    offset=st.sampled_from([0, -128]),
    planes=st.sampled_from([dense_planes, whole_codes, spread_planes]),
)
def test_both_packers_give_the_same_bytes(weight, n, k, offset, planes):
    op = Dense(3, n, k, act="u8", weight=weight)
    if planes is spread_planes and op.weight.bits > 4:
        planes = whole_codes
    layout = layout_of(op, planes(op.weight), offset)
    _, w = op.random(np.random.default_rng(n * k))
    assert_packers_agree(layout, w)


def test_both_packers_agree_on_grouped_convolutions():
    op = Conv2d(h=4, w=4, ic=6, oc=10, kernel=(3, 2), groups=2, act="u8", weight="b5")
    layout = layout_of(op, whole_codes(op.weight), -128)
    _, w = op.random(np.random.default_rng(1))
    assert_packers_agree(layout, w)


@pytest.mark.parametrize("planes", [dense_planes, whole_codes])
@pytest.mark.parametrize("weight", WEIGHTS)
def test_a_weight_takes_exactly_its_bits(weight, planes):
    bits = Format.parse(weight).bits
    op = Dense(1, 64, 256, act="s8", weight=weight)
    assert layout_of(op, planes(op.weight)).nbytes * 8 == 64 * 256 * bits


@pytest.mark.parametrize("bits", range(1, 9))
def test_slices_of_whole_codes_hold_every_bit_once(bits):
    (plane,) = whole_codes(Format("u", bits))
    held = [(s.field, s.low + i) for s in plane.slices for i in range(s.width)]
    assert sorted(held) == [(field, bit) for field in range(plane.fields) for bit in range(bits)]
    for byte in plane.bytes:
        assert [s.at for s in byte] == [sum(s.width for s in byte[:i]) for i in range(len(byte))]
        assert sum(s.width for s in byte) == 8


def test_the_last_codes_lie_above_the_others():
    op = Dense(1, 32, 4, act="s8", weight="u3")
    codes = np.arange(8, dtype=np.uint8)
    packed = layout_of(op, whole_codes(op.weight)).pack(np.repeat(codes, 16).reshape(32, 4))
    first, second, third = packed[:48].reshape(3, 16)[:, 0]
    assert [first & 7, first >> 3 & 7, second & 7, second >> 3 & 7, third & 7, third >> 3 & 7] == [
        *range(6)
    ]
    assert [first >> 6 | (second >> 6 & 1) << 2, second >> 7 | third >> 6 << 1] == [6, 7]


def test_a_byte_holds_a_column_of_each_vector():
    op = Dense(1, 16, 4, act="s8", weight="u2")
    w = np.arange(64, dtype=np.uint8).reshape(16, 4) % 4
    packed = layout_of(op, dense_planes(op.weight)).pack(w)[:16].reshape(4, 4)  # lane, kq
    fields = [(packed >> 2 * f) & 3 for f in range(4)]
    np.testing.assert_array_equal(np.concatenate(fields), w)


@TEMPLATES
def test_weights_of_one_row_are_prefetched(name):
    from lpgen.build.lower import jit_module

    chosen, target = template(name)
    op = Dense(1, 256, 256, act="u8", weight="s3")
    knobs = chosen.default(op, target) | {"prefetch": 1024}
    asm = jit_module(chosen.kernel(op, target, knobs), target).inspect_source("asm")
    assert "prefetcht0" in asm


@pytest.mark.parametrize(
    ("weight", "slices", "byte_count"), [("s2", 4, 1), ("s3", 10, 3), ("s6", 6, 3)]
)
def test_telescoping_takes_one_and_for_all_slices_of_a_byte_but_one(weight, slices, byte_count):
    from lpgen.build.assembly import hot_loops
    from lpgen.build.lower import jit_module

    chosen, target = template("avx512vnni/telescoped")
    op = Dense(1, 256, 256, act="u8", weight=weight)
    knobs = {**chosen.default(op, target), "vectors": 8}
    asm = jit_module(chosen.kernel(op, target, knobs), target).inspect_source("asm")
    loop = "\n".join(hot_loops(asm)[0].lines)
    assert loop.count("vpdpbusd") >= 8
    assert loop.count("vpand") * slices == loop.count("vpdpbusd") * (slices - byte_count)
    assert "vpsr" not in loop
