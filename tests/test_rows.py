"""Any number of rows, or images, at each call: one packed weight, the same bits as the oracle."""

import ctypes

import numpy as np
import pytest
import tvm_ffi
from kernels import template

from lpgen import runtime, templates
from lpgen.bench import bench
from lpgen.build import build, header_path
from lpgen.build.check import check_library, edges
from lpgen.build.lower import ranged_module
from lpgen.errors import LibraryError, WorkloadError
from lpgen.ops import Conv2d, Dense, parse
from lpgen.ops.rows import Range, entry_at
from lpgen.records import Record
from lpgen.records.choose import choice_of, choose
from lpgen.runtime.memory import aligned_copy
from lpgen.target import Target
from lpgen.tune import tune

DENSE = "dense m=1..40 n=50 k=36 act=u8 weight=s8 out=u8 scale=channel bias=s32 residual=u8 relu"
CONV = "conv2d n=2..5 h=5 w=6 ic=8 oc=12 kernel=3 pad=1 act=u8 weight=s4"


# ---- operators


def test_a_range_is_a_size_of_the_workload():
    op = parse(DENSE)
    assert op.m == op.range == Range(1, 40)
    assert parse(op.name) == op != parse(DENSE.replace("1..40", "40"))
    assert op.name.startswith("dense m=1..40 n=50 k=36 ")
    assert op.identifier == "dense_1to40x50x36_u8s8"
    assert op.x_shape == (40, 36)
    assert op.at(7) == parse(DENSE.replace("1..40", "7"))
    assert op.at(7).range is None
    assert op.at(Range(3, 9)).range == (3, 9)
    assert [a.name for a in op.signature] == ["x", "packed", "residual", "m", "y"]
    conv = parse(CONV)
    assert (conv.range, conv.x_shape, conv.at(3).n) == ((2, 5), (5, 5, 6, 8), 3)
    assert conv.identifier == "conv2d_3x3_2to5x8x5x6_12_u8s4"
    assert Dense(Range(1, 3), 4, 5, "u8", "s8").name.startswith("dense m=1..3 ")


def test_the_oracle_takes_any_number_of_rows():
    op = parse("dense m=1..9 n=3 k=4 act=u8 weight=s8")
    x, w = op.at(5).random(np.random.default_rng(0))
    assert np.array_equal(op.reference(x, w), op.at(5).reference(x, w))
    with pytest.raises(WorkloadError, match=r"m is 10, the operator has 1\.\.9"):
        op.reference(np.zeros((10, 4), np.uint8), w)


@pytest.mark.parametrize(
    ("size", "reason"),
    [
        ("8..8", r"m=8\.\.8 is no range LOW\.\.HIGH, LOW < HIGH"),
        ("9..8", "is no range"),
        ("0..8", "within 1"),
        ("1..99999999999", "within 1"),
        ("1..", "is not a range, such as 1..512"),
        ("-1..3", "is not a range"),
        ("1..2..3", "is not a number"),
    ],
)
def test_what_is_no_range(size, reason):
    with pytest.raises(WorkloadError, match=reason):
        parse(f"dense m={size} n=4 k=4 act=u8 weight=s8")


def test_other_sizes_are_no_ranges():
    with pytest.raises(WorkloadError, match="is not a number"):
        parse("dense m=4 n=1..4 k=4 act=u8 weight=s8")
    with pytest.raises(WorkloadError, match="is not a size"):
        Conv2d(h=Range(1, 3), w=3, ic=3, oc=3, kernel=1, act="u8", weight="s8")


# ---- templates


