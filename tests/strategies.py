"""Hypothesis strategies that several tests draw from: formats and small operators of every kind."""

from dataclasses import replace

from hypothesis import assume
from hypothesis import strategies as st

from lpgen.formats import Format
from lpgen.ops import Conv2d, Dense
from lpgen.ops.epilogue import Bias, Chain, Clamp, Middle, Quantize, Residual, Scale, Threshold
from lpgen.ops.rows import Range

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


quantized = st.sampled_from([text for text in TEXTS if text[0] in "us"]).map(Format.parse)


def value_of(draw, form: Format) -> int:
    """A value of the format, often 0."""
    return draw(st.one_of(st.just(0), st.integers(form.min, form.max)))


@st.composite
def chains(draw) -> Chain:
    """Every kind of epilogue."""
    kind = draw(st.sampled_from(["s32", "f32", "quantized", "quantized", "thresholds"]))
    if kind == "thresholds":
        bias = (Bias("s32"),) if draw(st.booleans()) else ()
        few = st.sampled_from(["u1", "u2", "u3", "s2", "b1", "b2", "t2"])
        return (*bias, Threshold(draw(few)))
    bias = draw(st.sampled_from([None, "s32", "f32" if kind != "s32" else "s32"]))
    steps = [Bias("s32")] if bias == "s32" else []
    form = draw(quantized) if kind == "quantized" else None
    if kind != "s32":
        steps.append(Scale(draw(st.sampled_from(["tensor", "channel"]))))
        steps += [Bias("f32")] if bias == "f32" else []
        residual = draw(st.one_of(st.none(), st.just("f32"), quantized))
        if residual is not None:
            zero = 0 if residual == "f32" else value_of(draw, residual)
            if form and residual != "f32" and draw(st.booleans()):
                middle = draw(quantized)
                steps.append(Middle(middle, value_of(draw, middle)))
            steps.append(Residual(residual, zero))
    bounds = (form.min, form.max) if form else (-200, 200)
    given = st.tuples(*[st.integers(*bounds)] * 2).map(lambda pair: tuple(sorted(pair)))
    clamp = draw(st.one_of(st.none(), st.just("relu"), st.just("relu6"), given))
    if clamp is not None and (kind != "s32" or clamp != "relu6"):
        steps.append(Clamp(clamp))
    return (*steps, *([Quantize(form, value_of(draw, form))] if form else []))


@st.composite
def with_epilogues(draw, operators):
    """One of `operators` with zero points and an epilogue."""
    op = draw(operators)
    zeros = {}
    for key, form in (("zero_act", op.act), ("zero_weight", op.weight)):
        if form.encoding in "us":
            zeros[key] = value_of(draw, form)
    if "zero_weight" in zeros and draw(st.booleans()):
        zeros["zero_weight"] = "channel"
    return replace(op, **zeros, epilogue=draw(chains()))


@st.composite
def depthwise_convs(draw):
    """Small depthwise convolutions, some with several outputs of a channel."""
    channels, sizes = draw(st.integers(2, 20)), st.integers(1, 2)
    return Conv2d(
        h=draw(st.integers(3, 7)),
        w=draw(st.integers(3, 7)),
        ic=channels,
        oc=channels * draw(sizes),
        groups=channels,
        kernel=draw(st.tuples(st.integers(1, 3), st.integers(1, 3))),
        stride=draw(st.tuples(sizes, sizes)),
        pad=draw(st.tuples(*[st.integers(0, 2)] * 4)),
        act=draw(texts),
        weight=draw(texts),
    )


@st.composite
def grouped_convs(draw):
    """Small convolutions of several groups with several input channels each."""
    groups, sizes = draw(st.integers(2, 9)), st.integers(1, 2)
    return Conv2d(
        n=draw(sizes),
        h=draw(st.integers(5, 9)),
        w=draw(st.integers(5, 9)),
        ic=groups * draw(st.integers(2, 9)),
        oc=groups * draw(st.one_of(st.integers(1, 9), st.sampled_from([10, 16, 24, 32]))),
        groups=groups,
        kernel=draw(st.tuples(st.integers(1, 3), st.integers(1, 3))),
        stride=draw(st.tuples(sizes, sizes)),
        dilation=draw(st.tuples(sizes, sizes)),
        pad=draw(st.tuples(*[st.integers(0, 2)] * 4)),
        act=draw(texts),
        weight=draw(texts),
    )


