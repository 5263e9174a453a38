"""Taps in the padding of a convolution that are left out: `left=inside`."""

import itertools

import numpy as np
import pytest
from kernels import LEVELS, arguments, assert_exact, runs_here, template, template_of

from lpgen.algorithms.lhs.inside import Axis
from lpgen.errors import ScheduleRefused
from lpgen.ops import parse
from lpgen.runtime.memory import aligned_copy
from lpgen.space import Space

NAMES = [name for name in LEVELS if name.endswith("/dot") and name != "generic/dot"]
STRAIGHT = [
    f"{level}/{algorithm}"
    for level in ("sse4", "avx2", "avx512bw", "icelake")
    for algorithm in ("bitserial", "lut_sum")
]
"""Templates whose tiles are straight-line code."""
SHAPES = [
    "h=7 w=7 ic=32 oc=40 kernel=3 pad=1",
    "h=5 w=9 ic=3 oc=17 kernel=3 pad=1",
    "h=3 w=2 ic=8 oc=40 kernel=3 pad=3",  # some outputs reach nothing
    "h=6 w=5 ic=4 oc=72 kernel=3 stride=2 pad=0x1x2x1",
    "h=11 w=9 ic=5 oc=40 kernel=3x2 dilation=2x3 pad=2x3",
    "h=9 w=12 ic=8 oc=24 kernel=5 pad=2 stride=2",
    "n=3 h=5 w=6 ic=7 oc=72 kernel=3 pad=1",
    "h=8 w=8 ic=12 oc=36 kernel=3 pad=1 groups=3",
    "h=1 w=28 ic=6 oc=12 kernel=1x5 pad=0x2",
    "h=4 w=6 ic=8 oc=40 kernel=1 pad=2x1",
    "h=1 w=1 ic=16 oc=160 kernel=3 pad=1",
    "h=13 w=13 ic=4 oc=33 kernel=4 pad=2x1x1x2",
]
FORMATS = [
    "act=u8 weight=s8",
    "act=s8 weight=s4 zero_act=-3",
    "act=u8 weight=b2 zero_act=9 out=u8 scale=channel bias=s32",
    "act=u4 weight=c2:-7,-2,1,6",
    "act=s5 weight=u8 zero_weight=3 bias=s32",
    "act=u8 weight=t2 out=u4 scale=channel relu",
    "act=b2 weight=b1",
]


def _points(op, chosen, target, count: int):
    """Some points whose left side is read inside."""
    space = chosen.space(op, target)
    inside = Space({**space.knobs, "left": ("inside",)}, space.holds)
    rng = np.random.default_rng(0)
    return [inside.sample(rng) for _ in range(count)]


def _cases():
    for level, name in enumerate(NAMES):
        for number, shape in enumerate(SHAPES):
            marks = () if (level + number) % 3 == 0 else pytest.mark.nightly
            formats = FORMATS[(2 * level + number) % len(FORMATS)]
            yield pytest.param(name, f"conv2d {shape} {formats}", marks=marks)


@pytest.mark.sample(2)
@pytest.mark.parametrize(("name", "text"), list(_cases()))
def test_exact_without_the_padding(name, text):
    op = parse(text)
    for knobs in _points(op, *template(name), 2):
        assert_exact(name, op, knobs)


def _straight_cases():
    formats = [
        "act=u1 weight=b1",
        "act=u2 weight=s2 out=u2:packed scale=channel",
        "act=u2 weight=u2 zero_weight=1",
        "act=u3 weight=b2 out=u8 scale=channel bias=s32",
        "act=u4 weight=b1",
    ]
    for level, name in enumerate(STRAIGHT):
        for number, shape in enumerate(SHAPES):
            marks = () if (level + number) % 4 == 0 else pytest.mark.nightly
            words = formats[(level + number) % len(formats)]
            yield pytest.param(name, f"conv2d {shape} {words}", marks=marks)


@pytest.mark.sample(2)
@pytest.mark.parametrize(("name", "text"), list(_straight_cases()))
def test_exact_without_the_padding_in_straight_line_code(name, text):
    op, (chosen, target) = parse(text), template(name)
    if "inside" not in chosen.space(op, target).knobs["left"]:
        pytest.skip("its lines have no parts that are tiles")
    for knobs in _points(op, chosen, target, 2):
        assert_exact(name, op, knobs)


