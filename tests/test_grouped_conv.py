"""The grouped algorithm computes exactly what the oracle does, on every instruction set."""

import numpy as np
import pytest
from kernels import assert_exact, template
from packers import assert_packers_agree

from lpgen.algorithms.weights.lanes import Lanes
from lpgen.errors import ScheduleRefused
from lpgen.ops import Conv2d, parse
from lpgen.records.choose import ranking
from lpgen.schedules.common.grouped_conv import pieces
from lpgen.schedules.common.grouped_conv.tile import Pieces
from lpgen.schedules.x86.isa import isa_of
from lpgen.target import Target

NAMES = [f"{family}/grouped_conv" for family in ("sse4", "avx2", "avx512bw", "avx512vnni")]
TEMPLATES = pytest.mark.parametrize("name", NAMES)


def grouped(groups: int, ins: int, outs: int, act="u8", weight="s8", **words) -> Conv2d:
    """A convolution of 3x3 over 4x5 with padding, but for what `words` say."""
    shape = {"h": 4, "w": 5, "kernel": 3, "pad": 1, **words}
    return Conv2d(ic=groups * ins, oc=groups * outs, groups=groups, act=act, weight=weight, **shape)


@pytest.mark.parametrize("name", ["avx2/dot", "avx512vnni/dot"])
def test_dot_serves_groups_of_one_output_channel_that_are_far_apart(name):
    chosen, target = template(name)
    op = grouped(3, 40, 1)
    assert chosen.why_not(op, target) is None
    assert "depthwise" in chosen.why_not(grouped(3, 1, 1), target)
    assert_exact(name, op)


@pytest.mark.matrix
@pytest.mark.parametrize("name", ["sse4/grouped_conv", "avx2/grouped_conv"])
@pytest.mark.parametrize(
    ("act", "weight", "expected"),
    [
        ("u8", "s8", ("words",)),  # 2 * 255 * 128 exceeds int16
        ("u7", "s8", ("bytes",)),  # 2 * 127 * 128 just fits
        ("u8", "s5", ("pairs", "bytes")),  # of 3 taps, 6 * 255 * 16 fits
        ("u8", "s6", ("bytes",)),  # 6 * 255 * 32 does not
    ],
)
def test_narrow_sums_are_used_where_they_cannot_overflow(name, act, weight, expected):
    chosen, target = template(name)
    op = grouped(4, 8, 8, act, weight, h=3)
    space = chosen.space(op, target)
    assert space.knobs["step"] == expected
    for step in expected:
        points = [point for point in space.enumerate() if point["step"] == step]
        assert_exact(name, op, points[-1])


def test_words_reach_half_as_far_as_bytes():
    chosen, target = template("avx2/grouped_conv")
    assert chosen.why_not(grouped(2, 20, 1, "u8", "s7"), target) is None
    assert "too far apart" in chosen.why_not(grouped(2, 20, 1, "u8", "s8"), target)
    assert_exact("avx2/grouped_conv", grouped(2, 20, 1, "u8", "s7", h=2, w=3))


def test_pieces_of_code_are_as_long_as_their_sums_fit():
    isa = isa_of(Target.parse("avx2"))

    def taken(op, **knobs):
        return pieces(op, isa, {"rows": 1, "columns": 2, "vectors": 1, **knobs})

    op = grouped(4, 8, 8, "u8", "s5")
    assert taken(op, step="bytes") == Pieces(steps=2, rows=3)
    assert taken(op, step="pairs") == Pieces(steps=1, rows=1)  # 4 taps fit, not 9
    assert taken(op, step="pairs", rows=2) is None
    assert taken(grouped(4, 8, 8, "u4", "s4"), step="pairs") == Pieces(steps=2, rows=3)
    assert taken(grouped(4, 99, 8), step="bytes", columns=8) == Pieces(steps=1, rows=3)
    assert taken(op, step="bytes", columns=200) is None


def test_groups_share_vectors():
    four = Lanes(groups=32, ins=4, outs=4, lanes=16, kq=4)
    assert (four.together, four.width, four.steps, four.panels(1)) == (4, 16, 1, 8)
    three = Lanes(groups=7, ins=3, outs=3, lanes=16, kq=4)
    assert (three.together, three.width, three.panels(1)) == (5, 15, 2)
    far = Lanes(groups=32, ins=32, outs=2, lanes=16, kq=4)
    assert (far.together, far.width, far.steps) == (2, 4, 8)
    several = Lanes(groups=2, ins=8, outs=24, lanes=16, kq=4)
    assert (several.together, several.width, several.panels(2)) == (1, 12, 2)
    assert [several.group(panel, 1, 3, 2) for panel in range(2)] == [0, 1]


def test_vectors_without_empty_lanes_hold_whole_groups_together():
    lanes = Lanes(groups=4, ins=24, outs=24, lanes=16, kq=4, dense=True)
    assert (lanes.period, lanes.width, lanes.panels(3), lanes.behind(3)) == (3, 16, 2, 0)
    assert [sorted({*lanes.groups_of(vector)}) for vector in range(3)] == [[0], [0, 1], [1]]
    assert [lanes.group(1, vector, 8, 3) for vector in range(3)] == [2, 3, 3]
    odd = Lanes(groups=3, ins=6, outs=6, lanes=16, kq=4, dense=True)
    assert (odd.period, odd.panels(3), odd.behind(3)) == (3, 1, 5)


