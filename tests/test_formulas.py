"""Oracles of operators without weights, against plain formulas."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from without_weights import OPERATORS, problem

from lpgen.formats import REAL
from lpgen.ops import QuantizeLinear, parse
from lpgen.ops.resize import COORDINATES, ROUNDINGS, Resize, places_of
from lpgen.ops.rounded import ROUNDED
from lpgen.ops.unary import Unary

seeds = st.integers(0, 2**32 - 1)


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


@given(OPERATORS["attention"], seeds)
def test_attention_is_near_the_formula(op, seed):
    inputs, y = problem(op, seed)
    q, k, v = (inputs[name].astype(float) for name in ("queries", "keys", "values"))
    q, k, v = (
        x.transpose(0, 2, 1, 3)[:, place.first : place.first + op.heads]
        if place.form == "beside"
        else x
        for place, x in zip((op.queries, op.keys, op.values), (q, k, v), strict=True)
    )
    scores = q @ (k if op.keys.form == "turned" else k.swapaxes(2, 3)) * op.factor
    if op.added:
        masks = inputs["added"].reshape(-1, 1, op.added, op.n)
        several = np.broadcast_to(masks, (len(masks), op.times, op.added, op.n))
        scores = scores + several.reshape(scores.shape)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    expected = weights / weights.sum(-1, keepdims=True) @ v
    near(y, expected.transpose(0, 2, 1, 3) if op.result.form == "beside" else expected, 2e-5)


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


@pytest.mark.parametrize("rounded", ROUNDED)
@pytest.mark.parametrize("function", REAL_FUNCTIONS)
def test_relative_errors_of_functions(function, rounded):
    """On all exponents, and around 1."""
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**32, 20000, dtype=np.uint32).view(np.float32)
    x = np.concatenate([bits[np.isfinite(bits)], rng.normal(0, 4, 20000).astype(np.float32)])
    x = np.abs(x) if function in ("log", "sqrt") else x
    op = Unary(size=x.size, function=function, rounded=rounded)
    y = op.reference(x).astype(float)
    with np.errstate(all="ignore"):
        real = REAL_FUNCTIONS[function](x.astype(float))
    size = np.abs(x if "gelu" in function else real)
    if function == "swish":  # times a factor that may be 0
        size[np.abs(real) < 2.0**-125 * np.abs(x)] = 0
    usual = (size > 2.0**-125) & (np.abs(real) < 3.4e38)
    assert (np.abs(y[usual] - real[usual]) <= 1e-6 * size[usual]).all()
