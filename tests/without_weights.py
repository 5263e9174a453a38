"""Operators without weights for tests: what draws them, and texts of each kind."""

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from strategies import quantized

from lpgen.ops import (
    DequantizeLinear,
    Operator,
    QuantizeLinear,
    binary,
    cast,
    cell,
    functions,
    movement,
    rowwise,
)
from lpgen.ops.add import Add
from lpgen.ops.attention import Attention, Heads
from lpgen.ops.binary import Binary
from lpgen.ops.cast import Cast
from lpgen.ops.coded import KNOWN, QuantizeRows
from lpgen.ops.conv2d_f32 import RealConv2d
from lpgen.ops.lookup import Lookup
from lpgen.ops.mul import Mul
from lpgen.ops.pool import Pool
from lpgen.ops.resize import Fold, Resize
from lpgen.ops.rounded import ROUNDED
from lpgen.ops.unary import Unary
from lpgen.templates import Template

few, size = st.integers(1, 3), st.integers(1, 70)
real, rounded = st.just("f32"), st.sampled_from(ROUNDED)


@st.composite
def softmaxes(draw):
    """Of x alone, or with masks of some rows."""
    groups, times, added = draw(few), draw(few), draw(st.integers(0, 3))
    return rowwise.Softmax(
        rows=groups * times * (added or 1),
        columns=draw(size),
        added=added,
        times=times if added else 1,
        nan=draw(st.sampled_from([None, 0.0, 2.5])),
        rounded=draw(rounded),
    )


@st.composite
def attentions(draw):
    """Heads anywhere, of other tensors, too; with masks of some rows."""
    batch, heads, m = draw(few), draw(few), draw(few | size)
    before, behind = draw(st.integers(0, 2)), draw(st.integers(0, 2))
    other = Heads("beside", before + heads + behind, before)
    places = st.sampled_from([Heads(), Heads("beside"), other])
    added = draw(st.sampled_from([0, m]))
    return Attention(
        batch=batch,
        heads=heads,
        m=m,
        n=draw(size),
        k=draw(size),
        columns=draw(st.sampled_from([0, 5, 33])),
        factor=draw(st.sampled_from([1.0, 0.125, -0.3])),
        added=added,
        times=draw(st.sampled_from([1, heads])) if added else 1,
        nan=draw(st.sampled_from([None, 0.0])),
        queries=draw(places),
        keys=draw(places | st.just(Heads("turned"))),
        values=draw(places),
        result=draw(st.sampled_from([Heads(), Heads("beside")])),
        rounded=draw(rounded),
    )


@st.composite
def pools(draw):
    """Small images, any windows."""
    kernel = draw(st.tuples(few, few))
    dilation = draw(st.tuples(*[st.integers(1, 2)] * 2))
    window = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    pads = [draw(st.integers(0, w - 1)) for w in window * 2]
    room = [max(1, window[i] - pads[i] - pads[i + 2]) for i in (0, 1)]
    act = draw(quantized | real)
    how = draw(st.sampled_from(["max", "average"]))
    return Pool(
        n=draw(few),
        h=draw(st.integers(room[0], room[0] + 6)),
        w=draw(st.integers(room[1], room[1] + 6)),
        c=draw(size),
        how=how,
        kernel=kernel,
        stride=draw(st.tuples(few, few)),
        pad=tuple(pads),
        dilation=dilation,
        count=draw(st.sampled_from(["valid", "all"])),
        act=act,
        out=draw(quantized) if how == "average" and act != "f32" else None,
    )


@st.composite
def convolutions(draw):
    """Small images, any windows, some depthwise."""
    groups = draw(st.sampled_from([1, 1, 2, 5]))
    deep = draw(st.booleans())
    kernel, pads = draw(st.tuples(few, few)), draw(st.tuples(*[st.integers(0, 2)] * 4))
    dilation = draw(st.tuples(*[st.integers(1, 2)] * 2))
    window = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    room = [max(1, window[i] - pads[i] - pads[i + 2]) for i in (0, 1)]
    ic = draw(size) if deep else groups * draw(few)
    low, high = draw(st.sampled_from([(-np.inf, np.inf), (0, np.inf), (-0.5, 1)]))
    return RealConv2d(
        n=draw(few),
        h=draw(st.integers(room[0], room[0] + 6)),
        w=draw(st.integers(room[1], room[1] + 6)),
        ic=ic,
        oc=ic if deep else groups * draw(st.integers(1, 50)),
        kernel=kernel,
        stride=draw(st.tuples(few, few)),
        pad=pads,
        dilation=dilation,
        groups=ic if deep else groups,
        low=low,
        high=high,
        rounded=draw(rounded),
    )


