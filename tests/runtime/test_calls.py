"""Calls of loaded kernels: what goes in and out, and that NumPy and tvm-ffi are enough for them."""

import gc
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import tvm_ffi
from loaded import BIPOLAR, BYTES, LARGE, Namespaced, Tensor

from lpgen import runtime
from lpgen.errors import LibraryError


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
    assert [*lib[BYTES.name].arguments] == ["x", "packed", "y"]
    assert lib[BYTES.name].arguments["x"].shape == BYTES.x_shape
    assert lib[LARGE.name].workspace_bytes(2) > lib[LARGE.name].workspace_bytes(1) > 0
    assert lib.missing == ()


def test_out_is_filled_and_returned(problem):
    kernel, x, packed, expected = problem
    out = np.full(BYTES.y_shape, -1, np.int32)
    assert kernel(x, packed, out=out) is out
    assert np.array_equal(out, expected)


def test_a_call_of_what_is_known_to_fit(problem, adding):
    kernel, x, packed, expected = problem
    out = np.full(BYTES.y_shape, -1, np.int32)
    kernel.run(x, packed, out, threads=2)
    assert np.array_equal(out, expected)
    other, others = adding
    with pytest.raises(LibraryError, match="run is for one input and packed weights"):
        other.run(x, others, out)


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


def test_threads_are_integers_of_any_kind(problem):
    kernel, x, packed, expected = problem
    for count in (2, np.int64(2), np.uint8(2)):
        assert np.array_equal(kernel(x, packed, threads=count), expected)
        out = np.zeros(BYTES.y_shape, np.int32)
        kernel.bind(x, packed, out=out, threads=count)()
        assert np.array_equal(out, expected)


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
x, w = np.ones(kernel.arguments["x"].shape, np.uint8), np.ones(kernel.weights.shape, np.int8)
packed = kernel.pack_weights(w)
def right(): return (kernel(x, packed, threads=3) == 9600).all()
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
        rooms = ("lpgen", "lpgen.runtime", "lpgen.errors", "lpgen.imports")
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


@pytest.mark.parametrize("room", ["lpgen.runtime", "lpgen.target", "lpgen.build.lower"])
def test_torch_is_not_imported(tmp_path, room):
    """tvm-ffi and TVM would wherever it is installed: a fake one says when that happens."""
    (tmp_path / "torch.py").write_text("print('imported')")
    code = f"import {room}, sys; print('torch' in sys.modules, flush=True); import torch"
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert run.stdout.split() == ["False", "imported"], run.stderr


def test_relax_is_imported_when_it_is_asked_for():
    code = """
import sys, lpgen.build.lower, tvm
print("tvm.relax.op" in sys.modules, callable(tvm.relax.op.add), "tvm.relax.op" in sys.modules)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.stdout.split() == ["False", "True", "True"], run.stderr
