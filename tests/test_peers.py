"""What other libraries compute: cases of operators for them, and libraries that are installed."""

import importlib.util
import os
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lpgen.bench import peers
from lpgen.bench.case import Case, Contender, Disagrees, Unsupported
from lpgen.bench.grouped import GroupedCase
from lpgen.bench.peers import _foreign, _xnnpack, executorch, llama_cpp, ncnn
from lpgen.bench.turns import case_of
from lpgen.errors import UserError
from lpgen.ops import parse

# What libraries have to agree on: formats, kinds of convolutions, odd sizes.
AGREED = [
    "dense m=4 n=32 k=64 act=u8 weight=s8",
    "dense m=1 n=33 k=96 act=u4 weight=s4",
    "dense m=3 n=32 k=128 act=s8 weight=t2",
    "dense m=2 n=64 k=64 act=u8 weight=b1",
    "conv2d h=6 w=5 ic=32 oc=32 kernel=3 pad=1 act=u8 weight=s8",
    "conv2d h=9 w=9 ic=16 oc=32 kernel=3 stride=2 pad=1 act=u8 weight=s8",
    "conv2d h=8 w=8 ic=32 oc=32 kernel=3 stride=2 pad=0x0x1x1 act=u8 weight=s4",
    "conv2d h=8 w=8 ic=32 oc=32 kernel=3 pad=1 groups=32 act=u7 weight=s7",
    "conv2d h=8 w=8 ic=32 oc=64 kernel=3 pad=1 groups=2 act=u8 weight=s8",
    "conv2d h=9 w=8 ic=32 oc=16 kernel=3 pad=2 dilation=2 act=u8 weight=s8",
    "conv2d h=7 w=7 ic=32 oc=32 kernel=3 pad=1 act=s8 weight=s8",
    "dense m=4 n=32 k=64 act=u8 weight=s8 out=u8 scale=channel bias=s32 relu",
    "dense m=4 n=32 k=64 act=u8 weight=u8 zero_weight=128 out=f32 scale=channel bias=f32",
    "dense m=4 n=32 k=64 act=u8 weight=s4 zero_act=7 out=u8 scale=tensor bias=f32 zero_out=100",
    "conv2d h=9 w=9 ic=16 oc=32 kernel=3 stride=2 pad=1 act=u8 weight=s8 zero_act=100 "
    "out=s8 scale=channel bias=s32 zero_out=-3",
]
# What a library may say of them, rather than run them.
REFUSALS = {
    "torch": "pads both sides alike",
    "zentorch": "no int8 conv2d|require the CPU to support AVX512",
    "llama_cpp": "no operator for conv2d",
    "ncnn": "a scale per group",
}
NAMES = ["executorch", "litert", "llama_cpp", "ncnn", "onnxruntime", "openvino", "torch"]
GROUPED = [
    "dense m=2 n=32 k=128 act=s8 weight=s4 out=f32 scale=group32",
    "dense m=3 n=48 k=96 act=s8 weight=u4 zero_weight=group out=f32 scale=group32:bf16 bias=f32",
    "dense m=2 n=32 k=128 act=s8 weight=s8 input=f32:row out=f32 scale=group64",
]


def installed(name):
    peer = peers.get(name)
    try:
        peer.version()
    except ImportError as error:
        pytest.skip(f"{name} is not installed: {error}")
    return peer


def agreeing(peer, case):
    """The first way that agrees with the oracle, twice, or why none does: {way: reason}."""
    reasons = {}
    try:
        ways = peer.variants(case, 1)
    except Unsupported as error:
        return {"": str(error)}
    for way, prepare in ways.items():
        try:
            contender = prepare()
            contender.call()
            case.check(contender)
        except (Unsupported, Disagrees, RuntimeError) as error:
            reasons[way] = str(error)
        else:
            # It computes what is asked for at each call, and not once.
            contender.call()
            case.check(contender)
            return way
    return reasons


def test_peers_are_found_by_path():
    assert peers.known() == [*NAMES, "zentorch"]
    with pytest.raises(UserError, match="peer 'tvm' is unknown; known: executorch, litert"):
        peers.get("tvm")
    for name in peers.known():
        assert callable(peers.get(name).version)
        assert callable(peers.get(name).variants)


