"""How fast the network of a library is: as a whole, and step by step."""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import numpy as np

from lpgen import runtime
from lpgen.bench.laps import ROUNDS
from lpgen.bench.measure import pinned
from lpgen.errors import LibraryError
from lpgen.network.examples import inputs_of
from lpgen.ops import parse
from lpgen.runtime.arrays import count
from lpgen.runtime.kernel import MAX_THREADS
from lpgen.runtime.memory import aligned_copy
from lpgen.tune.timing import calls_in

_WHOLE, _ALONE, _FEWEST = 20e-3, 1e-3, 3
"""Seconds for which the network, and each step alone, runs in a round, and the fewest calls."""


@dataclass(frozen=True)
class StepTime:
    """The time of one step: us, in calls of the whole network; us_alone: the same call again and
    again, with all that it touches in the caches; both in microseconds, medians over the rounds."""

    step: str
    workload: str
    label: str
    template: str
    origin: str
    us: float
    us_alone: float


@dataclass(frozen=True)
class NetworkMeasurement:
    """The time of a network: microseconds of a call, over the rounds, and of its steps.

    overhead: the time of the whole over the sum of its steps alone, in the same round (median).
    """

    network: str
    threads: int
    us_best: float
    us_median: float
    overhead: float
    steps: tuple[StepTime, ...]

    @property
    def us_kernels(self) -> float:
        """The sum of all steps, each alone."""
        return sum(step.us_alone for step in self.steps)

    def share(self, step: StepTime) -> float:
        """What of the time in steps one takes."""
        return step.us / sum(other.us for other in self.steps)

    def describe(self) -> dict[str, Any]:
        """The measurement as a dict of JSON values."""
        values = asdict(self) | {"us_kernels": self.us_kernels}
        for entry, step in zip(values["steps"], self.steps, strict=True):
            entry["share"] = self.share(step)
        return values


def bench_network(
    library: runtime.Library | str | os.PathLike[str],
    *,
    threads: int = 1,
    seed: int = 0,
    inputs: Mapping[str, np.ndarray] | None = None,
    version: int = 0,
) -> NetworkMeasurement:
    """Measure the network of a library on these inputs, or on random ones.

    Calls go through `lpgen.runtime` (`Network.bind`) and run on `threads` threads, bound to as many
    cores; in each of 15 rounds the whole network runs for some milliseconds, and then each of its
    steps alone for one. version: which one, of several sizes of inputs. Raises LibraryError when
    there is no network in it, or it cannot be loaded.
    """
    library = library if isinstance(library, runtime.Library) else runtime.load(library)
    threads = count("threads", threads, MAX_THREADS)
    if library.network is None:
        raise LibraryError(f"{library.path}: holds no network")
    network = library.versions[version]
    if inputs is None:
        inputs = inputs_of(network, np.random.default_rng(seed))
    with pinned(threads) as cores:
        library.set_affinity(cores[:-1] or None)
        try:
            return _measured(library, network, threads, inputs)
        finally:
            library.set_affinity(None)


def bound_call(
    network: runtime.Network, inputs: Mapping[str, np.ndarray], threads: int
) -> tuple[Callable[[], None], dict[str, np.ndarray]]:
    """A call on copies of the inputs that is ready to be timed, and the outputs that it writes."""
    inputs = {name: aligned_copy(array) for name, array in inputs.items()}
    outputs = {t.name: aligned_copy(np.zeros(t.shape, t.dtype)) for t in network.outputs.values()}
    return network.bind(inputs, out=outputs, threads=threads), outputs


def _measured(
    library: runtime.Library,
    network: runtime.Network,
    threads: int,
    inputs: Mapping[str, np.ndarray],
) -> NetworkMeasurement:
    call, _ = bound_call(network, inputs, threads)
    walk, places = network.walk(inputs, threads=threads), range(len(network.steps))
    whole, within, alone = [], [], []
    for _ in range(ROUNDS):
        whole.append(_whole(call))
        walk.run(0, len(places))
        within.append(walk.nanoseconds.copy())
        alone.append([_alone(walk, place) for place in places])
    overhead = median(w / sum(steps) for w, steps in zip(whole, alone, strict=True))
    times = zip(np.median(within, axis=0) * 1e-3, np.median(alone, axis=0) * 1e-3, strict=True)
    steps = (_step_time(library, s, *us) for s, us in zip(network.steps, times, strict=True))
    best, middle = min(whole) * 1e-3, median(whole) * 1e-3
    return NetworkMeasurement(network.name, threads, best, middle, overhead, tuple(steps))


def _whole(call: Callable[[], None]) -> float:
    """Nanoseconds of a call: the median of some milliseconds of them."""
    times, end = [], time.monotonic() + _WHOLE
    while len(times) < _FEWEST or time.monotonic() < end:
        start = time.perf_counter_ns()
        call()
        times.append(time.perf_counter_ns() - start)
    return median(times)


def _alone(walk: runtime.Walk, place: int) -> float:
    """Nanoseconds of a step that runs again and again: the median of a millisecond of them."""
    walk.run(place, place + 1)
    times = []
    for _ in range(max(_FEWEST, calls_in(_ALONE, walk.nanoseconds[place] * 1e-9))):
        walk.run(place, place + 1)
        times.append(int(walk.nanoseconds[place]))
    return median(times)


def _step_time(
    library: runtime.Library, step: runtime.Step, us: float, us_alone: float
) -> StepTime:
    variant, label = library[step.workload].variant, parse(step.workload).label
    chosen = variant["template"], variant["origin"]
    return StepTime(step.name, step.workload, label, *chosen, float(us), float(us_alone))
