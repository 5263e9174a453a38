"""Scales of groups of k: the oracle against plain scalars, every template against the oracle,
packers, libraries from Python and from C."""

import ctypes
import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from kernels import LEVELS, bits, template, template_of
from packers import assert_packers_agree
from strategies import blockwise_denses

from lpgen import runtime, templates
from lpgen.build import build
from lpgen.build.check import check_library
from lpgen.errors import FormatError, LibraryError, ScheduleRefused, WorkloadError
from lpgen.ops import parse
from lpgen.ops.parameter import nearest_bfloat16
from lpgen.records.choose import choose
from lpgen.runtime.memory import aligned_copy
from lpgen.target import Target, known

NAMES = [name for name in LEVELS if name.endswith("/blockwise_dot")]
TEMPLATES = pytest.mark.parametrize("name", NAMES)
LLAMA = parse("dense m=1 n=70 k=100 act=s8 weight=s4 out=f32 scale=group32")


@settings(deadline=None, max_examples=50)
@given(blockwise_denses(rows=3, columns=5), st.integers(0, 2**32 - 1))
def test_the_oracle_adds_up_group_by_group(op, seed):
    rng = np.random.default_rng(seed)
    assume(op.group_size)
    op = replace(op, input="act", epilogue=op.epilogue[:1])
    x, w = op.random(rng)
    parameters = op.random_parameters(rng)
    scale = parameters["scale"]
    zeros = np.broadcast_to(parameters.get("zero_weight", op.zero_weight), scale.shape)
    y = op.reference(x, w, **parameters)
    expected = np.empty(op.y_shape, np.float32)
    for m, n in itertools.product(range(op.m), range(op.n)):
        total = np.float32(0)
        for j in range(scale.shape[1]):
            whole = range(j * op.group_size, min((j + 1) * op.group_size, op.k))
            products = (
                (int(x[m, k]) - op.zero_act) * (int(w[n, k]) - int(zeros[n, j])) for k in whole
            )
            total = total + np.float32(sum(products)) * scale[n, j]
        expected[m, n] = total
    np.testing.assert_array_equal(bits(y), bits(expected))


@given(blockwise_denses())
def test_every_operator_survives_its_text(op):
    assert parse(str(op)) == op
    assert str(parse(str(op))) == str(op)


@settings(max_examples=25, deadline=None)
@given(name=st.sampled_from(NAMES), op=blockwise_denses())
def test_both_packers_give_the_same_bytes(name, op):
    chosen, target = template_of(name)
    if chosen.why_not(op, target):
        return
    layout = chosen.kernel(op, target, chosen.default(op, target)).layout
    rng = np.random.default_rng(0)
    _, w = op.random(rng)
    parameters = op.random_parameters(rng)
    assert_packers_agree(layout, w, **parameters)