@pytest.mark.parametrize("name", peers.known())
@pytest.mark.parametrize("workload", AGREED)
def test_an_installed_library_agrees_with_the_oracle(name, workload):
    found = agreeing(installed(name), Case.random(parse(workload)))
    if not isinstance(found, str):
        assert name in REFUSALS, found
        assert any(re.search(REFUSALS[name], reason) for reason in found.values()), found


@pytest.mark.parametrize("name", ["executorch", "llama_cpp", "onnxruntime", "openvino"])
@pytest.mark.parametrize("workload", GROUPED)
def test_an_installed_library_agrees_on_groups(name, workload):
    found = agreeing(installed(name), GroupedCase.random(parse(workload)))
    if not isinstance(found, str):
        assert name == "executorch", found
        (reason,) = found.values()
        assert reason.startswith(("weights in blocks have no zero", "no weights in s8 with"))


@pytest.mark.parametrize(
    ("name", "workload", "reason"),
    [
        ("ncnn", "conv2d n=2 h=4 w=4 ic=8 oc=8 kernel=1 act=u7 weight=s7", "one image at a time"),
        ("ncnn", "dense m=1 n=4 k=64 act=s8 weight=s4 scale=group32 out=f32", "scales of groups"),
        ("llama_cpp", "conv2d h=4 w=4 ic=8 oc=8 kernel=1 act=u8 weight=s8", "no operator for conv"),
        ("llama_cpp", "dense m=1 n=8 k=48 act=u8 weight=s4", "whole blocks of 32, not 48"),
        ("llama_cpp", "dense m=1 n=8 k=128 act=u8 weight=t2", "whole blocks of 256, not 128"),
        ("executorch", "dense m=1 n=8 k=48 act=s8 weight=s4 scale=group16 out=f32", "multiples of"),
    ],
)
def test_what_a_library_has_not_is_said_without_it(name, workload, reason):
    op = parse(workload)
    case = (GroupedCase if op.group_size else Case).random(op)
    with pytest.raises(Unsupported, match=reason):
        first_way(peers.get(name), case)


def first_way(peer, case):
    return next(iter(peer.variants(case, 1).values()))()


@pytest.mark.parametrize(
    ("peer", "library"), [(executorch, _xnnpack.library), (llama_cpp, llama_cpp._library)]
)
def test_a_package_without_its_library_is_absent(peer, library, monkeypatch, tmp_path):
    library.cache_clear()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"^no package "):
        peer.version()
    package = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: package)
    with pytest.raises(ImportError, match=r"^lib\w+\.so: .*cannot open"):
        peer.version()


@pytest.mark.skipif(os.name != "posix", reason="a library of Unix")
def test_a_function_that_is_missing_is_named():
    with pytest.raises(ImportError, match=r"libm\.so\.6: .*no_such_function"):
        _foreign.load(Path("libm.so.6"), {"no_such_function": (None, [])})


@pytest.mark.parametrize(("kind", "codes"), [("Q4_0", 16), ("Q8_0", 256), ("TQ2_0", 3)])
def test_blocks_of_ggml_are_those_of_its_dequantization(kind, codes):
    """As dequantize_row_* of ggml/src/ggml-quants.c reads them."""
    rng, size = np.random.default_rng(0), llama_cpp._BLOCKS[kind]
    q = rng.integers(0, codes, (3, 2 * size), dtype=np.uint8)
    scale = rng.uniform(0.5, 1, (3, 2)).astype(np.float16)
    block = llama_cpp._packed(kind, q, scale, None).reshape(3, 2, -1)
    fields = block[..., :-2] if kind == "TQ2_0" else block[..., 2:]
    halves = block[..., -2:] if kind == "TQ2_0" else block[..., :2]
    assert np.array_equal(np.ascontiguousarray(halves).view(np.float16)[..., 0], scale)
    if kind == "Q8_0":
        read = fields.view(np.int8).astype(int) + 128
    elif kind == "Q4_0":
        read = np.concatenate([fields & 15, fields >> 4], axis=2)
    else:
        parts = [fields[..., j : j + 32] >> 2 * place & 3 for j in (0, 32) for place in range(4)]
        read = np.concatenate(parts, axis=2)
    assert np.array_equal(read.reshape(q.shape), q)


