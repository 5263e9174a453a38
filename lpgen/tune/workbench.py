"""The inputs an operator is checked and timed with, and the results it must give."""

import itertools
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import psutil
import tvm_ffi

from lpgen.algorithms.kernel import Layout
from lpgen.ops.operator import Example
from lpgen.ops.signature import Signature
from lpgen.runtime.memory import aligned, aligned_copy
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
    """One set of arguments and its exact result."""

    name: str
    example: Example
    y: np.ndarray


class Workbench:
    """Checks and times kernels of one operator. Raises nothing but Miscomputed for a bad kernel.

    Inputs: random values, and the two constant ones whose sums are the largest and the smallest,
    where accumulators that are too narrow overflow. The caches of `machine`, the CPU that times,
    decide which weights have to come from memory.
    """

    def __init__(self, op: Any, machine: Any, seed: int) -> None:
        self.op = op
        self._signature: Signature = op.signature
        cold = op.signature.packed is not None and op.reuse <= _COLD_ROWS
        self._cold_above = machine.l2 if cold else None
        spare = psutil.virtual_memory().available // _SHARE_OF_MEMORY
        self._cold_bytes = min(2 * machine.l3, _COLD_BYTES, spare)
        rng = np.random.default_rng(seed)
        named = {"random input": "random"} | {f"input {which}": which for which in op.far_ends}
        examples = {name: op.example(rng, which) for name, which in named.items()}
        self.cases = [
            Case(name, example, op.reference(**example.given)) for name, example in examples.items()
        ]
        self._packed: OrderedDict[Layout, list[list[np.ndarray]]] = OrderedDict()

    def packed(self, layout: Layout) -> list[list[np.ndarray]]:
        """The packed weights of each case; of the first, as many copies as timing needs."""
        if layout not in self._packed:
            examples = [case.example for case in self.cases]
            packed = [[aligned_copy(layout.pack(e.weights, **e.parameters))] for e in examples]
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

    def check(self, function: KernelFunction, layout: Layout | None) -> None:
        """Compare with the oracle on every case. Raises Miscomputed naming the first that differs.

        In all but the first case tensors are at odd addresses, which kernels must accept.
        """
        for number, case in enumerate(self.cases):
            odd = min(number, 1)
            inputs = _placed(case.example.inputs, odd)
            offset = _GUARD + odd * case.y.itemsize
            around = aligned(case.y.nbytes + 2 * offset)
            around.fill(_GUARD_BYTE)
            y = around[offset:-offset].view(case.y.dtype).reshape(case.y.shape)
            function(*self._arguments(inputs, y, self._weights(layout, number)[0]))
            wrong = int(np.count_nonzero(y != case.y))
            if wrong:
                raise Miscomputed(f"{wrong} of {y.size} results differ on {case.name}")
            if np.any(around[:offset] != _GUARD_BYTE) or np.any(around[-offset:] != _GUARD_BYTE):
                raise Miscomputed(f"wrote outside of {self._signature.output.name} on {case.name}")

    def run(self, function: KernelFunction, layout: Layout | None, threads: int = 1) -> Run:
        """Calls on the random input, to be timed; `function` uses so many threads."""
        case = self.cases[0]
        inputs, y = _placed(case.example.inputs), aligned_copy(np.zeros_like(case.y))
        copies = self._weights(layout, 0)
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

    def _weights(self, layout: Layout | None, number: int) -> list[Any]:
        """Packed weights of a case in all their copies; nothing, where there are none."""
        return [None] if layout is None else self.packed(layout)[number]

    def _arguments(self, inputs: dict[str, Any], y: np.ndarray, packed: Any) -> list[Any]:
        """The arguments of a call in the kernel's order, tensors as those of tvm-ffi."""
        signature = self._signature
        values = inputs | {signature.output.name: y}
        if signature.packed:
            values[signature.packed.name] = packed
        ordered = signature.ordered(values)
        return [tvm_ffi.from_dlpack(v) if isinstance(v, np.ndarray) else v for v in ordered]


def _placed(inputs: dict[str, Any], elements: int = 0) -> dict[str, Any]:
    """Copies of the tensors that start so many elements behind a 64-byte boundary."""
    return {
        name: aligned_copy(v, elements * v.itemsize) if isinstance(v, np.ndarray) else v
        for name, v in inputs.items()
    }
