"""bitserial: planes of bits on every level, bounds of its counters, ways of counting bits."""

import kernels
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernels import assert_exact_on
from packers import assert_packers_agree
from strategies import TEXTS

from lpgen.algorithms import bitserial
from lpgen.algorithms.bitserial import PlaneWeights, is_xor, k_split_of
from lpgen.errors import ScheduleRefused
from lpgen.formats import Format
from lpgen.ops import Conv2d, Dense, parse
from lpgen.schedules.common.bitserial.counts import BYTE_HOLDS
from lpgen.schedules.common.bitserial.knobs import plan_of
from lpgen.schedules.x86.isa import isa_of
from lpgen.target import Target
from lpgen.templates import Template

AVX2, AVX512BW, SSE4 = (isa_of(Target.parse(name)) for name in ("avx2", "avx512bw", "sse4"))

# AVX-512 counts by shuffles on avx512bw, by an instruction on icelake.
LEVELS = ("generic", "sse4", "avx2", "avx512bw", "icelake")
EVERYWHERE = pytest.mark.parametrize("level", LEVELS)
ON_X86 = pytest.mark.parametrize("level", LEVELS[1:])
ISAS = {"sse4": SSE4, "avx2": AVX2, "avx512bw": AVX512BW, "icelake": AVX512BW}
LINEAR = [text for text in TEXTS if text[0] != "c"]


def template(level: str) -> tuple[Template, Target]:
    return kernels.template(f"{level}/bitserial")


def assert_exact(level: str, op, knobs: dict | None = None, **changed) -> None:
    chosen, target = template(level)
    knobs = {**(knobs or chosen.default(op, target)), **changed}
    assert_exact_on(chosen, target, op, knobs)


@pytest.mark.sample(2)
@pytest.mark.matrix
@ON_X86
@pytest.mark.parametrize("k", [73, 88, 92])
@pytest.mark.parametrize("act", ["u3", "u4"])
def test_runs_that_end_in_short_chunks(level, act, k):
    """LLVM took the last chunk's masks for those of the one before."""
    op = Dense(5, 17, k, act=act, weight="b1")
    chosen, target = template(level)
    knobs = {"word": 8, "words": 8, "rows": 2, "left": "direct"}
    points = chosen.space(op, target).enumerate()
    point = next(point for point in points if point.items() >= knobs.items())
    assert_exact(level, op, point)


CONVOLUTIONS = {
    "pointwise": "h=6 w=7 ic=24 oc=17 kernel=1",
    "stem": "h=17 w=19 ic=3 oc=10 kernel=7 stride=2 pad=3",
    "dilated": "h=11 w=9 ic=5 oc=6 kernel=3x2 dilation=2x3 pad=2x3",
    "uneven": "h=6 w=5 ic=32 oc=8 kernel=3 stride=2 pad=0x1x2x1",
    "grouped": "h=5 w=5 ic=12 oc=15 kernel=3 pad=1 groups=3",
    "batch": "n=3 h=5 w=6 ic=64 oc=70 kernel=3 pad=1",
    "unpadded": "h=6 w=7 ic=9 oc=40 kernel=3",
}


@pytest.mark.sample(2)
@pytest.mark.matrix
@EVERYWHERE
@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_kinds_of_convolution(level, kind):
    chosen, target = template(level)
    places = {
        "direct": "act=u1 weight=b1",
        "copied": "act=b1 weight=b2",
        "folded": "act=s2 weight=t2",
    }
    for left, formats in places.items():
        op = parse(f"conv2d {CONVOLUTIONS[kind]} {formats}")
        points = chosen.space(op, target).enumerate()
        knobs = next((point for point in points if point["left"] == left), None)
        if knobs:
            assert_exact(level, op, knobs)


def test_code_books_and_depthwise_convolutions_are_refused():
    book = Dense(4, 4, 4, act="u1", weight="c2:-7,-2,1,6")
    assert "code book" in bitserial.why_not(book)
    depthwise = Conv2d(h=4, w=4, ic=8, oc=8, kernel=3, groups=8, act="u1", weight="b1")
    assert "depthwise" in bitserial.why_not(depthwise)


