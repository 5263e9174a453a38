"""Packed tensors between kernels: the helpers, the oracle, and every template against it."""

from dataclasses import replace

import numpy as np
import pytest
import tvm_ffi
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernels import LEVELS, assert_exact, template
from strategies import convs, depthwise_convs, grouped_convs, texts, with_epilogues

from lpgen import runtime
from lpgen.algorithms.lhs.planes import reads_planes
from lpgen.algorithms.result import pack as packing
from lpgen.build import build, header_path
from lpgen.build.check import check_library
from lpgen.errors import FormatError, WorkloadError
from lpgen.formats import Format
from lpgen.ops import Dense, parse
from lpgen.ops.epilogue import Pack
from lpgen.ops.packed import LAYOUTS, check_layout, pack, packed_shape, unpack
from lpgen.records.choose import choose
from lpgen.runtime.memory import aligned_copy

BUILDS = settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
denses = st.builds(Dense, *(st.integers(1, n) for n in (20, 90, 90)), act=texts, weight=texts)
pairs = st.tuples(texts.map(Format.parse), st.sampled_from(LAYOUTS)).filter(
    lambda pair: check_layout("", *pair) is None
)


@st.composite
def packed_operators(draw, operators):
    """One of `operators` with a packed input, a packed result, or both where formats allow."""
    op = draw(with_epilogues(operators))
    act, layout = draw(pairs)
    if draw(st.booleans()):
        zero = min(max(op.zero_act, act.min), act.max) if act.encoding in "us" else 0
        op = replace(op, act=act, zero_act=zero, input=layout)
    layout = draw(st.sampled_from(LAYOUTS))
    if op.y_format and check_layout("", op.y_format, layout) is None:
        op = replace(op, epilogue=(*op.epilogue, Pack(layout)))
    return op


@given(pair=pairs, shape=st.lists(st.integers(1, 70), min_size=1, max_size=3), seed=st.integers(0))
def test_unpacking_gives_what_was_packed(pair, shape, seed):
    form, layout = pair
    values = form.random(np.random.default_rng(seed), (*shape[:-1], shape[-1]))
    data = pack(values, form, layout)
    assert data.dtype == np.uint8
    assert data.shape == packed_shape(values.shape, form, layout)
    back = unpack(data, form, layout, shape[-1])
    assert back.dtype == form.dtype
    np.testing.assert_array_equal(back, values)


def test_the_first_code_is_in_the_lowest_bits():
    assert pack(np.uint8([[1, 2, 15]]), "u4", "packed").tolist() == [[0x21, 0x0F]]
    assert pack(np.uint8([1, 2, 3, 0, 2]), "u2", "packed").tolist() == [0b00111001, 2]
    assert pack(np.int8([-1, 1, 1, -1, -1, -1, -1, -1, 1]), "b1", "packed").tolist() == [6, 1]
    assert pack(np.int8([-8, 7]), "s4", "packed").tolist() == [0xF0]
    assert pack(np.uint8([5, 7]), "u3", "packed").tolist() == [0x75]
    # Planes of a word: the low bits of 32 codes, then the high ones.
    values = np.zeros(33, np.uint8)
    values[[0, 9, 32]] = 1, 3, 2
    planes = [1, 2, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]
    assert pack(values, "u2", "planes").tolist() == planes


@pytest.mark.sample(2)
@pytest.mark.matrix
@pytest.mark.parametrize("name", sorted(LEVELS))
@settings(BUILDS, max_examples=4)
@given(data=st.data())
def test_any_point_of_the_space(name, data):
    chosen, target = template(name)
    own = {"depthwise": depthwise_convs(), "grouped_conv": grouped_convs()}
    kinds = own.get(name.rpartition("/")[2], st.one_of(denses, convs()))
    op = data.draw(packed_operators(kinds))
    if "blockwise_dot" in name or chosen.why_not(op, target):
        return
    assert parse(str(op)) == op
    seed = data.draw(st.integers(0, 2**31))
    assert_exact(name, op, chosen.space(op, target).sample(np.random.default_rng(seed)))


@pytest.mark.sample(2)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "name", ["generic/generic", "avx2/dot", "avx512vnni/dot", "amx/mma", "icelake/bitserial"]
)
def test_two_layers_in_a_chain(name, layout):
    from lpgen.build.lower import jit

    chosen, target = template(name)
    shape = "n=2 h=7 w=6 kernel=3 pad=1 weight=s2"
    first = parse(f"conv2d {shape} ic=5 oc=70 act=u8 out=u2:{layout} scale=channel bias=s32")
    second = parse(f"conv2d {shape} ic=70 oc=9 act=u2 input={layout}")
    rng = np.random.default_rng(3)
    x, w = first.random(rng)
    parameters = first.random_parameters(rng)
    between = run(jit, chosen, target, first, x, w, parameters)
    np.testing.assert_array_equal(between, first.reference(x, w, **parameters))
    values = unpack(between, "u2", layout, 70)
    assert len(np.unique(values)) == 4
    w = second.random(rng)[1]
    plain = replace(second, input="act").reference(values, w)
    np.testing.assert_array_equal(run(jit, chosen, target, second, between, w, {}), plain)