def assert_exact(name: str, op, knobs: dict, threads: int = 2) -> None:
    chosen, target = template(name)
    kernel = chosen.kernel(op, target, knobs)
    sizes = [*edges(op.range)[::4], op.range.high]
    module = ranged_module(kernel, target, threads, sizes)
    rng = np.random.default_rng(0)
    for rows in sizes:
        fixed = op.at(rows)
        example = fixed.example(rng)
        expected = fixed.reference(**example.given)
        y = aligned_copy(np.full(expected.shape, 99, expected.dtype), expected.itemsize)
        values = {n: aligned_copy(v, v.itemsize) for n, v in example.inputs.items()} | {"y": y}
        packed = kernel.layout.pack(example.weights, **example.parameters)
        values["packed"] = aligned_copy(packed)
        run = module[entry_at(rows)]
        run(*map(tvm_ffi.from_dlpack, fixed.signature.ordered(values)))
        np.testing.assert_array_equal(y, expected, f"{op} {name} {knobs} {rows}")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "avx512vnni/dot",
            "dense m=1..33 n=50 k=36 act=u8 weight=s8 out=u8 scale=channel residual=u8",
        ),
        ("avx512vnni/dot", "dense m=1..40 n=37 k=64 act=u4 weight=s4 out=u2:packed scale=channel"),
        ("avx2/dot", "dense m=3..40 n=40 k=70 act=s8 weight=s4 zero_weight=channel"),
        (
            "avx2/dot",
            "dense m=1..90 n=30 k=64 act=s8 weight=s3 input=f32:tensor scale=tensor out=f32",
        ),
        ("sse4/dot", "dense m=1..20 n=30 k=64 act=u4 weight=s4 input=packed"),
        (
            "avx512vnni/blockwise_dot",
            "dense m=1..20 n=40 k=96 act=u8 weight=u4 scale=group32 out=f32 zero_weight=group",
        ),
        (
            "generic/generic",
            "dense m=1..18 n=20 k=33 act=s8 weight=s3 input=f32:row scale=channel out=f32",
        ),
        (
            "avx2/dot",
            "dense m=1..9 n=9 k=32 act=s8 weight=s4 input=f32:row hadamard=32 scale=tensor out=f32",
        ),
        (
            "avx2/blockwise_dot",
            "dense m=1..20 n=20 k=70 act=s5 weight=s4 input=f32:group32 scale=channel out=f32",
        ),
        (
            "generic/blockwise_dot",
            "dense m=2..18 n=20 k=64 act=s8 weight=s4 scale=group32 out=f32 zero_weight=group",
        ),
        ("avx2/depthwise", "conv2d n=1..3 h=5 w=5 ic=8 oc=8 groups=8 kernel=3 act=u8 weight=s8"),
    ],
)
def test_every_number_of_rows_is_exact(name, text):
    op = parse(text)
    chosen, target = template(name)
    assert chosen.why_not(op, target) is None
    rng = np.random.default_rng(len(text))
    assert_exact(name, op, chosen.space(op, target).sample(rng))


def test_many_rows_have_bodies_of_their_own():
    """Stored weights are expanded into the cache; and rows that were not planned one by one."""
    op = parse("dense m=250..330 n=40 k=32 act=u8 weight=s4")
    chosen, target = template("avx2/dot")
    knobs = {"step": "words", "panel": 1, "rows": 4, "n_block": 0, "inner": "nm", "unroll": 1}
    knobs |= {"prefetch": 0, "many": 16}
    knobs["step"] = chosen.space(op, target).knobs["step"][0]
    assert knobs in chosen.space(op, target)
    assert_exact("avx2/dot", op, knobs)


def test_a_template_that_serves_one_number_says_so():
    target = Target.parse("icelake")
    dense = parse("dense m=1..40 n=50 k=36 act=u2 weight=s2")
    assert templates.get("x86/lut_sum").why_not(dense, target) == "it serves one m, not 1..40"
    conv = parse(f"{CONV} input=f32:tensor out=f32 scale=channel".replace("act=u8", "act=s8"))
    assert "has a scale of them all" in templates.get("x86/dot").why_not(conv, target)
    sparse = parse("dense m=1..40 n=50 k=36 act=u8 weight=s4 outliers=9")
    assert "outliers" in templates.get("x86/dot").why_not(sparse, target)


# ---- libraries


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    target = Target.parse("native")
    dense, generic = parse(DENSE), templates.get("generic/generic")
    knobs = {"rows": 4, "lanes": 8, "n_block": 0, "expand": "none"}
    choices = [choice_of(dense, target, generic, knobs), choose(parse(CONV), target)]
    return build(choices, tmp_path_factory.mktemp("rows") / "lib.so")


def test_a_library_serves_every_number_of_rows(path):
    assert [checked.failure for checked in check_library(path)] == [None, None]
    op, kernel = parse(DENSE), runtime.load(path)[parse(DENSE).name]
    rng = np.random.default_rng(0)
    example = op.at(40).example(rng)
    packed = kernel.pack_weights(example.weights, **example.parameters)
    x, residual = example.inputs["x"], example.inputs["residual"]
    expected = op.reference(**example.given)
    for rows in (1, 3, 4, 39, 40):
        y = kernel(x[:rows], packed, residual=residual[:rows])
        assert np.array_equal(y, expected[:rows])
        kernel.bind(x[:rows], packed, residual[:rows], out=y)()
        assert np.array_equal(y, expected[:rows])


