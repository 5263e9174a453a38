"""Other signatures than that of a product: numbers given at each call, inputs without weights."""

import ctypes
from dataclasses import dataclass

import numpy as np
import pytest
from fake_kernel import IdentityLayout
from tvm import IRModule, te, tirx

from lpgen import runtime
from lpgen.algorithms.kernel import Kernel
from lpgen.build import Choice, build, header_path
from lpgen.errors import LibraryError
from lpgen.ops import Dense
from lpgen.ops.signature import Argument, Limits, Role, Signature, scalar
from lpgen.runtime.memory import aligned
from lpgen.target import Target


class Shifted(Dense):
    """A dense operator that adds a number, given at each call, to the weights of some rows."""

    @property
    def signature(self) -> Signature:
        *read, y = super().signature
        return Signature((*read, scalar("rows", 0, self.n), scalar("shift", -100, 100), y))


@dataclass(frozen=True)
class Sum:
    """y = a + 2 * b in int32: two inputs, no weights."""

    name: str = "sum elements=9"
    identifier: str = "sum_9"
    ops: int = 18

    @property
    def signature(self) -> Signature:
        a = Argument("a", Role.INPUT, (3, 3), "uint8", "u4", Limits(0, 15))
        b = Argument("b", Role.INPUT, (9,), "int8", "s8", Limits(-128, 127))
        return Signature((a, b, Argument("y", Role.OUTPUT, (3, 3), "int32", "s32")))


SHIFTED = Shifted(5, 7, 33, "u8", "s8")
SUM = Sum()


def shifted_kernel(op: Shifted) -> Kernel:
    rows, shift = (tirx.Var(name, "int32") for name in ("rows", "shift"))
    x = te.placeholder(op.x_shape, op.act.dtype, name="x")
    packed = te.placeholder((op.n * op.k,), "uint8", name="packed")
    k = te.reduce_axis((0, op.k), name="k")

    def product(m, n):
        w = packed[n * op.k + k].astype(op.weight.dtype).astype("int32")
        return te.sum(x[m, k].astype("int32") * (w + te.if_then_else(n < rows, shift, 0)), axis=k)

    y = te.compute(op.y_shape, product, name="y")
    module = IRModule({"main": te.create_prim_func([x, packed, rows, shift, y])})
    return Kernel(op, module, IdentityLayout(op))


def sum_kernel(op: Sum) -> Kernel:
    a, b = (te.placeholder(i.shape, i.dtype, name=i.name) for i in op.signature.inputs)
    y = te.compute(
        (3, 3), lambda i, j: a[i, j].astype("int32") + 2 * b[3 * i + j].astype("int32"), name="y"
    )
    return Kernel(op, IRModule({"main": te.create_prim_func([a, b, y])}), None)


def sized(array: np.ndarray) -> tuple:
    """A tensor as a C function takes it."""
    return ctypes.c_void_p(array.ctypes.data), ctypes.c_size_t(array.nbytes)


@pytest.fixture(scope="module")
def path(tmp_path_factory, target):
    choices = [
        Choice(SHIFTED, target, "fake/shifted", {}, shifted_kernel(SHIFTED)),
        Choice(SUM, Target.parse("generic"), "fake/sum", {}, sum_kernel(SUM)),
    ]
    return build(choices, tmp_path_factory.mktemp("signatures") / "lib.so")


@pytest.fixture(scope="module")
def lib(path):
    return runtime.load(path)


@pytest.fixture(scope="module")
def numbers(lib):
    """(kernel, x, packed weights, the exact result as a function of rows and shift)."""
    kernel = lib[SHIFTED.name]
    x, w = SHIFTED.random(np.random.default_rng(0))

    def exact(rows, shift):
        moved = w.astype(int)
        moved[:rows] += shift
        return x.astype(int) @ moved.T

    return kernel, x, kernel.pack_weights(w), exact


@pytest.fixture(scope="module")
def tensors():
    """(a, b, exact result)."""
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 16, (3, 3), np.uint8), rng.integers(-128, 128, 9, np.int8)
    return a, b, a + 2 * b.astype(np.int32).reshape(3, 3)