@st.composite
def blockwise_denses(draw, rows=12, columns=70, depth=140):
    """Dense operators with scales of groups of weights, of activations or of both: all formats, odd
    sizes, a short last group."""
    m, n, k = (draw(st.integers(1, limit)) for limit in (rows, columns, depth))
    act, weight = (Format.parse(draw(texts)) for _ in range(2))
    zeros = {}
    if act.encoding in "us":
        zeros["zero_act"] = value_of(draw, act)
    if weight.encoding in "us":
        zeros["zero_weight"] = draw(st.one_of(st.just("group"), st.just(value_of(draw, weight))))
    group = draw(st.one_of(st.sampled_from([8, 16, 32, 64, 128]), st.integers(4, 150)))
    chain = [Scale(f"group{group}" + draw(st.sampled_from(["", ":bf16"])))]
    residual = draw(st.sampled_from([Residual("f32"), Residual("s8", 3)]))
    more = (Bias("f32"), residual, Clamp("relu"), Quantize("u8", 9))
    chain += [step for step in more if draw(st.integers(0, 3)) == 0]
    op = Dense(m, n, k, act, weight, **zeros, epilogue=tuple(chain))
    if act.encoding not in "us" or draw(st.integers(0, 2)):
        return op
    inputs = [*_inputs_of(op), *([f"f32:group{group}"] if op.lhs.levels else [])]
    op = replace(op, input=draw(st.sampled_from(inputs)))
    if op.lhs.group and op.zero_weight != "group" and draw(st.booleans()):
        scale = Scale(draw(st.sampled_from(["tensor", "channel"])))
        op = replace(op, epilogue=(scale, *op.epilogue[1:]))
    return op


@st.composite
def layered_denses(draw, rows=6, columns=70, depth=140):
    """Dense operators with bit layers: all bits and ranges, odd sizes, a short last group."""
    sizes = (draw(st.integers(1, limit)) for limit in (rows, columns, depth))
    return _layered(draw, Dense(*sizes, "s8", "u8"))


@st.composite
def layered_convs(draw):
    """Convolutions with bit layers: groups of k across taps, groups of channels, padding."""
    return _layered(draw, draw(convs() | grouped_convs()))


def _layered(draw, op: Dense | Conv2d) -> Dense | Conv2d:
    """The operator with bit layers of some kind."""
    signs = draw(st.integers(0, 4)) == 0
    high = draw(st.integers(2, 16 if signs else 8))
    weight = "b1" if signs else f"{draw(st.sampled_from('us'))}{high}"
    group = draw(st.one_of(st.sampled_from([16, 32, 64, 128]), st.integers(4, 150)))
    chain = [Scale(f"group{group}" + draw(st.sampled_from(["", ":bf16"])))]
    chain += [step for step in (Bias("f32"), Quantize("u8", 9)) if draw(st.integers(0, 3)) == 0]
    act, zero = draw(st.sampled_from([("s8", 0), ("u8", 128), ("u8", 0), ("s5", 3), ("u7", 0)]))
    layers = Range(draw(st.integers(1, high - 1)), high)
    more = {"zero_act": zero, "epilogue": tuple(chain), "layers": layers}
    op = replace(op, act=act, weight=weight, **more)
    if draw(st.integers(0, 3)) == 0:
        return replace(op, input=draw(st.sampled_from(_inputs_of(op))))
    return op


def _inputs_of(op: Dense | Conv2d) -> list[str]:
    """Choices of input= that the operator may have."""
    by_row = ["f32:row"] if isinstance(op, Dense) else []
    return ["f32", "f32:tensor", *by_row] if op.lhs.levels else ["f32"]
