"""What is tried of each algorithm.

An algorithm that is not named here is tried with what serves most: `GENERAL`.
"""

from dataclasses import replace

from cases import LINEAR, Cases, dense, kinds, one_side, products
from conv_cases import DEPTHWISE, GROUPED, WINOGRAD
from hypothesis import strategies as st
from strategies import (
    blockwise_denses,
    books,
    convs,
    layered_convs,
    layered_denses,
    with_epilogues,
)
from without_weights import operators_of, texts_of

from lpgen.formats import Format

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


GENERAL = Cases(
    operators=convs() | products(40, 100, 130),
    pairs="dense m=5 n=18 k=37",
    formats=one_side("conv2d h=2 w=2 ic=5 oc=9 kernel=2 pad=1x0", "s8", "b3"),
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


CASES = {
    **{
        name: Cases(operators_of(name), examples=10, kinds=[[text] for text in texts_of(name)])
        for name in ("elementwise", "rows")
    },
    "winograd": WINOGRAD,
    "depthwise": DEPTHWISE,
    "grouped_conv": GROUPED,
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
        formats=one_side("conv2d h=2 w=2 ic=5 oc=9 kernel=2 pad=1x0", "s2", "b1"),
        sizes=[
            *(dense(5, n, 40, "u1", "s2") for n in (1, 4, 9, 16, 17, 33, 64, 65, 129)),
            *(dense(5, 20, k, "u2", "b1") for k in (1, 8, 9, 31, 33, 64, 65, 129, 1000)),
            *(dense(5, 40, k, "b1", "b1") for k in (1, 8, 9, 31, 33, 64, 65, 129, 1000)),
            *(dense(m, 33, 100, "u1", "b1") for m in (1, 2, 3, 5, 9)),
        ],
    ),
    "bit_layers": Cases(
        operators=layered_denses() | layered_convs(),
        examples=8,
        formats=[
            f"dense m=3 n=37 k=100 act={act} weight={weight} layers={layers} out=f32 scale=group32"
            for act in ("s8", "u8", "u8 zero_act=128", "s8 input=f32:row")
            for weight, layers in (
                *(("u8", "1..8"), ("s8", "1..8"), ("u7", "2..7"), ("s2", "1..2")),
                ("b1", "1..9"),
            )
        ],
        sizes=[
            f"dense m={m} n={n} k=150 act=s8 weight=u8 layers=1..8 out=f32 scale={scale}"
            for m, n, scale in (
                *((1, n, "group32") for n in (1, 15, 17, 65, 129)),
                *((2, 18, f"group{size}") for size in (4, 5, 31, 64, 149, 150, 151)),
                (9, 33, "group64:bf16"),
            )
        ]
        # Rows that are copied, as they lie in the same places of a cache.
        + ["dense m=9 n=18 k=2048 act=s8 weight=u2 layers=1..2 out=f32 scale=group64"],
        kinds=[
            [f"{conv} act=u8 weight={weight} layers={layers} out=f32 scale=group{size}"]
            for conv in (
                "conv2d h=9 w=7 ic=5 oc=18 kernel=3x2 stride=2x1 pad=1x0x2x1",
                "conv2d n=2 h=6 w=5 ic=12 oc=9 kernel=3 pad=1 groups=3 dilation=2x1",
                "conv2d h=5 w=6 ic=7 oc=21 kernel=3 pad=1 groups=7",  # depthwise
                "conv2d h=6 w=5 ic=20 oc=17 kernel=1",
            )
            for weight, layers, size in (("u8", "1..8", 16), ("b1", "1..3", 10))
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
        ]
        + ["dense m=9 n=18 k=2048 act=s8 weight=s4 out=f32 scale=group64"],
    ),
}
