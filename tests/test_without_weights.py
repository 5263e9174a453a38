"""Operators without weights: oracles against plain formulas, texts, mistakes, libraries."""

import math
import pickle
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from without_weights import OPERATORS, TEXTS, problem

from lpgen import runtime
from lpgen.build import build
from lpgen.errors import FormatError, WorkloadError
from lpgen.formats import REAL
from lpgen.ops import QuantizeLinear, parse
from lpgen.ops.resize import COORDINATES, ROUNDINGS, Resize, places_of
from lpgen.ops.unary import Unary
from lpgen.records.choose import choose

seeds = st.integers(0, 2**32 - 1)


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


def saturated(value, form):
    return min(max(round(float(value)), form.min), form.max)


@settings(max_examples=40)
@given(OPERATORS["pool"], seeds)
def test_pool_is_the_formula(op, seed):
    inputs, y = problem(op, seed)
    x = inputs["x"]
    for n, oh, ow, c in np.ndindex(y.shape):
        rows = [oh * op.stride[0] - op.pad[0] + r * op.dilation[0] for r in range(op.kernel[0])]
        columns = [ow * op.stride[1] - op.pad[1] + s * op.dilation[1] for s in range(op.kernel[1])]
        values = [x[n, h, w, c] for h in rows for w in columns if 0 <= h < op.h and 0 <= w < op.w]
        if op.how == "max":
            lowest = -np.inf if op.act == REAL else op.act.min
            assert y[n, oh, ow, c] == max([lowest, *values])
            continue
        count = max(len(values), 1) if op.count == "valid" else op.kernel[0] * op.kernel[1]
        if op.act == REAL:
            assert y[n, oh, ow, c] == np.float32(sum(values, np.float32(0))) / np.float32(count)
            continue
        scales, zeros = inputs["scales"], inputs["zeros"]
        total = sum(int(value) - int(zeros[0]) for value in values)
        factor = scales[0] / (scales[1] * np.float32(count))
        expected = round(float(np.float32(total) * factor)) + int(zeros[1])
        assert y[n, oh, ow, c] == min(max(expected, op.out.min), op.out.max)


@given(OPERATORS["lookup"], seeds)
def test_lookup_is_the_formula(op, seed):
    inputs, y = problem(op, seed)
    assert y.tolist() == [inputs["table"][int(x) - op.act.min] for x in inputs["x"]]


@given(OPERATORS["mul"], seeds)
def test_mul_is_the_formula(op, seed):
    inputs, y = problem(op, seed)
    a, b = (op._repeated(name, inputs[name]) for name in "ab")
    a, b = (np.broadcast_to(v, (op.outer, op.middle, op.inner)).ravel() for v in (a, b))
    (sa, sb, sy), (za, zb, zy) = inputs["scales"], map(int, inputs["zeros"])
    for found, one, other in zip(y.ravel(), a, b, strict=True):
        product = np.float32((int(one) - za) * (int(other) - zb)) * (sa * sb / sy)
        assert found == saturated(product + np.float32(zy), op.out)


@pytest.mark.parametrize(
    ("axes", "shape"), [("i", (5,)), ("oi", (2, 5)), ("m", (3,)), ("none", (1,))]
)
@pytest.mark.parametrize("kind", ["add", "mul"])
def test_repeated_operands_are_those_written_out(kind, axes, shape):
    op = parse(f"{kind} outer=2 middle=3 inner=5 a=u8 b=u8 out=u8 b_axes={axes}")
    inputs, y = problem(op)
    assert inputs["b"].shape == shape
    index = {"o": np.arange(2)[:, None, None], "m": np.arange(3)[:, None], "i": np.arange(5)}
    b = inputs["b"][tuple(index[axis] for axis in axes.replace("none", "")) or 0]
    full = parse(f"{kind} outer=2 middle=3 inner=5 a=u8 b=u8 out=u8 b_axes=omi")
    whole = inputs | {"b": np.ascontiguousarray(np.broadcast_to(b, (2, 3, 5)))}
    np.testing.assert_array_equal(full.reference(**whole), y)


@given(OPERATORS["transpose"], seeds)
def test_transpose_is_the_formula(op, seed):
    inputs, y = problem(op, seed)
    x = inputs["x"]
    if op.out:
        x = QuantizeLinear(axis=x.size, format=op.out).reference(
            x.reshape(1, -1, 1), inputs["scales"], inputs["zeros"].astype(op.out.dtype)
        )
    x = x.reshape(op.shape)
    for place in np.ndindex(x.shape):
        assert y[tuple(place[axis] for axis in op.axes)] == x[place]


