"""How fast the network of a library is: as a whole, and step by step."""

import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import numpy as np

from lpgen import runtime
from lpgen.bench.measure import ROUNDS, pinned
from lpgen.bench.probes import timed
from lpgen.errors import LibraryError
from lpgen.network.check import inputs_of
from lpgen.ops import parse
from lpgen.runtime.arrays import count
from lpgen.runtime.kernel import MAX_THREADS
from lpgen.runtime.memory import aligned_copy
from lpgen.tune.timing import calls_in, time_calls

_ALONE = 1e-3
"""Seconds for which a step runs alone in a round."""


@dataclass(frozen=True)
class StepTime:
    """The time of one step: us, in calls of the whole network (median); us_alone: the same call
    again and again, with all that it touches in the caches (best); both in microseconds."""

    step: str
    workload: str
    label: str
    template: str
    origin: str
    us: float
    us_alone: float


@dataclass(frozen=True)
class NetworkMeasurement:
    """The time of a network: microseconds of a call, over the rounds, and of its steps."""

    network: str
    threads: int
    us_best: float
    us_median: float
    steps: tuple[StepTime, ...]

    @property
    def us_kernels(self) -> float:
        """The sum of all steps, each alone."""
        return sum(step.us_alone for step in self.steps)

    @property
    def overhead(self) -> float:
        """The time of the whole over the sum of its kernels."""
        return self.us_best / self.us_kernels

    def share(self, step: StepTime) -> float:
        """What of the time in steps one takes."""
        return step.us / sum(other.us for other in self.steps)

    def describe(self) -> dict[str, Any]:
        """The measurement as a dict of JSON values."""
        values = asdict(self) | {"us_kernels": self.us_kernels, "overhead": self.overhead}
        for entry, step in zip(values["steps"], self.steps, strict=True):
            entry["share"] = self.share(step)
        return values


def bench_network(
    library: runtime.Library | str | os.PathLike[str], *, threads: int = 1, seed: int = 0
) -> NetworkMeasurement:
    """Measure the network of a library on random inputs.

    Calls go through `lpgen.runtime` (`Network.bind`) and run on `threads` threads, bound to as many
    cores; in each of 15 rounds the whole network runs for some milliseconds, and then each of its
    steps alone for one. Raises LibraryError when there is no network in it, or it cannot be loaded.
    """
    library = library if isinstance(library, runtime.Library) else runtime.load(library)
    network, threads = library.network, count("threads", threads, MAX_THREADS)
    if network is None:
        raise LibraryError(f"{library.path}: holds no network")
    with pinned(threads) as cores:
        library.set_affinity(cores[:-1] or None)
        try:
            return _measured(library, network, threads, seed)
        finally:
            library.set_affinity(None)


def bound_call(
    network: runtime.Network, inputs: dict[str, np.ndarray], threads: int
) -> tuple[Callable[[], None], dict[str, np.ndarray]]:
    """A call on copies of the inputs that is ready to be timed, and the outputs that it writes."""
    inputs = {name: aligned_copy(array) for name, array in inputs.items()}
    outputs = {t.name: aligned_copy(np.zeros(t.shape, t.dtype)) for t in network.outputs.values()}
    return network.bind(inputs, out=outputs, threads=threads), outputs


def _measured(
    library: runtime.Library, network: runtime.Network, threads: int, seed: int
) -> NetworkMeasurement:
    inputs = inputs_of(network, np.random.default_rng(seed))
    call, _ = bound_call(network, inputs, threads)
    # CPU time: a call that waits for its core to do something else is not slower.
    run = timed(call, time.thread_time_ns if threads == 1 else time.perf_counter_ns)
    walk = network.walk(inputs, threads=threads)
    whole, within, alone = [], [], []
    for _ in range(ROUNDS):
        whole.append(time_calls(run).seconds)
        walk.run(0, len(network.steps))
        within.append(walk.nanoseconds.copy())
        alone.append([_alone(walk, i) for i in range(len(network.steps))])
    times = zip(np.median(within, axis=0) * 1e-3, np.min(alone, axis=0) * 1e-3, strict=True)
    steps = (_step_time(library, s, *us) for s, us in zip(network.steps, times, strict=True))
    best, middle = min(whole) * 1e6, median(whole) * 1e6
    return NetworkMeasurement(network.name, threads, best, middle, tuple(steps))


def _alone(walk: runtime.Walk, place: int) -> int:
    """The fewest nanoseconds that a step takes when it runs again and again."""
    walk.run(place, place + 1)
    fewest = int(walk.nanoseconds[place])
    for _ in range(calls_in(_ALONE, fewest * 1e-9)):
        walk.run(place, place + 1)
        fewest = min(fewest, int(walk.nanoseconds[place]))
    return fewest


def _step_time(
    library: runtime.Library, step: runtime.Step, us: float, us_alone: float
) -> StepTime:
    variant, label = library[step.workload].variant, parse(step.workload).label
    chosen = variant["template"], variant["origin"]
    return StepTime(step.name, step.workload, label, *chosen, float(us), float(us_alone))