@pytest.mark.sample(2)
@TEMPLATES
@pytest.mark.parametrize(
    ("groups", "ins", "outs", "words"),
    [
        (9, 6, 6, {"w": 2}),  # the last panel lacks groups
        (4, 12, 12, {"stride": 2, "act": "u7"}),
        (2, 24, 24, {}),
        (5, 3, 20, {"h": 2, "w": 2}),
    ],
)
def test_tiles_without_empty_lanes_are_exact(name, groups, ins, outs, words):
    chosen, target = template(name)
    op = grouped(groups, ins, outs, **{"h": 4, "w": 4, **words})
    space = chosen.space(op, target)
    points = [p for p in space.enumerate() if p["vectors"] == space.knobs["vectors"][-1]]
    for knobs in (points[0], points[len(points) // 2], points[-1]):
        assert_exact(name, op, knobs)


def test_tiles_without_empty_lanes_are_whole():
    chosen, target = template("avx512vnni/grouped_conv")
    op = grouped(8, 24, 24, h=6, w=6)
    assert chosen.space(op, target).knobs["vectors"] == (1, 2, 3)
    knobs = chosen.default(op, target) | {"rows": 1, "columns": 4, "vectors": 3, "block": 0}
    with pytest.raises(ScheduleRefused, match="1 x 4 are partly outside of 6 x 6"):
        chosen.kernel(op, target, knobs)


@TEMPLATES
def test_empty_lanes_have_no_results(name):
    """They would be those of the next tile, which another thread may have computed before."""
    chosen, target = template(name)
    op = grouped(8, 6, 6, h=4, w=4)
    knobs = chosen.default(op, target) | {"rows": 1, "columns": 2}
    text = str(chosen.kernel(op, target, knobs).module)
    assert text.count('T.sblock("y")') == 1
    assert_exact(name, op, knobs)


@TEMPLATES
def test_other_operators_are_refused(name):
    chosen, target = template(name)
    for text, reason in (
        ("dense m=4 n=4 k=4", "one group"),
        ("conv2d h=4 w=4 ic=8 oc=8 kernel=3", "one group"),
        ("conv2d h=4 w=4 ic=8 oc=8 kernel=3 groups=8", "a depthwise kernel fits"),
        ("conv2d h=4 w=4 ic=8 oc=512 kernel=3 groups=2", "256 output channels"),
        ("conv2d h=4 w=4 ic=8 oc=68 kernel=3 groups=2", "lanes empty, more than dot does"),
        ("conv2d h=4 w=4 ic=160 oc=2 kernel=3 groups=2", "too far apart"),
        ("conv2d h=4 w=300 ic=8 oc=8 kernel=1x300 groups=2", "kernel=1x300"),
    ):
        assert reason in chosen.why_not(parse(f"{text} act=u8 weight=s8"), target)


@TEMPLATES
def test_knobs_outside_of_the_space_are_refused(name):
    chosen, target = template(name)
    op = grouped(4, 4, 4, h=30, w=30)
    for wrong, reason in (
        ({"rows": 8, "columns": 7}, "registers"),
        ({"rows": 1, "columns": 1, "block": 29}, "block=29"),
    ):
        with pytest.raises(ScheduleRefused, match=reason):
            chosen.kernel(op, target, {**chosen.default(op, target), **wrong})
    long = grouped(4, 4, 4, h=30, w=30, kernel=14, pad=0)
    with pytest.raises(ScheduleRefused, match="straight-line"):
        chosen.kernel(long, target, {**chosen.default(long, target), "rows": 2, "columns": 2})


NEAR = {"grouped_conv", "dot"}
"""Which of them is faster the model may see either way."""


@pytest.mark.parametrize(
    ("op", "plain", "amx"),
    [
        (grouped(32, 4, 4), {"grouped_conv"}, {"grouped_conv"}),
        (grouped(2, 64, 64), NEAR, {"mma"}),
        (grouped(4, 32, 32, kernel=1, pad=0), NEAR, {"mma", *NEAR}),
        (grouped(4, 4, 4, kernel=1, pad=0), {"grouped_conv"}, {"grouped_conv"}),
        (grouped(2, 4, 256), {"dot"}, {"mma", "dot"}),
    ],
)
def test_what_nobody_tuned_takes_it_where_groups_are_small(op, plain, amx):
    for target, expected in (("avx512vnni", plain), ("sapphirerapids", amx)):
        assert ranking(op, Target.parse(target))[0].template.algorithm in expected


def test_the_packer_of_the_library_packs_as_numpy_does():

    for name in NAMES:
        chosen, target = template(name)
        for op in (grouped(5, 3, 3, "s4", "b3"), grouped(3, 6, 32), grouped(2, 4, 2, kernel=2)):
            layout = chosen.kernel(op, target, chosen.default(op, target)).layout
            _, w = op.random(np.random.default_rng(0))
            assert_packers_agree(layout, w, target)
