"""The winograd algorithm computes exactly what the oracle does, and its tiles are exact where they
say so: at their limits, with the inputs that reach them."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from kernels import arguments, assert_exact, assert_exact_on, template, template_of
from packers import assert_packers_agree

from lpgen.algorithms.winograd.sides import DIRECT, limits, side
from lpgen.algorithms.winograd.tile import Tile
from lpgen.errors import ScheduleRefused
from lpgen.ops import Conv2d, parse
from lpgen.runtime.memory import aligned_copy

NAMES = [f"{level}/winograd" for level in ("sse4", "avx2", "avx512bw", "avx512vnni")]
TEMPLATES = pytest.mark.parametrize("name", NAMES)


def conv(act: str, weight: str, **words) -> Conv2d:
    """A 3x3 convolution of 9x10 pixels with padding, but for what `words` say."""
    shape = {"h": 9, "w": 10, "ic": 9, "oc": 32, "kernel": 3, "pad": 1, **words}
    return Conv2d(act=act, weight=weight, **shape)


@pytest.mark.parametrize(
    ("outputs", "taps", "stride"),
    [
        *((2, 3, 1), (3, 3, 1), (4, 3, 1), (2, 5, 1), (3, 2, 1), (2, 2, 1)),
        *((2, 3, 2), (3, 3, 2), (4, 3, 2), (2, 7, 2), (2, 5, 3), (3, 4, 3)),
    ],
)
def test_a_side_is_a_multiple_of_the_filter(outputs, taps, stride):
    found, rng = side(outputs, taps, stride), np.random.default_rng(0)
    d, g = rng.integers(-99, 99, (outputs - 1) * stride + taps), rng.integers(-99, 99, taps)
    products = (np.array(found.weight) @ g) * (np.array(found.input) @ d)
    filtered = np.correlate(d, g, "valid")[::stride]
    np.testing.assert_array_equal(np.array(found.output) @ products, found.scale * filtered)
    assert found.products == min(stride, taps) * (outputs - 1) + taps


@pytest.mark.parametrize(("outputs", "counts"), [(2, (2, 1, 2)), (3, (2, 1, 1, 2, 1))])
def test_products_of_the_same_outputs_share_a_place(outputs, counts):
    found, rng = side(outputs, 3, 2), np.random.default_rng(0)
    assert found.counts == counts
    products = rng.integers(-99, 99, found.products)
    sums = np.add.reduceat(products, found.starts)
    expected = np.array(found.output) @ products
    np.testing.assert_array_equal(np.array(found.back) @ sums, expected)


@pytest.mark.parametrize(("outputs", "taps"), [(4, 3), (3, 4), (2, 5), (5, 3), (4, 4), (4, 5)])
def test_a_side_with_imaginary_points_is_a_multiple_of_the_filter(outputs, taps):
    found, rng = side(outputs, taps, imaginary=True), np.random.default_rng(0)
    d, g = rng.integers(-99, 99, outputs - 1 + taps), rng.integers(-99, 99, taps)
    products = (np.array(found.weight) @ g) * (np.array(found.input) @ d)
    filtered = np.correlate(d, g, "valid")
    np.testing.assert_array_equal(np.array(found.output) @ products, found.scale * filtered)
    assert found.products == outputs + taps


def test_imaginary_points_keep_numbers_small():
    found = side(4, 3, imaginary=True)
    sums = [max(sum(map(abs, row)) for row in matrix) for matrix in (found.weight, found.input)]
    assert (sums, found.scale) == ([3, 4], 4)
    with pytest.raises(ValueError, match=r"F\(2, 3\) has 3 finite points, none of them large"):
        side(2, 3, imaginary=True)


def test_one_output_is_not_transformed_and_too_many_are_refused():
    assert side(1, 3) is DIRECT
    with pytest.raises(ValueError, match=r"F\(6, 5\) needs 9 finite points"):
        side(6, 5)


def test_limits_are_reached():
    matrix = side(2, 3).input
    low, top = limits(matrix, matrix, -3, 5)
    rows = np.array(matrix)
    for p, q in itertools.product(range(4), repeat=2):
        signs = np.outer(rows[p], rows[q])
        best = (signs * np.where(signs > 0, 5, -3)).sum()
        worst = (signs * np.where(signs > 0, -3, 5)).sum()
        assert (low[p, q], top[p, q]) == (worst, best)


@pytest.mark.parametrize(
    ("name", "fits", "act", "weight", "reason"),
    [
        ("2x2", "act=u6 weight=s4", "act=u7 weight=s4", "act=u6 weight=s5", "256|int8"),
        ("3x2", "act=u4 weight=s3", "act=u5 weight=s3", "act=u4 weight=s4", "256|int8"),
        ("4x2", "act=u3 weight=s3", "act=u4 weight=s3", "act=u3 weight=s4", "256|int8"),
        ("4ix4i", "act=u4 weight=s4", "act=u5 weight=s4", "act=u4 weight=s5", "256|int8"),
        ("4ix2", "act=u5 weight=s4", "act=u6 weight=s4", "act=u5 weight=s5", "256|int8"),
        ("1x2", "act=u7 weight=s6", "act=u8 weight=s6", "act=u7 weight=s7", "256|int8"),
        (
            "2x2",
            "stride=2 act=u6 weight=s6",
            "stride=2 act=u7 weight=s6",
            "stride=2 act=u6 weight=s7",
            "256|int8",
        ),
    ],
)
def test_tiles_are_exact_up_to_a_format_and_refused_above(name, fits, act, weight, reason):
    shape = "conv2d h=8 w=8 ic=8 oc=8 kernel=3 pad=1"
    assert Tile.of(parse(f"{shape} {fits}"), name).why_not() is None
    for formats in (act, weight):
        found = Tile.of(parse(f"{shape} {formats}"), name).why_not()
        assert any(word in found for word in reason.split("|")), found


def test_sums_on_the_way_back_fit_int32_up_to_a_depth():
    def of(ic: int) -> Tile:
        return Tile.of(conv("u3", "s3", ic=ic), "2x2")

    deepest = (2**31 - 1) // of(1).sums
    assert of(deepest).why_not() is None
    assert "more than int32" in of(deepest + 1).why_not()


@pytest.mark.matrix
@TEMPLATES
@pytest.mark.parametrize(
    "tile", ["2x2", "3x2", "2x3", "4x2", "1x2", "4x1", "3x3", "4ix4i", "2x4i", "4ix1"]
)
def test_every_tile_on_extremes(name, tile):
    """Random inputs and all four pairs of extreme values (`assert_exact`)."""
    chosen, target = template(name)
    for act, weight, stride in (("u3", "s3", 1), ("b2", "t2", 1), ("s2", "s4", 2)):
        op = conv(act, weight, stride=stride)
        space = chosen.space(op, target)
        if tile in space.knobs["tile"]:
            knobs = next(k for k in space.enumerate() if k["tile"] == tile)
            assert_exact(name, op, knobs)


def test_sums_of_pairs_are_as_long_as_they_fit():
    chosen, target = template_of("avx2/winograd")
    op = conv("u4", "s4", ic=64)
    pairs = Tile.of(op, "2x2").pairs
    assert pairs == 32767 // (2 * 60 * 72) == 3
    found = {k["step"] for k in chosen.space(op, target).enumerate() if k["tile"] == "2x2"}
    assert found == {"bytes", "pairs3", "words"}
    knobs = next(k for k in chosen.space(op, target).enumerate() if k["tile"] == "2x2")
    with pytest.raises(ScheduleRefused, match=r"step=pairs4: an int16 holds the sums of 3 pairs"):
        chosen.kernel(op, target, knobs | {"step": "pairs4"})


WORDS = ["4x3", "3x3", "4x1"]


@pytest.mark.matrix
@TEMPLATES
@pytest.mark.parametrize(
    ("formats", "stride"),
    [("act=u8 weight=s8", 1), ("act=s8 weight=s7 zero_act=-5", 1), ("act=u8 weight=s8", 2)],
)
def test_tiles_of_words_on_extremes(name, formats, stride):
    chosen, target = template(name)
    words = dict(word.split("=") for word in formats.split())
    op = conv(
        words.pop("act"),
        words.pop("weight"),
        stride=stride,
        **{k: int(v) for k, v in words.items()},
    )
    if chosen.why_not(op, target):
        assert (name, stride) == ("avx512vnni/winograd", 2)
        return
    space = chosen.space(op, target)
    for tile in set(WORDS) & {*space.knobs["tile"]}:
        knobs = next(k for k in space.enumerate() if k["tile"] == tile)
        assert knobs["step"] == "words"
        assert_exact(name, op, knobs)


@TEMPLATES
@pytest.mark.parametrize("tile", ["3x3", "4x4"])
def test_sums_of_words_wrap_around(name, tile):
    """Inputs that reach the limits of a transformed activation and weight at some place: the sum of
    their products leaves int32, what it is a part of does not."""
    from lpgen.build.lower import jit

    chosen, target = template(name)
    found = Tile.of(conv("u8", "s8", ic=160), tile, words=True)
    size = len(found.high.input[0])
    op = conv("u8", "s8", h=size, w=size, ic=160, oc=16, pad=0)
    found = Tile.of(op, tile, words=True)
    knobs = next(k for k in chosen.space(op, target).enumerate() if k["tile"] == tile)
    kernel = chosen.kernel(op, target, knobs)
    run, example = jit(kernel, target), op.example(np.random.default_rng(0), "random")
    places = itertools.product(range(found.high.products), range(found.wide.products))
    reached = []
    for p, q in places:
        signs = np.outer(found.high.input[p], found.wide.input[q])
        taps = np.outer(found.high.weight[p], found.wide.weight[q])
        x, w = np.empty(op.x_shape, np.uint8), np.empty(op.w_shape, np.int8)
        x[:] = np.where(signs > 0, 255, 0)[None, :, :, None]
        w[:] = np.where(taps > 0, 127, -128)[None, :, :, None]
        y = aligned_copy(np.zeros((1, op.oh, op.ow, op.oc), np.int32))
        given = example._replace(inputs={"x": x}, weights=w)
        run(*arguments(kernel, given, y))
        np.testing.assert_array_equal(y, op.reference(x, w), f"place {p} {q}")
        centred = x[0, :, :, 0].astype(int) - found.centre
        reached.append(
            op.ic * abs(int((signs * centred).sum()) * int((taps * w[0, :, :, 0]).sum()))
        )
    assert max(reached) > 2**31


def test_results_of_words_fit_int32_up_to_a_depth():
    def of(ic: int, act: str = "u8") -> Tile:
        return Tile.of(conv(act, "s8", ic=ic), "4x4", words=True)

    assert of(1).scale == 24 * 24
    assert (of(1).centre, of(1, "s8").centre) == (128, 0)
    deepest = (2**31 - 1) // (64 * 9 * 128 * 128)
    assert of(deepest).why_not() is None
    assert "64 times that is more than int32" in of(deepest + 1).why_not()


def test_words_are_for_what_bytes_do_not_hold():
    chosen, target = template_of("avx512vnni/winograd")
    assert chosen.space(conv("u4", "s4"), target).knobs["step"] == ("bytes",)
    op = conv("u7", "s6")  # 1x2 in bytes
    space = chosen.space(op, target)
    assert space.knobs["step"] == ("bytes", "words")
    knobs = next(k for k in space.enumerate() if k["step"] == "words")
    with pytest.raises(ScheduleRefused, match=r"1\.50 times fewer products, of words"):
        chosen.kernel(op, target, knobs | {"tile": "1x2"})
    with pytest.raises(ScheduleRefused, match="they are transformed to bytes"):
        chosen.kernel(op, target, knobs | {"weights": "codes"})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("dense m=4 n=4 k=4", "it is for conv2d, not dense|no neighbouring taps"),
        ("conv2d h=4 w=4 ic=4 oc=4 kernel=1", "no neighbouring taps"),
        ("conv2d h=8 w=8 ic=4 oc=4 kernel=3 stride=3", "no neighbouring taps"),
        ("conv2d h=8 w=8 ic=4 oc=4 kernel=3 dilation=2", "dilation=2x2: tiles need"),
        ("conv2d h=8 w=8 ic=4 oc=4 groups=2 kernel=3", "groups=2: few channels"),
        ("conv2d h=8 w=8 ic=4 oc=4 kernel=3 stride=2 act=u8 weight=s8", "transformed weights are"),
    ],
)
def test_other_operators_are_refused(text, reason):
    chosen, target = template_of("avx512vnni/winograd")
    formats = "" if "act=" in text else " act=u2 weight=s2"
    found = chosen.why_not(parse(text + formats), target)
    assert any(part in found for part in reason.split("|")), found


SMALL_CACHE = 256
"""Bytes of an L2 cache that no transformed weights stay in."""


def _stored_as_codes(name: str, op: Conv2d, tile: str) -> tuple:
    """(template, target, knobs) of a kernel that transforms its weights itself."""
    chosen, target = template_of(name)
    target = replace(target, l2=SMALL_CACHE)
    knobs = chosen.space(op, target).enumerate()
    wanted = {"tile": tile, "weights": "codes"}
    return chosen, target, next(k for k in knobs if wanted.items() <= k.items())


@pytest.mark.parametrize(
    ("level", "tile", "act", "weight", "words"),
    [
        ("avx512vnni", "2x2", "u4", "s4", {"ic": 16}),
        ("avx2", "4x1", "u3", "s3", {"ic": 29}),
        ("avx512bw", "1x2", "s3", "b2", {"ic": 16, "oc": 48, "n": 2}),
        ("sse4", "3x2", "u2", "c2:-3,0,1,2", {"ic": 13}),
    ],
)
def test_weights_stored_as_codes(level, tile, act, weight, words):
    name = f"{level}/winograd"
    template(name)  # skips
    op = conv(act, weight, **words)
    chosen, target, knobs = _stored_as_codes(name, op, tile)
    assert_exact_on(chosen, target, op, knobs)
    assert chosen.kernel(op, target, knobs).packed_bytes < 2 * math.prod(op.w_shape)


def test_why_weights_are_not_stored_as_codes():
    op, (chosen, target) = conv("u2", "b2", ic=16), template_of("avx2/winograd")
    small = replace(target, l2=SMALL_CACHE)
    knobs = next(k for k in chosen.space(op, target).enumerate() if k["tile"] == "2x2")
    knobs |= {"weights": "codes"}
    for channels, cpu, more, reason in (
        (16, target, {}, "the transformed ones stay in the L2 cache"),
        (16, small, {"block": 1}, "each block would transform them again"),
        (24, small, {"step": "bytes"}, "4 steps share a byte, and there are 6"),
        (14, small, {}, "b2 has no zero to fill 14 channels with"),
    ):
        with pytest.raises(ScheduleRefused, match=reason):
            chosen.kernel(replace(op, ic=channels), cpu, knobs | more)


def test_the_packer_of_the_library_packs_as_numpy_does():
    op = conv("s3", "s3", ic=6, oc=9)
    chosen, target = template_of("sse4/winograd")
    space = list(chosen.space(op, target).enumerate())
    points = [next(k for k in space if k["tile"] == tile) for tile in ("2x2", "3x1")]
    words = conv("u8", "s8", ic=6, oc=9, stride=2)
    codes = conv("s3", "s3", ic=30, oc=9)
    cases = [(op, target, knobs) for knobs in points]
    cases.append((words, target, next(chosen.space(words, target).enumerate())))
    cases += [
        (codes, *_stored_as_codes("sse4/winograd", codes, tile)[1:]) for tile in ("2x2", "1x4")
    ]
    for op, target, knobs in cases:
        layout = chosen.kernel(op, target, knobs).layout
        _, w = op.random(np.random.default_rng(3))
        assert_packers_agree(layout, w, target)
