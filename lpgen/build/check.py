"""Checking a library: every kernel in a fresh process against the NumPy oracle, exactly.

The checking process only loads the library and has no compiler. When a kernel brings it down, that
is the kernel's result, and another process goes on with the rest.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import astuple, dataclass

import numpy as np

from lpgen import runtime
from lpgen.errors import LibraryError, LpgenError
from lpgen.ops import Operator, parse
from lpgen.supervise import ONE_THREAD, Child, Gone, connect

THREADS = (1, 2)
RANDOM_INPUTS = 2

_ALWAYS = ONE_THREAD | {"LPGEN_TASK_US": "0"}
"""Kernels of any size are split."""


@dataclass(frozen=True)
class Checked:
    """What came of one kernel: `failure` is None when every result was exact, else the reason."""

    workload: str
    template: str
    calls: int
    failure: str | None = None


def check_library(path: str | os.PathLike[str], seed: int = 0) -> Iterator[Checked]:
    """Check every kernel of the library `path`, each as soon as it is done, in its order.

    Random inputs and the worst case of each sign, on one thread and on two. Raises LibraryError
    when the library cannot be loaded, or has no kernel that this CPU can run, and for a negative
    seed.
    """
    if seed < 0:
        raise LibraryError(f"seed={seed} is negative")
    remaining = runtime.load(path).workloads
    while remaining:
        child = Child("lpgen.build.check", str(path), str(seed), *remaining, environment=_ALWAYS)
        try:
            while remaining:
                child.enter("checking")
                message = child.receive()
                if isinstance(message, Gone):
                    yield Checked(remaining.pop(0), "", 0, str(message))
                    break
                remaining.pop(0)
                yield Checked(*message)
        finally:
            child.stop()


def _check_kernel(library: runtime.Library, name: str, seed: int) -> Checked:
    op, calls = parse(name), 0
    try:
        kernel = library[name]
        template = kernel.variant["template"]
        rng = np.random.default_rng(seed)
        parameters, residual = op.random_parameters(rng), op.random_residual(rng)
        added = None if residual is None else _unaligned(residual)
        for label, x, w in _inputs(op, seed):
            packed = kernel.pack_weights(w, **parameters)
            expected = op.reference(x, w, residual, **parameters)
            for threads in THREADS:
                y = np.full(op.y_shape, 0x5A, op.y_dtype)
                kernel(_unaligned(x), packed, out=y, threads=threads, residual=added)
                calls += 1
                if not np.array_equal(y, expected):
                    failure = f"{_difference(y, expected)} ({label} input, threads={threads})"
                    return Checked(name, template, calls, failure)
    except LpgenError as error:
        return Checked(name, "", calls, str(error))
    return Checked(name, template, calls)


def _inputs(op: Operator, seed: int) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(seed)
    for _ in range(RANDOM_INPUTS):
        yield "random", *op.random(rng)
    for which in op.EXTREMES:
        yield which, *op.extreme(which)


def _unaligned(x: np.ndarray) -> np.ndarray:
    """A copy at an odd address: kernels take activations from anywhere. Floats are aligned to 4."""
    size = x.itemsize
    raw = np.empty(x.nbytes + 2 * size, np.uint8)
    start = size - raw.ctypes.data % (2 * size) if size == 1 else size - raw.ctypes.data % size
    copy = raw[start : start + x.nbytes].view(x.dtype).reshape(x.shape)
    copy[...] = x
    return copy


def _difference(y: np.ndarray, expected: np.ndarray) -> str:
    first = np.unravel_index(int(np.argmax(y != expected)), y.shape)
    where, count = ", ".join(map(str, map(int, first))), np.count_nonzero(y != expected)
    return f"{count} of {y.size} wrong, the first y[{where}] = {y[first]}, not {expected[first]}"


def _main(pipe: str, parent: str, path: str, seed: str, *names: str) -> None:
    connection = connect(pipe, parent)
    library = runtime.Library(path)
    for name in names:
        # Plain values: this module has another name in its parent.
        connection.send(astuple(_check_kernel(library, name, int(seed))))


if __name__ == "__main__":
    _main(*sys.argv[1:])
