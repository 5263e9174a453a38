"""Libraries of kernels with epilogues: parameters and residuals, from Python and from C."""

import ctypes
import subprocess

import numpy as np
import pytest
from kernels import bits

from lpgen import runtime
from lpgen.build import build, header_path
from lpgen.build.check import check_library
from lpgen.errors import LibraryError
from lpgen.ops import parse
from lpgen.records.choose import choose
from lpgen.runtime.memory import aligned

CONV = parse(
    "conv2d h=5 w=6 ic=7 oc=9 kernel=3 pad=1 act=u8 weight=u5 zero_act=40 zero_weight=channel "
    "out=s8 scale=channel bias=s32 residual=u8 zero_residual=9 relu6 zero_out=-3"
)
REAL = parse("dense m=4 n=10 k=30 act=s8 weight=s4 out=f32 scale=tensor bias=f32 residual=f32")
INTEGERS = parse("dense m=4 n=10 k=30 act=s8 weight=s4 zero_act=5 relu")
DYNAMIC = parse("dense m=4 n=10 k=30 act=s8 weight=s4 input=f32:row out=f32 scale=channel")
STATIC = parse(
    "dense m=4 n=10 k=32 act=u8 weight=s4 input=f32 hadamard=32 zero_act=8 out=u8 scale=tensor"
)
FEW = parse("dense m=4 n=10 k=30 act=u2 weight=s4 bias=s32 out=b2 scale=thresholds")
OPS = [CONV, REAL, INTEGERS, DYNAMIC, STATIC, FEW]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    choices = [choose(op, "generic", use_shipped=False) for op in OPS]
    return build(choices, tmp_path_factory.mktemp("epilogues") / "lib.so")


@pytest.fixture(scope="module")
def lib(path):
    return runtime.load(path)


def problem(op):
    """(x, w, residual, parameters, exact result)."""
    rng = np.random.default_rng(0)
    x, w = op.random(rng)
    residual, parameters = op.random_residual(rng), op.random_parameters(rng)
    return x, w, residual, parameters, op.reference(x, w, residual, **parameters)


def test_every_kernel_passes_the_check(path):
    results = list(check_library(path))
    assert [result.workload for result in results] == [op.name for op in OPS]
    assert [result.failure for result in results] == [None] * 6


@pytest.mark.parametrize(
    "op", OPS, ids=["quantized", "float", "integers", "dynamic", "static", "thresholds"]
)
def test_results_from_python(lib, op):
    kernel = lib[op.name]
    x, w, residual, parameters, expected = problem(op)
    packed = kernel.pack_weights(w, **parameters)
    y = kernel(x, packed, residual=residual)
    assert y.dtype == op.y_dtype == kernel.output.dtype
    np.testing.assert_array_equal(bits(y), bits(expected))
    out = np.zeros_like(y)
    run = kernel.bind(x, packed, out=out, residual=residual)
    out[...] = 1
    run()
    np.testing.assert_array_equal(bits(out), bits(expected))


def test_numbers_may_be_given_for_one_element(lib):
    x, w, residual, parameters, expected = problem(REAL)
    parameters["scale"] = float(parameters["scale"][0])
    packed = lib[REAL.name].pack_weights(w, **parameters)
    np.testing.assert_array_equal(lib[REAL.name](x, packed, residual=residual), expected)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"scale": None}, "scale: NoneType is no dense array or DLPack tensor"),
        ({"scale": np.ones(8, np.float32)}, r"scale has shape \[8\], expected \[9\]"),
        ({"scale": np.full(9, np.inf)}, r"scale\[0\] = inf is outside of -9\.22"),
        ({"bias": np.full(9, 2**31 - 1)}, r"bias\[0\] = 2147483647 is outside of -2147"),
        ({"bias": np.ones(9)}, "bias: float64, expected int32"),
        ({"zero_weight": np.full(9, 32)}, r"zero_weight\[0\] = 32 is outside of 0\.\.31"),
        ({"sclae": 1}, "no parameter sclae; asked for: zero_weight, bias, scale, residual_scale"),
    ],
)
def test_parameters_that_do_not_fit(lib, change, reason):
    _, w, _, parameters, _ = problem(CONV)
    with pytest.raises(LibraryError, match=reason):
        lib[CONV.name].pack_weights(w, **{**parameters, **change})


