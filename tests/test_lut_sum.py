"""lut_sum: its packed indices, and the bounds of its narrow sums."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernels import assert_exact, assert_exact_on, template
from packers import assert_packers_agree
from strategies import TEXTS, convs, texts

from lpgen.algorithms.lut_sum import (
    PACK,
    IndexWeights,
    byte_of,
    column_of,
    k_split_of,
    offset_of,
    tables_of,
)
from lpgen.formats import Format
from lpgen.ops import Conv2d, Dense, parse
from lpgen.schedules.common.lut_sum import knobs as lut_sum_space
from lpgen.schedules.common.lut_sum.knobs import digit_choices
from lpgen.schedules.x86.isa import isa_of
from lpgen.target import Target, cpu_features
from lpgen.templates import Template

AVX2, AVX512BW = (isa_of(Target.parse(name)) for name in ("avx2", "avx512bw"))

INPUTS = tuple(PACK)
LINEAR = [text for text in TEXTS if text[0] != "c"]
"""Formats whose values are sums of bits."""


def layout_of(op, inputs: int, lanes: int = 16, panels: int = 1) -> IndexWeights:
    matrix = op.matrix
    panels = max(panels, -(-matrix.n // (2 * lanes)))
    c = k_split_of(op, "copied", inputs)
    sizes = (matrix.groups, matrix.n, panels, 2 * lanes)
    return IndexWeights(op.w_shape, op.weight, c, *sizes, offset=offset_of(op), lanes=lanes)


@settings(max_examples=15, deadline=None)
@given(
    weight=st.sampled_from(LINEAR),
    act=st.sampled_from(["u4", "s3"]),
    shape=st.tuples(st.integers(1, 40), st.integers(1, 50)),
    inputs=st.sampled_from(INPUTS),
)
def test_both_packers_give_the_same_bytes(weight, act, shape, inputs):
    op = Dense(3, *shape, act=act, weight=weight)
    layout = layout_of(op, inputs)
    _, w = op.random(np.random.default_rng(sum(shape)))
    assert_packers_agree(layout, w)


@pytest.mark.parametrize("inputs", INPUTS)
def test_both_packers_agree_on_convolutions(inputs):
    op = Conv2d(h=4, w=4, ic=6, oc=10, kernel=(3, 2), groups=2, act="u8", weight="b3")
    layout = layout_of(op, inputs)
    _, w = op.random(np.random.default_rng(1))
    assert_packers_agree(layout, w)


@pytest.mark.parametrize("inputs", INPUTS)
@pytest.mark.parametrize("weight", LINEAR)
def test_a_weight_takes_exactly_its_bits(weight, inputs):
    op = Dense(1, 64, 24 * 8, act="u8", weight=weight)
    assert layout_of(op, inputs).nbytes * 8 == 64 * 24 * 8 * Format.parse(weight).bits


def test_indices_are_stored_in_reading_order():
    op = Dense(1, 32, 16, act="u1", weight="u1")
    w = np.random.default_rng(0).integers(0, 2, (32, 16)).astype(np.uint8)
    # plane, k steps / 2, byte, vector, lane
    packed = layout_of(op, 4).pack(w).reshape(1, 2, 1, 2, 16)
    for vector, byte in ((0, 0), (0, 1), (1, 5)):
        column = vector * 16 + column_of(byte, 16)
        bits = np.packbits(w[column, 8:16], bitorder="little")[0]
        assert packed[0, 1, 0, vector, byte] == bits


def test_code_books_of_weights_are_refused():
    op = Dense(8, 16, 32, act="u2", weight="c2:-7,-2,1,6")
    assert lut_sum_space.why_not(op, AVX2) == "weights of a code book are no sums of bits"


@pytest.mark.parametrize("act", ["c1:5,9", "c2:-9,-7,-2", "c4:-128,127"])
def test_code_books_of_activations_are_values(act):
    op = Conv2d(h=4, w=5, ic=6, oc=9, kernel=2, pad=(1, 0), act=act, weight="b2")
    assert_exact("avx2/lut_sum", op)


@pytest.mark.parametrize("lanes", [16, 32, 64])
def test_even_bytes_are_the_first_half_of_the_columns(lanes):
    order = column_of(np.arange(lanes), lanes)
    np.testing.assert_array_equal(byte_of(order, lanes), np.arange(lanes))
    np.testing.assert_array_equal(order[::2], np.arange(lanes // 2))
    np.testing.assert_array_equal(order[1::2], np.arange(lanes // 2, lanes))


@pytest.mark.parametrize("act", TEXTS)
@pytest.mark.parametrize("weight", ["u1", "t2", "s4", "u8"])
def test_sums_fit_what_holds_them(act, weight):
    op = parse(f"dense m=1 n=1 k=8 act={act} weight={weight}")
    largest, codes = max(op.act.max, 0) - min(op.act.min, 0), op.weight.levels - 1
    whole = {inputs: tables_of(op, inputs, 1) for inputs in INPUTS}
    for inputs, digits in [(i, d) for i in INPUTS for d in digit_choices(whole[i])]:
        tables = tables_of(op, inputs, digits)
        assert tables.lookups >= 1
        assert tables.longest >= 1
        split = [largest] if digits == 1 else [largest % 2**tables.shift, largest >> tables.shift]
        assert sum(d << tables.shift * i for i, d in enumerate(split)) == largest
        worst = [tables.most(digit) for digit in range(digits)]
        assert max(worst) == worst[0]
        assert worst[0] * tables.lookups <= 255 < worst[0] * (tables.lookups + 1)
        assert worst[0] * codes * tables.longest < 2**16 <= worst[0] * codes * (tables.longest + 1)


# Depths around one and several blocks of 16-bit sums, and around a chunk of byte sums.
@pytest.mark.matrix
@pytest.mark.parametrize("name", ["avx2/lut_sum", "avx512bw/lut_sum"])
@pytest.mark.parametrize(
    ("act", "weight", "k"),
    [
        ("u1", "u1", 252),
        ("u1", "u1", 260),
        ("u8", "u1", 4368),
        ("u8", "u1", 4372),
        ("u4", "u4", 300),
        ("u8", "u8", 40),
        ("s6", "u8", 700),
        ("u2", "u3", 21844 // 7 + 9),
    ],
)
def test_worst_cases_are_exact(name, act, weight, k):
    chosen, target = template(name)
    op = Dense(3, 40, k, act=act, weight=weight)
    space = chosen.space(op, target)
    for digits in space.knobs["digits"]:
        for expand in space.knobs["expand"]:
            point = {**chosen.default(op, target), "digits": digits, "expand": expand}
            if point in space:
                assert_exact(name, op, point)


@pytest.mark.parametrize("isa", [AVX2, AVX512BW])
@pytest.mark.parametrize("m", [1, 8, 64, 3136])
def test_spaces_stay_small_enough_to_enumerate(m, isa):
    for formats in ("act=u8 weight=s4", "act=u1 weight=b1"):
        op = parse(f"dense m={m} n=960 k=4608 {formats}")
        assert 0 < len(lut_sum_space.space(op, isa)) < 60_000


@pytest.mark.parametrize("cpu", ["icelake", "zen4", "sapphirerapids"])
def test_large_tables_are_looked_up_by_vpermb(cpu):
    """Compiled for the CPU, whichever this one is: LLVM knows them all."""
    from lpgen.build.lower import jit_module

    chosen, target = Template("x86", "lut_sum"), Target.parse(cpu)
    op = Dense(8, 128, 96, act="u2", weight="u1")
    knobs = {**chosen.default(op, target), "inputs": 6, "expand": "register"}
    assert knobs in chosen.space(op, target)
    asm = jit_module(chosen.kernel(op, target, knobs), target).inspect_source("asm")
    # 16 k steps, 8 rows and 2 vectors of columns, and two for each table of 8 rows.
    assert asm.count("\tvpermb\t") >= 4 * 8 * 2


@pytest.mark.parametrize("cpu", ["avx512bw", "avx512vnni"])
def test_without_vbmi_tables_are_small(cpu):
    op = Dense(8, 128, 96, act="u2", weight="u1")
    assert Template("x86", "lut_sum").space(op, Target.parse(cpu)).knobs["inputs"] == (4,)


@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_large_tables_are_exact(data):
    target = Target.parse("icelake")
    missing = target.missing_on(cpu_features())
    if missing:
        pytest.skip(f"this CPU lacks {', '.join(missing)}")
    chosen = Template("x86", "lut_sum")
    sizes = (st.integers(1, limit) for limit in (40, 200, 200))
    formats = {"act": texts, "weight": st.sampled_from(LINEAR)}
    op = data.draw(st.builds(Dense, *sizes, **formats) | convs())
    if chosen.why_not(op, target):
        return
    space = chosen.space(op, target)
    knobs = space.sample(np.random.default_rng(data.draw(st.integers(0, 2**31))))
    for inputs in (4, 6):
        point = {**knobs, "inputs": inputs}
        if point in space:
            assert_exact_on(chosen, target, op, point)


def test_prefetches_are_in_the_code():
    from lpgen.build.lower import jit_module

    chosen, target = template("avx2/lut_sum")
    op = Dense(1, 64, 256, act="u4", weight="u2")
    streamed = (p for p in chosen.space(op, target).enumerate() if p["prefetch"])
    knobs = next(streamed)
    assert_exact("avx2/lut_sum", op, knobs)
    asm = jit_module(chosen.kernel(op, target, knobs), target).inspect_source("asm")
    assert "prefetcht0" in asm
