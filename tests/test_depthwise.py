"""The depthwise algorithm computes exactly what the oracle does, on every instruction set."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernels import assert_exact, template
from strategies import TEXTS, texts

from lpgen.algorithms.depthwise import View
from lpgen.errors import ScheduleRefused
from lpgen.ops import Conv2d, parse
from lpgen.runtime.memory import aligned_copy

NAMES = [f"{family}/depthwise" for family in ("sse4", "avx2", "avx512bw", "avx512vnni")]
TEMPLATES = pytest.mark.parametrize("name", NAMES)
# Compiling dominates: few examples, no deadline.
BUILDS = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def depthwise(channels: int, act: str, weight: str, multiplier: int = 1, **words) -> Conv2d:
    """A depthwise convolution of 3x3 over 6x7 with padding, but for what `words` say."""
    shape = {"h": 6, "w": 7, "kernel": 3, "pad": 1, **words}
    oc = channels * multiplier
    return Conv2d(ic=channels, oc=oc, groups=channels, act=act, weight=weight, **shape)


@pytest.mark.matrix
@pytest.mark.parametrize("name", ["avx2/depthwise", "avx512vnni/depthwise"])
@pytest.mark.parametrize("bits", range(1, 9))
def test_every_pair_of_bit_widths(name, bits):
    for weight_bits in range(1, 9):
        weight = "b1" if weight_bits == 1 else f"s{weight_bits}"
        assert_exact(name, depthwise(17, f"u{bits}", weight, h=3, w=4))


@pytest.mark.matrix
@TEMPLATES
@pytest.mark.parametrize("weight", TEXTS)
def test_every_weight_format(name, weight):
    assert_exact(name, depthwise(9, "s8", weight, h=3, w=4))


@pytest.mark.matrix
@TEMPLATES
@pytest.mark.parametrize("act", TEXTS)
def test_every_activation_format(name, act):
    assert_exact(name, depthwise(9, act, "b3", h=3, w=4))


KINDS = {
    "pointwise": "h=6 w=7 kernel=1",
    "five": "h=9 w=10 kernel=5 pad=2",
    "five strided": "h=10 w=9 kernel=5 pad=2 stride=2",
    "strided": "h=9 w=10 kernel=3 pad=1 stride=2",
    "seven": "h=8 w=9 kernel=7 pad=3",
    "dilated": "h=11 w=9 kernel=3x2 dilation=2x3 pad=2x3",
    "dilated and strided": "h=11 w=12 kernel=3 dilation=2 stride=2 pad=2",
    "uneven": "h=6 w=5 kernel=3 stride=2 pad=0x1x2x1",
    "batch": "n=3 h=5 w=6 kernel=3 pad=1",
    "one dimension": "h=1 w=40 kernel=1x5 pad=0x2",
    "upright": "h=20 w=3 kernel=4x1 pad=1x0 stride=3x2",
    "whole input": "h=5 w=4 kernel=5x4",
    "no padding": "h=6 w=6 kernel=3",
    "unread border": "h=7 w=8 kernel=2 stride=3",
    "all padding": "h=1 w=1 kernel=2 pad=4",
}


@pytest.mark.matrix
@TEMPLATES
@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_convolution(name, kind):
    for channels in ("ic=20 oc=20 groups=20", "ic=5 oc=15 groups=5"):
        for formats in ("act=u8 weight=s8", "act=s5 weight=b2"):
            assert_exact(name, parse(f"conv2d {channels} {KINDS[kind]} {formats}"))


@pytest.mark.matrix
@TEMPLATES
@pytest.mark.parametrize("channels", [2, 3, 4, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65])
def test_channels_around_vector_edges(name, channels):
    assert_exact(name, depthwise(channels, "u8", "s7"))


@TEMPLATES
@BUILDS
@given(data=st.data())
def test_any_point_of_the_space(name, data):
    sizes = st.integers(1, 3)
    op = depthwise(
        data.draw(st.integers(2, 40)),
        data.draw(texts),
        data.draw(texts),
        data.draw(sizes),
        n=data.draw(sizes),
        h=data.draw(st.integers(9, 16)),
        w=data.draw(st.integers(9, 16)),
        kernel=data.draw(st.tuples(st.integers(1, 5), st.integers(1, 5))),
        stride=data.draw(st.tuples(sizes, sizes)),
        dilation=data.draw(st.tuples(st.integers(1, 2), st.integers(1, 2))),
        pad=data.draw(st.tuples(*[st.integers(0, 3)] * 4)),
    )
    chosen, target = template(name)
    assert chosen.why_not(op, target) is None
    seed = data.draw(st.integers(0, 2**31))
    assert_exact(name, op, chosen.space(op, target).sample(np.random.default_rng(seed)))


@pytest.mark.parametrize("name", ["sse4/depthwise", "avx2/depthwise", "avx512bw/depthwise"])
@pytest.mark.parametrize(
    ("act", "weight", "widest"),
    [
        ("u8", "s8", "words"),  # 2 * 255 * 128 exceeds int16
        ("u7", "s8", "bytes"),  # 2 * 127 * 128 just fits
        ("u8", "s7", "bytes"),
        ("u8", "s5", "pairs"),  # 6 taps of a 3x3 kernel in a lane: 6 * 255 * 16 fits
        ("u8", "s6", "bytes"),  # 6 * 255 * 32 does not
    ],
)
def test_narrow_sums_are_used_where_they_cannot_overflow(name, act, weight, widest):
    chosen, target = template(name)
    op = depthwise(16, act, weight)
    space = chosen.space(op, target)
    assert space.knobs["step"][0] == widest
    for step in space.knobs["step"]:
        assert_exact(name, op, {**chosen.default(op, target), "step": step})


def test_a_window_counts_the_products_of_a_lane():
    three = View.of(depthwise(4, "u8", "s8")).window(rows=2, columns=1, kq=4)
    assert (three.span, three.groups, three.shift) == (4, 1, 1)
    assert three.lane_products == 2 * 3  # two of a column's taps share a lane, three columns
    five = View.of(depthwise(4, "u8", "s8", kernel=5)).window(1, 1, 4)
    assert (five.groups, five.lane_products) == (2, 3 * 5)


def test_flat_kernels_are_seen_upright():
    flat = View.of(depthwise(4, "u8", "s8", n=2, h=3, w=9, kernel=(1, 5), pad=(0, 2)))
    assert (flat.images, flat.size, flat.kernel, flat.before) == (6, (9, 1), (5, 1), (2, 0))
    for words in ({"stride": 2}, {"pad": (1, 2)}):
        op = depthwise(4, "u8", "s8", h=3, w=9, **{"kernel": (1, 5), "pad": (0, 2), **words})
        assert View.of(op).kernel == (1, 5)
        for name in NAMES:
            assert_exact(name, op)


@TEMPLATES
def test_the_default_is_a_point_of_the_space(name):
    chosen, target = template(name)
    for words in ({}, {"kernel": 1, "pad": 0}, {"kernel": 5, "stride": 2}, {"h": 112, "w": 112}):
        op = depthwise(32, "u8", "s8", **words)
        assert chosen.default(op, target) in chosen.space(op, target)


@TEMPLATES
def test_other_operators_are_refused(name):
    chosen, target = template(name)
    for text in (
        "dense m=4 n=4 k=4",
        "conv2d h=4 w=4 ic=8 oc=8 kernel=3",
        "conv2d h=4 w=4 ic=8 oc=8 kernel=3 groups=4",
    ):
        assert "groups" in chosen.why_not(parse(f"{text} act=u8 weight=s8"), target)
    big = depthwise(4, "u8", "s8", h=60, w=60, kernel=60, pad=0)
    assert "kernel=60x60" in chosen.why_not(big, target)


@TEMPLATES
def test_knobs_outside_of_the_space_are_refused(name):
    chosen, target = template(name)
    op = depthwise(16, "u8", "s8", h=30, w=30)
    wrong = {**chosen.default(op, target), "rows": 8, "columns": 7}
    with pytest.raises(ScheduleRefused, match="registers"):
        chosen.kernel(op, target, wrong)


def test_the_packer_of_the_library_packs_as_numpy_does():
    import tvm_ffi

    from lpgen.build.lower import jit

    for name in NAMES:
        chosen, target = template(name)
        for op in (depthwise(18, "s4", "b3"), depthwise(6, "u8", "s8", 3, kernel=(5, 2))):
            layout = chosen.kernel(op, target, chosen.default(op, target)).layout
            _, w = op.random(np.random.default_rng(0))
            packed = aligned_copy(np.full(layout.nbytes, 0xA5, np.uint8), 0)
            expected = layout.pack(w)
            jit(layout.te_module(), target)(*map(tvm_ffi.from_dlpack, (w, packed)))
            sections = [s.nbytes for s in layout.sections]
            assert np.array_equal(packed[: sections[0]], expected[: sections[0]])
            start = -(-sections[0] // 64) * 64
            assert np.array_equal(
                packed[start : start + sum(sections[1:])],
                expected[start : start + sum(sections[1:])],
            )


@pytest.mark.parametrize("name", ["avx512bw/depthwise", "avx512vnni/depthwise"])
@pytest.mark.parametrize("act", ["b1", "s4", "s8"])
def test_strides_above_the_kernel_of_signed_values(name, act):
    """LLVM never came to an end with an offset added beside a constant row."""
    shape = "h=6 w=3 ic=11 oc=11 kernel=1x3 stride=2 groups=11 pad=2x0x1x2"
    assert_exact(name, parse(f"conv2d {shape} act={act} weight=s3"))