@ON_X86
def test_knobs_outside_of_the_space_are_refused(level):
    chosen, target = template(level)
    op = Dense(16, 64, 1024, act="u4", weight="s4")
    knobs = chosen.default(op, target)
    long = {**knobs, "m_block": 0, "n_block": 0, "rows": 4, "words": 128}
    with pytest.raises(ScheduleRefused, match="products are too many"):
        chosen.kernel(op, target, long)
    if level != "icelake":
        with pytest.raises(ScheduleRefused, match="no instruction that counts"):
            chosen.kernel(op, target, {**knobs, "count": "instruction"})


class TestBipolar:
    """Both sides +-1: XOR."""

    @pytest.mark.parametrize(
        ("text", "xor"),
        [
            ("dense m=3 n=4 k=5 act=b1 weight=b2", True),
            ("conv2d h=5 w=5 ic=4 oc=4 kernel=3 act=b1 weight=b1", True),
            ("conv2d h=5 w=5 ic=4 oc=4 kernel=3 pad=1 act=b1 weight=b1", False),
            ("dense m=3 n=4 k=5 act=u1 weight=b1", False),
            ("dense m=3 n=4 k=5 act=b1 weight=s2", False),
        ],
    )
    def test_xor_needs_bipolar_sides_and_no_padding(self, text, xor):
        assert is_xor(parse(text)) == xor

    def test_xor_needs_neither_row_sums_nor_compensations(self):
        op = Dense(4, 64, 96, act="b1", weight="b1")
        tiling = bitserial.Tiling(rows=2, vectors=4, lanes=16, row_tiles=2, panels=1, word=8)
        definition = bitserial.define(op, tiling)
        assert definition.prologue == []
        assert definition.layout.nbytes == 64 * 96 // 8

    @pytest.mark.matrix
    @EVERYWHERE
    @pytest.mark.parametrize("act", ["b1", "b2", "b3"])
    @pytest.mark.parametrize("weight", ["b1", "b2"])
    def test_empty_places_count_nothing(self, level, act, weight):
        assert_exact(level, Dense(4, 35, 77, act=act, weight=weight))
        assert_exact(level, Conv2d(h=5, w=4, ic=9, oc=35, kernel=3, act=act, weight=weight))


class TestBounds:
    """Counters of bytes hold what all of k brings, or are emptied in time."""

    @staticmethod
    def knobs(level: str, **changed) -> dict:
        depth = 1 if level in ("sse4", "avx2") else 3
        knobs = {"count": "shuffle", "word": 8, "depth": depth, "words": 8, "rows": 1, "vectors": 1}
        blocks = {"m_block": 0, "n_block": 0, "outer": "mn", "inner": "mn", "left": "direct"}
        return {**knobs, **blocks, **changed}

    @pytest.mark.matrix
    @pytest.mark.parametrize("level", ["sse4", "avx2", "avx512bw"])
    @pytest.mark.parametrize(("act", "weight"), [("u1", "u1"), ("u2", "u1"), ("u2", "u2")])
    def test_exact_on_both_sides_of_the_bound(self, level, act, weight):
        isa, knobs = ISAS[level], self.knobs(level)
        words, sides = 2, set()
        while (
            plan_of(Dense(1, 70, words * 8, act=act, weight=weight), isa, knobs).widening is False
        ):
            words += 1
        for count in (words - 1, words, words + 1, 3 * words):
            op = Dense(1, 70, count * 8, act=act, weight=weight)
            sides.add(plan_of(op, isa, knobs).widening)
            assert_exact(level, op, knobs)
        assert sides == {False, True}

    @pytest.mark.parametrize("level", ["sse4", "avx2", "avx512bw"])
    def test_words_of_32_bits_have_the_same_bound(self, level):
        isa, knobs = ISAS[level], self.knobs(level, word=32)
        n = isa.lanes
        for k in (31 * 16 * 32, 70 * 16 * 32):
            assert_exact(level, Dense(1, n, k, act="u1", weight="u1"), knobs)

    @ON_X86
    def test_long_reductions(self, level):
        assert_exact(level, Dense(1, 20, 2**17 + 5, act="u1", weight="b1"))

    @pytest.mark.parametrize("planes", [(1, 1), (2, 1), (3, 2), (4, 4), (8, 8)])
    def test_the_bound_is_what_worst_inputs_bring(self, planes):
        """Every bit set: a tree that adds numbers counts what leaves its levels."""
        op = Dense(1, 70, 80 * 8, act=f"u{planes[0]}", weight=f"u{planes[1]}")
        p = plan_of(op, AVX2, self.knobs("avx2", depth=2))
        weight = sum(1 << i + j for i in range(planes[0]) for j in range(planes[1]))
        for words in (1, 7, 80):
            # At one place of a byte the levels hold the low bits of the sum, the counter the rest.
            assert p.most(words, False) == words * weight >> p.levels

    def test_a_piece_that_overflows_is_refused(self):
        op = Dense(1, 70, 8 * 4096, act="u8", weight="u8")
        p = plan_of(op, AVX2, self.knobs("avx2", words=128))
        assert p.most(p.piece, True) > BYTE_HOLDS
        assert "overflow a byte" in p.overflow()
        assert plan_of(op, AVX2, self.knobs("avx2")).overflow() is None


