"""Weights with several columns in a byte: the layouts, and the kernels of telescoped."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernels import LEVELS, template
from packers import assert_packers_agree

from lpgen.algorithms.lhs.k_split import cut
from lpgen.algorithms.weights.bit_fields import FieldWeights, dense_planes, spread_planes
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
    spread=st.booleans(),
)
def test_both_packers_give_the_same_bytes(weight, n, k, offset, spread):
    op = Dense(3, n, k, act="u8", weight=weight)
    narrow = op.weight.bits <= 4
    planes = (spread_planes if spread and narrow else dense_planes)(op.weight)
    layout = layout_of(op, planes, offset)
    _, w = op.random(np.random.default_rng(n * k))
    assert_packers_agree(layout, w)


def test_both_packers_agree_on_grouped_convolutions():
    op = Conv2d(h=4, w=4, ic=6, oc=10, kernel=(3, 2), groups=2, act="u8", weight="b5")
    layout = layout_of(op, dense_planes(op.weight), -128)
    _, w = op.random(np.random.default_rng(1))
    assert_packers_agree(layout, w)


@pytest.mark.parametrize("weight", WEIGHTS)
def test_a_weight_takes_exactly_its_bits(weight):
    bits = Format.parse(weight).bits
    op = Dense(1, 64, 256, act="s8", weight=weight)
    assert layout_of(op, dense_planes(op.weight)).nbytes * 8 == 64 * 256 * bits


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


def test_telescoping_takes_one_and_for_all_fields_but_one():
    from lpgen.build.assembly import hot_loops
    from lpgen.build.lower import jit_module

    chosen, target = template("avx512vnni/telescoped")
    op = Dense(1, 256, 256, act="u8", weight="s2")
    knobs = {**chosen.default(op, target), "vectors": 8}
    asm = jit_module(chosen.kernel(op, target, knobs), target).inspect_source("asm")
    loop = "\n".join(hot_loops(asm)[0].lines)
    assert loop.count("vpdpbusd") >= 8
    assert loop.count("vpand") * 4 == loop.count("vpdpbusd") * 3
    assert "vpsr" not in loop
