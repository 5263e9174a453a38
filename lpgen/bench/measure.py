"""How fast the kernels of a library are, beside what the machine could do at the same moment."""

import contextlib
import itertools
import math
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import numpy as np
import psutil

from lpgen import runtime, templates
from lpgen.bench.probes import ComputeProbe, ReadProbe, timed
from lpgen.ops import Operator, parse
from lpgen.runtime.arrays import count
from lpgen.runtime.kernel import MAX_THREADS
from lpgen.runtime.memory import aligned, aligned_copy
from lpgen.target import Target, detect
from lpgen.tune.timing import Run, time_in_turns

ROUNDS = 15
# With so few rows each weight is used once per call, and in a model the other layers have driven
# the weights out of the caches before: such a kernel is timed on copies that do not fit there.
COLD_ROWS = 4
_COLD_BYTES = 1 << 30
_MEMORY_SHARE = 4
# Warm weights take this many times the L2 cache: copies in turns do not stay there.
_WARM_L2S = 4


@dataclass(frozen=True)
class Measurement:
    """The speed of one kernel, and how near it comes to the roof above it.

    layers: how many bit layers the calls used, None: the weights have none;
    origin: where the knobs come from (`Choice.origin`).
    us_best, us_median: microseconds of one call, over the rounds; gops: 1e9 operations a second at
    best; peak_gops: what a loop of `instruction` on registers reached in the same rounds (None: the
    CPU's families have no such loop); bytes: packed weights (what so many
    layers read of them), x and y; bandwidth_gbs: 1e9 bytes a
    second read from `level` ("L1", "L2", "L3", "dram"), where the kernel's data lie, in the same
    rounds; cold: whether the weights were out of the caches at each call.
    bound: the lower roof, "compute" (operations at peak_gops) or "memory" (bytes at bandwidth_gbs);
    fraction: the time at that roof divided by us_best.
    """

    workload: str
    target: str
    template: str
    knobs: dict[str, Any]
    origin: str
    threads: int
    layers: int | None
    us_best: float
    us_median: float
    gops: float
    peak_gops: float | None
    instruction: str | None
    bytes: int
    bandwidth_gbs: float
    level: str
    cold: bool
    fraction: float
    bound: str

    def describe(self) -> dict[str, Any]:
        """The measurement as a dict of JSON values, numbers to five digits."""
        values = asdict(self).items()
        return {k: float(f"{v:.5g}") if isinstance(v, float) else v for k, v in values}


def bench(
    library: runtime.Library | str | os.PathLike[str],
    *,
    threads: int = 1,
    seed: int = 0,
    warm: bool = False,
    rows: Sequence[int] = (),
) -> Iterator[Measurement]:
    """Measure every kernel that this CPU can run, each as soon as it is done; one with a range of
    rows with `rows` of them, or a few that stand for all, one of bit layers with every number.

    Calls go through `lpgen.runtime` (`Kernel.bind`) and run on `threads` threads, which are bound
    to as many cores where the system allows it. Kernel, compute probe and read probe are timed in
    turns, 0.3 s for each kernel. warm: what would be timed cold finds its weights in the L3 cache.
    Raises LibraryError when the library cannot be loaded, and for threads outside of 1..1024;
    WorkloadError for rows that a kernel does not serve.
    """
    if not isinstance(library, runtime.Library):
        library = runtime.load(library)
    threads = count("threads", threads, MAX_THREADS)
    with pinned(threads) as cores:
        # Our workers run where the process may; with the caller they get the cores of the probes.
        library.set_affinity(cores[:-1] or None)
        try:
            for name in library.kernels:
                for op in sizes(parse(name), rows):
                    for layers in op.bit_layers.all if op.layers else (None,):
                        yield _measure(library[name], op, threads, seed, warm, layers)
        finally:
            library.set_affinity(None)


def sizes(op: Operator, rows: Sequence[int] = ()) -> list[Operator]:
    """The operator, or with a range of rows those with some numbers of them."""
    if op.range is None:
        return [op]
    return [op.at(count) for count in rows or op.range.some()]


def serving(library: runtime.Library, op: Operator) -> runtime.Kernel:
    """The kernel of an operator, or one with a range that its rows are in."""
    if op.name not in library:
        for name in library.kernels:
            ranged = parse(name)
            if ranged.range and ranged.kind == op.kind and _sized(ranged, op) == op:
                return library[name]
    return library[op.name]


