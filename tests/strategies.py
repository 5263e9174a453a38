"""Hypothesis strategies that several tests draw from: formats and small operators of every kind."""

from hypothesis import assume
from hypothesis import strategies as st

from lpgen.formats import Format
from lpgen.ops import Conv2d, Dense

TEXTS = (
    *(f"u{bits}" for bits in range(1, 9)),
    *(f"s{bits}" for bits in range(2, 9)),
    *(f"b{bits}" for bits in range(1, 8)),
    "t2",
    # Code books: with and without a 0, both ends of int8, fewer values than codes.
    *("c1:-5,9", "c2:-7,-2,1,6", "c2:-128,0,127", "c3:-128,-60,-17,-1,0,4,31,127"),
    "c4:-127,-104,-83,-65,-49,-35,-22,-10,1,13,25,38,53,69,89,113",
)
texts = st.sampled_from(TEXTS) | st.deferred(lambda: books())


@st.composite
def books(draw):
    """Code books of any values."""
    bits = draw(st.integers(1, 4))
    values = st.lists(st.integers(-128, 127), min_size=2, max_size=1 << bits, unique=True)
    return str(Format("c", bits, tuple(draw(values))))


@st.composite
def denses(draw):
    """Dense operators of 1..9 in each size, every pair of formats."""
    m, n, k = (draw(st.integers(1, 9)) for _ in range(3))
    return Dense(m, n, k, act=draw(texts), weight=draw(texts))


@st.composite
def convs(draw):
    """Convolutions with every word in use: groups, uneven padding, strides, dilations."""

    def pair(low, high):
        return draw(st.tuples(st.integers(low, high), st.integers(low, high)))

    groups = draw(st.integers(1, 3))
    shape = {
        "n": draw(st.integers(1, 2)),
        **{"h": draw(st.integers(1, 6)), "w": draw(st.integers(1, 6))},
        **{"ic": groups * draw(st.integers(1, 3)), "oc": groups * draw(st.integers(1, 3))},
        **{"kernel": pair(1, 3), "stride": pair(1, 3), "pad": pair(0, 2) + pair(0, 2)},
        **{"dilation": pair(1, 2), "groups": groups},
        **{"act": draw(texts), "weight": draw(texts)},
    }
    for axis, size in enumerate(("h", "w")):
        padded = shape[size] + shape["pad"][axis] + shape["pad"][axis + 2]
        assume((shape["kernel"][axis] - 1) * shape["dilation"][axis] < padded)
    return Conv2d(**shape)