def test_numbers_are_given_at_each_call(numbers):
    kernel, x, packed, exact = numbers
    assert [*kernel.arguments] == ["x", "packed", "rows", "shift", "y"]
    for rows, shift in ((0, 100), (3, -7), (7, 100), (np.int64(7), np.int8(-100))):
        assert np.array_equal(kernel(x, packed, rows=rows, shift=shift), exact(rows, shift))
        assert np.array_equal(kernel(x, packed, rows, shift), exact(rows, shift))
        out = np.zeros((5, 7), np.int32)
        kernel.bind(x, packed, rows, shift=shift, out=out)()
        assert np.array_equal(out, exact(rows, shift))


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"rows": 8, "shift": 0}, r"rows=8 is not an integer within 0\.\.7"),
        ({"rows": -1, "shift": 0}, r"rows=-1 is not an integer within 0\.\.7"),
        ({"rows": 1, "shift": 2**40}, r"shift=1099511627776 is not an integer within -100\.\.100"),
        ({"rows": 1.0, "shift": 0}, r"rows=1\.0 is not an integer"),
        ({"rows": True, "shift": 0}, "rows=True is not an integer"),
        ({"rows": 1}, "shift is missing$"),
        ({"rows": 1, "shift": 0, "rose": 1}, "rose is not asked for$"),
    ],
)
def test_numbers_that_cannot_be(numbers, given, reason):
    kernel, x, packed, _ = numbers
    with pytest.raises(LibraryError, match=reason):
        kernel(x, packed, **given)
    with pytest.raises(LibraryError, match=r"5 inputs, it takes \(x, packed, rows, shift\)"):
        kernel(x, packed, 1, 2, 3)
    with pytest.raises(LibraryError, match="x is given twice"):
        kernel(x, packed, x=x, **given)


def test_numbers_are_checked_in_c_and_tvm_ffi(numbers, path):
    kernel, x, packed, exact = numbers
    run, y = getattr(ctypes.CDLL(str(path)), kernel.symbol), np.zeros((5, 7), np.int32)
    header = header_path(path).read_text()
    assert "int32_t rows, int32_t shift" in " ".join(header.split())
    assert " * rows 0..7\n * shift -100..100\n" in header

    def call(rows, shift):
        tensor = lambda a: (ctypes.c_void_p(a.ctypes.data), ctypes.c_size_t(a.nbytes))  # noqa: E731
        return run(
            *tensor(x),
            *tensor(packed.numpy()),
            rows,
            shift,
            *tensor(y),
            None,
            ctypes.c_size_t(0),
            1,
        )

    assert call(4, -9) == 0
    assert np.array_equal(y, exact(4, -9))
    assert f"LPGEN_SCALAR_VALUE = {call(8, 0)}," in header
    assert call(8, 0) == call(-1, 0) == call(0, 101) == call(0, -101) != 0
    for wrong in (8, 2**40, 1.5, None):
        with pytest.raises(ValueError, match=r"rows is not an integer within 0\.\.7"):
            kernel._run(x, packed.tensor, wrong, 0, y)


def test_a_kernel_without_weights(lib, tensors):
    kernel, (a, b, expected) = lib[SUM.name], tensors
    assert (kernel.packed_bytes, kernel.weights, kernel.parameters) == (0, None, ())
    for threads in (1, 3):
        assert np.array_equal(kernel(a, b, threads=threads), expected)
    assert np.array_equal(kernel(b=b, a=a), expected)
    with pytest.raises(LibraryError, match="b is missing"):
        kernel(a)
    with pytest.raises(LibraryError, match="packed is not asked for"):
        kernel(a, b, packed=b)
    with pytest.raises(LibraryError, match=r"b has shape \[3, 3\], expected \[9\]"):
        kernel(a, b.reshape(3, 3))
    with pytest.raises(LibraryError, match="has no weights to pack"):
        kernel.pack_weights(b)
    with pytest.raises(LibraryError, match="has no weights to pack"):
        kernel.packed_weights(b)
    memory = np.zeros(9, np.int32)
    with pytest.raises(LibraryError, match="out overlaps b: "):
        kernel(a, memory.view(np.int8)[5:14], out=memory.reshape(3, 3))


def test_a_kernel_without_weights_in_c(path, lib, tensors):
    kernel, (a, b, expected) = lib[SUM.name], tensors
    library, header = ctypes.CDLL(str(path)), header_path(path).read_text()
    assert f"{kernel.symbol}_pack_weights" not in header
    assert not hasattr(library, f"{kernel.symbol}_pack_weights")
    assert " * a uint8_t[3, 3], format u4\n * b int8_t[9], format s8\n" in header
    entry = lib.manifest["kernels"][1]
    assert [(e["name"], e["role"]) for e in entry["arguments"]] == [
        ("a", "input"),
        ("b", "input"),
        ("y", "output"),
    ]
    assert (entry["weights"], entry["parameters"]) == (None, [])
    y = aligned(36).view(np.int32).reshape(3, 3)
    given = (*sized(a), *sized(b), *sized(y))
    assert getattr(library, kernel.symbol)(*given, None, ctypes.c_size_t(0), 1) == 0
    assert np.array_equal(y, expected)
