"""The runtime: what goes in and out, what is refused, and that it needs no compiler."""

import ctypes
import gc
import os
import re
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tvm_ffi
from fake_kernel import fake_kernel

from lpgen import runtime
from lpgen.build import Choice, build, header_path, source
from lpgen.choose import choose
from lpgen.errors import FormatError, LibraryError
from lpgen.ops import Dense, parse
from lpgen.runtime import files
from lpgen.target import Target, cpu_features, known

BYTES = Dense(5, 7, 33, "u8", "s8")
BIPOLAR = Dense(5, 7, 33, "s4", "b2")
LARGE = Dense(20, 30, 6000, "u2", "t2")


@pytest.fixture(scope="module")
def target():
    return Target.parse("native")


@pytest.fixture(scope="module")
def path(tmp_path_factory, target):
    choices = [
        Choice(BYTES, target, "fake/dense", {}, fake_kernel(BYTES)),
        Choice(BIPOLAR, target, "fake/dense", {}, fake_kernel(BIPOLAR, serial=True)),
        Choice(LARGE, target, "fake/dense", {}, fake_kernel(LARGE, serial=True, parallel=True)),
    ]
    return build(choices, tmp_path_factory.mktemp("runtime") / "lib.so")


@pytest.fixture(scope="module")
def lib(path):
    return runtime.load(path)


@pytest.fixture
def problem(lib):
    """(kernel, x, packed weights, exact result) for BYTES."""
    kernel = lib[BYTES.name]
    x, w = BYTES.random(np.random.default_rng(0))
    return kernel, x, kernel.pack_weights(w), BYTES.reference(x, w)


class Tensor:
    """Somebody's array: DLPack in and out, and nothing else."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


class Refusing:
    """A tensor that cannot be exported, as torch says it: the reason, and then many lines more."""

    dtype = "float7"

    def __dlpack__(self, **options):
        raise RuntimeError("no storage\nException raised from\nframe #0: ...")

    def __dlpack_device__(self):
        return (1, 0)


class Namespaced(Tensor):
    """The same with the array API's way to make more of it."""

    def __array_namespace__(self):
        return Namespaced

    from_dlpack = classmethod(lambda cls, y: cls(np.from_dlpack(y)))


# ---- what goes in and out ----


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("op", [BYTES, BIPOLAR, LARGE], ids=str)
def test_results_are_exact(lib, op, threads):
    kernel = lib[op.name]
    inputs = [op.random(np.random.default_rng(0)), *op.extremes()]
    for x, w in inputs:
        y = kernel(x, kernel.pack_weights(w), threads=threads)
        assert y.dtype == np.int32
        assert np.array_equal(y, op.reference(x, w))


def test_the_library_lists_its_kernels(lib):
    assert lib.kernels == lib.workloads == list(lib) == [BYTES.name, BIPOLAR.name, LARGE.name]
    assert BYTES.name in lib
    assert "dense" not in lib
    assert len(lib) == 3
    assert lib[BYTES.name] is lib[BYTES.name]
    assert lib[BYTES.name].x_shape == BYTES.x_shape
    assert lib[LARGE.name].workspace_bytes(2) > lib[LARGE.name].workspace_bytes(1) > 0
    assert lib.missing == ()


def test_out_is_filled_and_returned(problem):
    kernel, x, packed, expected = problem
    out = np.full(BYTES.y_shape, -1, np.int32)
    assert kernel(x, packed, out=out) is out
    assert np.array_equal(out, expected)


def test_any_memory_order_goes_in(problem):
    kernel, x, packed, expected = problem
    wide = np.zeros((5, 66), np.uint8)
    wide[:, ::2] = x
    read_only = x.copy()
    read_only.flags.writeable = False
    for same in (np.asfortranarray(x), wide[:, ::2], read_only):
        assert np.array_equal(kernel(same, packed), expected)


