"""A problem on a machine: kernels are called with its inputs, checked and timed."""

import itertools
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import psutil
import tvm_ffi

from lpgen.runtime.memory import aligned, aligned_copy
from lpgen.tune.built import Case, Machine, Problem, Weights
from lpgen.tune.timing import Run

_GUARD = 64
_GUARD_BYTE = 0xA5
_KEPT_BYTES = 1 << 30
# With so few rows each weight is used once per call: a model's other layers have driven the
# weights out of the caches before, so that calls take turns on copies that do not fit there.
_COLD_ROWS = 4
_COLD_BYTES = 512 << 20
_SHARE_OF_MEMORY = 16

KernelFunction = Callable[..., None] | dict[int, Callable[..., None]]
"""A kernel, or one for each of some numbers of rows."""
Packed = list[list[np.ndarray]]
"""Packed weights of each case, in copies."""


class Miscomputed(Exception):
    """A kernel gave another result than the oracle, or wrote where it must not."""


class Workbench:
    """Checks and times kernels of one problem. Raises nothing but Miscomputed for a bad kernel.

    The caches of `machine`, the CPU that times, decide which weights have to come from memory.
    """

    def __init__(self, problem: Problem, machine: Machine) -> None:
        self.problem = problem
        cold = problem.reuse is not None and problem.reuse <= _COLD_ROWS
        self._cold_above = machine.l2 if cold else None
        spare = psutil.virtual_memory().available // _SHARE_OF_MEMORY
        self._cold_bytes = min(2 * max(machine.l2, machine.l3), _COLD_BYTES, spare)
        self._packed: OrderedDict[str, Packed] = OrderedDict()

    def holds(self, key: str) -> bool:
        """Whether the packed weights of that key are here."""
        return key in self._packed

    def keep(self, weights: Weights) -> None:
        """Take packed weights; the oldest ones go where there are too many bytes of them."""
        copies = {id(each): aligned_copy(each) for each in weights.packed}
        packed = [[copies[id(each)]] for each in weights.packed]
        nbytes = weights.packed[0].nbytes
        if self._cold_above is not None and nbytes > self._cold_above:
            packed[0] += [aligned_copy(packed[0][0]) for _ in range(self._cold_bytes // nbytes + 1)]
        self._packed[weights.key] = packed
        while len(self._packed) > 1 and self._held() > _KEPT_BYTES:
            self._packed.popitem(last=False)

    def packed(self, key: str) -> Packed:
        """The packed weights of each case; of the first, as many copies as timing needs."""
        self._packed.move_to_end(key)
        return self._packed[key]

    def _held(self) -> int:
        """Bytes of packed weights that are kept."""
        kept = itertools.chain.from_iterable(self._packed.values())
        return sum(array.nbytes for copies in kept for array in copies)

    def check(self, function: KernelFunction, packed: Packed | None) -> None:
        """Compare with the oracle on every case, with the weights that `packed` gave, None for a
        kernel without. Raises Miscomputed naming the first that differs.

        In all but the first case tensors are at odd addresses, which kernels must accept.
        """
        for number, case in enumerate(self.problem.cases):
            odd = min(number, 1)
            inputs = _placed(case.inputs, odd)
            offset = _GUARD + odd * case.y.itemsize
            around = aligned(case.y.nbytes + 2 * offset)
            around.fill(_GUARD_BYTE)
            y = around[offset:-offset].view(case.y.dtype).reshape(case.y.shape)
            _of(function, case)(*self._arguments(inputs, y, _weights(packed, number)[0]))
            wrong = int(np.count_nonzero(y != case.y))
            if wrong:
                raise Miscomputed(f"{wrong} of {y.size} results differ on {case.name}")
            if np.any(around[:offset] != _GUARD_BYTE) or np.any(around[-offset:] != _GUARD_BYTE):
                raise Miscomputed(
                    f"wrote outside of {self.problem.signature.output.name} on {case.name}"
                )

    def run(self, function: KernelFunction, packed: Packed | None, threads: int = 1) -> Run:
        """Calls on the random input, to be timed; `function` uses so many threads. With several
        numbers of rows a call is a round of them."""
        cases = [case for case in self.problem.cases if case.calls]
        if len(cases) > 1:
            return self._rounds(function, packed, threads)
        return self._calls(_of(function, cases[0]), cases[0], _weights(packed, 0), threads)

    def _rounds(self, function: KernelFunction, packed: Packed, threads: int) -> Run:
        """Rounds of the calls of each case, whose weights are those of the first, in memory only
        for few rows."""
        cases = [case for case in self.problem.cases if case.calls]
        runs = []
        for case in cases:
            copies = packed[0] if case.rows <= _COLD_ROWS else packed[0][:1]
            runs.append((self._calls(_of(function, case), case, copies, threads), case.calls))

        def run(count: int) -> float:
            return sum(run(count * each) for run, each in runs)

        return run

    def _calls(self, function: Callable, case: Case, copies: list, threads: int) -> Run:
        inputs, y = _placed(case.inputs), aligned_copy(np.zeros_like(case.y))
        calls = itertools.cycle([self._arguments(inputs, y, copy) for copy in copies])
        # CPU time: a call that waits for its core to do something else is not slower. Where other
        # threads work too, only the clock on the wall knows when all are done.
        clock = time.thread_time_ns if threads == 1 else time.perf_counter_ns

        def run(count: int) -> float:
            start = clock()
            for arguments in itertools.islice(calls, count):
                function(*arguments)
            return (clock() - start) * 1e-9

        return run

    def _arguments(self, inputs: dict[str, Any], y: np.ndarray, packed: Any) -> list[Any]:
        """The arguments of a call in the kernel's order, tensors as those of tvm-ffi."""
        signature = self.problem.signature
        values = inputs | {signature.output.name: y}
        if signature.packed:
            values[signature.packed.name] = packed
        ordered = signature.ordered(values)
        return [tvm_ffi.from_dlpack(v) if isinstance(v, np.ndarray) else v for v in ordered]


def _of(function: KernelFunction, case: Case) -> Callable[..., None]:
    """The function for the rows of a case."""
    return function[case.rows] if isinstance(function, dict) else function


def _weights(packed: Packed | None, number: int) -> list[Any]:
    """Packed weights of a case in all their copies; nothing, where there are none."""
    return [None] if packed is None else packed[number]


def _placed(inputs: dict[str, Any], elements: int = 0) -> dict[str, Any]:
    """Copies of the tensors that start so many elements behind a 64-byte boundary."""
    return {
        name: aligned_copy(v, elements * v.itemsize) if isinstance(v, np.ndarray) else v
        for name, v in inputs.items()
    }
