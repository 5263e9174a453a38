"""Packed weights: their values, how they are saved, and that those of others are refused."""

import ctypes

import numpy as np
import pytest
from fake_kernel import fake_kernel
from loaded import BIPOLAR, BYTES, Tensor

from lpgen import runtime
from lpgen.build import Choice, build, header_path
from lpgen.build.choice import symbol_of
from lpgen.errors import FormatError, LibraryError
from lpgen.ops import Dense, parse
from lpgen.target import Target


def test_weights_are_integers_of_any_kind(lib):
    kernel = lib[BIPOLAR.name]
    x, w = BIPOLAR.random(np.random.default_rng(0))
    expected = BIPOLAR.reference(x, w)
    for same in (w.astype(np.int64), np.asfortranarray(w), Tensor(w), w.astype(np.int16)):
        assert np.array_equal(kernel(x, kernel.pack_weights(same)), expected)


def test_packed_weights_can_be_saved(problem, tmp_path):
    kernel, x, packed, expected = problem
    np.save(tmp_path / "packed.npy", packed.numpy())
    again = kernel.packed_weights(np.load(tmp_path / "packed.npy", mmap_mode="r"))
    assert np.array_equal(kernel(x, again), expected)
    assert packed.nbytes == kernel.packed_bytes == np.from_dlpack(packed).size
    assert np.from_dlpack(packed).ctypes.data % 64 == 0
    assert np.array_equal(kernel(x, kernel.packed_weights(packed.numpy().tobytes())), expected)
    with pytest.raises(LibraryError, match=r"packed weights are uint8\[3\], expected uint8\[295\]"):
        kernel.packed_weights(np.zeros(3, np.uint8))


def test_damaged_packed_weights_are_refused(problem):
    """Wherever a bit of saved ones changes; where the kernel would not read them, at each call."""
    kernel, x, packed, _ = problem
    whole = packed.numpy().copy()
    for place in range(whole.size):
        damaged = whole.copy()
        damaged[place] ^= 1 << place % 8
        with pytest.raises(LibraryError, match=f"^{kernel.name}: .*packed") as error:
            kernel.packed_weights(damaged)
        assert "\n" not in str(error.value)
    reasons = {0: "does not begin as", 8: "does not begin as", 16: "of another kernel or build"}
    for place, reason in (reasons | {24: "of another kernel", 32: "for another CPU level"}).items():
        packed.numpy()[...] = whole
        packed.numpy()[place] ^= 1
        with pytest.raises(LibraryError, match=reason):
            kernel(x, packed)
    with pytest.raises(LibraryError, match="does not begin as weights do"):
        kernel.packed_weights(np.zeros(295, np.uint8))


def test_equal_weights_are_equal_bytes(lib):
    kernel = lib[BYTES.name]
    _, w = BYTES.random(np.random.default_rng(0))
    first, second = (kernel.pack_weights(w).numpy().tobytes() for _ in range(2))
    assert first == second
    assert first[:16] == b"lpgen-w\0" + (2).to_bytes(8, "little")
    assert first[16:24] == int(kernel.identity, 16).to_bytes(8, "little")
    assert first[24:32] == (7 * 33).to_bytes(8, "little")
    assert first[32:48].rstrip(b"\0") == Target.parse("native").level.encode()


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        (BYTES.name, 128, r"weights\[6, 32\] = 128 is not a value of s8: integers -128..127"),
        (BYTES.name, 200 + 256, r"weights\[6, 32\] = 456 "),
        (BIPOLAR.name, 0, r"weights\[6, 32\] = 0 is not a value of b2: odd integers -3..3"),
        (BIPOLAR.name, -5, r"weights\[6, 32\] = -5 "),
    ],
)
def test_weights_outside_of_their_format(lib, name, value, reason):
    weights = np.ones((7, 33), int)
    weights[6, 32] = value
    with pytest.raises(LibraryError, match=reason):
        lib[name].pack_weights(weights)


def test_weights_that_do_not_fit(lib):
    kernel = lib[BYTES.name]
    with pytest.raises(LibraryError, match=r"weights has shape \[7, 32\], expected \[7, 33\]"):
        kernel.pack_weights(np.ones((7, 32), int))
    with pytest.raises(LibraryError, match="weights: float64, expected integers"):
        kernel.pack_weights(np.ones((7, 33)))


def test_weights_of_another_build(problem, path, target, tmp_path):
    kernel, x, _, _ = problem
    choice = Choice(BYTES, target, "fake/other", {}, fake_kernel(BYTES))
    other = runtime.load(build([choice], tmp_path / "lib.so"))[BYTES.name]
    packed = other.pack_weights(np.ones((7, 33), int))
    with pytest.raises(LibraryError, match="weights of another build of 'dense m=5"):
        kernel(x, packed)
    with pytest.raises(LibraryError, match="packed holds weights of another kernel or build"):
        kernel.packed_weights(packed.numpy())
    same = build(
        [Choice(BYTES, target, "fake/dense", {}, fake_kernel(BYTES))], tmp_path / "same.so"
    )
    assert kernel(x, runtime.load(same)[BYTES.name].pack_weights(np.ones((7, 33), int))).any()