class TestAssembly:
    """The instructions that a level is chosen for."""

    @staticmethod
    def assembly(level: str) -> str:
        from lpgen.build.lower import jit_module

        chosen, target = template(level)
        op = Dense(8, 128, 512, act="u1", weight="u1")
        kernel = chosen.kernel(op, target, chosen.default(op, target))
        return jit_module(kernel, target).inspect_source("asm")

    def test_counting_by_instruction(self):
        assert "vpopcntd" in self.assembly("icelake")

    def test_counting_by_shuffles(self):
        asm = self.assembly("avx512bw")
        assert "vpopcntd" not in asm
        assert "vpshufb" in asm
        assert "vpternlogd" in asm
        assert "vpshufb" in self.assembly("avx2")
        assert "pshufb" in self.assembly("sse4")


def layout_of(op, word: int, lanes: int) -> PlaneWeights:
    matrix, panel = op.matrix, lanes * (32 // word)
    c = k_split_of(op, word, "copied")
    sizes = (matrix.groups, matrix.n, -(-matrix.n // panel), panel)
    return PlaneWeights(op.w_shape, op.weight, c, *sizes, offset=-op.act.min, lanes=lanes)


@settings(max_examples=15, deadline=None)
@given(
    weight=st.sampled_from(LINEAR),
    shape=st.tuples(st.integers(1, 40), st.integers(1, 50)),
    word=st.sampled_from([8, 16, 32]),
)
def test_both_packers_give_the_same_bytes(weight, shape, word):
    op = Dense(3, *shape, act="s3", weight=weight)
    layout = layout_of(op, word, 4)
    _, w = op.random(np.random.default_rng(sum(shape)))
    assert_packers_agree(layout, w)


@pytest.mark.parametrize("word", [8, 16, 32])
@pytest.mark.parametrize("weight", LINEAR)
def test_a_weight_takes_exactly_its_bits(weight, word):
    op = Dense(1, 64, 256, act="u1", weight=weight)
    assert layout_of(op, word, 16).nbytes * 8 == 64 * 256 * Format.parse(weight).bits


def test_neighbouring_columns_are_the_same_words_of_neighbouring_lanes():
    op = Dense(1, 8, 8, act="u1", weight="u1")
    w = np.arange(8, dtype=np.uint8)[:, None] >> np.arange(8) & 1
    # 2 lanes of 4 words: word b of lane l is column 2 * b + l.
    assert layout_of(op, 8, 2).pack(w.astype(np.uint8))[:8].tolist() == [0, 2, 4, 6, 1, 3, 5, 7]
