"""Packed weights: the same bytes from NumPy and from the compiled packer, and no bit too many."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packers import assert_packers_agree
from strategies import TEXTS, texts

from lpgen.algorithms.lhs.k_split import cut
from lpgen.algorithms.weights.panels import PLANES, PanelWeights
from lpgen.formats import Format
from lpgen.ops import Conv2d, Dense


def layout_of(op, panels=1, vectors=2, lanes=4, kq=4, top=False) -> PanelWeights:
    matrix = op.matrix
    panels = max(panels, -(-matrix.n // (vectors * lanes)))
    return PanelWeights(
        op.w_shape,
        op.weight,
        cut(op, kq),
        matrix.groups,
        matrix.n,
        panels,
        vectors,
        lanes,
        top,
    )


@settings(max_examples=15, deadline=None)
@given(
    weight=texts,
    shape=st.tuples(*(st.integers(1, limit) for limit in (20, 40))),
    kq=st.sampled_from([1, 2, 4]),
)
def test_both_packers_give_the_same_bytes(weight, shape, kq):
    n, k = shape
    op = Dense(3, n, k, act="u8", weight=weight)
    layout = layout_of(op, kq=kq)
    _, w = op.random(np.random.default_rng(n * k))
    assert_packers_agree(layout, w)


@pytest.mark.parametrize("weight", ["s8", "u8", "b5", "t2"])
def test_both_packers_agree_on_grouped_convolutions(weight):
    op = Conv2d(h=4, w=4, ic=6, oc=10, kernel=(3, 2), groups=2, act="u8", weight=weight)
    layout = layout_of(op)
    _, w = op.random(np.random.default_rng(1))
    assert_packers_agree(layout, w)


@pytest.mark.parametrize("weight", TEXTS)
def test_a_weight_takes_exactly_its_bits(weight):
    bits = Format.parse(weight).bits
    layout = layout_of(Dense(1, 64, 256, act="u8", weight=weight), panels=8)
    assert layout.nbytes * 8 == 64 * 256 * bits
    assert sum(PLANES.get(bits, (8,))) == bits


@pytest.mark.parametrize("weight", ["s2", "s3", "s4", "s5", "s7", "t2"])
def test_both_packers_agree_on_two_s_complement(weight):
    op = Dense(3, 13, 21, act="u8", weight=weight)
    layout = layout_of(op, top=True)
    _, w = op.random(np.random.default_rng(2))
    assert_packers_agree(layout, w)
    assert layout.nbytes == layout_of(op).nbytes


def test_weights_are_stored_in_reading_order():
    op = Dense(1, 8, 8, act="u8", weight="s8")
    w = np.arange(64, dtype=np.int8).reshape(8, 8)
    packed = layout_of(op).pack(w).view(np.int8).reshape(2, 2, 4, 4)  # k step, vector, lane, kq
    np.testing.assert_array_equal(packed[1, 0, 2], w[2, 4:8])
    np.testing.assert_array_equal(packed[0, 1, 3], w[7, 0:4])