def test_activations_that_ncnn_does_not_hold_count_as_their_neighbours():
    case = Case.random(parse("dense m=4 n=8 k=512 act=u8 weight=s8"))
    seen, codes, zero = ncnn._codes(case)
    assert (codes.min(), codes.max(), zero) == (-127, 127, -127)
    assert np.array_equal(codes.astype(int) - zero, np.minimum(case.x, 254))
    assert np.array_equal(seen.sums, np.minimum(case.x, 254).astype(int) @ case.w.T.astype(int))
    signed = Case.random(parse("dense m=4 n=8 k=512 act=s8 weight=s8"))
    assert ncnn._codes(signed)[1].min() == -127
    small = Case.random(parse("dense m=4 n=8 k=512 act=u7 weight=s8"))
    seen, codes, zero = ncnn._codes(small)
    assert seen is small
    assert (codes.max(), zero) == (127, 0)


@pytest.mark.parametrize(
    ("words", "filters"),
    [
        ("ic=32 act=s8 weight=s8", False),
        ("ic=16 act=s8 weight=s8", True),
        ("ic=512 act=u4 weight=s4", True),
    ],
)
def test_ncnn_filters_where_its_sums_fit(words, filters):
    case = Case.random(parse(f"conv2d h=12 w=12 oc=8 kernel=3 pad=1 {words}"))
    codes = ncnn._codes(case)
    assert ncnn._filters(ncnn._convolution(codes[0], *codes[1:])) == filters


def test_what_ncnn_filters_is_right_for_the_largest_values():
    pytest.importorskip("ncnn")
    op = parse("conv2d h=12 w=12 ic=64 oc=32 kernel=3 act=s8 weight=s8")
    case = Case.random(op)
    x, w = np.full_like(case.x, 127), np.full_like(case.w, 127)
    case = replace(case, x=x, w=w, sums=op.reference(x, w))
    for prepare in peers.get("ncnn").variants(case, 1).values():
        contender = prepare()
        contender.call()
        case.check(contender)


def test_two_bits_go_to_the_blocks_that_onnxruntime_has_kernels_for():
    """With blocks of 256 it computes in float, a few hundred times slower."""
    onnxruntime, sizes = peers.get("onnxruntime"), {}

    def blocks(case, threads, bits, block, codes, scale):
        sizes[bits] = block
        assert scale.shape[1] == -(-case.op.k // block)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnxruntime, "_blocks", blocks)
        case = Case.random(parse("dense m=1 n=4 k=512 act=u8 weight=s2"))
        for bits in (2, 4, 8):
            onnxruntime._matmul_nbits(case, 1, bits)
    assert sizes == {2: 128, 4: 256, 8: 256}


@pytest.mark.parametrize("workload", GROUPED)
def test_a_case_of_groups_is_what_others_compute(workload):
    case = GroupedCase.random(parse(workload))
    codes, zeros = case.codes(4, 8)
    group = case.op.group_size
    real = codes.astype(float) - np.repeat(zeros.astype(float), group, axis=1)
    real *= np.repeat(case.w_scale, group, axis=1)
    y = case.real_input() @ real.T + (0 if case.bias is None else case.real_bias)
    case.check(Contender(lambda: None, lambda: y, "f32", ""))
    assert case.beyond is None


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("out=f32 scale=group32 residual=f32", "adds a residual or clamps"),
        ("out=u8 scale=group32", "requantizes"),
        ("input=f32 out=f32 scale=group32", "static scale"),
    ],
)
def test_what_no_library_does_with_groups(words, reason):
    case = GroupedCase.random(parse(f"dense m=1 n=4 k=64 act=s8 weight=s4 {words}"))
    assert reason in case.beyond


def test_formats_that_no_library_has_in_groups():
    case = GroupedCase.random(parse("dense m=1 n=4 k=64 act=s8 weight=s3 out=f32 scale=group8"))
    with pytest.raises(Unsupported, match="no weights in s3 with scales of groups"):
        case.codes(2, 4, 8)
    (prepare,) = peers.get("onnxruntime").variants(case, 1).values()
    with pytest.raises(Unsupported, match=r"powers of two of 16\.\.256, not 8"):
        prepare()


