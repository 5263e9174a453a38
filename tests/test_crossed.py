"""Products of sums: exact up to the formats whose sums fit bytes, and half as many."""

import itertools

import numpy as np
import pytest
from kernels import assert_exact, assert_exact_on, template, template_of
from packers import assert_packers_agree

from lpgen.algorithms.crossed import Crossing
from lpgen.ops import Conv2d, Dense, parse
from lpgen.target import Target
from lpgen.templates import Template

STRIDED = "conv2d h=9 w=10 ic=24 oc=40 kernel=3 stride=2 pad=1"
STEM = "conv2d h=15 w=13 ic=3 oc=24 kernel=7 stride=2 pad=3"


def points(chosen: Template, target: Target, op: Dense | Conv2d, **wanted) -> list[dict]:
    """Points of the space with products of sums."""
    space = chosen.space(op, target).narrowed({"step": "crossed", **wanted})
    return list(space.enumerate())


@pytest.mark.parametrize("left", [(0, 15), (0, 127), (-3, 4), (0, 200)])
@pytest.mark.parametrize("right", [(-8, 7), (-64, 63), (1, 9), (-1, 1), (-50, 5)])
def test_sums_are_bytes_and_the_identity_holds(left, right):
    found = Crossing.of(left, right)
    least, most = left[0] + min(0, right[0]), left[1] + max(0, right[1])
    if found is None:
        assert most - least > 255
        return
    ends = itertools.product(left, left, (*right, 0), (*right, 0))
    for x1, x2, w1, w2 in ends:
        first, second = x1 + w2 + found.first, x2 + w1 + found.second
        assert 0 <= first <= 255
        assert -128 <= second <= 127
        assert abs(first * second) <= found.largest
        rows = (x1 + found.first) * (x2 + found.second)
        columns = (w2 + found.first) * (w1 + found.second) - found.surplus(1)
        assert first * second - rows - columns == x1 * w1 + x2 * w2


@pytest.mark.parametrize(
    ("formats", "fits"),
    [
        ("act=u4 weight=s4", True),
        ("act=u7 weight=s7", True),
        ("act=u8 weight=s4", False),
        ("act=u7 weight=s8", False),
        ("act=c2:-100,0,20 weight=s7", True),
        ("act=c2:-100,0,40 weight=s7", False),
    ],
)
def test_formats_fit_up_to_a_width(formats, fits):
    chosen, target = template_of("zen4/dot")
    op = parse(f"{STRIDED} {formats}")
    assert ("crossed" in chosen.space(op, target).knobs["step"]) == fits


@pytest.mark.parametrize("algorithm", ["dot", "depthwise", "grouped_conv"])
def test_others_have_the_steps_of_bytes_alone(algorithm):
    texts = {
        "dot": "dense m=1..70 n=33 k=129",
        "depthwise": "conv2d h=9 w=9 ic=32 oc=32 kernel=3 groups=32",
        "grouped_conv": "conv2d h=9 w=9 ic=32 oc=32 kernel=3 groups=8",
    }
    op = parse(f"{texts[algorithm]} act=u4 weight=s4")
    space = Template("x86", algorithm).space(op, Target.parse("zen4"))
    assert space.knobs["step"] == ("bytes",)


def test_it_is_for_cpus_that_add_beside_products():
    op = parse(f"{STRIDED} act=u4 weight=s4")
    for algorithm in ("dot", "winograd"):
        for name, crosses in (("zen4", True), ("zen5", True), ("icelake", False)):
            space = Template("x86", algorithm).space(op, Target.parse(name))
            assert ("crossed" in space.knobs["step"]) == crosses