def test_dlpack_tensors_go_in_and_out(problem):
    kernel, x, packed, expected = problem
    assert np.array_equal(kernel(Tensor(x), packed), expected)
    assert np.array_equal(kernel(Tensor(np.asfortranarray(x)), packed), expected)
    y = kernel(Namespaced(x), packed)
    assert isinstance(y, Namespaced)
    assert np.array_equal(y.array, expected)
    y = kernel(tvm_ffi.from_dlpack(x), packed)
    assert isinstance(y, tvm_ffi.Tensor)
    assert np.array_equal(np.from_dlpack(y), expected)
    out = Tensor(np.zeros(BYTES.y_shape, np.int32))
    assert kernel(x, packed, out=out) is out
    assert np.array_equal(out.array, expected)


def test_torch_goes_in_and_out(problem):
    torch = pytest.importorskip("torch")
    kernel, x, packed, expected = problem
    y = kernel(torch.from_numpy(x), packed)
    assert isinstance(y, torch.Tensor)
    assert y.dtype == torch.int32
    assert np.array_equal(y.numpy(), expected)
    out = torch.zeros(BYTES.y_shape, dtype=torch.int32)
    kernel(torch.from_numpy(x).t().contiguous().t(), packed, out=out)
    assert np.array_equal(out.numpy(), expected)


def test_what_numpy_does_not_have_is_refused_of_torch_too(problem):
    torch = pytest.importorskip("torch")
    kernel, _, packed, _ = problem
    shape = BYTES.x_shape
    for wrong, reason in [
        (torch.zeros(shape, dtype=torch.bfloat16), "x: bfloat16, expected uint8"),
        (torch.zeros(shape, dtype=torch.complex64), "x: Tensor of torch.complex64 is no dense"),
        (torch.zeros(shape, device="meta"), "x: Tensor of torch.float32 is no .* in the CPU's"),
        (torch.zeros(shape).to_sparse(), "x: Tensor of torch.float32 is no dense array"),
    ]:
        with pytest.raises(LibraryError, match=reason) as error:
            kernel(wrong, packed)
        assert "\n" not in str(error.value)
    with pytest.raises(LibraryError, match="weights: NumPy has no bfloat16"):
        kernel.pack_weights(torch.zeros(BYTES.w_shape, dtype=torch.bfloat16))
    negated = torch.zeros(BYTES.w_shape, dtype=torch.complex64).conj().imag
    with pytest.raises(LibraryError, match="weights is a negated view"):
        kernel.pack_weights(negated)


def test_threads_are_integers_of_any_kind(problem):
    kernel, x, packed, expected = problem
    for count in (2, np.int64(2), np.uint8(2)):
        assert np.array_equal(kernel(x, packed, threads=count), expected)
        out = np.zeros(BYTES.y_shape, np.int32)
        kernel.bind(x, packed, out, count)()
        assert np.array_equal(out, expected)


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
    for place, reason in [(0, "does not begin as"), (8, "does not begin as"), (16, "of another")]:
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
    assert first[:16] == b"lpgen-w\0" + (1).to_bytes(8, "little")
    assert first[16:24] == int(kernel.identity, 16).to_bytes(8, "little")
    assert first[24:32] == (7 * 33).to_bytes(8, "little")


