"""Calls that are refused: arguments that do not fit, and results where something is still read."""

import re

import numpy as np
import pytest
from loaded import BIPOLAR, BYTES, Refusing, Tensor

from lpgen.errors import LibraryError


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


def test_arguments_that_do_not_fit(problem, lib):
    kernel, x, packed, _ = problem
    for wrong, reason in [
        ({"x": x[:4]}, r"x has shape \[4, 33\], expected \[5, 33\]"),
        ({"x": x.astype(np.int8)}, "x: int8, expected uint8"),
        ({"x": Tensor(x.astype(np.int8))}, "x: int8, expected uint8"),
        ({"x": "text"}, "x: str is no dense array or DLPack tensor"),
        ({"x": None}, "x is missing"),
        ({"y": x}, "y is not asked for"),
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


def test_names_that_are_not_there(lib):
    with pytest.raises(LibraryError, match=f"no kernel .*did you mean {BYTES.name!r}"):
        lib[BYTES.name.removesuffix(" out=s32")]
    with pytest.raises(LibraryError, match="no kernel 'resnet'; it has 3"):
        lib["resnet"]
