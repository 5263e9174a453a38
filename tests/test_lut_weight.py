"""lut_weight: tables of weights, looked up by activations of one bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernels import assert_exact, template
from packers import assert_packers_agree
from strategies import TEXTS

from lpgen.algorithms.lhs.k_split import cut
from lpgen.algorithms.lut_weight import INPUTS, TableWeights, tables_of
from lpgen.formats import Format
from lpgen.ops import Conv2d, Dense, parse
from lpgen.schedules.common.lut_sum.knobs import digit_choices
from lpgen.schedules.common.lut_weight import panel_of, refuses, space, why_not
from lpgen.schedules.x86.isa import isa_of
from lpgen.target import Target

AVX2, AVX512BW, SSE4 = (isa_of(Target.parse(name)) for name in ("avx2", "avx512bw", "sse4"))

LEVELS = ("sse4/lut_weight", "avx2/lut_weight", "avx512bw/lut_weight")
LINEAR = [text for text in TEXTS if text[0] != "c"]
"""Formats whose codes have a place value."""
acts = st.sampled_from(["u1", "b1"])
weights = st.sampled_from(LINEAR)


def layout_of(op, digits: int, parts: int = 1) -> TableWeights:
    matrix, panel = op.matrix, 4 * parts
    sizes = (matrix.groups, matrix.n, -(-matrix.n // panel), panel, -op.act.min)
    c = cut(op, INPUTS, empty=True)
    return TableWeights(op.w_shape, op.weight, c, *sizes, tables_of(op, digits), parts)


@settings(max_examples=12, deadline=None)
@given(weight=weights, act=acts, n=st.integers(1, 20), k=st.integers(1, 50))
def test_both_packers_give_the_same_bytes(weight, act, n, k):
    op = Dense(3, n, k, act=act, weight=weight)
    _, w = op.random(np.random.default_rng(n * k))
    for digits in digit_choices(tables_of(op, 1)):
        layout = layout_of(op, digits, parts=3)
        assert_packers_agree(layout, w)


def test_both_packers_agree_on_convolutions():
    op = Conv2d(h=4, w=4, ic=6, oc=10, kernel=(3, 2), groups=2, act="b1", weight="b7")
    _, w = op.random(np.random.default_rng(1))
    layout = layout_of(op, 2)
    assert_packers_agree(layout, w)


def test_entries_are_the_sums_of_subsets():
    op = Dense(1, 4, 8, act="u1", weight="u6")
    w = np.arange(32, dtype=np.uint8).reshape(4, 8) + 20
    # k step, column, digit, entry
    packed = layout_of(op, 1).pack(w).reshape(2, 4, 1, 16)
    assert packed[0, 3, 0, 0b1010] == w[3, 1] + w[3, 3]
    assert packed[1, 2, 0, 0b0101] == w[2, 4] + w[2, 6]
    low, high = layout_of(op, 2).pack(w).reshape(2, 4, 2, 16)[1, 2, :, 15]
    assert low + (int(high) << tables_of(op, 2).shift) == w[2, 4:].sum()


@pytest.mark.parametrize("weight", LINEAR)
def test_sums_fit_what_holds_them(weight):
    op = Dense(1, 1, 8, act="u1", weight=weight)
    largest = Format.parse(weight).levels - 1
    for digits in digit_choices(tables_of(op, 1)):
        tables = tables_of(op, digits)
        assert tables.most(0) <= 255
        assert tables.most(0) * tables.lookups <= 255 < tables.most(0) * (tables.lookups + 1)
        assert tables.most(0) * tables.longest < 2**16 <= tables.most(0) * (tables.longest + 1)
        split = [largest] if digits == 1 else [largest % 2**tables.shift, largest >> tables.shift]
        assert [4 * part for part in split] == [tables.most(d) for d in range(digits)]


# Depths around a chunk of byte sums, and around one and several blocks of 16-bit sums.
@pytest.mark.matrix
@pytest.mark.parametrize("name", ["avx2/lut_weight", "avx512bw/lut_weight"])
@pytest.mark.parametrize(
    ("weight", "k"),
    [("u1", 252), ("u1", 260), ("u6", 1032), ("u6", 1064), ("u8", 4400), ("u5", 2 * 2112 + 8)],
)
def test_worst_cases_are_exact(name, weight, k):
    chosen, target = template(name)
    op = Dense(40, 5, k, act="u1", weight=weight)
    points = list(chosen.space(op, target).enumerate())
    for digits in {point["digits"] for point in points}:
        assert_exact(name, op, next(point for point in points if point["digits"] == digits))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("dense m=99 n=8 k=8 act=u2 weight=s4", "indices are activations of one bit"),
        ("dense m=99 n=8 k=8 act=c1:0,1 weight=s4", "indices are activations of one bit"),
        ("dense m=99 n=8 k=8 act=u1 weight=c2:-7,-2,1,6", "for a code book are no values"),
        ("conv2d h=9 w=9 ic=8 oc=8 kernel=3 pad=1 act=b1 weight=s4", "padding is a third value"),
        ("conv2d h=9 w=9 ic=8 oc=8 kernel=3 groups=8 act=u1 weight=s4", "a depthwise kernel fits"),
        ("dense m=99 n=8 k=8 act=u1 weight=b1", "one bit is an index itself"),
        ("dense m=16 n=8 k=8 act=u1 weight=s4", "half of 32 would be empty"),
    ],
)
def test_what_is_not_served(text, reason):
    assert reason in why_not(parse(text), AVX2)


def test_tables_are_prefetched():
    from lpgen.build.lower import jit_module

    chosen, target = template("avx2/lut_weight")
    op = Dense(64, 256, 2048, act="u1", weight="s4")
    space = chosen.space(op, target)
    for ahead in space.knobs["prefetch"]:
        knobs = next(p for p in space.enumerate() if p["prefetch"] == ahead)
        asm = jit_module(chosen.kernel(op, target, knobs), target).inspect_source("asm")
        assert ("prefetcht0" in asm) == bool(ahead)


def test_few_rows_are_left_to_narrower_vectors():
    op = Dense(20, 64, 64, act="u1", weight="s4")
    assert [why_not(op, isa) is None for isa in (SSE4, AVX2, AVX512BW)] == [True, True, False]


@pytest.mark.parametrize(
    ("n", "panel"), [(1, 8), (8, 8), (12, 8), (16, 16), (17, 8), (36, 8), (100, 16), (1000, 16)]
)
def test_panels_are_lines_of_results(n, panel):
    assert panel_of(Dense(64, n, 8, act="u1", weight="s4")) == panel


@pytest.mark.parametrize("isa", [SSE4, AVX2, AVX512BW])
@given(m=st.integers(33, 300), n=st.integers(1, 100), weight=weights)
def test_no_space_is_empty(isa, m, n, weight):
    op = Dense(m, n, 2048, act="u1", weight=weight)
    assert next(space(op, isa).enumerate())["columns"] <= panel_of(op)


@pytest.mark.parametrize("isa", [SSE4, AVX2, AVX512BW])
def test_tiles_fit_the_registers(isa):
    op = Dense(256, 256, 256, act="u1", weight="s8")
    assert 0 < len(space(op, isa)) < 2000
    wide = {"digits": 2, "vectors": 2, "columns": 16}
    assert "registers" in refuses(
        op, isa, {**space(op, isa).sample(np.random.default_rng()), **wide}
    )
