"""quantize and dequantize: the oracle against plain scalars, what is far or no number."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernels import arguments
from without_weights import linears, problem

from lpgen.errors import FormatError, WorkloadError
from lpgen.ops import DequantizeLinear, Example, QuantizeLinear, parse
from lpgen.records.choose import choose
from lpgen.target import Target
from lpgen.templates import Template, explain

ELEMENTWISE = Template("generic", "elementwise")
little = linears(QuantizeLinear, 6) | linears(DequantizeLinear, 6)


@settings(deadline=None)
@given(little, st.integers(0, 2**32 - 1))
def test_the_oracle_is_the_formula(op, seed):
    inputs, y = problem(op, seed)
    x, scale, zero = inputs.values()
    for at in np.ndindex(op.extents):
        o, a, i = at
        block = a // op.block
        where = (block,) if op.per in ("tensor", "axis") else (o, block, i)
        if op.kind == "quantize":
            value = round(float(x[at] / scale[where])) + int(zero[where])
            assert y[at] == min(max(value, op.format.min), op.format.max)
        else:
            assert y[at] == np.float32(int(x[at]) - int(zero[where])) * scale[where]
    assert (y.shape, y.dtype) == (op.extents, op.signature.output.dtype)


def test_no_other_template_serves_it():
    op, target = parse("quantize axis=9 format=u8"), Target.parse("avx512vnni")
    answers = explain(op, target)
    assert [template for template, reason in answers.items() if reason is None] == [ELEMENTWISE]
    dense = parse("dense m=1 n=1 k=1 act=u8 weight=s8")
    assert ELEMENTWISE.why_not(dense, target).endswith(", not dense")


def compiled(op):
    """The kernel of `op` as a function (x, scales, zero points) -> y."""
    from lpgen.build.lower import jit

    kernel = choose(op).kernel
    run, output = jit(kernel, Target.parse("native")), op.signature.output

    def call(x, scale, zero):
        y = np.zeros(output.shape, output.dtype)
        inputs = {"x": x, "scale": scale, "zero": zero}
        run(*arguments(kernel, Example("given", inputs, None, {}), y))
        return y

    return call


def test_halves_go_to_even_before_the_zero_point():
    op = parse("quantize axis=8 format=u8")
    x = np.float32([-1.5, -0.5, 0.5, 1.5, 2.5, 3.5, 127.5, 128.5]).reshape(op.extents) * 2
    y = compiled(op)(x, np.float32([2]), np.uint8([3]))
    np.testing.assert_array_equal(y.ravel(), [1, 3, 3, 5, 5, 7, 131, 131])


@pytest.mark.parametrize("form", ["u8", "s8", "u1", "s2", "u4"])
def test_what_is_far_saturates(form):
    op = parse(f"quantize axis=40 format={form}")
    far = [np.inf, -np.inf, 3e38, -3e38, 1e9, -1e9, 300, -300, 0.0, -0.0]
    x = np.resize(np.float32(far), op.extents)
    call, high, low = compiled(op), op.format.max, op.format.min
    for zero in (low, high):
        w = np.array([zero], op.format.dtype)
        for scale in np.float32([[1], [1e-18], [-1]]):
            y = call(x, scale, w)
            np.testing.assert_array_equal(y, op.reference(x, scale, w))
            ends = [high, low] * 4 if scale > 0 else [low, high] * 4
            np.testing.assert_array_equal(y.ravel()[:10], [*ends, zero, zero])
    x[0, ::3] = np.nan
    np.testing.assert_array_equal(call(x, scale, w), op.reference(x, scale, w))


def test_what_is_no_number_gives_the_lowest_value():
    """As QuantizeLinear of onnxruntime, in vectors and in what is left of a row."""
    x = np.resize(np.float32([np.nan, np.inf, -np.inf, 0, -np.nan]), 37)
    for form, zero in (("u8", 5), ("s8", -5), ("u4", 3)):
        op = parse(f"quantize axis=37 format={form}")
        low, high, w = op.format.min, op.format.max, np.array([zero], op.format.dtype)
        for scale, some in (
            (0.5, [low, high, low, zero, low]),
            (-1, [low, low, high, zero, low]),
            (0, [low, high, low, low, low]),
        ):
            expected = np.resize(some, op.extents)
            given = x.reshape(op.extents), np.float32([scale]), w
            np.testing.assert_array_equal(op.reference(*given), expected)
            np.testing.assert_array_equal(compiled(op)(*given), expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("quantize format=u8", "^quantize: missing axis=$"),
        ("quantize axis=0 format=u8", "^quantize: axis=0 is outside 1"),
        ("quantize axis=3 format=b2", r"^quantize: format=b2: quantized values are u1\.\.u8 or s2"),
        ("dequantize axis=3 format=u9", "'format=u9': format u9: bits must be"),
        ("quantize axis=3 format=u8 per=row", "'per=row': 'row' is none of tensor, axis, blockN$"),
        ("quantize axis=3 format=u8 per=block0", "'block0' is none of tensor, axis, blockN$"),
        ("quantize axis=3 format=u8 out=u8", "'out=u8' has an unknown key; .*known: outer, axis,"),
        ("quantize outer=65536 axis=65536 format=u8", r"x has 4294967296 elements \(65536, 65"),
    ],
)
def test_operators_that_cannot_be(text, message):
    with pytest.raises(WorkloadError, match=message) as caught:
        parse(text)
    assert "\n" not in str(caught.value)


def test_values_are_checked():
    op = parse("quantize axis=3 format=u4 per=axis")
    x, scale, zero = problem(op)[0].values()
    with pytest.raises(FormatError, match="x: dtype float64, expected float32"):
        op.reference(x.astype(float), scale, zero)
    with pytest.raises(FormatError, match=r"zero\[0\] = 16 is not a value of u4"):
        op.reference(x, scale, zero * 0 + 16)
    with pytest.raises(WorkloadError, match=r"^quantize: scale has shape \(2,\), expected \(3,\)"):
        op.reference(x, scale[:2], zero)
    with pytest.raises(WorkloadError, match=r"^extreme 'middle' is unknown; known: max-max, max-m"):
        op.example(np.random.default_rng(0), "middle")