def test_bfloat16_scales_take_half_the_bytes():
    chosen, target = templates.get("generic/blockwise_dot"), Target.parse("generic")
    sizes = []
    for scale in ("group32", "group32:bf16"):
        op = parse(f"dense m=1 n=64 k=256 act=s8 weight=s4 out=f32 scale={scale}")
        sizes.append(chosen.kernel(op, target, {"rows": 1, "lanes": 16}).layout.nbytes)
    assert sizes == [64 * 256 // 2 + 64 * 8 * 4, 64 * 256 // 2 + 64 * 8 * 2]


@pytest.mark.parametrize("target", known().values(), ids=known())
def test_only_templates_for_groups_serve_them(target):
    serving = templates.templates_for(LLAMA, target)
    assert {chosen.algorithm for chosen in serving} == {"blockwise_dot"}
    for chosen in serving:
        assert chosen.default(LLAMA, target) in chosen.space(LLAMA, target)
    reasons = {t.name: why for t, why in templates.explain(LLAMA, target).items()}
    assert reasons["generic/generic"] == "it is for conv2d and dense, not scale=groupN"
    both = parse("dense m=1 n=70 k=100 act=s8 weight=s4 input=f32:group32 out=f32 scale=tensor")
    assert templates.templates_for(both, target) == serving
    plain = parse("dense m=1 n=70 k=100 act=s8 weight=s4")
    assert "blockwise_dot" not in {t.algorithm for t in templates.templates_for(plain, target)}


def test_what_x86_leaves_to_plain_loops():
    x86, target = templates.get("x86/blockwise_dot"), Target.parse("avx2")
    wide = parse("dense m=1 n=8 k=64 act=u8 weight=s8 out=f32 scale=group32")
    assert "two products do not fit int16" in x86.why_not(wide, target)
    assert x86.why_not(wide, Target.parse("avx512vnni")) is None
    uneven = parse("dense m=1 n=8 k=64 act=u8 weight=b3 out=f32 scale=group7")
    assert "weight=b3 has no 0 to fill up steps of 4" in x86.why_not(uneven, target)


def test_knobs_outside_of_the_space_are_refused():
    chosen, target = template("avx2/blockwise_dot")
    knobs = chosen.default(LLAMA, target)
    with pytest.raises(ScheduleRefused, match="registers"):
        chosen.kernel(LLAMA, target, {**knobs, "rows": 8, "vectors": 8})


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("scale=group3", "scale=group3: a group has 4 neighbours in k or more"),
        ("scale=group", "scale=group is unknown; known: tensor, channel, groupN, groupN:bf16"),
        ("scale=group32:f16", "scale=group32:f16 is unknown"),
        ("scale=group32 bias=s32", "bias=s32 is for sums over all of k"),
        ("scale=group32 zero_weight=channel", "it is a number or group"),
        ("scale=channel zero_weight=group", "zero_weight=group needs scale=groupN"),
        ("scale=group32 weight=b2 zero_weight=group", "format b2 has no zero point"),
    ],
)
def test_words_that_do_not_fit(words, reason):
    weight = "" if "weight=b2" in words else "weight=s4"
    with pytest.raises(WorkloadError, match=reason):
        parse(f"dense m=1 n=8 k=64 act=u8 {weight} out=f32 {words}")


@pytest.mark.parametrize("scale", ["group32", "group32:bf16", "channel"])
def test_scales_of_activations_multiply_each_group(scale):
    op = parse(f"dense m=3 n=4 k=80 act=s6 weight=s4 input=f32:group32 out=f32 scale={scale}")
    rng = np.random.default_rng(0)
    (x, w), parameters = op.random(rng), op.random_parameters(rng)
    levels, groups = np.float32(31), op.group_size > 0
    for m, n in itertools.product(range(op.m), range(op.n)):
        total = np.float32(0)
        for j, first in enumerate((0, 32, 64)):
            part = x[m, first : first + 32]
            largest = np.abs(part).max()
            inverse = levels / largest if largest else np.float32(0)
            q = np.rint(part * inverse).astype(int)
            product = np.float32(q @ w[n, first : first + 32].astype(int))
            product = product * parameters["scale"][n, j] if groups else product
            total = total + product * (largest / levels)
        total = total if groups else total * parameters["scale"][n]
        assert total == op.reference(x, w, **parameters)[m, n]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("input=f32:group3", "input=f32:group3: a group has 4 neighbours in k or more"),
        (
            "input=f32:group",
            "input=f32:group is unknown; known: act, .*, act:row, f32:groupN$",
        ),
        ("input=f32:group64 scale=group32", "has other groups of k than scale=group32$"),
        ("input=f32:group32 bias=s32", "bias=s32 is for sums over all of k, not with input=f32:"),
        ("input=f32:group32 zero_weight=channel", "with input=f32:group32 it is a number$"),
        ("input=f32:group32 zero_weight=group", "zero_weight=group needs scale=groupN$"),
        ("input=f32:group32 outliers=3", "outliers=3 cannot be added to sums with scales of group"),
        ("input=f32:group32 out=s32", "gives real numbers: it needs a scale=$"),
    ],
)
def test_activations_that_have_no_groups(words, reason):
    out = "" if "out=" in words else "out=f32 " + ("" if "scale=" in words else "scale=channel ")
    with pytest.raises(WorkloadError, match=reason):
        parse(f"dense m=1 n=8 k=64 act=s8 weight=s4 {out}{words}")