def _sized(ranged: Operator, op: Operator) -> Operator:
    """The operator with a range, with the rows that another one has."""
    return ranged.with_rows(getattr(op, op.ROWS))


def measured_peak(
    template: str, knobs: dict[str, Any], target: Target, threads: int = 1
) -> float | None:
    """Operations a second of the loop that bounds a kernel, on `threads` threads, now; None: no
    loop."""
    probe = _compute_probe(template, knobs, target, detect(), threads)
    if probe is None:
        return None
    with pinned(threads):
        (laps,) = time_in_turns([probe.run], 5, on_round=lambda: None)
    return probe.ops / min(laps)


@contextlib.contextmanager
def pinned(threads: int) -> Iterator[list[int]]:
    """Bind the calling thread, and those it starts, to the last `threads` cores it may use.

    Gives these cores; none where the system does not bind threads.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield []
        return
    allowed = os.sched_getaffinity(0)
    cores = sorted(allowed)[-threads:]
    os.sched_setaffinity(0, cores)
    try:
        yield cores
    finally:
        os.sched_setaffinity(0, allowed)


def _measure(
    kernel: runtime.Kernel,
    op: Operator,
    threads: int,
    seed: int,
    warm: bool,
    layers: int | None,
) -> Measurement:
    target, machine = Target.parse(kernel.variant["target"]), detect()
    weights = packed_weights(kernel, op, machine, seed, warm)
    order = itertools.cycle(range(len(weights)))
    nbytes = sum(argument.nbytes for argument in op.signature.sized(kernel.packed_bytes))
    read_bytes = nbytes
    if layers is not None:
        whole = math.prod(op.w_shape), math.prod(op.scale_shape)
        read_bytes += round(op.bit_layers.nbytes(layers, *whole)) - kernel.packed_bytes
    several = len(weights) > 1
    arrays = [w.numpy() for w in weights] if several else [aligned(max(nbytes, 64 * threads))]
    probe_threads = min(threads, len(os.sched_getaffinity(0)))
    place = level(max(1, len(weights)) * nbytes, machine)
    read = ReadProbe(arrays, order, target, probe_threads, far=place in ("L3", "dram"))
    template, knobs = kernel.variant["template"], kernel.variant["knobs"]
    compute = _compute_probe(template, knobs, target, machine, probe_threads)
    runs = [calls(kernel, op, weights, order, threads, layers), read.run]
    runs += [compute.run] if compute else []
    laps = time_in_turns(runs, ROUNDS, on_round=lambda: None)
    best, bandwidth = min(laps[0]), read.nbytes / min(laps[1])
    peak = compute.ops / min(laps[2]) if compute else None
    bound, fraction = _roof(best, op.ops, peak, read_bytes, bandwidth)
    return Measurement(
        workload=op.name,
        target=target.name,
        template=template,
        knobs=knobs,
        origin=kernel.variant.get("origin", ""),
        threads=threads,
        layers=layers,
        us_best=best * 1e6,
        us_median=median(laps[0]) * 1e6,
        gops=op.ops / best * 1e-9,
        peak_gops=peak and peak * 1e-9,
        instruction=compute.instruction if compute else None,
        bytes=read_bytes,
        bandwidth_gbs=bandwidth * 1e-9,
        level=place,
        cold=several and not warm,
        fraction=fraction,
        bound=bound,
    )


def _roof(
    seconds: float, ops: int, peak: float | None, nbytes: int, bandwidth: float
) -> tuple[str, float]:
    """(bound, fraction): which roof is the lower one, and how near to it `seconds` come."""
    memory = nbytes / bandwidth
    compute = ops / peak if peak else 0.0
    return ("compute", compute / seconds) if compute >= memory else ("memory", memory / seconds)


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


def _compute_probe(
    template: str, knobs: dict[str, Any], target: Target, machine: Target, threads: int
) -> ComputeProbe | None:
    """The probe of the template's family; for a template of none, of the best family there is."""
    family = template.partition("/")[0]
    for chosen in (target, machine):
        for name in (family, *chosen.families):
            if peak := templates.peak_of(name, chosen, knobs):
                return ComputeProbe(peak, chosen, threads)
    return None


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