def test_python_threads_share_a_kernel(lib):
    kernel = lib[LARGE.name]
    x, w = LARGE.random(np.random.default_rng(0))
    packed, expected = kernel.pack_weights(w), LARGE.reference(x, w)
    wrong = []

    def work(threads):
        for _ in range(10):
            if not np.array_equal(kernel(x, packed, threads=threads), expected):
                wrong.append(threads)

    workers = [threading.Thread(target=work, args=(1 + i % 3,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == []


def test_a_kernel_outlives_its_library(path):
    kernel = runtime.load(path)[BYTES.name]
    gc.collect()
    x, w = BYTES.random(np.random.default_rng(0))
    assert np.array_equal(kernel(x, kernel.pack_weights(w)), BYTES.reference(x, w))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_goes_on(path):
    code = f"""
import os, sys, numpy as np
from lpgen import runtime
kernel = runtime.load({str(path)!r})[{LARGE.name!r}]
x, w = np.ones(kernel.x_shape, np.uint8), np.ones(kernel.weights_shape, np.int8)
packed = kernel.pack_weights(w)
def right(): return (kernel(x, packed, threads=3) == 6000).all()
assert right()
child = os.fork()
if child == 0:
    os._exit(0 if right() else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) or not right())
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


def test_loading_needs_only_numpy_and_tvm_ffi(path):
    """In a fresh process in which nothing else outside of the standard library can be imported."""
    code = f"""
import sys
class Forbid:
    def find_spec(self, name, path=None, target=None):
        root = name.partition(".")[0]
        needed = {{"numpy", "tvm_ffi", "typing_extensions", "lpgen"}}
        if root not in needed | sys.stdlib_module_names:
            raise ModuleNotFoundError(name)
        rooms = ("lpgen", "lpgen.runtime", "lpgen.errors", "lpgen.without_torch")
        if root == "lpgen" and not name.startswith("lpgen.runtime.") and name not in rooms:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Forbid())
import lpgen.runtime, numpy as np
lib = lpgen.runtime.load({str(path)!r})
kernel = lib[{BYTES.name!r}]
packed = kernel.pack_weights(np.ones((7, 33), int))
print(kernel(np.full((5, 33), 255, np.uint8), packed).sum(), "tvm" in sys.modules)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.stdout.split() == [str(5 * 7 * 33 * 255), "False"], run.stderr


@pytest.mark.parametrize("room", ["lpgen.runtime", "lpgen.target"])
def test_torch_is_not_imported(tmp_path, room):
    """tvm-ffi would import it wherever it is installed: a fake one says when that happens."""
    (tmp_path / "torch.py").write_text("print('imported')")
    code = f"import {room}, sys; print('torch' in sys.modules, flush=True); import torch"
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert run.stdout.split() == ["False", "imported"], run.stderr


# ---- what is refused ----


def test_arguments_that_do_not_fit(problem, lib):
    kernel, x, packed, _ = problem
    for wrong, reason in [
        ({"x": x[:4]}, r"x has shape \[4, 33\], expected \[5, 33\]"),
        ({"x": x.astype(np.int8)}, "x: int8, expected uint8"),
        ({"x": Tensor(x.astype(np.int8))}, "x: int8, expected uint8"),
        ({"x": "text"}, "x: str is no dense array or DLPack tensor"),
        ({"x": None}, "x: NoneType is no dense array"),
        (
            {"x": Refusing()},
            r"x: Refusing of 'float7' is no .* in the CPU's memory \(no storage\)$",
        ),
        ({"packed": packed.numpy()}, "packed: ndarray, expected the result of pack_weights"),
        ({"out": np.zeros((5, 7))}, "out: float64, expected int32"),
        ({"out": np.zeros((7, 5), np.int32)}, r"out has shape \[7, 5\]"),
        ({"out": np.zeros((7, 5), np.int32).T}, "out is not contiguous"),
        ({"out": Tensor(np.zeros((7, 5), np.int32).T)}, "out is not contiguous"),
        ({"out": np.broadcast_to(np.int32(0), (5, 7))}, "out is read-only"),
        *(
            (
                {"threads": count},
                f"{re.escape(f'threads={count!r}')} is not an integer within 1..1024",
            )
            for count in (0, -1, 1025, 10**30, 1.0, True, False, np.True_, np.float32(1), "1", None)
        ),
    ]:
        with pytest.raises(LibraryError, match=reason):
            kernel(**{"x": x, "packed": packed} | wrong)
        if "packed" not in wrong:
            with pytest.raises(LibraryError, match=reason):
                kernel.bind(**{"x": x, "packed": packed, "out": np.zeros((5, 7), np.int32)} | wrong)
    others = lib[BIPOLAR.name].pack_weights(np.ones((7, 33), int))
    with pytest.raises(LibraryError, match=r"weights of 'dense m=5 .*' do not fit 'dense m"):
        kernel(x, others)


@pytest.fixture(scope="module")
def adding(tmp_path_factory, target):
    """(kernel, packed weights) of an operator that adds a residual of the result's type, with an x
    of the result's size."""
    op = parse("dense m=4 n=8 k=8 act=u8 weight=s8 out=u8 scale=channel bias=s32 residual=u8")
    path = build([choose(op, target)], tmp_path_factory.mktemp("adding") / "lib.so")
    kernel = runtime.load(path)[op.name]
    rng = np.random.default_rng(0)
    return kernel, kernel.pack_weights(op.random(rng)[1], **op.random_parameters(rng))


@pytest.mark.parametrize("library", ["numpy", "dlpack", "torch"])
def test_out_overlaps_nothing_that_is_read(adding, library):
    kernel, packed = adding
    of = {"numpy": lambda array: array, "dlpack": Tensor}.get(library)
    of = of or pytest.importorskip("torch").from_numpy
    memory = np.zeros(200, np.uint8)
    tensors = [of(memory[start : start + 32].reshape(4, 8)) for start in (0, 31, 32, 64)]
    first, touching, second, third = tensors
    for arguments, what in [
        ({"x": first, "residual": second, "out": first}, "x"),
        ({"x": first, "residual": second, "out": touching}, "x"),
        ({"x": touching, "residual": third, "out": first}, "x"),
        ({"x": third, "residual": first, "out": first}, "residual"),
        ({"x": third, "residual": second, "out": touching}, "residual"),
        ({"x": first, "residual": third, "out": of(packed.numpy()[-32:].reshape(4, 8))}, "packed"),
    ]:
        with pytest.raises(LibraryError, match=f"^out overlaps {what}: what is still to be read"):
            kernel(packed=packed, **arguments)
        if library == "numpy":
            with pytest.raises(LibraryError, match=f"^out overlaps {what}: "):
                kernel.bind(packed=packed, **arguments)
    expected = kernel(first, packed, residual=second)
    kernel(first, packed, residual=second, out=third)  # side by side
    assert np.array_equal(np.from_dlpack(third), np.from_dlpack(expected))


def test_out_may_be_where_a_copied_argument_lies(adding):
    kernel, packed = adding
    rng = np.random.default_rng(0)
    memory = rng.integers(0, 256, (8, 4), np.uint8)
    residual = rng.integers(0, 256, (4, 8), np.uint8)
    expected = kernel(memory.T.copy(), packed, residual=residual)
    out = kernel(memory.T, packed, residual=residual, out=memory.reshape(4, 8))
    assert np.array_equal(out, expected)


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
    (symbol,) = source.symbols([choice])
    assert symbol.startswith("lpgen_dense_5x7x33_c3c2_")
    pack = getattr(ctypes.CDLL(str(path)), f"{symbol}_pack_weights")
    size = kernel.variant["packed_bytes"]
    packed = np.zeros(size + 64, np.uint8)
    start = packed.ctypes.data + -packed.ctypes.data % 64
    arguments = ctypes.c_void_p(w.ctypes.data), 7 * 33, ctypes.c_void_p(start), size
    lines = header_path(path).read_text().splitlines()
    (illegal,) = (int(line.split("= ")[1].strip(",")) for line in lines if "WEIGHT_VALUE =" in line)
    for value, status in ((0, illegal), (2, illegal), (-8, illegal), (127, 0), (-7, 0)):
        w[6, 32] = value
        assert pack(*arguments) == status


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
    with pytest.raises(LibraryError, match="packed holds weights of another kernel, CPU level or"):
        kernel.packed_weights(packed.numpy())
    same = build(
        [Choice(BYTES, target, "fake/dense", {}, fake_kernel(BYTES))], tmp_path / "same.so"
    )
    assert kernel(x, runtime.load(same)[BYTES.name].pack_weights(np.ones((7, 33), int))).any()


def test_names_that_are_not_there(lib):
    with pytest.raises(LibraryError, match=f"no kernel .*did you mean {BYTES.name!r}"):
        lib[BYTES.name.removesuffix(" out=s32")]
    with pytest.raises(LibraryError, match="no kernel 'resnet'; it has 3"):
        lib["resnet"]


# ---- files ----


def test_files_that_are_no_libraries(path, tmp_path):
    whole = path.read_bytes()
    foreign = bytearray(whole)
    foreign[18] = 183
    small = bytearray(foreign)
    small[4], small[18] = 1, 40
    unheard = bytearray(whole)
    unheard[18] = 252
    newer = resealed(whole.replace(b'{"schema":3,', b'{"schema":7,'))
    damaged = resealed(whole.replace(b'{"schema":3,', b'{"schema":3;'))
    nameless = resealed(whole.replace(b'"workload":', b'"workloaf":'))
    stripped = tmp_path / "stripped.so"
    subprocess.run(["strip", path, "-o", stripped], check=True)
    empty = tmp_path / "empty.c"
    empty.write_text("int nothing;\n")
    subprocess.run(["cc", "-shared", "-fPIC", empty, "-o", tmp_path / "plain.so"], check=True)
    plain = (tmp_path / "plain.so").read_bytes()
    for content, reason in [
        (b"", "is not a library"),
        (b"text, and no end of it" * 10, "is not a library"),
        (whole[:1000], "is cut off at 1000 bytes"),
        (whole[:-1], f"is cut off at {len(whole) - 1} bytes"),
        (bytes(foreign), r"was built for 64-bit Arm, this machine is x86-64$"),
        (bytes(small), r"was built for 32-bit Arm, this machine is x86-64$"),
        (bytes(unheard), r"was built for ELF machine 252, this machine is x86-64$"),
        (newer, "has manifest schema 7, this lpgen reads 3"),
        (damaged, "its manifest is damaged"),
        (nameless, "its manifest is damaged"),
        (stripped.read_bytes(), r"is damaged, or was changed after it was built \(as by strip\)"),
        (plain, "is not an lpgen library"),
    ]:
        file = tmp_path / "some.so"
        file.write_bytes(content)
        with pytest.raises(LibraryError, match=f"^{file}: {reason}") as error:
            runtime.load(file)
        assert "\n" not in str(error.value)
    with pytest.raises(LibraryError, match=r"missing.so: No such file or directory"):
        runtime.load(tmp_path / "missing.so")
    with pytest.raises(LibraryError, match="Is a directory"):
        runtime.load(tmp_path)
    os.mkfifo(tmp_path / "pipe.so")
    with pytest.raises(LibraryError, match="is not a regular file"):
        runtime.load(tmp_path / "pipe.so")


def resealed(library: bytes) -> bytes:
    """The library with the hash of its contents, as the build writes it."""
    place = files.find_hash(library)
    found = files.hash_of(library, place)
    return library[:place] + found + library[place + len(found) :]


def another(library: bytes, number: int) -> bytes:
    """The library as if another version of TVM had built it: one of its own contents."""
    before, version, after = re.split(rb'("tvm":"[^"]+)', library, maxsplit=1)
    name = f'"tvm":"{number}'.encode()
    return resealed(before + name.ljust(len(version), b".") + after)


def test_a_changed_byte_or_length_is_noticed(path, tmp_path):
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    note = files.find_hash(whole)
    places = {*range(64), *range(note - 16, note + 32), *rng.integers(0, len(whole), 700).tolist()}
    file = tmp_path / "some.so"
    for place in places:
        change = 1 << int(rng.integers(8))
        file.write_bytes(whole[:place] + bytes([whole[place] ^ change]) + whole[place + 1 :])
        with pytest.raises(LibraryError, match=f"^{file}: ") as error:
            runtime.load(file)
        assert "\n" not in str(error.value)
    for size in {0, 1, 63, 64, *rng.integers(0, len(whole), 100).tolist()}:
        file.write_bytes(whole[:size])
        with pytest.raises(LibraryError, match=f"^{file}: ") as error:
            runtime.load(file)
        assert "\n" not in str(error.value)
    file.write_bytes(whole + b"\0")
    with pytest.raises(LibraryError, match="is damaged"):
        runtime.load(file)


def loaded(name: str) -> int:
    """How many libraries of that file name are in this process."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return sum(f"/memfd:{name} " in line and " r-xp " in line for line in lines)


def test_a_library_is_loaded_once_and_unloaded(path, tmp_path):
    file = tmp_path / "once.so"
    file.write_bytes(another(path.read_bytes(), 1))
    lib = runtime.load(file)
    for _ in range(2500):
        assert runtime.load(file) is not lib
    assert loaded("once.so") == 1
    del lib
    assert loaded("once.so") == 0
    for _ in range(200):
        kernel = runtime.load(file)[BYTES.name]
    x, w = BYTES.random(np.random.default_rng(0))
    y = np.zeros(BYTES.y_shape, np.int32)
    run = kernel.bind(x, kernel.pack_weights(w), y)
    del kernel
    gc.collect()
    assert loaded("once.so") == 1
    run()
    del run
    gc.collect()
    assert loaded("once.so") == 0


def test_many_libraries_fit_in_a_process(path, tmp_path):
    """Each with the state of its threads, which the C library has room for in 200 of them."""
    whole = path.read_bytes()
    file = tmp_path / "many.so"
    x, w = LARGE.random(np.random.default_rng(0))
    expected, kernels = LARGE.reference(x, w), []
    for number in range(600):
        file.write_bytes(another(whole, number))
        kernels.append(runtime.load(file)[LARGE.name])
    assert loaded("many.so") == len(kernels)
    packed = kernels[0].pack_weights(w)
    for kernel in kernels[::50]:
        assert np.array_equal(kernel(x, packed, threads=2), expected)


def test_a_rebuilt_library_is_the_new_one(tmp_path, target):
    for op in (BYTES, BIPOLAR):
        build([Choice(op, target, "fake/dense", {}, fake_kernel(op))], tmp_path / "lib.so")
        lib = runtime.load(tmp_path / "lib.so")
        assert lib.kernels == [op.name]
    # Not even one that is overwritten while it is loaded disturbs its callers.
    kernel, (x, w) = lib[BIPOLAR.name], BIPOLAR.random(np.random.default_rng(0))
    packed = kernel.pack_weights(w)
    (tmp_path / "lib.so").write_bytes(b"")
    assert np.array_equal(kernel(x, packed), BIPOLAR.reference(x, w))


def other_cpu(target):
    return replace(target, name="future", features=(*target.features, "avx1024f", "avx1024vl"))


def test_a_library_for_another_cpu_is_refused(tmp_path, target):
    choice = Choice(BYTES, other_cpu(target), "fake/dense", {}, fake_kernel(BYTES))
    path = build([choice], tmp_path / "lib.so")
    with pytest.raises(LibraryError, match=r"for future; this CPU lacks avx1024f, avx1024vl$"):
        runtime.load(path)
    library = runtime.Library(path)  # its manifest can be read all the same
    assert library.workloads == [BYTES.name]
    assert library.kernels == []
    assert library.missing == ("avx1024f", "avx1024vl")
    symbol = library.manifest["kernels"][0]["variants"][0]["symbol"]
    run = library._code.get_function(symbol)
    arrays = np.zeros((5, 33), "u1"), np.zeros(295, "u1"), np.zeros((5, 7), "i4")
    with pytest.raises(RuntimeError, match=r"this CPU lacks .*: avx1024f, avx1024vl"):
        run(*map(tvm_ffi.from_dlpack, arrays))


def test_the_library_sees_the_cpu_as_the_targets_do(tmp_path):
    """CPUID in C agrees with what the system says, for every feature of every target."""
    every = tuple(dict.fromkeys(name for row in known().values() for name in row.features))
    target = replace(Target.parse("generic"), features=every)
    choice = Choice(BYTES, target, "fake/dense", {}, fake_kernel(BYTES))
    missing = runtime.Library(build([choice], tmp_path / "lib.so")).missing
    assert set(missing) == set(every) - cpu_features()


def test_the_first_variant_that_runs_is_taken(tmp_path, target):
    targets = [other_cpu(target), target, Target.parse("generic")]
    choices = [Choice(BYTES, t, f"fake/{t.name}", {}, fake_kernel(BYTES)) for t in targets]
    future = Choice(BIPOLAR, targets[0], "fake/future", {}, fake_kernel(BIPOLAR))
    lib = runtime.load(build([*choices, future], tmp_path / "lib.so"))
    assert lib.kernels == [BYTES.name]
    kernel = lib[BYTES.name]
    assert kernel.variant["target"] == target.name
    x, w = BYTES.random(np.random.default_rng(0))
    assert np.array_equal(kernel(x, kernel.pack_weights(w)), BYTES.reference(x, w))
    with pytest.raises(LibraryError, match="built for future; this CPU lacks avx1024f"):
        lib[BIPOLAR.name]
