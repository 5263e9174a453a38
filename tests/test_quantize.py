"""quantize and dequantize: the oracle against plain scalars, kernels against the oracle."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernels import arguments, assert_exact_on
from strategies import quantized

from lpgen import runtime
from lpgen.errors import FormatError, WorkloadError
from lpgen.ops import DequantizeLinear, Example, QuantizeLinear, parse
from lpgen.records.choose import choose
from lpgen.target import Target, cpu_features
from lpgen.templates import Template, explain

KINDS = {"quantize": QuantizeLinear, "dequantize": DequantizeLinear}
ELEMENTWISE = Template("generic", "elementwise")
pers = st.sampled_from(["tensor", "axis", "block"])


@st.composite
def operators(draw, longest=80):
    """Every way to share scales, with rows around the widths of vectors."""
    kind = KINDS[draw(st.sampled_from(sorted(KINDS)))]
    axis, per = draw(st.integers(1, longest)), draw(pers)
    if per == "block":
        per += str(draw(st.integers(1, axis + 1)))
    inner = draw(st.one_of(st.just(1), st.integers(1, longest)))
    outer = draw(st.integers(1, 3))
    return kind(outer=outer, axis=axis, inner=inner, format=draw(quantized), per=per)


def problem(op, seed=0):
    """(x, scales, zero points, the result)."""
    example = op.example(np.random.default_rng(seed))
    return *example.inputs.values(), op.reference(**example.given)


@settings(deadline=None)
@given(operators(6), st.integers(0, 2**32 - 1))
def test_the_oracle_is_the_formula(op, seed):
    x, scale, zero, y = problem(op, seed)
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


@given(operators())
def test_every_operator_survives_its_text(op):
    assert parse(str(op)) == op
    assert str(parse(str(op))) == str(op)


@pytest.mark.parametrize("level", ["generic", "avx2", "avx512vnni"])
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_operator_at_any_point_of_the_space(level, data):
    target = Target.parse(level)
    if target.missing_on(cpu_features()):
        pytest.skip(f"this CPU is no {level}")
    op = data.draw(operators())
    knobs = ELEMENTWISE.space(op, target).sample(np.random.default_rng(data.draw(st.integers(0))))
    assert_exact_on(ELEMENTWISE, target, op, knobs)


def test_no_other_template_serves_it():
    op, target = parse("quantize axis=9 format=u8"), Target.parse("avx512vnni")
    answers = explain(op, target)
    assert [template for template, reason in answers.items() if reason is None] == [ELEMENTWISE]
    dense = parse("dense m=1 n=1 k=1 act=u8 weight=s8")
    assert (
        ELEMENTWISE.why_not(dense, target)
        == "it is for quantize, dequantize, add, mul and binary, not dense"
    )


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


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    from lpgen.build import build

    path = tmp_path_factory.mktemp("quantize") / "lib.so"
    # So large that several threads share it, and a small one of blocks.
    ops = (
        "quantize outer=2 axis=5 inner=9000 format=u4 per=axis",
        "dequantize outer=3 axis=20 format=s8 per=block7",
    )
    build([choose(op) for op in ops], path)
    return path


def test_libraries_hold_them(library, lpgen):
    lib = runtime.load(library)
    for name in lib.kernels:
        op, kernel = parse(name), lib[name]
        x, scale, zero, expected = problem(op)
        assert kernel.weights is None
        for threads in (1, 2):
            np.testing.assert_array_equal(kernel(x, scale, zero, threads=threads), expected)
    header = library.with_suffix(".h").read_text()
    assert (
        "(const float *x, size_t x_bytes, const float *scale, size_t scale_bytes, "
        "const uint8_t *zero, size_t zero_bytes, uint8_t *y, size_t y_bytes,"
    ) in " ".join(header.split())
    assert " * x float[2, 5, 9000]\n * scale float[5]\n * zero uint8_t[5], format u4\n" in header
    assert "2 of 2 kernels are exact" in lpgen("check", str(library))


def test_they_can_be_tuned(lpgen):
    text = "quantize axis=100 inner=300 format=u8 per=axis"
    assert "generic/elementwise" in lpgen("tune", text, "--trials", "2", "--log", "log.jsonl")
    assert "quantize" in lpgen("show", "log.jsonl")


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
    x, scale, zero, _ = problem(op)
    with pytest.raises(FormatError, match="x: dtype float64, expected float32"):
        op.reference(x.astype(float), scale, zero)
    with pytest.raises(FormatError, match=r"zero\[0\] = 16 is not a value of u4"):
        op.reference(x, scale, zero * 0 + 16)
    with pytest.raises(WorkloadError, match=r"^quantize: scale has shape \(2,\), expected \(3,\)"):
        op.reference(x, scale[:2], zero)
    with pytest.raises(WorkloadError, match=r"^extreme 'middle' is unknown; known: max-max, max-m"):
        op.example(np.random.default_rng(0), "middle")
