"""What is tried of the algorithms that are for convolutions alone."""

from cases import Cases, kinds, one_side
from hypothesis import strategies as st
from strategies import grouped_convs, texts, with_epilogues

from lpgen.ops import Conv2d

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


WINOGRAD = Cases(
    operators=_filtered() | with_epilogues(_filtered()),
    examples=6,
    pairs="conv2d h=3 w=4 ic=5 oc=9 kernel=3 pad=0x1x0x0",
    formats=one_side("conv2d h=3 w=4 ic=5 oc=9 kernel=3 pad=1x0x0x0", "s2", "t2"),
    sizes=[
        f"conv2d h=5 w=6 ic={ins} oc={outs} kernel=3 pad=1 act=u3 weight=s3"
        for ins, outs in ((1, 1), (3, 15), (4, 16), (5, 17), (8, 33), (33, 8), (12, 65))
    ],
    kinds=kinds(
        FILTERED,
        "ic=11 oc=19 act=u3 weight=s2",
        "ic=6 oc=9 act=s3 weight=b2 zero_act=2 out=u8 scale=channel",
    ),
)


DEPTHWISE = Cases(
    operators=_depthwise_of_any_shape(),
    pairs="conv2d h=2 w=3 ic=17 oc=17 groups=17 kernel=2 pad=1x0",
    formats=one_side("conv2d h=2 w=3 ic=9 oc=9 groups=9 kernel=2 pad=1x0", "s8", "b3"),
    sizes=[_depthwise(channels, "act=u8 weight=s7") for channels in _EDGES],
    kinds=kinds(
        WINDOWS,
        "ic=20 oc=20 groups=20 act=u8 weight=s8",
        "ic=5 oc=15 groups=5 act=s5 weight=b2",
    ),
)


GROUPED = Cases(
    operators=grouped_convs(),
    examples=6,  # straight-line code takes LLVM seconds
    pairs="conv2d h=2 w=3 ic=20 oc=20 groups=5 kernel=2 pad=1x0",
    formats=one_side("conv2d h=2 w=3 ic=9 oc=15 groups=3 kernel=2 pad=1x0", "s8", "b3"),
    sizes=[
        _grouped(*groups, "act=u8 weight=s7")
        for groups in (
            *((3, 4, 4), (5, 4, 4)),  # vectors that are partly empty
            *((5, c, c) for c in (2, 3, 7, 8)),
            *((3, 4, d) for d in (2, 12, 16, 17, 20, 64)),
            *((2, 40, 2), (17, 2, 1)),  # groups far apart, and of one output channel
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
)