@pytest.mark.parametrize("words", ["act=s2 weight=b1", "act=u2 weight=b1 zero_act=1"])
def test_padding_that_adds_something_is_looked_up(words):
    op = parse(f"conv2d h=7 w=7 ic=32 oc=40 kernel=3 pad=1 {words}")
    for name in ("icelake/bitserial", "icelake/lut_sum"):
        chosen, target = template_of(name)
        assert "inside" not in chosen.space(op, target).knobs["left"]


@pytest.mark.parametrize("rows", [6, 7, 8])
@pytest.mark.parametrize("m_block", [0, 4])
def test_tiles_have_to_cut_a_line(rows, m_block):
    """m_block=4 leaves tiles beyond the last row."""
    chosen, target = template("avx2/dot")
    op = parse("conv2d h=14 w=14 ic=8 oc=16 kernel=3 pad=1 act=s8 weight=s8")
    (base,) = _points(op, chosen, target, 1)
    changes = {"step": "words", "rows": rows, "vectors": 1, "m_block": m_block, "n_block": 0}
    knobs = {**base, **changes, "outer": "mn", "inner": "mn", "unroll": 1, "expand": "panel"}
    if rows == 7:
        assert_exact("avx2/dot", op, knobs)
    else:
        with pytest.raises(ScheduleRefused):
            chosen.kernel(op, target, knobs)


@pytest.mark.parametrize("threads", [2, 5])
def test_exact_on_threads(threads):
    from lpgen.build.lower import jit

    name = next(name for name in reversed(NAMES) if runs_here(name))
    chosen, target = template(name)
    op = parse("conv2d n=2 h=7 w=7 ic=16 oc=80 kernel=3 pad=1 act=s8 weight=s8 zero_act=1")
    for knobs in _points(op, chosen, target, 2):
        kernel = chosen.kernel(op, target, knobs)
        example = op.example(np.random.default_rng(0), "random")
        expected = op.reference(**example.given)
        y = aligned_copy(np.full(expected.shape, 99, expected.dtype))
        jit(kernel, target, threads)(*arguments(kernel, example, y))
        np.testing.assert_array_equal(y, expected, str(knobs))


def test_the_padding_is_not_copied():
    """What needs no other conversion is read where it lies."""
    chosen, target = template_of("avx512vnni/dot")
    op = parse("conv2d h=14 w=14 ic=8 oc=32 kernel=3 pad=1 act=u8 weight=s8")
    (knobs,) = _points(op, chosen, target, 1)
    names = [
        "pad" in str(chosen.kernel(op, target, {**knobs, "left": left}).module)
        for left in ("inside", "direct")
    ]
    assert names == [False, True]


def test_only_padded_convolutions_have_the_choice():
    chosen, target = template_of("avx2/dot")
    for text in ("conv2d h=5 w=5 ic=8 oc=8 kernel=3", "dense m=5 n=8 k=8"):
        space = chosen.space(parse(f"{text} act=u8 weight=s8"), target)
        assert "inside" not in space.knobs["left"]


def test_the_work_is_that_of_the_products_inside():
    chosen, target = template_of("avx512vnni/dot")
    op = parse("conv2d h=7 w=7 ic=64 oc=48 kernel=3 pad=1 act=u8 weight=s8")
    knobs = {**_points(op, chosen, target, 1)[0], "rows": 7, "vectors": 3, "n_block": 0}
    direct, inside = (
        chosen.work(op, target, {**knobs, "left": left})["products"]
        for left in ("direct", "inside")
    )
    assert inside / direct == pytest.approx((19 / 21) ** 2)


def test_taps_inside_are_those_whose_position_is():
    sizes = itertools.product((1, 2, 5), (1, 3, 4), (1, 2, 3), (1, 2, 4), (0, 1, 3, 6))
    for size, taps, stride, dilation, before in sizes:
        out = 9
        axis = Axis(size, out, taps, stride, dilation, before)
        position = np.arange(out)[:, None] * stride + np.arange(taps)[None] * dilation - before
        inside = (0 <= position) & (position < size)
        for output in range(out):
            assert [tap in range(*axis.inside(output)) for tap in range(taps)] == list(
                inside[output]
            )
        for tap in range(taps):
            first, stop = axis.reached(tap, 2, 5)
            assert [first <= i < stop for i in range(5)] == list(inside[2:7, tap])
        assert axis.share == inside.mean()
