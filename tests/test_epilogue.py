"""Epilogues: the oracle against plain scalars, and words and values that cannot be."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernels import (
    bits,
    with_specials,
)
from strategies import convs, denses, with_epilogues

from lpgen.errors import FormatError, WorkloadError
from lpgen.ops import Conv2d, Dense, parse
from lpgen.ops.epilogue import Bias, Clamp, Middle, Quantize, Residual, Scale, Threshold


def scalar(op, total, n, parameters, residual):
    """One element, in Python's integers and NumPy's float32 scalars, straight from the table."""
    f32, v, low, chain = np.float32, int(total), -np.inf, op.epilogue
    quantize = chain[-1] if chain and isinstance(chain[-1], Quantize) else None
    for step in chain:
        if isinstance(step, Bias):
            b = parameters["bias"][n]
            v = v + int(b) if step.dtype == "s32" else v + b
        elif isinstance(step, Scale):
            v = f32(v) * parameters["scale"][n if step.per == "channel" else 0]
        elif isinstance(step, Middle):
            least, most = step.format.min, step.format.max
            code = min(max(round(float(v)) + step.zero, least), most)
            v = f32(code - step.zero) * parameters["middle_scale"][0]
        elif isinstance(step, Residual):
            v = v + (
                residual
                if step.format == "f32"
                else f32(int(residual) - step.zero) * parameters["residual_scale"][0]
            )
            v = v / parameters["output_scale"][0] if "output_scale" in parameters else v
        elif isinstance(step, Clamp):
            zero = quantize.zero if quantize else 0
            low, high = 0, np.inf
            if step.bounds == "relu6":
                high = parameters["six"][0] if quantize else 6
            elif step.bounds != "relu":
                low, high = (bound - zero for bound in step.bounds)
            v = type(v)(low) if v < low else v
            v = type(v)(high) if v > high else v
        elif isinstance(step, Threshold):
            t, falls = parameters["thresholds"][n].tolist(), parameters["direction"][n] < 0
            count = sum(v <= level if falls else v >= level for level in t)
            v = step.format.min + step.format.step * count
        elif isinstance(step, Quantize):
            below, above = (bound - step.zero for bound in (step.format.min, step.format.max))
            below = max(below, low)
            v = int(np.rint(np.float64(below if np.isnan(v) else min(max(v, below), above))))
            v += step.zero
    return v


@settings(deadline=None)
@given(with_epilogues(denses()), st.booleans(), st.integers(0, 2**32 - 1))
def test_the_oracle_is_the_chain_step_by_step(op, special, seed):
    rng = np.random.default_rng(seed)
    x, w = op.random(rng)
    parameters, residual = op.random_parameters(rng), op.random_residual(rng)
    if special and residual is not None:
        residual = with_specials(residual, rng)
    y = op.reference(x, w, residual, **parameters)
    zeros = np.broadcast_to(parameters.get("zero_weight", op.zero_weight), (op.n,)).astype(int)
    expected = np.empty_like(y)
    for m, n in itertools.product(range(op.m), range(op.n)):
        total = (x[m].astype(int) - op.zero_act) @ (w[n].astype(int) - zeros[n])
        r = None if residual is None else residual[m, n]
        expected[m, n] = scalar(op, total, n, parameters, r)
    assert y.dtype == op.y_dtype
    np.testing.assert_array_equal(bits(y), bits(expected))


@given(with_epilogues(st.one_of(convs(), denses())))
def test_every_epilogue_survives_its_text(op):
    assert parse(str(op)) == op
    assert str(parse(str(op))) == str(op)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("out=u8", "^dense: out=u8 needs scale=tensor or scale=channel$"),
        ("scale=tensor", "^dense: scale=tensor gives real numbers: out= has to be f32 or a format"),
        ("out=b1 scale=tensor", r"^dense: out=b1: quantized values are u1\.\.u8 or s2\.\.s8$"),
        ("out=u4 scale=tensor zero_out=16", r"zero_out=16 is outside 0\.\.15 \(u4\)$"),
        ("out=u4 scale=thresholds", "out=u4 scale=thresholds: u, s, b or t of up to 8 levels$"),
        ("out=u2 scale=thresholds relu", "epilogue: Clamp is part of the thresholds$"),
        ("out=f32 scale=thresholds", "scale=thresholds is for out=FORMAT, and has no zero_out$"),
        ("zero_out=3", "^dense: zero_out=3: out=s32 has no zero point$"),
        ("out=f32 scale=row", "'scale=row': 'row' is none of none, tensor, channel, thresholds$"),
        ("bias=f32", "^dense: epilogue: Bias needs scale=tensor or scale=channel$"),
        ("residual=u8", "^dense: epilogue: Residual needs scale=tensor or scale=channel$"),
        ("clamp=5", "'clamp=5': '5' is none of none, relu, relu6, LOWxHIGH$"),
        ("clamp=5x4", "^dense: clamp=5x4 is no range of int32$"),
        ("relu clamp=relu6", "'clamp=relu6' gives clamp a second time$"),
        ("relu6", "^dense: clamp=relu6 is for real numbers, out=s32 has none$"),
        ("out=u2 scale=tensor clamp=0x4", r"clamp=0x4 is outside 0\.\.3 \(u2\)$"),
        ("zero_act=-1", r"^dense: zero_act=-1 is outside 0\.\.255 \(u8\)$"),
        ("zero_weight=channels", "'zero_weight=channels': 'channels' is not a number$"),
        ("zero_residual=1", "^dense: zero_residual=1: residual=none has no zero point$"),
        ("out=f32 scale=tensor residual=f32 zero_residual=1", "residual=f32 has no zero point$"),
        ("out=u8 scale=tensor middle=u8", "^dense: middle=u8 is for a quantized residual= and "),
        ("out=f32 scale=tensor residual=u8 middle=s4", "^dense: middle=s4 is for a quantized "),
        ("zero_middle=1", "^dense: zero_middle=1: middle=none has no zero point$"),
    ],
)
def test_epilogues_that_cannot_be(words, message):
    with pytest.raises(WorkloadError, match=message) as caught:
        parse(f"dense m=1 n=2 k=3 act=u8 weight=s8 {words}")
    assert "\n" not in str(caught.value)


def test_steps_have_one_order():
    with pytest.raises(WorkloadError, match=r"^dense: epilogue: Bias cannot follow Scale$"):
        Dense(1, 1, 1, "u8", "s8", epilogue=(Scale(), Bias("s32")))
    with pytest.raises(WorkloadError, match="3 is no step of an epilogue"):
        Dense(1, 1, 1, "u8", "s8", epilogue=(3,))


def test_parameters_are_checked():
    op = parse("conv2d h=3 w=3 ic=2 oc=4 kernel=3 act=u8 weight=s8 out=u8 scale=channel bias=s32")
    x, w = op.random(np.random.default_rng(0))
    good = {"bias": np.zeros(4, np.int32), "scale": np.ones(4, np.float32)}
    assert op.reference(x, w, **good).dtype == np.uint8
    for wrong, error, message in (
        (
            {"scale": np.ones(3, np.float32)},
            FormatError,
            r"scale has shape \(3,\), expected \(4,\)",
        ),
        ({"scale": np.float32([1, np.nan, 1, 1])}, FormatError, r"scale\[1\] = nan is outside"),
        ({"bias": np.full(4, 2**31 - 1)}, FormatError, r"bias\[0\] = 2147483647 is outside -21468"),
        ({"bias": np.ones(4)}, FormatError, "bias: dtype float64, expected int32"),
        ({"zero": 1}, WorkloadError, "parameter zero is not asked for; asked for: bias, scale$"),
    ):
        with pytest.raises(error, match=message):
            op.reference(x, w, **{**good, **wrong})
    with pytest.raises(WorkloadError, match=r"^conv2d: parameter bias is missing$"):
        op.reference(x, w, scale=good["scale"])
    with pytest.raises(WorkloadError, match=r"^conv2d: residual is not asked for$"):
        op.reference(x, w, np.zeros(op.y_shape), **good)


def test_a_zero_point_pads():
    op = Conv2d(h=2, w=2, ic=1, oc=1, kernel=3, pad=1, act="u8", weight="s8", zero_act=9)
    x, w = np.full(op.x_shape, 9, np.uint8), np.full(op.w_shape, 5, np.int8)
    assert not op.reference(x, w).any()


def test_a_clamp_keeps_what_is_no_number_and_quantizing_gives_the_lowest_value():
    """As Clip and QuantizeLinear of onnxruntime do; infinities are bounded."""
    r = np.float32([[np.nan, np.inf, -np.inf, -0.0]])
    x, w, scale = np.zeros((1, 1), np.uint8), np.zeros((4, 1), np.int8), np.ones(1, np.float32)
    for words, expected in {
        "out=f32": [np.nan, np.inf, -np.inf, 0],
        "out=f32 relu": [np.nan, np.inf, 0, 0],
        "out=f32 clamp=1x5": [np.nan, 5, 1, 1],
        "out=s8 zero_out=3": [-128, 127, -128, 3],
        "out=u8 zero_out=3": [0, 255, 0, 3],
        "out=u8 zero_out=3 relu": [3, 255, 3, 3],
        "out=s4 clamp=-2x5": [-2, 5, -2, 0],
    }.items():
        op = parse(f"dense m=1 n=4 k=1 act=u8 weight=s8 scale=tensor residual=f32 {words}")
        np.testing.assert_array_equal(op.reference(x, w, r, scale=scale)[0], expected, words)
