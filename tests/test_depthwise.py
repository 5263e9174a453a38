"""The depthwise algorithm computes exactly what the oracle does, on every instruction set."""

import numpy as np
import pytest
from kernels import assert_exact, template
from packers import assert_packers_agree

from lpgen.algorithms.depthwise import View
from lpgen.errors import ScheduleRefused
from lpgen.ops import Conv2d, parse

NAMES = [f"{family}/depthwise" for family in ("sse4", "avx2", "avx512bw", "avx512vnni")]
TEMPLATES = pytest.mark.parametrize("name", NAMES)


def depthwise(channels: int, act: str, weight: str, multiplier: int = 1, **words) -> Conv2d:
    """A depthwise convolution of 3x3 over 6x7 with padding, but for what `words` say."""
    shape = {"h": 6, "w": 7, "kernel": 3, "pad": 1, **words}
    oc = channels * multiplier
    return Conv2d(ic=channels, oc=oc, groups=channels, act=act, weight=weight, **shape)


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
    assert (three.span, three.count, three.shift) == (4, 1, 1)
    assert three.lane_products == 2 * 3  # two of a column's taps share a lane, three columns
    five = View.of(depthwise(4, "u8", "s8", kernel=5)).window(1, 1, 4)
    assert (five.count, five.lane_products) == (2, 3 * 5)


def test_flat_kernels_are_seen_upright():
    flat = View.of(depthwise(4, "u8", "s8", n=2, h=3, w=9, kernel=(1, 5), pad=(0, 2)))
    assert (flat.images, flat.size, flat.kernel, flat.before) == (6, (9, 1), (5, 1), (2, 0))
    for words in ({"stride": 2}, {"pad": (1, 2)}):
        op = depthwise(4, "u8", "s8", h=3, w=9, **{"kernel": (1, 5), "pad": (0, 2), **words})
        assert View.of(op).kernel == (1, 5)
        for name in NAMES:
            assert_exact(name, op)


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
    for name in NAMES:
        chosen, target = template(name)
        for op in (depthwise(18, "s4", "b3"), depthwise(6, "u8", "s8", 3, kernel=(5, 2))):
            layout = chosen.kernel(op, target, chosen.default(op, target)).layout
            _, w = op.random(np.random.default_rng(0))
            assert_packers_agree(layout, w, target)


@pytest.mark.parametrize("name", ["avx512bw/depthwise", "avx512vnni/depthwise"])
@pytest.mark.parametrize("act", ["b1", "s4", "s8"])
def test_strides_above_the_kernel_of_signed_values(name, act):
    """LLVM never came to an end with an offset added beside a constant row."""
    shape = "h=6 w=3 ic=11 oc=11 kernel=1x3 stride=2 groups=11 pad=2x0x1x2"
    assert_exact(name, parse(f"conv2d {shape} act={act} weight=s3"))


def test_weights_that_stay_in_registers_are_loaded_once():
    chosen, target = template("avx512vnni/depthwise")
    op = depthwise(64, "u8", "s8", h=16, w=16)
    few = {**chosen.default(op, target), "rows": 1, "columns": 1}
    many = {**few, "columns": 14}
    loaded = {
        (name, order): chosen.work(op, target, {**knobs, "order": order})["weights"]
        for name, knobs in (("few", few), ("many", many))
        for order in ("cm", "mc")
    }
    assert loaded["few", "cm"] == 0 < loaded["few", "mc"]
    # 28 sums and 6 weights are more than the 32 registers.
    assert loaded["many", "cm"] == loaded["many", "mc"] > 0