def test_convolutions_have_no_groups_of_k():
    words = "act=s8 weight=s4 input=f32:group32 out=f32 scale=channel"
    with pytest.raises(WorkloadError, match=r"input=f32:group32 is for dense: the rows of a conv"):
        parse(f"conv2d h=4 w=4 ic=32 oc=8 kernel=1 {words}")
    with pytest.raises(WorkloadError, match="scale=group32 is for dense"):
        parse("conv2d h=4 w=4 ic=32 oc=8 kernel=1 act=u8 weight=s4 out=f32 scale=group32")


@given(st.floats(-(2.0**63), 2.0**63, width=32))
def test_bfloat16_is_the_nearest(value):
    rounded = nearest_bfloat16(np.array([value], np.float32))
    step = (rounded.view(np.uint32) + np.uint32(0x10000)).view(np.float32) - rounded
    assert rounded.view(np.uint32) & 0xFFFF == 0
    assert abs(rounded - value) <= abs(step) / 2


def test_scales_that_are_no_bfloat16():
    op = parse("dense m=1 n=2 k=8 act=u8 weight=s4 out=f32 scale=group4:bf16")
    scale = np.array([[1, 2], [1.001, 4]], np.float32)
    x, w = op.random(np.random.default_rng(0))
    with pytest.raises(FormatError, match=r"scale\[1, 0\] = 1\.001.* is no bfloat16"):
        op.reference(x, w, scale=scale)


OPS = [
    parse("dense m=2 n=21 k=75 act=s8 weight=u4 zero_weight=group out=f32 scale=group32 bias=f32"),
    parse("dense m=3 n=18 k=40 act=u8 weight=s4 zero_act=3 out=f32 scale=group16:bf16"),
    parse("dense m=1 n=9 k=33 act=u8 weight=s2 out=u8 scale=group8 residual=f32 zero_out=7 relu"),
    parse("dense m=2 n=9 k=80 act=s5 weight=s4 input=f32:group32 hadamard=16 out=f32 scale=tensor"),
]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("groups")
    return build([choose(op, "native", use_shipped=False) for op in OPS], folder / "lib.so")


def test_libraries_pack_groups(path):
    assert [result.failure for result in check_library(path)] == [None] * 4
    lib, rng = runtime.load(path), np.random.default_rng(3)
    for op in OPS:
        (x, w), parameters = op.random(rng), op.random_parameters(rng)
        residual = op.random_residual(rng)
        packed = lib[op.name].pack_weights(w, **parameters)
        expected = op.reference(x, w, residual, **parameters)
        y = lib[op.name](x, packed, residual=residual)
        np.testing.assert_array_equal(bits(y), bits(expected))


def test_libraries_refuse_other_scales(path):
    kernel, op = runtime.load(path)[OPS[1].name], OPS[1]
    _, w = op.random(np.random.default_rng(0))
    with pytest.raises(LibraryError, match=r"scale has shape \[18\], expected \[18, 3\]"):
        kernel.pack_weights(w, scale=np.ones(18))
    scale = np.ones((18, 3), np.float32)
    scale[2, 1] = 1 + 2**-20
    with pytest.raises(LibraryError, match=r"scale\[2, 1\] = 1\.0\d+ is no bfloat16"):
        kernel.pack_weights(w, scale=scale)
    scale[2, 1] = np.inf
    with pytest.raises(LibraryError, match=r"scale\[2, 1\] = inf is outside of -9\.22"):
        kernel.pack_weights(w, scale=scale)


def test_packing_in_c(path):
    kernel, op, library = runtime.load(path)[OPS[1].name], OPS[1], ctypes.CDLL(str(path))
    _, w = op.random(np.random.default_rng(0))
    scale = op.random_parameters(np.random.default_rng(1))["scale"]
    packed = aligned_copy(np.zeros(kernel.packed_bytes, np.uint8), 0)
    pack = getattr(library, f"{kernel.symbol}_pack_weights")

    def call() -> str:
        arrays = (w, scale, packed)
        sized = [(ctypes.c_void_p(a.ctypes.data), ctypes.c_size_t(a.nbytes)) for a in arrays]
        status = pack(*itertools.chain(*sized))
        library.lpgen_status_message.restype = ctypes.c_char_p
        return library.lpgen_status_message(status).decode()

    assert call() == "ok"
    np.testing.assert_array_equal(packed, kernel.pack_weights(w, scale=scale).numpy())
    scale[3, 2] = 1 + 2**-9
    assert "no bfloat16" in call()