@pytest.mark.parametrize("left", ["direct", "copied", "folded"])
@pytest.mark.parametrize(
    "text",
    [
        f"{STEM} act=u4 weight=s4",
        f"{STRIDED} groups=2 act=s3 weight=b2 zero_act=1",
        f"{STRIDED} act=u7 weight=s7 out=u4 scale=channel",
        "dense m=13 n=40 k=70 act=u2 weight=c2:-7,0,1,6",
    ],
)
def test_dot_is_exact(left, text):
    chosen, target = template("zen4/dot")
    op = parse(text)
    found = points(chosen, target, op)
    found = [knobs for knobs in found if knobs["left"] == left]
    for knobs in found[:: max(1, len(found) // 2)][:2]:
        assert_exact("zen4/dot", op, knobs)


@pytest.mark.parametrize(
    ("text", "tiles"),
    [
        ("conv2d h=9 w=10 ic=13 oc=40 kernel=3 pad=1 act=u4 weight=s4", ("2x2", "1x4", "4ix2")),
        (f"{STRIDED} act=u3 weight=t2 out=u4 scale=channel", ("3x2",)),
        (
            "conv2d n=2 h=8 w=7 ic=128 oc=16 kernel=3 pad=1 act=s2 weight=s2 zero_act=1",
            ("4x2", "4x4i"),
        ),
    ],
)
def test_tiles_are_exact(text, tiles):
    chosen, target = template("zen4/winograd")
    op = parse(text)
    for tile in tiles:
        found = points(chosen, target, op, tile=tile)
        for knobs in (found[0], found[-1]):
            assert_exact("zen4/winograd", op, knobs)


@pytest.mark.parametrize(
    ("formats", "channels", "tile"),
    [
        ("act=u8 weight=s8", 160, "4x4"),
        ("act=s8 weight=s7 zero_act=-5", 6, "3x2"),
        ("act=u7 weight=s8 out=u8 scale=channel", 40, "2x4"),
    ],
)
def test_tiles_of_words_are_exact(formats, channels, tile):
    """Their sums wrap around."""
    chosen, target = template("zen4/winograd")
    op = parse(f"conv2d h=6 w=9 ic={channels} oc=24 kernel=3 pad=1 {formats}")
    space = chosen.space(op, target).narrowed({"step": "crossed_words", "tile": tile})
    knobs = next(space.enumerate())
    assert_exact("zen4/winograd", op, knobs)
    if not op.epilogue:
        w = op.example(np.random.default_rng(0), "random").weights
        assert_packers_agree(chosen.kernel(op, target, knobs).layout, w)


@pytest.mark.parametrize("threads", [2, 5])
@pytest.mark.parametrize("algorithm", ["dot", "winograd"])
def test_exact_on_threads(algorithm, threads):
    from kernels import arguments

    from lpgen.build.lower import jit
    from lpgen.runtime.memory import aligned_copy

    chosen, target = template(f"zen4/{algorithm}")
    op = parse("conv2d n=3 h=17 w=18 ic=40 oc=70 kernel=3 pad=1 act=u4 weight=s4")
    for knobs in points(chosen, target, op)[::70][:3]:
        kernel = chosen.kernel(op, target, knobs)
        example = op.example(np.random.default_rng(0), "random")
        expected = op.reference(**example.given)
        y = aligned_copy(np.full(expected.shape, 99, expected.dtype))
        jit(kernel, target, threads)(*arguments(kernel, example, y))
        np.testing.assert_array_equal(y, expected, str(knobs))


@pytest.mark.parametrize(
    "text",
    [
        f"{STRIDED} act=u4 weight=s3",
        f"{STRIDED} groups=4 act=u3 weight=b2",
        f"{STEM} act=u4 weight=s4",
        "dense m=2 n=17 k=9 act=u7 weight=c2:-7,1,6",
    ],
)
@pytest.mark.parametrize("algorithm", ["dot", "winograd"])
def test_packers_agree(text, algorithm):
    chosen, target = template_of(f"zen4/{algorithm}")
    op = parse(text)
    if chosen.why_not(op, target):
        assert algorithm == "winograd"
        return
    found = points(chosen, target, op)
    w = op.example(np.random.default_rng(0), "random").weights
    for knobs in (found[0], found[-1]):
        assert_packers_agree(chosen.kernel(op, target, knobs).layout, w)


def test_half_as_many_products():
    """Eight steps of four rows and four vectors, each of which is half of the bytes' sixteen."""
    from lpgen.build.lower import jit_module

    chosen, target = template_of("zen4/dot")
    op = Dense(64, 64, 512, act="u4", weight="s4")
    fixed = {"rows": 4, "vectors": 4, "left": "direct", "m_block": 0, "n_block": 0}
    knobs = points(chosen, target, op, **fixed)[0]
    assembly = jit_module(chosen.kernel(op, target, knobs), target).inspect_source("asm")
    loops = [part for part in assembly.split("\n.LBB") if part.count("vpdpbusd") == 16]
    assert any(part.count("vpaddb") == 32 for part in loops)


def test_the_largest_sums_fit_int32_up_to_a_depth():
    chosen, target = template_of("zen4/dot")
    largest = Crossing.of((0, 127), (-64, 63)).largest
    for k, fits in ((2**31 // (2 * largest), True), (2**31 // (2 * largest) + 1, False)):
        op = Dense(8, 16, k, act="u7", weight="s7")
        assert ("crossed" in chosen.space(op, target).knobs["step"]) == fits


def test_extremes_of_deep_sums():
    chosen, target = template("zen4/winograd")
    op = parse("conv2d h=4 w=4 ic=256 oc=16 kernel=3 pad=1 act=u4 weight=s4")
    knobs = points(chosen, target, op, tile="2x2")[0]
    assert_exact_on(chosen, target, op, knobs)