@given(OPERATORS["slice"] | OPERATORS["pad"], seeds)
def test_slice_and_pad_are_the_formulas(op, seed):
    inputs, y = problem(op, seed)
    x, found = inputs["x"], y.ravel().tolist()
    for place, value in zip(np.ndindex(y.shape), found, strict=True):
        if op.kind == "slice":
            at = [a + i * s for a, i, s in zip(op.start, place, op.step, strict=True)]
            assert value == x[tuple(at)]
            continue
        at = [i - b for i, b in zip(place, op.before, strict=True)]
        inside = all(0 <= i < n for i, n in zip(at, op.shape, strict=True))
        assert value == (x[tuple(at)] if inside else inputs["value"][0])


def near(found, expected, error=3e-6):
    np.testing.assert_allclose(found, expected, error, error * np.abs(expected).max())


@given(OPERATORS["softmax"] | OPERATORS["layer_norm"] | OPERATORS["reduce"], seeds)
def test_rows_are_near_the_formulas(op, seed):
    inputs, y = problem(op, seed)
    x = inputs["x"].astype(float)
    if op.kind == "softmax":
        if op.added:
            rows = np.arange(op.rows).reshape(-1, op.times, op.added)[:, 0]
            at = np.repeat(np.arange(op.rows // op.times).reshape(rows.shape), op.times, axis=0)
            x = x + inputs["added"][at.ravel()]
        e = np.exp(x - x.max(axis=1, keepdims=True))
        near(y, e / e.sum(axis=1, keepdims=True))
    elif op.kind == "reduce":
        near(y, getattr(x, op.how)(axis=1), 3e-6 * op.axis)
    elif op.columns > 1:
        variance = x.var(axis=1, keepdims=True) + op.epsilon
        centred = (x - x.mean(axis=1, keepdims=True)) / np.sqrt(variance)
        near(y, centred * inputs["scale"] + inputs["bias"], 1e-5)


@given(OPERATORS["matmul"], seeds)
def test_matmul_is_near_the_formula(op, seed):
    inputs, y = problem(op, seed)
    a, b = (inputs[name].astype(float) for name in "ab")
    near(y, a @ (b if op.order == "kn" else b.transpose(0, 2, 1)), 1e-5)


@given(OPERATORS["conv2d_f32"], seeds)
def test_float_convolutions_are_near_the_formula(op, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=op.x_shape).astype(np.float32)
    w = rng.normal(size=(op.oc, *op.kernel, op.ic // op.groups)).astype(np.float32)
    bias = rng.normal(size=op.oc).astype(np.float32)
    y = op.reference(x, op.arranged(w), bias)
    form = parse("conv2d h=1 w=1 ic=1 oc=1 kernel=1 act=s8 weight=s8")
    sizes = ("n", "h", "w", "ic", "oc", "kernel", "stride", "pad", "dilation", "groups")
    form = replace(form, **{key: getattr(op, key) for key in sizes})
    windows = np.stack([form._windows(image) for image in x.astype(float)])
    kernels = w.astype(float).reshape(op.groups, -1, *op.kernel, op.ic // op.groups)
    expected = np.einsum("nhwgrsi,gorsi->nhwgo", windows, kernels).reshape(y.shape) + bias
    near(y, np.clip(expected, op.low, op.high), 1e-5)


@given(OPERATORS["lstm_cell"] | OPERATORS["gru_cell"], seeds)
def test_cells_are_near_the_formulas(op, seed):
    inputs, y = problem(op, seed)
    state, r = inputs["state"].astype(float), inputs["r"].astype(float)
    gates = inputs["x"][:, : r.shape[1]] + r
    s = 1 / (1 + np.exp(-gates))
    if op.kind == "gru_cell":
        if op.part == "reset":
            expected = s[:, 1] * state
        else:
            reset = s[:, 1] if op.part == "output" else 1
            new = np.tanh(inputs["x"][:, 2] + reset * r[:, 2])
            expected = (1 - s[:, 0]) * new + s[:, 0] * state
    elif op.part == "state":
        expected = s[:, 2] * state + s[:, 0] * np.tanh(gates[:, 3])
    else:
        expected = s[:, 1] * np.tanh(state)
    near(y, expected, 1e-5)


@given(OPERATORS["resize"], seeds)
def test_resize_is_near_the_formula(op, seed):
    inputs, y = problem(op, seed)
    x = inputs["x"].astype(float)
    for n, i, j in np.ndindex(y.shape[:3]):
        row, column = inputs["rows"][i], inputs["columns"][j]
        if op.mode == "nearest":
            assert (y[n, i, j] == x[n, row, column]).all()
            continue
        down, across = float(inputs["row_weights"][i]), float(inputs["column_weights"][j])
        below, right = min(row + 1, op.h - 1), min(column + 1, op.w - 1)
        top = x[n, row, column] * (1 - across) + x[n, row, right] * across
        bottom = x[n, below, column] * (1 - across) + x[n, below, right] * across
        expected = top * (1 - down) + bottom * down
        assert np.abs(y[n, i, j] - expected).max() <= (1e-5 if op.act == REAL else 0.501)


@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.parametrize(("size", "out"), [(4, 8), (5, 3), (3, 7), (6, 1), (1, 4)])
@pytest.mark.parametrize("mode", ["linear", *ROUNDINGS])
def test_places_are_those_of_onnx(size, out, coordinates, mode):
    onnx = pytest.importorskip("onnx")
    from onnx.reference import ReferenceEvaluator

    rounding = {} if mode == "linear" else {"nearest_mode": mode}
    mode = "linear" if mode == "linear" else "nearest"
    words = {"mode": mode, "coordinate_transformation_mode": coordinates, **rounding}
    node = onnx.helper.make_node("Resize", ["x", "", "", "sizes"], ["y"], **words)
    infos = [
        onnx.helper.make_tensor_value_info(name, kind, shape)
        for name, kind, shape in (("x", 1, (1, 1, size, 2)), ("sizes", 7, (4,)), ("y", 1, None))
    ]
    graph = onnx.helper.make_graph([node], "resize", infos[:2], infos[2:])
    x = np.random.default_rng(0).normal(size=(1, 1, size, 2)).astype(np.float32)
    given = {"x": x, "sizes": np.int64([1, 1, out, 2])}
    (expected,) = ReferenceEvaluator(onnx.helper.make_model(graph)).run(None, given)
    rounding = rounding.get("nearest_mode", "floor")
    places, weights = places_of(size, out, mode, coordinates, rounding)
    tables = {"rows": places, "columns": np.arange(2, dtype=np.int32)}
    if mode == "linear":
        tables |= {"row_weights": weights, "column_weights": np.zeros(2, np.float32)}
    y = Resize(h=size, w=2, c=1, oh=out, ow=2, mode=mode, act="f32").reference(
        x=x.reshape(1, size, 2, 1), **tables
    )
    near(y.ravel(), expected.ravel())


@given(OPERATORS["fold"], seeds)
def test_fold_is_the_formula(op, seed):
    inputs, y = problem(op, seed)
    expected = np.zeros(y.shape)
    for n, h, w, r, s in np.ndindex(op.x_shape[:5]):
        oh = h * op.stride[0] + r * op.dilation[0] - op.pad[0]
        ow = w * op.stride[1] + s * op.dilation[1] - op.pad[1]
        if 0 <= oh < y.shape[1] and 0 <= ow < y.shape[2]:
            expected[n, oh, ow] += inputs["x"][n, h, w, r, s]
    near(y, expected, 1e-5)


REAL_FUNCTIONS = {
    "exp": np.exp,
    "log": np.log,
    "tanh": np.tanh,
    "erf": np.vectorize(math.erf),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "sqrt": np.sqrt,
    "reciprocal": lambda x: 1 / x,
    "swish": lambda x: x / (1 + np.exp(-x)),
    "gelu": lambda x: x / 2 * (1 + np.vectorize(math.erf)(x / 2**0.5)),
    "gelu_tanh": lambda x: x / 2 * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3))),
}


@pytest.mark.parametrize("function", REAL_FUNCTIONS)
def test_relative_errors_of_functions(function):
    """On all exponents, and around 1."""
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**32, 20000, dtype=np.uint32).view(np.float32)
    x = np.concatenate([bits[np.isfinite(bits)], rng.normal(0, 4, 20000).astype(np.float32)])
    x = np.abs(x) if function in ("log", "sqrt") else x
    y = Unary(size=x.size, function=function).reference(x).astype(float)
    with np.errstate(all="ignore"):
        real = REAL_FUNCTIONS[function](x.astype(float))
    size = np.abs(x if "gelu" in function else real)
    if function == "swish":  # times a factor that may be 0
        size[np.abs(real) < 2.0**-125 * np.abs(x)] = 0
    usual = (size > 2.0**-125) & (np.abs(real) < 3.4e38)
    assert (np.abs(y[usual] - real[usual]) <= 1e-6 * size[usual]).all()


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