def test_a_library_knows_the_values_of_its_code_books(target, tmp_path):
    op = Dense(5, 7, 33, "c3:-9,-3,0,5,40", "c2:-7,-2,1,127")
    choice = Choice(op, target, "fake/dense", {}, fake_kernel(op))
    path = build([choice], tmp_path / "book.so")
    kernel = runtime.load(path)[op.name]
    x, w = op.random(np.random.default_rng(0))
    assert np.array_equal(kernel(x, kernel.pack_weights(w)), op.reference(x, w))
    w[6, 32] = 0
    with pytest.raises(
        LibraryError, match=r"weights\[6, 32\] = 0 is not a value of c2:-7,-2,1,127"
    ):
        kernel.pack_weights(w)
    symbol = symbol_of(op)
    assert symbol == kernel.symbol
    assert symbol.startswith("lpgen_dense_5x7x33_c3c2_")
    pack = getattr(ctypes.CDLL(str(path)), f"{symbol}_pack_weights")
    size = kernel.packed_bytes
    packed = np.zeros(size + 64, np.uint8)
    start = packed.ctypes.data + -packed.ctypes.data % 64
    arguments = ctypes.c_void_p(w.ctypes.data), 7 * 33, ctypes.c_void_p(start), size
    lines = header_path(path).read_text().splitlines()
    (illegal,) = (int(line.split("= ")[1].strip(",")) for line in lines if "WEIGHT_VALUE =" in line)
    for value, status in ((0, illegal), (2, illegal), (-8, illegal), (127, 0), (-7, 0)):
        w[6, 32] = value
        assert pack(*arguments) == status


def damaged(good, dtype, value):
    """`good` in another dtype with one other element."""
    array = np.array(good, dtype)
    array.flat[-1] = value
    return array


# The last of an array of parameters, in some dtype, and what is wrong with it.
WRONG = [
    ("bias", np.uint64, 2**64 - 1, r"bias\[7\] = 18446744073709551615 is outside"),
    ("bias", np.uint64, 2**63, r"bias\[7\] = 9223372036854775808 is outside"),
    ("bias", np.int64, -(2**63), r"bias\[7\] = -9223372036854775808 is outside"),
    ("bias", object, 2**70, r"bias\[7\] = 1180591620717411303424 is outside"),
    ("bias", object, 0.5, "bias: (dtype )?object, expected int32"),
    ("bias", object, True, "bias: (dtype )?object, expected int32"),
    ("bias", np.float64, 0.5, "bias: (dtype )?float64, expected int32"),
    ("bias", bool, 1, "bias: (dtype )?bool, expected int32"),
    ("bias", np.complex64, 1, "bias: (dtype )?complex64, expected int32"),
    ("scale", np.float64, np.nan, r"scale\[7\] = nan is outside"),
    ("scale", np.float64, np.nextafter(2.0**63, np.inf), r"scale\[7\] = 9.22\S* is outside"),
    ("scale", np.float16, np.inf, r"scale\[7\] = inf is outside"),
    ("scale", np.float64, 1e300, r"scale\[7\] = 1e\+300 is outside"),
    ("scale", np.uint64, 2**63 + 1, r"scale\[7\] = 9223372036854775809 is outside"),
    ("scale", object, 2**70, r"scale\[7\] = 1180591620717411303424 is outside"),
    ("scale", np.complex64, 1, "scale: (dtype )?complex64, expected float32"),
    ("scale", bool, 1, "scale: (dtype )?bool, expected float32"),
    ("scale", "datetime64[s]", 1, "scale: (dtype )?datetime64.*, expected float32"),
]


@pytest.mark.parametrize(("name", "dtype", "value", "reason"), WRONG)
def test_parameters_are_checked_before_they_are_converted(adding, name, dtype, value, reason):
    kernel, _ = adding
    op = parse(kernel.name)
    given = {"bias": np.zeros(8, np.int32), "scale": np.ones(8, np.float32)}
    given[name] = damaged(np.ones(8, np.int8), dtype, value)
    (x, w), residual = op.random(np.random.default_rng(0)), np.zeros((4, 8), np.uint8)
    given["residual_scale"] = 1.0
    with pytest.raises(LibraryError, match=f"^{reason}"):
        kernel.pack_weights(w, **given)
    with pytest.raises(FormatError, match=f"^{reason}"):
        op.reference(x, w, residual, **given)


INTEGERS = [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64]


@pytest.mark.parametrize("dtype", [*INTEGERS, ">i4", object])
def test_parameters_have_any_integer_dtype(adding, dtype):
    kernel, _ = adding
    op = parse(kernel.name)
    (x, w), residual = op.random(np.random.default_rng(0)), np.zeros((4, 8), np.uint8)
    low, high = (1, 3) if np.dtype(dtype).kind == "u" else (-3, 3)
    plain = np.arange(low, low + 8, dtype=np.int32) % (high + 1)
    scale = np.float32([0.5])
    expected = op.reference(x, w, residual, bias=plain, scale=plain, residual_scale=scale)
    bias = plain.astype(dtype)
    given = {"bias": bias, "scale": bias, "residual_scale": 0.5}
    packed = kernel.pack_weights(w.astype(np.int64), **given)
    assert np.array_equal(kernel(x, packed, residual=residual), expected)
    assert np.array_equal(op.reference(x, w, residual, **given), expected)


def test_masked_elements_count(adding):
    kernel, _ = adding
    given = {"bias": np.zeros(8, int), "scale": np.ones(8), "residual_scale": 1}
    weights = np.ma.masked_equal(np.full((8, 8), 500), 500)
    with pytest.raises(LibraryError, match=r"weights\[0, 0\] = 500 is not a value of s8"):
        kernel.pack_weights(weights, **given)
    given["bias"] = np.ma.masked_equal(np.full(8, 2**40), 2**40)
    with pytest.raises(LibraryError, match=r"bias\[0\] = 1099511627776 is outside"):
        kernel.pack_weights(np.ones((8, 8), int), **given)