def run(jit, chosen, target, op, x, w, parameters):
    kernel = chosen.kernel(op, target, chosen.default(op, target))
    y = np.full(op.y_shape, 99, op.y_dtype)
    packed = aligned_copy(kernel.layout.pack(w, **parameters), 0)
    jit(kernel, target)(*map(tvm_ffi.from_dlpack, (x, packed, y)))
    return y


@pytest.mark.parametrize("name", ["avx2/dot", "avx512vnni/dot", "amx/mma", "icelake/bitserial"])
def test_tiles_of_whole_bytes_are_packed_where_they_are_made(name, monkeypatch):
    monkeypatch.setattr(packing, "_packed_at_the_end", None)
    for layout in LAYOUTS:
        words = f"act=u2 weight=s2 scale=channel out=u2:{layout}"
        assert_exact(name, parse(f"conv2d h=6 w=7 ic=8 oc=200 kernel=3 pad=1 {words}"))
        assert_exact(name, parse(f"dense m=5 n=77 k=40 {words}"))
        assert_exact(name, parse(f"conv2d h=6 w=7 ic=8 oc=32 groups=2 kernel=1 {words}"))


@pytest.mark.parametrize("name", ["generic/blockwise_dot", "avx512vnni/blockwise_dot"])
def test_scales_of_groups(name):
    words = "input=packed out=u4:planes scale=group32"
    assert_exact(name, parse(f"dense m=5 n=40 k=100 act=s4 weight=s4 {words}"))


def test_a_library_takes_and_gives_packed_tensors(tmp_path):
    text = "conv2d h=5 w=6 ic=9 oc=21 kernel=3 act=s4 weight=s4 input=packed out=u2:planes"
    op = parse(f"{text} scale=channel residual=u8")
    path = build([choose(op, "generic", use_shipped=False)], tmp_path / "lib.so")
    assert [result.failure for result in check_library(path)] == [None]
    kernel = runtime.load(path)[op.name]
    x, y = kernel.arguments["x"], kernel.output
    assert (x.shape, x.dtype, x.format) == ((1, 5, 6, 5), np.uint8, "s4:packed")
    assert (y.shape, y.dtype, y.format) == ((1, 3, 4, 8), np.uint8, "u2:planes")
    header = header_path(path).read_text(encoding="utf-8")
    assert "x uint8_t[1, 5, 6, 5], format s4:packed" in header
    assert "y uint8_t[1, 3, 4, 8], format u2:planes" in header
    assert "residual uint8_t[1, 3, 4, 21], format u8" in header


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("act=u8 input=packed", "codes of 8 bits are a byte each, packed ones have up to 4"),
        ("act=c2:-7,-2,1,6 input=planes", "values of a code book are not packed"),
        ("act=u8 out=u5:packed scale=tensor", "out=u5:packed: codes of 5 bits are a byte each"),
        ("act=u8 out=u2:nibbles scale=tensor", "layout 'nibbles' is none of packed, planes"),
        ("act=u8 input=nibbles", "'nibbles' is none of act, packed, planes, f32"),
    ],
)
def test_layouts_that_cannot_be(words, message):
    with pytest.raises(WorkloadError, match=message):
        parse(f"dense m=1 n=2 k=3 weight=s8 {words}")
    with pytest.raises(WorkloadError, match=r"Pack\('planes'\) needs out=FORMAT"):
        Dense(1, 2, 3, "u8", "s8", epilogue=(Pack("planes"),))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.uint8([[3]]), "bits behind their 1 codes are not 0"),
        (np.uint8([[3, 0]]), r"uint8\[2\], expected uint8\[1\] for 1 codes of b1"),
        (np.int8([[1]]), r"int8\[1\], expected uint8\[1\]"),
    ],
)
def test_rows_that_are_not_packed(data, message):
    with pytest.raises(FormatError, match=message):
        unpack(data, "b1", "packed", 1)
    with pytest.raises(FormatError, match="code 3 is not one of t2's 3"):
        unpack(np.uint8([3]), "t2", "packed", 1)
    op = parse("dense m=1 n=1 k=1 act=b1 weight=s8 input=packed")
    with pytest.raises((FormatError, WorkloadError), match=r"bits behind|shape|expected uint8"):
        op.reference(data, np.int8([[1]]))


@pytest.mark.sample(2)
@pytest.mark.parametrize("name", ["generic/bitserial", "icelake/bitserial"])
@pytest.mark.parametrize(
    "words",
    [
        "conv2d h=6 w=5 ic=64 oc=40 kernel=3 pad=1 act=u2 weight=b1",
        # Padding is a plane more; channels are no whole words.
        "conv2d n=2 h=5 w=6 ic=40 oc=64 kernel=3 pad=1x2 stride=2 act=b2 weight=b1",
        "conv2d h=5 w=6 ic=64 oc=20 groups=2 kernel=3 pad=0x1 act=s3 weight=s2 zero_act=-2",
        "conv2d h=5 w=6 ic=64 oc=20 kernel=3 act=b1 weight=b1",
        "dense m=7 n=77 k=99 act=b1 weight=b1",
        "dense m=7 n=20 k=99 act=t2 weight=u2 zero_weight=channel",
    ],
)
def test_the_bitserial_algorithm_reads_planes_as_they_are(name, words):
    op = parse(f"{words} input=planes")
    chosen, target = template(name)
    points = chosen.space(op, target).enumerate()
    knobs = next(p for p in points if reads_planes(op, p.get("word", 32), p["left"]))
    assert_exact(name, op, knobs)
