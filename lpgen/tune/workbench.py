"""The inputs an operator is checked and timed with, and the results it must give."""

import itertools
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import psutil
import tvm_ffi

from lpgen.algorithms.kernel import ALIGNMENT, Layout
from lpgen.tune.timing import Run

_GUARD = 64
_GUARD_BYTE = 0xA5
_KEPT_BYTES = 1 << 30
# With so few rows each weight is used once per call: a model's other layers have driven the
# weights out of the caches before, so that calls take turns on copies that do not fit there.
_COLD_ROWS = 4
_COLD_BYTES = 512 << 20
_SHARE_OF_MEMORY = 16

KernelFunction = Callable[..., None]


class Miscomputed(Exception):
    """A kernel gave another result than the oracle, or wrote where it must not."""


class Case(NamedTuple):
    """One input and its exact result."""

    name: str
    x: np.ndarray
    w: np.ndarray
    y: np.ndarray


class Workbench:
    """Checks and times kernels of one operator. Raises nothing but Miscomputed for a bad kernel.

    Inputs: random values, and the two constant ones whose sums are the largest and the smallest,
    where accumulators that are too narrow overflow. The caches of `machine`, the CPU that times,
    decide which weights have to come from memory.
    """

    def __init__(self, op: Any, machine: Any, seed: int) -> None:
        self.op = op
        self._cold_above = machine.l2 if op.reuse <= _COLD_ROWS else None
        spare = psutil.virtual_memory().available // _SHARE_OF_MEMORY
        self._cold_bytes = min(2 * machine.l3, _COLD_BYTES, spare)
        named = [("random input", op.random(np.random.default_rng(seed)))]
        named += [(f"input {which}", op.extreme(which)) for which in op.far_ends]
        rng = np.random.default_rng(seed + 1)
        self._parameters, residual = op.random_parameters(rng), op.random_residual(rng)
        self.cases = [
            Case(name, x, w, op.reference(x, w, residual, **self._parameters))
            for name, (x, w) in named
        ]
        self._added = [] if residual is None else [tvm_ffi.from_dlpack(residual)]
        self._packed: OrderedDict[Layout, list[list[np.ndarray]]] = OrderedDict()

    def packed(self, layout: Layout) -> list[list[np.ndarray]]:
        """The packed weights of each case; of the first, as many copies as timing needs."""
        if layout not in self._packed:
            packed = [
                [aligned_copy(layout.pack(case.w, **self._parameters))] for case in self.cases
            ]
            if self._cold_above is not None and layout.nbytes > self._cold_above:
                copies = self._cold_bytes // layout.nbytes + 1
                packed[0] += [aligned_copy(packed[0][0]) for _ in range(copies)]
            self._packed[layout] = packed
        self._packed.move_to_end(layout)
        while len(self._packed) > 1 and self._held() > _KEPT_BYTES:
            self._packed.popitem(last=False)
        return self._packed[layout]

    def _held(self) -> int:
        """Bytes of packed weights that are kept."""
        kept = itertools.chain.from_iterable(self._packed.values())
        return sum(array.nbytes for copies in kept for array in copies)

    def check(self, function: KernelFunction, layout: Layout) -> None:
        """Compare with the oracle on every case. Raises Miscomputed naming the first that differs.

        All but the first case have x and y at odd addresses, which kernels must accept.
        """
        for number, (case, packed) in enumerate(zip(self.cases, self.packed(layout), strict=True)):
            x = aligned_copy(case.x, offset=min(number, 1) * case.x.itemsize)
            offset = _GUARD + min(number, 1) * case.y.itemsize
            around = aligned(case.y.nbytes + 2 * offset)
            around.fill(_GUARD_BYTE)
            y = around[offset:-offset].view(case.y.dtype).reshape(case.y.shape)
            x, first, result = map(tvm_ffi.from_dlpack, (x, packed[0], y))
            function(x, first, *self._added, result)
            wrong = int(np.count_nonzero(y != case.y))
            if wrong:
                raise Miscomputed(f"{wrong} of {y.size} results differ on {case.name}")
            if np.any(around[:offset] != _GUARD_BYTE) or np.any(around[-offset:] != _GUARD_BYTE):
                raise Miscomputed(f"wrote outside of y on {case.name}")

    def run(self, function: KernelFunction, layout: Layout, threads: int = 1) -> Run:
        """Calls on the random input, to be timed; `function` uses so many threads."""
        case, copies = self.cases[0], self.packed(layout)[0]
        x = tvm_ffi.from_dlpack(aligned_copy(case.x))
        y = tvm_ffi.from_dlpack(aligned_copy(np.zeros_like(case.y)))
        weights = itertools.cycle([tvm_ffi.from_dlpack(copy) for copy in copies])
        # CPU time: a call that waits for its core to do something else is not slower. Where other
        # threads work too, only the clock on the wall knows when all are done.
        clock = time.thread_time_ns if threads == 1 else time.perf_counter_ns

        def run(count: int) -> float:
            start = clock()
            for packed in itertools.islice(weights, count):
                function(x, packed, *self._added, y)
            return (clock() - start) * 1e-9

        return run


def aligned(nbytes: int, offset: int = 0) -> np.ndarray:
    """uint8[nbytes] of zeros that starts `offset` bytes after a 64-byte boundary."""
    raw = np.zeros(nbytes + ALIGNMENT + offset, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT + offset
    return raw[start : start + nbytes]


def aligned_copy(array: np.ndarray, offset: int = 0) -> np.ndarray:
    """A copy that starts `offset` bytes after a 64-byte boundary."""
    copy = aligned(array.nbytes, offset).view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy
