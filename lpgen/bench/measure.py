"""How fast the kernels of a library are, beside what the machine could do at the same moment."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from lpgen import runtime, templates
from lpgen.bench.laps import Laps, take_laps
from lpgen.bench.probes import ComputeProbe
from lpgen.ops import Operator, parse
from lpgen.runtime.arrays import count
from lpgen.runtime.kernel import MAX_THREADS
from lpgen.target import Target, detect
from lpgen.tune.timing import time_in_turns

if TYPE_CHECKING:
    from lpgen.isa import Peak


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


def bench_kernel(
    library: runtime.Library, name: str, op: Operator, threads: int = 1, warm: bool = False
) -> Iterator[Measurement]:
    """Measure one kernel as `op`, one of its sizes; with every number of bit layers if it has
    some."""
    with pinned(threads) as cores:
        library.set_affinity(cores[:-1] or None)
        try:
            for layers in op.bit_layers.all if op.layers else (None,):
                yield _measure(library[name], op, threads, 0, warm, layers)
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
    machine = detect()
    loop = peak_of(kernel.variant, machine)
    laps = take_laps(kernel, op, machine, loop, threads, seed, warm, layers)
    return measured(kernel.variant, op, laps)


def measured(variant: dict[str, Any], op: Operator, laps: Laps) -> Measurement:
    """What laps say of the variant of a kernel that serves `op`."""
    best, bandwidth = min(laps.kernel), laps.read_bytes / min(laps.read)
    peak = laps.compute_ops / min(laps.compute) if laps.compute else None
    bound, fraction = _roof(best, op.ops, peak, laps.bytes, bandwidth)
    return Measurement(
        workload=op.name,
        target=variant["target"],
        template=variant["template"],
        knobs=variant["knobs"],
        origin=variant.get("origin", ""),
        threads=laps.threads,
        layers=laps.layers,
        us_best=best * 1e6,
        us_median=median(laps.kernel) * 1e6,
        gops=op.ops / best * 1e-9,
        peak_gops=peak and peak * 1e-9,
        instruction=laps.instruction,
        bytes=laps.bytes,
        bandwidth_gbs=bandwidth * 1e-9,
        level=laps.level,
        cold=laps.cold,
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


def peak_of(variant: dict[str, Any], machine: Target) -> tuple[Peak, Target] | None:
    """The loop that bounds the variant of a kernel on `machine`, and for which target it is
    compiled; None: there is none."""
    target = Target.parse(variant["target"])
    return _peak(variant["template"], variant["knobs"], target, machine)


def _peak(
    template: str, knobs: dict[str, Any], target: Target, machine: Target
) -> tuple[Peak, Target] | None:
    """That of the template's family; for a template of none, of the best family there is."""
    family = template.partition("/")[0]
    for chosen in (target, machine):
        for name in (family, *chosen.families):
            if peak := templates.peak_of(name, chosen, knobs):
                return peak, chosen
    return None


def _compute_probe(
    template: str, knobs: dict[str, Any], target: Target, machine: Target, threads: int
) -> ComputeProbe | None:
    found = _peak(template, knobs, target, machine)
    return found and ComputeProbe(*found, threads)
