"""What is timed of a kernel: its calls, in turns with the loops that bound it.

It needs no compiler where the code of these loops is given (`probes.give`).
"""

from __future__ import annotations

import itertools
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import psutil

from lpgen import runtime
from lpgen.bench.probes import ComputeProbe, Loop, ReadProbe, timed
from lpgen.ops import Operator
from lpgen.runtime.memory import aligned, aligned_copy
from lpgen.target import Target
from lpgen.tune.timing import Run, time_in_turns

if TYPE_CHECKING:
    from lpgen.isa import Peak

ROUNDS = 15
# With so few rows each weight is used once per call, and in a model the other layers have driven
# the weights out of the caches before: such a kernel is timed on copies that do not fit there.
COLD_ROWS = 4
_COLD_BYTES = 1 << 30
_MEMORY_SHARE = 4
# Warm weights take this many times the L2 cache: copies in turns do not stay there.
_WARM_L2S = 4


@dataclass(frozen=True)
class Laps:
    """Seconds of one call in each round, of a kernel and of its probes.

    kernel, read, compute: the seconds, compute [] without a loop of multiplications; read_bytes,
    compute_ops: of a call of the probes; instruction: of that loop; bytes: of packed weights (what
    so many layers read of them), x and y; level: the memory they lie in; cold: whether the weights
    were out of the caches at each call; threads, layers: of the calls.
    """

    kernel: list[float]
    read: list[float]
    compute: list[float]
    read_bytes: int
    compute_ops: int
    instruction: str | None
    bytes: int
    level: str
    cold: bool
    threads: int
    layers: int | None


def take_laps(
    kernel: runtime.Kernel,
    op: Operator,
    machine: Target,
    loop: tuple[Peak | Loop, Target] | None,
    threads: int,
    seed: int,
    warm: bool,
    layers: int | None,
) -> Laps:
    """Time a kernel as `op`, on the CPU `machine`, which is this one. loop: of multiplications, and
    the target whose code it is."""
    weights = packed_weights(kernel, op, machine, seed, warm)
    order = itertools.cycle(range(len(weights)))
    nbytes = sum(argument.nbytes for argument in op.signature.sized(kernel.packed_bytes))
    read_bytes = nbytes
    if layers is not None:
        whole = math.prod(op.w_shape) // op.planes, math.prod(op.scale_shape)
        read_bytes += round(op.bit_layers.nbytes(layers, *whole)) - kernel.packed_bytes
    several = len(weights) > 1
    arrays = [w.numpy() for w in weights] if several else [aligned(max(nbytes, 64 * threads))]
    probe_threads = min(threads, len(os.sched_getaffinity(0)))
    place = level(max(1, len(weights)) * nbytes, machine)
    target = Target.parse(kernel.variant["target"])
    read = ReadProbe(arrays, order, target, probe_threads, far=place in ("L3", "dram"))
    compute = ComputeProbe(*loop, probe_threads) if loop else None
    runs = [calls(kernel, op, weights, order, threads, layers), read.run]
    runs += [compute.run] if compute else []
    laps = time_in_turns(runs, ROUNDS, on_round=lambda: None)
    return Laps(
        kernel=laps[0],
        read=laps[1],
        compute=laps[2] if compute else [],
        read_bytes=read.nbytes,
        compute_ops=compute.ops if compute else 0,
        instruction=compute.instruction if compute else None,
        bytes=read_bytes,
        level=place,
        cold=several and not warm,
        threads=threads,
        layers=layers,
    )


def level(nbytes: int, machine: Target) -> str:
    """The innermost level of the memory of `machine` that holds so many bytes."""
    sizes = {"L1": machine.l1d, "L2": machine.l2, "L3": machine.l3}
    return next((name for name, size in sizes.items() if nbytes <= size), "dram")


def packed_weights(
    kernel: runtime.Kernel, op: Operator, machine: Target, seed: int = 0, warm: bool = False
) -> list[runtime.PackedWeights]:
    """Random packed weights, none of an operator that has none; for a kernel that is timed cold,
    or from the L3 cache (`warm`), as many copies as that takes."""
    example = op.example(np.random.default_rng(seed))
    if example.weights is None:
        return []
    packed = kernel.pack_weights(example.weights, **example.parameters)
    if op.reuse > COLD_ROWS or packed.nbytes <= machine.l2:
        return [packed]
    spare = psutil.virtual_memory().available // _MEMORY_SHARE
    wanted = _WARM_L2S * machine.l2 if warm else 2 * machine.l3
    copies = min(wanted, _COLD_BYTES, spare) // packed.nbytes
    return [packed, *(kernel.packed_weights(packed.numpy()) for _ in range(max(1, copies)))]


def calls(
    kernel: runtime.Kernel,
    op: Operator,
    weights: list[runtime.PackedWeights],
    order: Iterator[int],
    threads: int,
    layers: int | None = None,
) -> Run:
    """Calls on a random input, with the weights in turn, to be timed; layers: how many they use."""
    example, y = op.example(np.random.default_rng(1)), op.signature.output
    example = example if layers is None else example.with_layers(layers)
    inputs = {
        name: aligned_copy(value) if isinstance(value, np.ndarray) else value
        for name, value in example.inputs.items()
    }
    out = aligned(y.nbytes).view(y.dtype).reshape(y.shape)
    # Bound once: a checked call costs microseconds of Python, which are not the kernel's.
    bound = [
        kernel.bind(**inputs, packed=packed, out=out, threads=threads)
        for packed in weights or [None]
    ]
    # CPU time: a call that waits for its core to do something else is not slower.
    clock = time.thread_time_ns if threads == 1 else time.perf_counter_ns
    if len(bound) == 1:
        return timed(bound[0], clock)
    return timed(lambda: bound[next(order)](), clock)