axes = st.sampled_from(["o", "m", "i", "om", "oi", "mi", "omi", "none"])


def pairs(kind, **more):
    """Small operators on two tensors."""
    sizes = {"outer": few, "middle": few, "inner": st.integers(1, 100)}
    return st.builds(kind, **sizes, a_axes=axes | st.just("omi"), b_axes=axes, **more)


dtypes = st.sampled_from(movement.DTYPES)
shapes = st.lists(st.integers(1, 20), min_size=1, max_size=3) | st.lists(
    few, max_size=5, min_size=1
)


@st.composite
def transposes(draw):
    """Any axes in any order; some are quantized."""
    shape = draw(shapes)
    quantize = draw(st.booleans())
    return movement.Transpose(
        shape=tuple(shape),
        axes=tuple(draw(st.permutations(range(len(shape))))),
        dtype="float32" if quantize else draw(dtypes),
        out=draw(quantized) if quantize else None,
    )


@st.composite
def slices(draw):
    """Any part of any shape."""
    shape = draw(shapes)
    axes = []
    for extent in shape:
        start, step = draw(st.integers(0, extent - 1)), draw(few)
        axes.append((start, draw(st.integers(1, (extent - start - 1) // step + 1)), step))
    start, size, step = (tuple(numbers) for numbers in zip(*axes, strict=True))
    return movement.Slice(shape=tuple(shape), start=start, size=size, step=step, dtype=draw(dtypes))


@st.composite
def pads(draw):
    """Any shape, padded by a little on some sides."""
    shape = draw(shapes)
    before, after = (tuple(draw(st.integers(0, 2)) for _ in shape) for _ in range(2))
    return movement.Pad(shape=tuple(shape), before=before, after=after, dtype=draw(dtypes))


@st.composite
def linears(draw, kind, longest=70):
    """quantize or dequantize: every way to share scales."""
    axis, per = draw(st.integers(1, longest)), draw(st.sampled_from(["tensor", "axis", "block"]))
    if per == "block":
        per += str(draw(st.integers(1, axis + 1)))
    sizes = {"outer": draw(few), "axis": axis, "inner": draw(few | st.integers(1, longest))}
    return kind(**sizes, format=draw(quantized), per=per)


formats = {name: quantized for name in ("a", "b", "out")}

OPERATORS = {
    "quantize": linears(QuantizeLinear),
    "dequantize": linears(DequantizeLinear),
    "add": pairs(
        Add,
        **formats,
        clamp=st.sampled_from(["none", "relu"]),
        rounded=st.sampled_from(["sum", "quotient"]),
    ),
    "mul": pairs(Mul, **formats),
    "pool": pools(),
    "concat": st.builds(
        movement.Concat,
        outer=few,
        sizes=st.lists(st.integers(1, 80), min_size=2, max_size=4).map(tuple),
        dtype=dtypes,
    ),
    "conv2d_f32": convolutions(),
    "gather": st.builds(movement.Gather, rows=few, columns=size, count=few, dtype=dtypes),
    "pad": pads(),
    "slice": slices(),
    "transpose": transposes(),
    "binary": pairs(Binary, function=st.sampled_from(sorted(binary.FUNCTIONS))),
    "unary": st.builds(
        Unary,
        size=st.integers(1, 200),
        function=st.sampled_from(sorted(functions.FUNCTIONS)),
        rounded=rounded,
    ),
    "softmax": softmaxes(),
    "layer_norm": st.builds(
        rowwise.LayerNorm, rows=few, columns=size, epsilon=st.sampled_from([1e-12, 1e-5, 0.3])
    ),
    "reduce": st.builds(
        rowwise.Reduce,
        outer=few,
        axis=size,
        inner=few | size,
        how=st.sampled_from(["sum", "mean", "max"]),
    ),
    "matmul": st.builds(
        rowwise.MatMul,
        **dict.fromkeys("mnk", size),
        batch=few,
        order=st.sampled_from(["kn", "nk"]),
        rounded=rounded,
    ),
    "attention": attentions(),
    "quantize_rows": st.builds(
        QuantizeRows,
        rows=few | size,
        columns=size,
        act=st.sampled_from(["s8", "s5", "s2"]),
        function=st.sampled_from(KNOWN),
        rounded=rounded,
    ),
    "lstm_cell": st.builds(
        cell.LstmCell,
        rows=few,
        columns=size,
        part=st.sampled_from(["state", "output"]),
        rounded=rounded,
    ),
    "gru_cell": st.builds(
        cell.GruCell,
        rows=few,
        columns=size,
        part=st.sampled_from([*cell.GruCell.PARTS]),
        rounded=rounded,
    ),
    "resize": st.builds(
        Resize,
        **dict.fromkeys(("n", "h", "w", "oh", "ow"), few),
        c=size,
        mode=st.sampled_from(["nearest", "linear"]),
        act=quantized | real,
    ),
    "fold": st.builds(
        Fold,
        **dict.fromkeys(("n", "h", "w"), few),
        c=size,
        **dict.fromkeys(("kernel", "stride", "dilation", "more"), st.tuples(few, few)),
        pad=st.tuples(st.integers(0, 1), st.just(0), st.just(0), st.integers(0, 1)),
        dtype=st.sampled_from(["float32", "int32"]),
    ),
    "lookup": st.builds(Lookup, size=st.integers(1, 300), act=quantized, out=quantized | real),
    "cast": st.builds(
        Cast,
        size=st.integers(1, 200),
        dtype=st.sampled_from(cast.DTYPES),
        to=st.sampled_from(cast.TO),
    ),
}
"""For each kind what draws small operators."""

TEXTS = {
    "resize": [
        "resize h=13 w=11 c=70 oh=26 ow=22 mode=nearest act=u8",
        "resize n=2 h=5 w=7 c=33 oh=9 ow=11 mode=linear act=u8",
        "resize h=5 w=7 c=20 oh=3 ow=9 mode=linear act=f32",
        "resize h=1 w=1 c=3 oh=2 ow=2 mode=linear act=s4",
        "resize h=4 w=5 c=3 oh=8 ow=10 mode=nearest act=f32",
    ],
    "fold": [
        "fold h=9 w=10 c=40 kernel=4 stride=2 pad=1 dtype=float32",
        "fold n=2 h=3 w=4 c=17 kernel=3x2 stride=2x3 pad=1x0x0x1 more=1 dtype=int32",
        "fold h=5 w=4 c=3 kernel=3 dilation=2 pad=2 dtype=float32",
    ],
    "binary": [
        "binary function=add outer=3 middle=4 inner=33 b_axes=oi",
        "binary function=sub outer=3 inner=33 a_axes=i b_axes=omi",
        "binary function=mul inner=1000 b_axes=none",
        "binary function=div outer=20 inner=65 b_axes=o",
        "binary function=min inner=130",
        "binary function=max outer=2 middle=3 inner=20 a_axes=om b_axes=mi",
    ],
    "unary": [f"unary size={200 + i} function={name}" for i, name in enumerate(functions.FUNCTIONS)]
    + ["unary size=9000 function=clip alpha=-0.1 beta=inf"],
    "softmax": [
        *("softmax rows=5 columns=1000", "softmax columns=37", "softmax rows=9 columns=1 nan=0"),
        *("softmax rows=30 columns=77 added=3 times=5", "softmax rows=9 columns=70 added=9 nan=2"),
        *("softmax rows=48 columns=32 added=16 times=3", "softmax rows=37 columns=131 nan=0.5"),
        *("softmax rows=33 columns=20 added=11 times=3", "softmax rows=40 columns=61 nan=0"),
    ],
    "layer_norm": [
        "layer_norm rows=5 columns=384 epsilon=1e-12",
        *("layer_norm columns=77", "layer_norm rows=39 columns=77", "layer_norm rows=32 columns=9"),
        "layer_norm rows=2 columns=1 epsilon=0.5",
    ],
    "reduce": [
        "reduce how=mean outer=3 axis=49 inner=70",
        "reduce how=sum outer=100 axis=97",
        "reduce how=max axis=3 inner=5",
    ],
    "matmul": [
        "matmul batch=3 m=20 n=50 k=33 order=nk",
        "matmul batch=2 m=17 n=66 k=40 order=kn",
        "matmul m=1 n=1 k=1 order=nk",
        "matmul m=3 n=129 k=7 order=kn",
    ],
    "quantize_rows": [
        "quantize_rows rows=13 columns=70 act=s8",
        "quantize_rows rows=3 columns=333 act=u8 zero=128 function=gelu rounded=sum",
        "quantize_rows rows=40 columns=9 act=u4 zero=8 function=relu",
        "quantize_rows columns=1 act=s3 function=swish",
    ],
    "attention": [
        "attention heads=3 m=20 n=37 k=12",
        "attention heads=2 m=33 n=21 k=12 rounded=sum added=33 nan=1",
        "attention batch=2 heads=3 m=37 n=50 k=16 columns=40 factor=0.3 added=37 times=3 nan=0 "
        "queries=beside9+3 keys=beside values=beside4+1 result=beside",
        "attention m=5 n=7 k=3 keys=turned",
        "attention heads=2 m=80 n=33 k=32 keys=turned factor=2 result=beside queries=beside",
        "attention m=96 n=70 k=20 values=beside100+99",
        "attention batch=3 m=1 n=130 k=8 columns=1 keys=beside64+1 added=1",
    ],
    "lstm_cell": [
        "lstm_cell rows=3 columns=129 part=state",
        "lstm_cell rows=2 columns=37 part=output",
    ],
    "gru_cell": [f"gru_cell rows=3 columns=70 part={part}" for part in ("output", "reset", "late")],
    "conv2d_f32": [
        "conv2d_f32 h=9 w=11 ic=5 oc=70 kernel=3 pad=1 low=0",
        "conv2d_f32 n=2 h=12 w=8 ic=33 oc=33 kernel=3 pad=1 groups=33 low=0 high=6",
        "conv2d_f32 h=1 w=1 ic=40 oc=300 kernel=1",
        "conv2d_f32 h=70 w=2 ic=24 oc=32 kernel=1",
        "conv2d_f32 h=9 w=9 ic=12 oc=40 kernel=2x3 stride=2 pad=1x0x0x2 dilation=2x1 groups=4",
        "conv2d_f32 h=20 w=20 ic=3 oc=16 kernel=7 stride=2 pad=3",
        "conv2d_f32 h=5 w=6 ic=8 oc=5 kernel=3 dilation=2 pad=2",
    ],
    "concat": [
        "concat outer=100 sizes=64x31x1 dtype=uint8",
        "concat sizes=3x40 dtype=float32",
        "concat outer=3 sizes=" + "x".join(map(str, range(1, 17))) + " dtype=int8",
    ],
    "gather": [
        "gather rows=50 columns=77 count=300 dtype=float32",
        "gather rows=7 columns=1 count=5 dtype=int32",
        "gather rows=1 columns=130 count=2 dtype=uint8",
    ],
    "pad": [
        "pad shape=1x20x21x32 before=0x1x2x0 after=0x2x1x0 dtype=uint8",
        "pad shape=5x7 before=0x3 after=1x0 dtype=float32",
        "pad shape=4x5x6 before=0x0x0 after=0x0x0 dtype=int32",
    ],
    "slice": [
        "slice shape=2x20x21x32 start=0x1x2x0 size=2x19x18x32 dtype=uint8",
        "slice shape=1x20x20x3 start=0x1x0x0 size=1x10x10x3 step=1x2x2x1 dtype=float32",
        "slice shape=40 start=3 size=9 step=4 dtype=int8",
    ],
    "transpose": [
        "transpose shape=1x3x50x61 axes=0x2x3x1 dtype=float32 out=u8",
        "transpose shape=2x37x40 axes=0x2x1 dtype=uint8",
        "transpose shape=65x33 axes=1x0 dtype=float32",
        "transpose shape=1x50x61x3 axes=0x3x1x2 dtype=uint8",
        "transpose shape=3x4x5x6 axes=2x0x1x3 dtype=int32",
        "transpose shape=8x9x2x3x5 axes=0x3x1x4x2 dtype=float32 out=s4",
        "transpose shape=1x7x200 axes=0x1x2 dtype=float32 out=u8",
        "transpose shape=5x4x200 axes=2x0x1 dtype=int8",
        "transpose shape=1 axes=0 dtype=int8",
    ],
    "cast": [
        "cast size=130 dtype=int64 to=int32",
        "cast size=77 dtype=int64 to=bool",
        "cast size=1000 dtype=float32 to=uint8",
        "cast size=33 dtype=float32 to=bool",
        "cast size=50 dtype=int32 to=float32",
    ],
    "quantize": [
        "quantize axis=1000 format=u8",
        "quantize outer=3 axis=7 inner=20 format=s4 per=axis",
        "quantize outer=2 axis=70 format=s8 per=block32",
        "quantize outer=20 axis=33 format=u2 per=axis",
    ],
    "dequantize": [
        "dequantize axis=1000 format=s8",
        "dequantize outer=3 axis=7 inner=20 format=u4 per=axis",
        "dequantize outer=2 axis=70 inner=3 format=s8 per=block32",
        "dequantize outer=20 axis=33 format=s2 per=axis",
    ],
    "add": [
        "add outer=3 middle=4 inner=33 a=u8 b=s8 out=u8 b_axes=oi",
        "add inner=1001 a=u8 b=u8 out=u8 clamp=relu",
        "add outer=4 inner=31 a=s4 b=u3 out=s8",
        "add outer=2 middle=2 inner=64 a=s8 b=s8 out=s8 a_axes=oi b_axes=mi",
    ],
    "mul": [
        "mul outer=2 middle=49 inner=72 a=u8 b=u8 out=u8 b_axes=oi",
        "mul inner=1000 a=u8 b=s8 out=s8 b_axes=none",
        "mul outer=5 inner=17 a=s4 b=u2 out=u8 b_axes=o",
        "mul outer=3 inner=65 a=u8 b=u8 out=u8",
    ],
    "pool": [
        "pool h=9 w=8 c=70 how=max kernel=3 stride=2 pad=1 act=u8",
        "pool n=2 h=7 w=7 c=17 how=average kernel=7 act=u8 out=s8",
        "pool h=6 w=5 c=130 how=average kernel=3 pad=1 act=s4 out=u8 count=all",
        "pool h=9 w=11 c=33 how=max kernel=2x3 dilation=2 pad=1x0x2x3 act=f32",
        "pool h=9 w=8 c=24 how=average kernel=3x2 stride=2 pad=1 act=f32",
        "pool h=1 w=1 c=1 how=max kernel=2 pad=1 dilation=1x2 act=s8",
    ],
    "lookup": [
        "lookup size=20000 act=u8 out=s8",
        "lookup size=8192 act=s8 out=u8",
        "lookup size=177 act=s4 out=u2",
        "lookup size=1000 act=s7 out=u8",
        "lookup size=300 act=u5 out=u8",
        "lookup size=1 act=u6 out=s3",
        "lookup size=70 act=u1 out=f32",
    ],
}
"""Texts of each kind, with sizes around those of vectors."""


def problem(op: Operator, seed: int = 0) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Tensors by name, and the result."""
    example = op.example(np.random.default_rng(seed))
    return example.inputs, op.reference(**example.given)


def _served_by(algorithm: str) -> list[str]:
    return [kind for kind in OPERATORS if kind in Template("generic", algorithm).serves]


def operators_of(algorithm: str) -> SearchStrategy:
    """Operators of all kinds that an algorithm is for."""
    return st.one_of(*(OPERATORS[kind] for kind in _served_by(algorithm)))


def texts_of(algorithm: str) -> list[str]:
    """The texts of these kinds."""
    return [text for kind in _served_by(algorithm) for text in TEXTS[kind]]
