"""What this machine can do at most, measured: multiplications on registers, bytes from memory.

A probe is something to be timed in turns with a kernel, so that a change of the clock or a busy
neighbour meets both.
"""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import tvm_ffi

from lpgen.runtime.memory import aligned
from lpgen.target import Target
from lpgen.tune.timing import Run

if TYPE_CHECKING:
    from lpgen.isa import Peak

VECTOR = 64
"""Bytes of a vector."""
SUMS = 2
"""Vectors in which a read probe adds: two loads a cycle, and an addition takes one."""
_READ_AT_ONCE = 1 << 20
"""Bytes that one call of a probe reads at least."""
_REPEAT_ON_THREADS = 128
"""So much more has a call to do if threads have to be started for it."""


class Loop(NamedTuple):
    """What is said of a `Peak` whose code is given (`give`): see there."""

    instruction: str
    ops: int
    outputs: int


class ComputeProbe:
    """A `Peak` on some threads at once. `run(count)`: seconds of so many calls of `ops` each."""

    def __init__(self, peak: Peak | Loop, target: Target, threads: int = 1) -> None:
        repeat = 1 if threads == 1 else _REPEAT_ON_THREADS
        self.instruction, self.ops = peak.instruction, peak.ops * repeat * threads
        function = _compute_function(peak, target)
        calls = []
        for _ in range(threads):
            operands = [aligned(VECTOR), aligned(VECTOR)]
            for operand in operands:
                operand[...] = 1
            sums = aligned(4 * peak.outputs).view(np.int32)
            tensors = [tvm_ffi.from_dlpack(array) for array in (*operands, sums)]
            calls.append(_repeated(function, itertools.repeat(tensors), repeat))
        self.run: Run = _timed(calls)


class ReadProbe:
    """Reading memory on some threads, again and again.

    arrays: uint8, contiguous, of one size; order: endless places in `arrays`, which is read next;
    far: whether they lie beyond the L2 cache, where reading is fastest with prefetches.
    `run(count)`: seconds of so many calls, each of which reads `nbytes` bytes.
    """

    def __init__(
        self,
        arrays: Sequence[np.ndarray],
        order: Iterator[int],
        target: Target,
        threads: int = 1,
        far: bool = False,
    ) -> None:
        function = _read_function(target, far)
        share = max(VECTOR, arrays[0].nbytes // threads // VECTOR * VECTOR)
        at_once = _READ_AT_ONCE * (1 if threads == 1 else _REPEAT_ON_THREADS)
        repeat = math.ceil(at_once / (share * threads))
        self.nbytes = repeat * share * threads
        calls = []
        for thread in range(threads):
            parts = [a[thread * share :][:share] for a in arrays]
            result = tvm_ffi.from_dlpack(aligned(VECTOR * SUMS).view(np.int32))
            given = [(tvm_ffi.from_dlpack(part), result) for part in parts]
            calls.append(_repeated(function, (given[place] for place in order), repeat))
        self.run: Run = _timed(calls)


_compute_functions: dict[tuple[str, Target], Any] = {}
_read_functions: dict[tuple[Target, bool], Any] = {}


def give(functions: Mapping[bool, Any], target: Target, compute: tuple[Loop, Any] | None) -> None:
    """Functions that are not to be compiled here: those that read memory for `target`, near (False)
    and far (True), and that of a loop of multiplications."""
    for far, function in functions.items():
        _read_functions[target, far] = function
    if compute:
        loop, function = compute
        _compute_functions[loop.instruction, target] = function


def _compute_function(peak: Peak | Loop, target: Target) -> Any:
    key = peak.instruction, target
    if key not in _compute_functions:
        # Late: kernels of a library are compared with others in a process that needs no TVM.
        from lpgen.build.lower import jit

        _compute_functions[key] = jit(peak.module, target)
    return _compute_functions[key]


def _read_function(target: Target, far: bool) -> Any:
    if (target, far) not in _read_functions:
        _read_functions[target, far] = read_module(target, far)["main"]
    return _read_functions[target, far]


def read_module(target: Target, far: bool) -> Any:
    """The tvm.runtime.Module whose function "main" reads memory."""
    import tvm

    from lpgen.bench.reader import reader

    return tvm.compile(reader(SUMS, VECTOR, far), target=target.tvm()).mod


def _repeated(function: Any, arguments: Iterator, count: int) -> Callable[[], None]:
    """A call of `function` with each of the next `count` arguments."""

    def call() -> None:
        for given in itertools.islice(arguments, count):
            function(*given)

    return call


def _timed(calls: Sequence[Callable[[], None]]) -> Run:
    """Seconds that all `calls`, each on a thread of its own, take `count` times."""
    if len(calls) == 1:
        return timed(calls[0], time.thread_time_ns)

    def together() -> None:
        # tvm-ffi releases Python's lock during a call.
        threads = [threading.Thread(target=call) for call in calls]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return timed(together, time.perf_counter_ns)


def timed(call: Callable[[], Any], clock: Callable[[], int]) -> Run:
    """Seconds that `call` takes `count` times, by a clock of nanoseconds."""

    def run(count: int) -> float:
        start = clock()
        for _ in range(count):
            call()
        return (clock() - start) * 1e-9

    return run