def test_arguments_that_are_missing_or_not_asked_for(lib):
    x, w, residual, parameters, _ = problem(CONV)
    with pytest.raises(LibraryError, match="parameter zero_weight is missing"):
        lib[CONV.name].pack_weights(w)
    with pytest.raises(LibraryError, match="no parameter bias; asked for: none"):
        lib[INTEGERS.name].pack_weights(np.zeros(INTEGERS.w_shape, int), bias=1)
    packed = lib[CONV.name].pack_weights(w, **parameters)
    with pytest.raises(LibraryError, match="residual is missing"):
        lib[CONV.name](x, packed)
    with pytest.raises(LibraryError, match="residual: float64, expected uint8"):
        lib[CONV.name](x, packed, residual=residual.astype(float))
    with pytest.raises(LibraryError, match="out: int32, expected int8"):
        lib[CONV.name](x, packed, residual=residual, out=np.zeros(CONV.y_shape, np.int32))
    x, w, *_ = problem(INTEGERS)
    packed = lib[INTEGERS.name].pack_weights(w)
    with pytest.raises(LibraryError, match="residual is not asked for"):
        lib[INTEGERS.name](x, packed, residual=np.zeros(INTEGERS.y_shape, np.int32))


def test_the_header_declares_the_types(path, lib, tmp_path):
    symbol = lib[CONV.name].symbol
    program = tmp_path / "types.c"
    program.write_text(
        f"""#include "lib.h"
lpgen_status (*run)(const uint8_t *, size_t, const void *, size_t, const uint8_t *, size_t,
                    int8_t *, size_t, void *, size_t, int) = {symbol};
lpgen_status (*pack)(const uint8_t *, size_t, const uint8_t *, size_t, const int32_t *, size_t,
                     const float *, size_t, const float *, size_t, const float *, size_t, void *,
                     size_t) = {symbol}_pack_weights;
enum {{ SIZES = {symbol.upper()}_BIAS_BYTES + {symbol.upper()}_SIX_BYTES
               + {symbol.upper()}_RESIDUAL_BYTES + {symbol.upper()}_Y_BYTES }};
_Static_assert(SIZES == 4 * 9 + 4 + 2 * 5 * 6 * 9, "sizes");
"""
    )
    command = ["cc", "-Wall", "-Wextra", "-Werror", "-I", path.parent, "-c", program]
    subprocess.run([*command, "-o", tmp_path / "types.o"], check=True)
    assert "format u8" in header_path(path).read_text()


def test_results_and_statuses_in_c(path, lib):
    kernel, library = lib[CONV.name], ctypes.CDLL(str(path))
    symbol = kernel.symbol
    x, w, residual, parameters, expected = problem(CONV)
    packed = aligned(kernel.packed_bytes)
    y = np.zeros(CONV.y_shape, np.int8)
    workspace = aligned(max(64, kernel.workspace_bytes(2)))

    def call(name, arrays, *more):
        sized = [(a.ctypes.data if a.size else None, a.nbytes) for a in arrays]
        flat = [v for data, size in sized for v in (ctypes.c_void_p(data), ctypes.c_size_t(size))]
        return getattr(library, name)(*flat, *more)

    given = [w, *parameters.values()]
    pack, run = f"{symbol}_pack_weights", [x, packed, residual, y, workspace]
    assert call(pack, [*given, packed]) == 0
    assert call(symbol, run, 2) == 0
    np.testing.assert_array_equal(y, expected)

    def status(name):
        text = header_path(path).read_text()
        return int(text.partition(f"  LPGEN_{name} = ")[2].partition(",")[0].split()[0])

    nothing = np.zeros(0, np.uint8)
    for wrong, name in (
        ([w, *given[1:3], np.full(9, np.nan, np.float32), *given[4:]], "PARAMETER_VALUE"),
        ([w, given[1], np.full(9, -(2**31), np.int32), *given[3:]], "PARAMETER_VALUE"),
        ([w, given[1], given[2][:8], *given[3:]], "PARAMETER_BYTES"),
        ([w, nothing, *given[2:]], "NULL_POINTER"),
    ):
        assert call(pack, [*wrong, packed]) == status(name)
    assert call(symbol, [x, packed, residual[:, :1], y, workspace], 1) == status("INPUT_BYTES")
    assert call(symbol, [x, packed, nothing, y, workspace], 1) == status("NULL_POINTER")
