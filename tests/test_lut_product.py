"""The lut_product algorithm: tables of any products, and exact sums of them."""

from dataclasses import replace

import numpy as np
import pytest
from algorithm_cases import NARROW_ACTS, NARROW_WEIGHTS
from hypothesis import given, settings
from hypothesis import strategies as st
from kernels import assert_exact, template
from packers import assert_packers_agree
from strategies import convs

from lpgen.algorithms.lut_product import Tiling, define
from lpgen.algorithms.weights.tables import TABLE_BYTES, Tables
from lpgen.errors import ScheduleRefused
from lpgen.formats import Format
from lpgen.ops import Conv2d, Dense, parse

NAMES = [f"{family}/lut_product" for family in ("sse4", "avx2", "avx512bw")]
TEMPLATES = pytest.mark.parametrize("name", NAMES)


@pytest.mark.matrix
@pytest.mark.parametrize("name", ["avx2/lut_product", "avx512bw/lut_product"])
@pytest.mark.parametrize(
    ("act", "weight"),
    [("u2", "s2"), ("c2:-128,-127,126,127", "c2:-128,-127,126,127"), ("c2:0,1,2,127", "u2")],
)
@pytest.mark.parametrize("kind", ["dense", "conv2d"])
def test_sums_too_long_for_16_bits_are_exact(name, act, weight, kind):
    tables = Tables(Format.parse(act), Format.parse(weight))
    k = 2 * tables.longest + 37
    if kind == "conv2d":
        channels = min(k // 5, 1100)
        op = Conv2d(h=3, w=4, ic=channels, oc=3, kernel=3, pad=1, act=act, weight=weight)
        assert_exact(name, op)
        return
    for extra in (0, 40):
        assert_exact(name, Dense(2, 3, 2 * (k + extra) + 1, act=act, weight=weight))


@given(act=NARROW_ACTS, weight=NARROW_WEIGHTS)
@settings(deadline=None)
def test_tables_hold_every_sum_of_products(act, weight):
    tables = Tables(Format.parse(act), Format.parse(weight))
    if tables.count * 32 > TABLE_BYTES:
        return
    contents = tables.contents().astype(int)
    whole = sum(contents[:, part] << shift for part, shift in enumerate(tables.shifts))
    np.testing.assert_array_equal(whole + tables.least, tables.sums)
    book, base, kq = tables.weight.values().tolist(), len(tables.digits), tables.kq
    assert tables.digits[0] == 0
    assert set(tables.digits) - {0} == set(tables.act.values().tolist()) - {0}
    rng = np.random.default_rng(0)
    for _ in range(50):
        digits, codes = rng.integers(0, base, kq), rng.integers(0, len(book), kq)
        entry = tables.sums[
            sum(int(d) * base**t for t, d in enumerate(digits)),
            sum(int(c) << t * tables.weight.bits for t, c in enumerate(codes)),
        ]
        assert entry == sum(tables.digits[d] * book[c] for d, c in zip(digits, codes, strict=True))
    for part, (most, steps) in enumerate(zip(tables.largest, tables.steps, strict=True)):
        assert contents[:, part].max() <= most
        assert steps * most <= 255 < (steps + 1) * most
    assert tables.longest * max(tables.largest) < 2**16


@settings(max_examples=15, deadline=None)
@given(
    op=convs(),
    act=NARROW_ACTS,
    weight=NARROW_WEIGHTS,
    packed=st.booleans(),
    lanes=st.sampled_from([16, 32]),
)
def test_both_packers_give_the_same_bytes(op, act, weight, packed, lanes):
    op = replace(op, act=act, weight=weight)
    if Tables(op.act, op.weight).count * 32 > TABLE_BYTES:
        return
    tiling = Tiling(rows=1, vectors=1, lanes=lanes, row_tiles=op.matrix.m, panels=1, packed=packed)
    layout = define(op, tiling).weights
    _, w = op.random(np.random.default_rng(0))
    assert_packers_agree(layout, w)


def test_a_packed_weight_takes_exactly_its_bits():
    op = Dense(1, 64, 256, act="u2", weight="s2")
    tiling = Tiling(rows=1, vectors=1, lanes=16, row_tiles=1, panels=4, packed=True)
    layout = define(op, tiling).weights
    assert layout.nbytes == 64 * 256 * 2 // 8 + layout.tables.nbytes


@pytest.mark.parametrize(
    ("act", "weight", "reason"),
    [
        ("u2", "s3", "weight=s3: tables are addressed by codes of 1 or 2 bits"),
        ("u8", "s2", "act=u8 takes 65536 tables"),
        ("u3", "b1", "act=u3 takes 4096 tables"),
    ],
)
def test_formats_that_are_too_wide(act, weight, reason):
    chosen, target = template("avx2/lut_product")
    op = Dense(4, 64, 64, act=act, weight=weight)
    assert reason in chosen.why_not(op, target)
    with pytest.raises(ScheduleRefused, match=reason):
        chosen.kernel(op, target, {})


@TEMPLATES
def test_the_default_is_a_point_of_the_space(name):
    chosen, target = template(name)
    for text in (
        "dense m=1 n=1000 k=300",
        "dense m=300 n=100 k=50",
        "conv2d n=3 h=5 w=6 ic=7 oc=9 kernel=3",
    ):
        op = parse(f"{text} act=u2 weight=s2")
        knobs = chosen.default(op, target)
        assert knobs in chosen.space(op, target)
        with pytest.raises(ScheduleRefused, match="registers"):
            chosen.kernel(op, target, {**knobs, "rows": 8, "vectors": 8})