def test_a_case_fills_its_output():
    for workload in AGREED:
        case = Case.random(parse(workload))
        codes = case.requantized
        assert codes.max() == 255 or (case.y_zero and codes.min() == 0)
        assert 0.1 < np.count_nonzero((codes > 0) & (codes < 255)) / codes.size
        if not case.op.epilogue:
            assert np.array_equal(case.sums, case.expected)
        elif case.op.out == "f32":
            assert np.allclose(case.real, case.expected, rtol=1e-5)
        else:
            off = case.expected - float(case.op.epilogue[-1].format.min) - codes
            assert np.abs(off).max() <= 1


def test_signed_weights_of_a_case_are_symmetric():
    case = Case.random(parse("dense m=1 n=64 k=512 act=u8 weight=s3"))
    assert (case.w.min(), case.w.max()) == (-3, 3)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
@pytest.mark.parametrize("act", ["u8", "s8", "u3"])
def test_a_shifted_input_stands_for_the_same_values(act, dtype):
    case = Case.random(parse(f"dense m=4 n=4 k=64 act={act} weight=s8"))
    codes, zero = case.shifted_input(dtype)
    assert codes.dtype == dtype
    assert codes.ctypes.data % 64 == 0
    assert np.array_equal(codes.astype(int) - zero, case.x)


def test_weights_fit_the_widths_that_hold_all_values():
    def widths(weight: str) -> list[int]:
        return Case.random(parse(f"dense m=1 n=4 k=4 act=u8 weight={weight}")).widths(2, 4, 8)

    assert widths("s2") == widths("t2") == widths("b1") == [2, 4, 8]
    assert widths("s4") == widths("u3") == widths("b3") == [4, 8]
    assert widths("s5") == [8]
    assert widths("u8") == []
    with pytest.raises(Unsupported, match="weights u8 do not fit int8"):
        Case.random(parse("dense m=1 n=4 k=4 act=u8 weight=u8")).signed_weights()


def test_results_that_differ_are_found():
    case = Case.random(parse("dense m=16 n=32 k=64 act=u8 weight=s8"))

    def check(out: str, result: np.ndarray) -> None:
        case.check(Contender(lambda: None, lambda: result, out, "int8"))

    check("s32", case.sums)
    check("u8", case.requantized)
    check("f32", case.real * 1.01)
    one_off, few_off = case.sums.copy(), case.requantized.astype(int)
    one_off[3, 5] += 1
    few_off.ravel()[:3] += 1
    check("u8", few_off)
    with pytest.raises(Disagrees, match=r"0.2% of the results differ from the oracle's, by 1"):
        check("s32", one_off)
    few_off.ravel()[:9] += 1
    with pytest.raises(Disagrees, match="of the results differ"):
        check("u8", few_off)
    with pytest.raises(Disagrees, match=r"shape \(32, 16\), expected \(16, 32\)"):
        check("s32", case.sums.T)
    with pytest.raises(Disagrees, match=r"result differs by 3\.0% from the oracle's"):
        check("f32", case.real * 1.03)
    with pytest.raises(Disagrees, match="nan"):
        check("f32", np.full(case.sums.shape, np.nan))


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("input=f32:row scale=channel", "quantizes float activations, which is another operator"),
        ("input=f32:row hadamard=32 scale=group32", "rotates its activations before it quantizes"),
        ("input=f32:group32 scale=group32", "quantizes its activations with scales of groups"),
    ],
)
def test_float_activations_are_compared_with_nothing(words, reason):
    op = parse(f"dense m=4 n=32 k=64 act=s8 weight=s4 out=f32 {words}")
    case = case_of(op, 0)
    assert reason in case.beyond
    assert np.array_equal(case.expected, op.reference(case.x, case.w, **case.parameters))


def test_outliers_are_compared_with_nothing():
    case = Case.random(parse("dense m=4 n=32 k=64 act=u8 weight=s4 outliers=9"))
    assert case.beyond == "adds outliers to the weights, which is another operator elsewhere"
