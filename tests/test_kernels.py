"""Every template computes exactly what the oracle does: formats, tile edges, convolutions."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernels import LEVELS, assert_exact, template
from strategies import TEXTS, convs, texts

from lpgen.errors import ScheduleRefused
from lpgen.ops import Conv2d, Dense, parse

# Those of one kind of operator, or of few formats, have tests of their own.
NARROW = (
    "depthwise",
    "grouped_conv",
    "telescoped",
    "lane_pack",
    "lut_product",
    "lut_weight",
    "bitserial",
    "blockwise_dot",
)
NAMES = [name for name in LEVELS if name.rpartition("/")[2] not in NARROW]
TEMPLATES = pytest.mark.parametrize("name", NAMES)
# Compiling dominates: few examples, no deadline.
BUILDS = settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


# sse4 and avx512bw differ from avx2 in their widths and registers alone.
PAIRS = ["generic/generic", "avx2/dot", "avx512vnni/dot", "amx/mma", "avx2/lut_sum"]


@pytest.mark.matrix
@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("bits", range(1, 9))
def test_every_pair_of_bit_widths(name, bits):
    for weight_bits in range(1, 9):
        weight = "b1" if weight_bits == 1 else f"s{weight_bits}"
        assert_exact(name, Dense(5, 18, 37, act=f"u{bits}", weight=weight))


@pytest.mark.matrix
@pytest.mark.parametrize("name", ["generic/generic", "sse4/dot", "avx512vnni/dot", "amx/mma"])
@pytest.mark.parametrize("weight", TEXTS)
def test_every_weight_format(name, weight):
    assert_exact(name, Conv2d(h=5, w=4, ic=3, oc=7, kernel=3, pad=1, act="s8", weight=weight))


@pytest.mark.matrix
@pytest.mark.parametrize("name", ["generic/generic", "avx512bw/dot", "avx512vnni/dot", "amx/mma"])
@pytest.mark.parametrize("act", TEXTS)
def test_every_activation_format(name, act):
    op = Conv2d(h=4, w=5, ic=6, oc=9, kernel=2, pad=(1, 0), act=act, weight="b3")
    assert_exact(name, op)


@pytest.mark.matrix
@TEMPLATES
@pytest.mark.parametrize("m", [1, 2, 5, 6, 7, 13, 16, 17, 33])
def test_rows_around_tile_edges(name, m):
    chosen, target = template(name)
    op = Dense(m, 33, 24, act="u8", weight="s8")
    if not chosen.why_not(op, target):
        assert_exact(name, op)


@pytest.mark.matrix
@TEMPLATES
@pytest.mark.parametrize("n", [1, 3, 4, 5, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65])
def test_columns_around_vector_edges(name, n):
    assert_exact(name, Dense(9, n, 20, act="u8", weight="s4"))


@pytest.mark.matrix
@TEMPLATES
@pytest.mark.parametrize("k", [1, 2, 3, 4, 5, 15, 16, 17, 31, 32, 33, 63, 64, 65, 129])
def test_depths_around_step_edges(name, k):
    # Bipolar weights have no zero to pad with.
    weight = "b1" if k % 2 else "s7"
    assert_exact(name, Dense(6, 20, k, act="s7", weight=weight))


@pytest.mark.parametrize("name", ["sse4/dot", "avx2/dot", "avx512vnni/dot", "amx/mma"])
@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_code_books_are_looked_up_by_a_shuffle(name, bits):
    from lpgen.build.lower import jit_module

    chosen, target = template(name)
    values = ",".join(str(value) for value in range(-8, -8 + 2**bits))
    for m in (1, 40):  # weights unpacked in registers, and per panel
        op = Dense(m, 64, 64, act="u4", weight=f"c{bits}:{values}")
        if chosen.why_not(op, target):
            continue
        knobs = chosen.default(op, target)
        asm = jit_module(chosen.kernel(op, target, knobs), target).inspect_source("asm")
        assert "pshufb" in asm
        assert "pcmpeqb" not in asm


CONVOLUTIONS = {
    "pointwise": "h=6 w=7 ic=20 oc=17 kernel=1",
    "strided pointwise": "h=7 w=7 ic=8 oc=16 kernel=1 stride=2",
    "stem": "h=17 w=19 ic=3 oc=10 kernel=7 stride=2 pad=3",
    "dilated": "h=11 w=9 ic=5 oc=6 kernel=3x2 dilation=2x3 pad=2x3",
    "uneven": "h=6 w=5 ic=4 oc=8 kernel=3 stride=2 pad=0x1x2x1",
    "grouped": "h=5 w=5 ic=12 oc=15 kernel=3 pad=1 groups=3",
    "batch": "n=3 h=5 w=6 ic=7 oc=9 kernel=3 pad=1",
    "one dimension": "h=1 w=40 ic=6 oc=12 kernel=1x5 pad=0x2",
    "whole input": "h=5 w=4 ic=6 oc=10 kernel=5x4",
}


@pytest.mark.matrix
@TEMPLATES
@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_kinds_of_convolution(name, kind):
    for formats in ("act=u8 weight=s8", "act=s5 weight=b2"):
        assert_exact(name, parse(f"conv2d {CONVOLUTIONS[kind]} {formats}"))


@pytest.mark.parametrize("channels", [1, 5, 16, 33])
def test_depthwise_has_a_kernel(channels):
    text = f"conv2d h=7 w=6 ic={channels} oc={channels} kernel=3 pad=1 groups={channels}"
    for formats in ("act=u8 weight=s8", "act=u4 weight=b1"):
        assert_exact("generic/generic", parse(f"{text} {formats}"))


@TEMPLATES
@BUILDS
@given(data=st.data())
def test_any_point_of_the_space(name, data):
    chosen, target = template(name)
    op = data.draw(
        st.one_of(
            convs(),
            st.builds(
                Dense,
                *(st.integers(1, limit) for limit in (40, 100, 130)),
                act=texts,
                weight=texts,
            ),
        )
    )
    if chosen.why_not(op, target):
        return
    seed = data.draw(st.integers(0, 2**31))
    assert_exact(name, op, chosen.space(op, target).sample(np.random.default_rng(seed)))


@pytest.mark.parametrize("name", ["avx2/dot", "avx512vnni/dot"])
@pytest.mark.parametrize("weight", ["s8", "s4", "b1"])
def test_streamed_weights_are_prefetched(name, weight):
    from lpgen.build.lower import jit_module

    chosen, target = template(name)
    op = Dense(1, 64, 256, act="u4", weight=weight)
    streamed = (p for p in chosen.space(op, target).enumerate() if p["prefetch"])
    knobs = next(streamed)
    assert_exact(name, op, knobs)
    asm = jit_module(chosen.kernel(op, target, knobs), target).inspect_source("asm")
    assert "prefetcht0" in asm


@TEMPLATES
def test_the_default_is_a_point_of_the_space(name):
    chosen, target = template(name)
    for text in (
        "dense m=64 n=100 k=300",
        "dense m=3 n=7 k=5",
        "conv2d h=9 w=9 ic=8 oc=40 kernel=3",
    ):
        for formats in ("act=u8 weight=s8", "act=u2 weight=s3", "act=s8 weight=u8"):
            op = parse(f"{text} {formats}")
            assert chosen.default(op, target) in chosen.space(op, target)


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("generic")])
def test_knobs_outside_of_the_space_are_refused(name):
    chosen, target = template(name)
    op = Dense(64, 64, 64, act="u8", weight="s8")
    knobs = chosen.default(op, target)
    wrong = {**knobs, "rows": 16, "vectors": 16, "down": 3, "across": 6}
    with pytest.raises(ScheduleRefused, match="registers"):
        chosen.kernel(op, target, {key: wrong[key] for key in knobs})
