"""What is tried of each algorithm: workloads by what they are about, and a strategy of operators.

An algorithm that is not named here is tried with what serves most: `GENERAL` and `general`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import chain

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from strategies import (
    TEXTS,
    blockwise_denses,
    books,
    convs,
    grouped_convs,
    layered_denses,
    texts,
    with_epilogues,
)
from without_weights import operators_of, texts_of

from lpgen.formats import Format
from lpgen.ops import Conv2d, Dense

UNSIGNED = tuple(f"u{bits}" for bits in range(1, 9))
SIGNED = ("b1", *(f"s{bits}" for bits in range(2, 9)))
OTHERS = tuple(text for text in TEXTS if text not in UNSIGNED)
LINEAR = tuple(text for text in TEXTS if text[0] != "c")
"""Formats whose values are sums of bits."""

KINDS = {
    "pointwise": "h=6 w=7 ic=20 oc=17 kernel=1",
    "strided pointwise": "h=7 w=7 ic=8 oc=16 kernel=1 stride=2",
    "stem": "h=17 w=19 ic=3 oc=10 kernel=7 stride=2 pad=3",
    "dilated": "h=11 w=9 ic=5 oc=6 kernel=3x2 dilation=2x3 pad=2x3",
    "uneven": "h=6 w=5 ic=4 oc=8 kernel=3 stride=2 pad=0x1x2x1",
    "groups": "h=5 w=5 ic=12 oc=15 kernel=3 pad=1 groups=3",
    "odd groups": "h=5 w=5 ic=9 oc=15 kernel=3 pad=1 groups=3",
    "batch": "n=3 h=5 w=6 ic=7 oc=9 kernel=3 pad=1",
    "one dimension": "h=1 w=40 ic=6 oc=12 kernel=1x5 pad=0x2",
    "whole input": "h=5 w=4 ic=6 oc=10 kernel=5x4",
    "unpadded": "h=6 w=7 ic=9 oc=40 kernel=3",
}
WINDOWS = {
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


def dense(m: int, n: int, k: int, act: str = "u8", weight: str = "s8") -> str:
    return f"dense m={m} n={n} k={k} act={act} weight={weight}"


def kinds(shapes: dict[str, str], *formats: str) -> list[list[str]]:
    """A row for every kind of convolution: it with each of the formats."""
    return [[f"conv2d {words} {more}" for more in formats] for words in shapes.values()]


@dataclass(frozen=True)
class Cases:
    """Workloads of an algorithm: `pairs` a text for every pair of `acts` and `weights`, `formats`
    of one format beside a fixed one, `sizes` around the edges of tiles, vectors and steps, and
    `kinds` of convolution, a row each; `operators` draws any that it may serve, `examples` of them
    by day. Where a format or a kind is what matters, shapes are as small as it lets them be."""

    operators: SearchStrategy
    examples: int = 16
    pairs: str = ""
    acts: tuple[str, ...] = UNSIGNED
    weights: tuple[str, ...] = SIGNED
    formats: list[str] = field(default_factory=list)
    sizes: list[str] = field(default_factory=list)
    kinds: list[list[str]] = field(default_factory=list)

    def rows(self, section: str) -> list[list[str]]:
        """The workloads of a section, in rows of which a day tries one each."""
        if section == "kinds":
            return self.kinds
        texts, length = getattr(self, section), {"formats": 3, "sizes": 1}[section]
        return [texts[at : at + length] for at in range(0, len(texts), length)]

    def rows_of_pairs(self) -> Iterator[list[str]]:
        """The workloads of each activation format with every weight format."""
        for act in self.acts if self.pairs else ():
            yield [f"{self.pairs} act={act} weight={weight}" for weight in self.weights]

    def texts(self) -> Iterator[str]:
        """All workloads."""
        sections = (self.rows(section) for section in ("sizes", "kinds", "formats"))
        for row in (*chain(*sections), *self.rows_of_pairs()):
            yield from row


def products(m: int, n: int, k: int, act=texts, weight=texts) -> SearchStrategy:
    """Dense operators up to a size."""
    return st.builds(Dense, *(st.integers(1, size) for size in (m, n, k)), act=act, weight=weight)


@st.composite
def of_formats(draw, operators, acts, weights):
    """One of `operators`, with formats that are drawn apart."""
    return replace(draw(operators), act=draw(acts), weight=draw(weights))


@st.composite
def of_one_bit(draw):
    """Operators with activations of one bit, which are indices where padding adds no value."""
    acts, weights = st.sampled_from(["u1", "b1"]), st.sampled_from(LINEAR)
    op = draw(of_formats(products(140, 40, 90) | convs(), acts, weights))
    padded = op.act.encoding == "b" and any(getattr(op, "pad", ()))
    return replace(op, act=Format.parse("u1")) if padded else op


def _one_side(shape: str, act: str, weight: str) -> list[str]:
    """Each format of weights that `SIGNED` lacks beside `act`, and of activations that `UNSIGNED`
    lacks beside `weight`."""
    rest = [text for text in TEXTS if text not in SIGNED]
    return [
        *(f"{shape} act={act} weight={text}" for text in rest),
        *(f"{shape} act={text} weight={weight}" for text in OTHERS),
    ]


GENERAL = Cases(
    operators=convs() | products(40, 100, 130),
    pairs="dense m=5 n=18 k=37",
    formats=_one_side("conv2d h=2 w=2 ic=5 oc=9 kernel=2 pad=1x0", "s8", "b3"),
    sizes=[
        *(dense(m, 33, 24) for m in (1, 2, 5, 6, 7, 13, 16, 17, 33)),
        *(
            dense(9, n, 20, "u8", "s4")
            for n in (1, 3, 4, 5, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65)
        ),
        # Bipolar weights have no zero to fill up steps with.
        *(dense(6, 20, k, "s7", "b1") for k in (1, 3, 5, 15, 17, 31, 33, 63, 65, 129)),
        *(dense(6, 20, k, "s7", "s7") for k in (2, 4, 16, 32, 64)),
    ],
    kinds=kinds(KINDS, "act=u8 weight=s8", "act=s5 weight=b2"),
)

_NARROW = (
    *("u1", "b1", "u2", "s2", "b2", "t2", "c1:-5,9", "c2:-7,-2,1,6"),
    # The largest products of both signs, with and without a 0, and few values.
    *("c1:-128,127", "c2:-128,-127,126,127", "c2:-128,0,127", "c2:3,4,5,6"),
)
_WIDER = ("u3", "s3", "b3", "u4", "s4", "b4", "c3:-60,-17,-1,0,31", "c4:-128,-9,-8,1,2,3,4,5,127")
NARROW_WEIGHTS = st.sampled_from(_NARROW) | books().filter(lambda t: Format.parse(t).bits <= 2)
NARROW_ACTS = st.sampled_from((*_NARROW, *_WIDER)) | books()
_LANES = [("u1", "u1"), ("b1", "b1"), ("u3", "b1"), ("u1", "s2"), ("b1", "t2"), ("s2", "u1")]
_FIELDS = ("u1", "b1", "s2", "t2", "u3", "s4", "b5", "s6", "b7", "s7")
_EDGES = (2, 3, 4, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65)


def _depthwise(channels: int, formats: str, shape: str = "h=6 w=7") -> str:
    return f"conv2d {shape} ic={channels} oc={channels} groups={channels} kernel=3 pad=1 {formats}"


@st.composite
def _depthwise_of_any_shape(draw):
    """Depthwise convolutions with kernels up to 5x5, strides, dilations, uneven padding."""
    few, channels = st.integers(1, 3), draw(st.integers(2, 40))
    return Conv2d(
        n=draw(few),
        h=draw(st.integers(9, 16)),
        w=draw(st.integers(9, 16)),
        ic=channels,
        oc=channels * draw(few),
        groups=channels,
        kernel=draw(st.tuples(st.integers(1, 5), st.integers(1, 5))),
        stride=draw(st.tuples(few, few)),
        dilation=draw(st.tuples(st.integers(1, 2), st.integers(1, 2))),
        pad=draw(st.tuples(*[st.integers(0, 3)] * 4)),
        act=draw(texts),
        weight=draw(texts),
    )


def _grouped(groups: int, ins: int, outs: int, formats: str, shape: str = "h=3 w=4") -> str:
    sizes = f"ic={groups * ins} oc={groups * outs} groups={groups}"
    return f"conv2d {shape} {sizes} kernel=3 pad=1 {formats}"


FILTERED = {
    "no padding": "h=9 w=8 kernel=3",
    "uneven padding": "h=7 w=8 kernel=3 pad=0x1x2x1",
    "much padding": "h=3 w=2 kernel=3 pad=3",
    "batch": "n=3 h=6 w=7 kernel=3 pad=1",
    "one row": "h=1 w=17 kernel=1x3 pad=0x1",
    "one column": "h=13 w=1 kernel=3x1 pad=1x0",
    "five": "h=8 w=9 kernel=5 pad=2",
    "even": "h=8 w=9 kernel=2x4",
    "one tile": "h=2 w=2 kernel=3 pad=1",
}


@st.composite
def _filtered(draw):
    """Convolutions of 3x3 at stride 1 with padding on any side, mostly of few bits."""
    few = st.sampled_from(["b1", "t2", "s2", "s3", "b2", "u2"])
    return Conv2d(
        n=draw(st.integers(1, 2)),
        h=draw(st.integers(3, 14)),
        w=draw(st.integers(3, 14)),
        ic=draw(st.integers(1, 40)),
        oc=draw(st.integers(1, 70)),
        kernel=3,
        pad=draw(st.tuples(*[st.integers(0, 2)] * 4)),
        act=draw(few | texts),
        weight=draw(few),
    )


CASES = {
    **{
        name: Cases(operators=operators_of(name), examples=25, sizes=texts_of(name))
        for name in ("elementwise", "rows")
    },
    "winograd": Cases(
        operators=_filtered() | with_epilogues(_filtered()),
        examples=6,
        pairs="conv2d h=3 w=4 ic=5 oc=9 kernel=3 pad=0x1x0x0",
        formats=_one_side("conv2d h=3 w=4 ic=5 oc=9 kernel=3 pad=1x0x0x0", "s2", "t2"),
        sizes=[
            f"conv2d h=5 w=6 ic={ins} oc={outs} kernel=3 pad=1 act=u3 weight=s3"
            for ins, outs in ((1, 1), (3, 15), (4, 16), (5, 17), (8, 33), (33, 8), (12, 65))
        ],
        kinds=kinds(
            FILTERED,
            "ic=11 oc=19 act=u3 weight=s2",
            "ic=6 oc=9 act=s3 weight=b2 zero_act=2 out=u8 scale=channel",
        ),
    ),
    "depthwise": Cases(
        operators=_depthwise_of_any_shape(),
        pairs="conv2d h=2 w=3 ic=17 oc=17 groups=17 kernel=2 pad=1x0",
        formats=_one_side("conv2d h=2 w=3 ic=9 oc=9 groups=9 kernel=2 pad=1x0", "s8", "b3"),
        sizes=[_depthwise(channels, "act=u8 weight=s7") for channels in _EDGES],
        kinds=kinds(
            WINDOWS,
            "ic=20 oc=20 groups=20 act=u8 weight=s8",
            "ic=5 oc=15 groups=5 act=s5 weight=b2",
        ),
    ),
    "grouped_conv": Cases(
        operators=grouped_convs(),
        examples=8,  # straight-line code takes LLVM seconds
        pairs="conv2d h=2 w=3 ic=20 oc=20 groups=5 kernel=2 pad=1x0",
        formats=_one_side("conv2d h=2 w=3 ic=9 oc=15 groups=3 kernel=2 pad=1x0", "s8", "b3"),
        sizes=[
            _grouped(*groups, "act=u8 weight=s7")
            for groups in (
                *((3, 4, 4), (5, 4, 4)),  # vectors that are partly empty
                *((5, c, c) for c in (2, 3, 7, 8)),
                *((3, 4, d) for d in (2, 12, 16, 17, 20, 64)),
                *((3, 40, 2), (17, 2, 1)),  # groups far apart, and of one output channel
            )
        ],
        kinds=[
            *kinds(
                WINDOWS,
                "ic=16 oc=16 groups=4 act=u8 weight=s8",
                "ic=15 oc=10 groups=5 act=s5 weight=b2 zero_act=-3",
            ),
            ["conv2d h=20 w=24 kernel=16x20 ic=16 oc=16 groups=4 act=u8 weight=s8"],
        ],
    ),
    "telescoped": Cases(
        operators=convs() | products(40, 300, 130),
        pairs="dense m=3 n=150 k=70",
        acts=("u8",),
        weights=_FIELDS,
        formats=[
            f"conv2d h=2 w=2 ic=5 oc=9 kernel=2 pad=1x0 act={act} weight=b3"
            for act in ("u1", "s2", "b3", "u7", "s8", "u8", "b7", "c2:-7,-2", "c1:5,9")
        ],
        sizes=[
            dense(*sizes, "u8", weight)
            for sizes in ((1, 1, 1), (1, 129, 3), (7, 64, 129), (16, 33, 65))
            for weight in ("b1", "s3")
        ],
        kinds=kinds(KINDS, "act=u8 weight=b2"),
    ),
    "lane_pack": Cases(
        operators=st.sampled_from(_LANES).flatmap(
            lambda pair: of_formats(products(40, 200, 400) | convs(), *map(st.just, pair))
        ),
        # Several chunks and a rest, on both sides of the edges of tiles.
        sizes=[dense(*sizes, *pair) for pair in _LANES for sizes in ((13, 70, 701), (1, 33, 64))],
        kinds=kinds(KINDS, "act=u2 weight=b1", "act=b1 weight=u1"),
    ),
    "lut_product": Cases(
        operators=of_formats(convs() | products(20, 200, 200), NARROW_ACTS, NARROW_WEIGHTS),
        pairs="dense m=1 n=35 k=39",
        acts=(*_NARROW, *_WIDER),
        weights=_NARROW,
        sizes=[
            *(dense(4, 20, k, "u2", "s2") for k in (1, 5, 9, 29, 33, 65, 129)),
            *(dense(4, 20, k, "b2", "b1") for k in (2, 3, 4, 7, 8, 27, 28, 31)),
            *(
                dense(5, n, 22, "c2:-7,-2,1,6", "b2")
                for n in (1, 3, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 129)
            ),
            *(dense(m, 70, 22, "u2", "c2:-8,-1,3,5") for m in (1, 2, 3, 5, 6, 7, 8, 9, 17)),
        ],
        kinds=kinds(KINDS, "act=u2 weight=s2", "act=c2:-9,2,3,70 weight=c1:1,2"),
    ),
    "lut_weight": Cases(
        operators=of_one_bit() | with_epilogues(of_one_bit()),
        pairs="dense m=67 n=9 k=37",
        acts=("u1", "b1"),
        weights=("b1", "s3", "b5", "u7", "t2", "u4", "s6", "s8"),
        kinds=[
            ["conv2d h=17 w=19 ic=3 oc=10 kernel=7 stride=2 pad=3 act=u1 weight=s4"],
            ["conv2d h=15 w=15 ic=8 oc=16 kernel=1 stride=2 act=b1 weight=s4"],
            ["conv2d h=11 w=9 ic=5 oc=6 kernel=3x2 dilation=2x3 pad=2x3 act=u1 weight=s4"],
            ["conv2d n=2 h=7 w=6 ic=12 oc=15 kernel=3 pad=1 groups=3 act=u1 weight=s4"],
            ["conv2d h=1 w=80 ic=6 oc=12 kernel=1x5 act=b1 weight=s4"],
        ],
    ),
    "bitserial": Cases(
        operators=convs()
        | products(
            *(20, 150, 700),
            act=st.sampled_from(["u1", "u2", "b1", "b2", "t2", "s2"]) | st.sampled_from(LINEAR),
            weight=st.sampled_from(["u1", "u2", "b1", "b2", "t2", "s2"]),
        ),
        pairs="dense m=3 n=18 k=37",
        formats=_one_side("conv2d h=2 w=2 ic=5 oc=9 kernel=2 pad=1x0", "s2", "b1"),
        sizes=[
            *(dense(5, n, 40, "u1", "s2") for n in (1, 4, 9, 16, 17, 33, 64, 65, 129)),
            *(dense(5, 20, k, "u2", "b1") for k in (1, 8, 9, 31, 33, 64, 65, 129, 1000)),
            *(dense(5, 40, k, "b1", "b1") for k in (1, 8, 9, 31, 33, 64, 65, 129, 1000)),
            *(dense(m, 33, 100, "u1", "b1") for m in (1, 2, 3, 5, 9)),
        ],
    ),
    "bit_layers": Cases(
        operators=layered_denses(),
        examples=8,
        formats=[
            f"dense m=3 n=37 k=100 act={act} weight={weight} layers={layers} out=f32 scale=group32"
            for act in ("s8", "u8 zero_act=128", "s8 input=f32:row")
            for weight, layers in (("u8", "1..8"), ("s8", "1..8"), ("u7", "2..7"), ("s2", "1..2"))
        ],
        sizes=[
            f"dense m={m} n={n} k=150 act=s8 weight=u8 layers=1..8 out=f32 scale={scale}"
            for m, n, scale in (
                *((1, n, "group32") for n in (1, 15, 17, 65, 129)),
                *((2, 18, f"group{size}") for size in (4, 5, 31, 64, 149, 150, 151)),
                (9, 33, "group64:bf16"),
            )
        ],
    ),
    "blockwise_dot": Cases(
        operators=blockwise_denses(),
        formats=[
            f"dense m=3 n=37 k=100 act={act} weight={weight} out=f32 scale=group32"
            for act in ("s8", "u8", "u8 zero_act=128", "u8 zero_act=3")
            for weight in ("u4 zero_weight=group", "s4", "s3", "s2", "b1", "s7", "t2")
        ],
        sizes=[
            f"dense m=2 n=18 k={k} act=s8 weight=s4 out=f32 scale=group{group}"
            for k, size in ((150, (4, 5, 31, 32, 33, 64, 128, 149, 150, 151)), (1030, (1024, 2000)))
            for group in (*size, *(f"{block}:bf16" for block in size))
        ],
    ),
}
