"""Operators without weights: texts, mistakes, libraries."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from without_weights import OPERATORS, TEXTS, problem

from lpgen import runtime
from lpgen.build import build
from lpgen.errors import FormatError, WorkloadError
from lpgen.ops import parse
from lpgen.records.choose import choose


@pytest.mark.parametrize("kind", OPERATORS)
@settings(max_examples=30)
@given(data=st.data())
def test_every_operator_survives_its_text(kind, data):
    op = data.draw(OPERATORS[kind])
    assert op.kind == kind
    assert parse(str(op)) == op
    sent = pickle.loads(pickle.dumps(op))
    assert sent == op
    assert sent.signature == op.signature
    assert op.identifier.isidentifier()
    assert op.label.startswith(kind)
    inputs, y = problem(op)
    output = op.signature.output
    assert (y.shape, y.dtype.name) == (output.shape, output.dtype)
    assert list(inputs) == [argument.name for argument in op.signature.inputs]


def test_what_is_no_number_is_as_the_oracle_has_it(tmp_path):
    """Comparisons of a number with itself must not be taken for true."""
    numbers = [np.nan, 1.5, -2.5, np.inf, -np.inf, 3e9, -3e9]
    x = np.float32(numbers * 7)
    texts = ["erf", "gelu", "gelu_tanh", "tanh", "sigmoid", "log", "replace_nan alpha=2"]
    texts = [f"unary size=49 function={text}" for text in texts]
    texts += [f"cast size=49 dtype=float32 to={to}" for to in ("int32", "bool")]
    path = build([choose(parse(text), "native") for text in texts], tmp_path / "numbers.so")
    for name, kernel in ((name, runtime.load(path)[name]) for name in runtime.load(path)):
        expected = parse(name).reference(x=x)
        assert np.array_equal(kernel(x), expected, equal_nan=expected.dtype.kind == "f"), name


def test_a_softmax_of_rows_with_what_is_no_number(tmp_path):
    """One number of such a row makes nothing but it none; rows of the same block are as ever."""
    x = np.random.default_rng(0).normal(size=(37, 20)).astype(np.float32)
    x[::3] *= 100
    for row, numbers in {2: [np.nan], 9: [5000, np.nan], 17: [np.inf], 33: [-np.inf] * 20}.items():
        x[row, -len(numbers) :] = numbers
    texts = ["softmax rows=37 columns=20", "softmax rows=37 columns=20 nan=0.25"]
    path = build([choose(parse(text), "native") for text in texts], tmp_path / "softmax.so")
    for text, none in zip(texts, (np.nan, 0.25), strict=True):
        y = runtime.load(path)[str(parse(text))](x)
        np.testing.assert_array_equal(y, parse(text).reference(x=x))
        np.testing.assert_array_equal(y[[2, 9, 17, 33]], np.float32(none))
        assert np.abs(y.sum(axis=1) - 1)[[0, 1, 3, 16, 32, 34, 36]].max() < 1e-6


def test_parameters_of_functions():
    op = parse("unary size=3 function=leaky_relu")
    assert str(op) == "unary size=3 function=leaky_relu alpha=0.00999999978"
    assert op.parameters == (float(np.float32(0.01)),)
    clip = parse("unary size=4 function=clip alpha=-1 beta=2.5")
    assert clip.reference(np.float32([-3, -0.5, 2, np.inf])).tolist() == [-1, -0.5, 2, 2.5]


MISTAKES = {
    "resize h=2 w=2 c=1 oh=0 ow=4 mode=linear act=u8": "^resize: oh=0 is outside 1",
    "resize h=2 w=2 c=1 oh=4 ow=4 mode=cubic act=u8": "'cubic' is none of nearest, linear$",
    "fold h=1 w=1 c=1 kernel=1 pad=1 dtype=int32": r"^fold: the result has shape \(1, -1, -1, 1\)$",
    "unary size=3 function=relu alpha=1": r"^unary: alpha=1.0: relu has no such parameter$",
    "unary size=3 function=sin": "'function=sin': 'sin' is none of abs, clip",
    "binary function=pow inner=3": "'function=pow': 'pow' is none of add, sub",
    "layer_norm columns=3 epsilon=-1": "^layer_norm: epsilon=-1.0 is not 0 or a positive number$",
    "layer_norm columns=3 epsilon=x": "'epsilon=x': could not convert string to float: 'x'$",
    "attention m=2 n=2 k=2 queries=turned": "^attention: queries=turned: keys alone may be turned$",
    "attention m=2 n=2 k=2 heads=2 keys=beside3+2": r"^attention: keys=beside3\+2: 2 heads from",
    "attention m=2 n=2 k=2 result=beside3+0": r"^attention: result=beside3\+0: it has no others$",
    "attention m=2 n=2 k=2 values=near": "'values=near': 'near' is none of apart, turned, beside",
    "attention m=2 n=2 k=0": "^attention: k=0 is outside 1",
    "attention m=5 n=2 k=1 added=3": "^softmax: rows=5 is no multiple of 3 x 1$",
    "attention m=5 n=2 k=1 factor=inf": "^attention: factor=inf is not a finite number$",
    "quantize_rows columns=2 act=u8": "^quantize_rows: input=f32:row: zero_act=0 leaves no level",
    "quantize_rows columns=2 act=s4 zero=9": r"^quantize_rows: zero=9 is outside -8..7 \(s4\)$",
    "quantize_rows columns=2 act=s8 function=clip": "'clip' is none of none, abs",
    "quantize_rows columns=2 act=b2": "^quantize_rows: input=f32:row: activations are quantized",
    "softmax columns=0": "^softmax: columns=0 is outside 1",
    "softmax rows=9 columns=2 added=2": "^softmax: rows=9 is no multiple of 2 x 1$",
    "softmax rows=9 columns=2 times=3": "^softmax: times=3: nothing is added$",
    "softmax columns=2 nan=inf": "^softmax: nan=inf is not a finite number$",
    "reduce axis=3 how=min": "'how=min': 'min' is none of sum, mean, max$",
    "matmul m=1 n=70000 k=70000": "^matmul: b has 4900000000 elements",
    "mul inner=3 a=u8 b=u8 out=u8 b_axes=io": "'io' is none of o, m, i, om, oi, mi, omi, none$",
    "mul inner=3 a=u8 b=b2 out=u8": r"^mul: b=b2: quantized values are u1..u8 or s2..s8$",
    "conv2d_f32 h=3 w=3 ic=4 oc=4 kernel=5": "^conv2d_f32: a kernel of 5 does not fit h with pad",
    "conv2d_f32 h=3 w=3 ic=4 oc=4 kernel=1 groups=3": "^conv2d_f32: groups=3 does not divide ic=4",
    "conv2d_f32 h=3 w=3 ic=4 oc=4 kernel=1 low=1 high=0": "^conv2d_f32: low=1 is above high=0$",
    "transpose shape=2x3 axes=0x0 dtype=int8": "^transpose: axes=0x0 is no order of 2 axes$",
    "transpose shape=1x1x1x1x1x1 axes=0 dtype=int8": "^transpose: shape has 6 axes, the limit",
    "transpose shape=2 axes=0 dtype=int8 out=u8": "only float32 is quantized, not int8$",
    "transpose shape=2 axes=0 dtype=int64": "'int64' is none of uint8, int8, int32, float32$",
    "concat sizes=3 dtype=int8": r"^concat: 1 sizes, expected 2..16$",
    "slice shape=4x5 start=0x1 size=4x5 dtype=int8": "^slice: element 5 of axis 1, which has 5$",
    "slice shape=4x5 start=0 size=4x5 dtype=int8": "^slice: start has 1 axes, shape has 2$",
    "pad shape=4x5 before=1 after=0x0 dtype=int8": "^pad: before has 1 axes, shape has 2$",
    "gather rows=0 columns=5 count=1 dtype=int8": "^gather: rows=0 is outside 1",
    "pool h=3 w=3 c=4 how=max kernel=3 pad=3 act=u8": "^pool: pad=3 is not below the window$",
    "pool h=3 w=3 c=4 how=max kernel=5 act=u8": "^pool: a window of 5 does not fit h with padding",
    "pool h=3 w=3 c=4 how=sum kernel=3 act=u8": "'how=sum': 'sum' is none of max, average$",
    "pool h=3 w=3 c=4 how=max kernel=3 act=u8 out=s8": "only means of integers change format$",
    "pool h=3 w=3 c=4 how=average kernel=3 act=f32 out=u8": "only means of integers change",
    "pool h=3 w=3 c=4 how=max kernel=3 act=b2": r"values are u1..u8 or s2..s8 or f32$",
    "pool h=9999 w=9999 c=1 how=average kernel=9999 act=u8": "9999x9999 values may leave int32$",
    "lookup size=0 act=u8 out=u8": "^lookup: size=0 is outside 1",
    "lookup size=5 act=t2 out=u8": r"^lookup: act=t2: quantized values are u1..u8 or s2..s8$",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_operators_that_cannot_be(text):
    with pytest.raises(WorkloadError, match=MISTAKES[text]) as caught:
        parse(text)
    assert "\n" not in str(caught.value)


def test_values_are_checked():
    op = parse("pool h=2 w=3 c=2 how=average kernel=2 act=u4 out=u8")
    inputs, _ = problem(op)
    for name, value, message in (
        ("x", inputs["x"] * 0 + 16, r"^x\[0, 0, 0, 0\] = 16 is not a value of u4"),
        ("scales", inputs["scales"].astype(float), "^scales: dtype float64, expected float32"),
        ("zeros", np.int32([16, 0]), r"^zeros: 16 of x is outside 0\.\.15 \(u4\)$"),
        ("zeros", np.zeros(2), "^zeros: dtype float64, expected int32"),
    ):
        with pytest.raises(FormatError, match=message):
            op.reference(**inputs | {name: value})
    with pytest.raises(WorkloadError, match=r"^pool: zeros is missing$"):
        op.reference(x=inputs["x"], scales=inputs["scales"])
    with pytest.raises(WorkloadError, match=r"^pool: more is no input$"):
        op.reference(**inputs, more=1)


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    from lpgen.build import build

    folder = tmp_path_factory.mktemp("rows")
    return build([choose(parse(texts[0])) for texts in TEXTS.values()], folder / "lib.so")


def test_libraries_hold_them(library, lpgen):
    lib = runtime.load(library)
    assert len(lib.kernels) == len(TEXTS)
    for name in lib.kernels:
        inputs, expected = problem(parse(name))
        for threads in (1, 2, 3):
            np.testing.assert_array_equal(lib[name](**inputs, threads=threads), expected)
    assert f"{len(TEXTS)} of {len(TEXTS)} kernels are exact" in lpgen("check", str(library))


def test_headers_declare_their_tensors(library):
    header = library.with_suffix(".h").read_text()
    words = " ".join(header.split())
    assert "(const uint8_t *a, size_t a_bytes, const int8_t *b, size_t b_bytes," in words
    assert (
        "(const float *x, size_t x_bytes, const float *scale, size_t scale_bytes, "
        "const uint8_t *zero, size_t zero_bytes, uint8_t *y, size_t y_bytes,"
    ) in words
    assert " * x float[1, 1000, 1]\n * scale float[1]\n * zero uint8_t[1]" in header


def test_they_can_be_tuned_and_timed(lpgen):
    text = "pool h=20 w=20 c=64 how=max kernel=3 stride=2 pad=1 act=u8"
    assert "/rows" in lpgen("tune", text, "--trials", "2", "--log", "log.jsonl")
    few = [texts[0] for texts in TEXTS.values()][::3]
    shown = lpgen("bench", *few)
    assert all(parse(text).label in shown for text in few)