def test_rows_that_a_kernel_does_not_serve(path):
    op, kernel = parse(DENSE), runtime.load(path)[parse(DENSE).name]
    example = op.at(9).example(np.random.default_rng(0))
    packed = kernel.pack_weights(example.weights, **example.parameters)
    x, residual = example.inputs["x"], example.inputs["residual"]
    for rows in (0, 41):
        with pytest.raises(LibraryError, match=f"m is {rows}, the kernel serves 1 to 40$"):
            kernel(np.zeros((rows, 36), np.uint8), packed, residual=residual)
    with pytest.raises(LibraryError, match=r"residual has shape \[9, 50\], expected \[8, 50\]"):
        kernel(x[:8], packed, residual=residual)
    with pytest.raises(LibraryError, match=r"out has shape \[8, 50\], expected \[9, 50\]"):
        kernel(x, packed, residual=residual, out=np.zeros((8, 50), np.uint8))
    with pytest.raises(LibraryError, match=r"x has shape \[9, 35\], expected \[9, 36\]"):
        kernel(x[:, :35], packed, residual=residual)
    with pytest.raises(LibraryError, match="m is not asked for"):
        kernel(x, packed, residual=residual, m=9)
    both = np.zeros(9 * 36 + 9 * 50, np.uint8)
    out = both[300 : 300 + 450].reshape(9, 50)
    with pytest.raises(LibraryError, match="out overlaps x"):
        kernel(both[:324].reshape(9, 36), packed, residual=residual, out=out)


def test_rows_in_c(path):
    kernel = runtime.load(path)[parse(DENSE).name]
    header = header_path(path).read_text()
    assert f"#define {kernel.symbol.upper()}_X_BYTES(m) ((size_t)(m) * 36)" in header
    assert " * x uint8_t[m, 36], format u8\n" in header
    assert " * m 1..40\n" in header
    run = getattr(ctypes.CDLL(str(path)), kernel.symbol)
    op = parse(DENSE)
    example = op.at(6).example(np.random.default_rng(0))
    packed = kernel.pack_weights(example.weights, **example.parameters).numpy()
    x, residual = example.inputs["x"], example.inputs["residual"]
    y = np.zeros((6, 50), np.uint8)

    def call(m, rows):
        tensors = [(ctypes.c_void_p(a.ctypes.data), a.nbytes) for a in (x, packed, residual, y)]
        sizes = [36 * rows, packed.nbytes, 50 * rows, 50 * rows]
        given = [(p, ctypes.c_size_t(n)) for (p, _), n in zip(tensors, sizes, strict=True)]
        scratch = np.zeros(kernel.workspace_bytes(1) + 64, np.uint8)
        start = -scratch.ctypes.data % 64 + scratch.ctypes.data
        work = ctypes.c_void_p(start), ctypes.c_size_t(kernel.workspace_bytes(1))
        return run(*given[0], *given[1], *given[2], m, *given[3], *work, 1)

    assert call(6, 6) == 0
    assert np.array_equal(y, op.reference(**example.given))
    y[...] = 0
    assert call(2, 2) == 0
    assert np.array_equal(y[:2], op.reference(**example.given)[:2])
    assert not y[2:].any()
    statuses = dict(zip(("INPUT_BYTES", "SCALAR_VALUE"), (call(5, 6), call(41, 6)), strict=True))
    for name, status in statuses.items():
        assert f"LPGEN_{name} = {status}," in header


def test_the_record_of_one_image_serves_a_range_of_them(tmp_path):
    target, one = Target.parse("native"), parse(CONV).with_rows(1)
    knobs = {"rows": 2, "lanes": 16, "n_block": 0, "expand": "use"}
    record = Record(one.name, target.name, "generic/generic", knobs, 1e-5, best=True)
    log = tmp_path / "log.jsonl"
    log.write_text(record.to_line() + "\n")
    choice = choose(parse(CONV), target, [log], use_shipped=False)
    assert (choice.template, choice.knobs) == ("generic/generic", knobs)
    assert (choice.borrowed, choice.seconds) == (False, None)


def test_several_sizes_are_tuned_together(tmp_path):
    op = parse("dense m=1..20 n=16 k=16 act=u8 weight=s8")
    assert op.range.some() == [1, 4, 16]
    assert op.range.round() == {1: 1, 4: 1, 16: 1}
    assert Range(1, 512).round() == {1: 16, 4: 16, 16: 16, 64: 4, 256: 1}
    assert op.ops_timed == 2 * 16 * 16 * 21
    log = tmp_path / "log.jsonl"
    (result,) = tune([op], "generic", trials=2, log=log)
    assert result.best.workload == op.name
    assert choose(op, "generic", [log], use_shipped=False).knobs == result.best.knobs


def test_sizes_are_timed_one_by_one(path):
    measured = [*bench(path, rows=(2, 3))]
    assert [parse(m.workload) for m in measured] == [
        parse(text).at(rows) for text in (DENSE, CONV) for rows in (2, 3)
    ]
    with pytest.raises(WorkloadError, match=r"n is 7, the operator has 2\.\.5"):
        [*bench(path, rows=(7,))]
