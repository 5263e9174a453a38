"""How many devices a tuner can feed: throughput of farms of sleeping devices, and what limits it.

    python tests/simulated_farm.py [--sizes 1,4,8,16,32,64] [--picture FILE.png]

Tracker, RPC, links, workers, search and log are real, on this machine alone. Devices sleep instead
of calling kernels (servers.py), and nothing is compiled (simulated_worker.py): how many candidates
this machine could compile is measured by itself. Processes are forked (forking.py). Printed for
each size: candidates a minute, the share of so many times what one device does, and the CPU time of
a candidate by process.
"""

import argparse
import contextlib
import os
import signal
import tempfile
import time
from functools import cache
from pathlib import Path

import psutil
import pytest
from forking import fork_children
from processes import wait_for
from servers import KEY, free, servers
from simulated_worker import Modelled

from lpgen import cost, templates
from lpgen.farm import Farm
from lpgen.farm.pool import FarmPool
from lpgen.ops import parse
from lpgen.records import Log, this_cpu
from lpgen.target import Target
from lpgen.tune import CandidateMeasured, most_jobs, tune
from lpgen.tune.builder import Builder
from lpgen.tune.messages import Candidate

OP = parse("dense m=196 n=256 k=2304 act=u8 weight=s8")
TARGET = Target.parse("native")
EACH = 10
"""Candidates for each device that count."""


SLOWER = 70.0
"""A board's kernel takes so many times what the cost model says of this machine's: about what a
Cortex-A53 without dot products takes for that of a core with VNNI."""


class Enough(Exception):
    """All candidates that count are measured; no race has to follow."""


class SimulatedPool(FarmPool):
    """Workers that compile nothing."""

    module = "simulated_worker"


class SimulatedFarm(Farm):
    """A farm of which only some devices are used."""

    def pool(self, jobs: int, timeout: float) -> FarmPool:
        return SimulatedPool(self, jobs, timeout)

    def use(self, count: int) -> None:
        """From now on so many devices: the links of the others stand still."""
        self.count = count
        for place, link in enumerate(self.children):
            os.kill(link.process.pid, signal.SIGCONT if place < count else signal.SIGSTOP)


def throughput(farm: SimulatedFarm, size: int, jobs: int) -> tuple[float, dict[str, float]]:
    """Candidates a minute of so many devices, all of them at work; CPU milliseconds of one in the
    tuner's own process, in its workers, and in links and sessions."""
    farm.use(size)
    moments, before, after = [], cpu_seconds(), {}

    def take(event) -> None:
        if isinstance(event, CandidateMeasured):
            assert event.failed is None, event.failed
            moments.append(time.perf_counter())
            if len(moments) == last:
                after.update(cpu_seconds())
                raise Enough

    # A farm begins with one candidate, and each device has to be sent the operator.
    trials = (EACH + 4) * size
    first, last = 2 * size, trials - 2 * size
    with tempfile.TemporaryDirectory() as folder:
        log = Log(Path(folder) / "log.jsonl")
        common = {"strategy": "random", "templates": [modelled()], "on_event": take}
        with contextlib.suppress(Enough):
            tune([OP], TARGET, trials=trials, log=log, jobs=jobs, farm=farm, **common)
    minute = (last - first) / (moments[last - 1] - moments[first - 1]) * 60
    return minute, {name: 1e3 * (after[name] - before[name]) / last for name in before}


@cache
def modelled() -> Modelled:
    """Times of real candidates, as the cost model foresees them."""
    known = cost.candidates(OP, TARGET, templates.templates_for(OP, TARGET))
    counted = [(c.template, c.knobs) for c in known if c.template.counted][:50]
    model = cost.shipped()
    nanoseconds = (model.nanoseconds(t, TARGET, t.work(OP, TARGET, k)) for t, k in counted)
    return Modelled(seconds=tuple(SLOWER * 1e-9 * each for each in nanoseconds))


def cpu_seconds() -> dict[str, float]:
    """What this process and those that it has started have spent until now: a link has a session, a
    worker has nobody, and the servers are under a process of their own."""
    found = {"tuner": time.process_time(), "workers": 0.0, "links": 0.0, "devices": 0.0}
    for child in psutil.Process().children():
        family = [child, *child.children(recursive=True)]
        kind = "links" if len(family) > 1 else "workers"
        kind = "devices" if "servers.py" in " ".join(child.cmdline()) else kind
        for each in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                found[kind] += sum(each.cpu_times()[:2])
    return found


def built_a_minute(jobs: int) -> float:
    """Candidates that the compiler of this machine makes in a minute, on so many cores."""
    serving = [t for t in templates.templates_for(OP, TARGET) if t.counted]
    candidates = [Candidate(t, t.default(OP, TARGET)) for t in serving]
    builder = Builder()
    builder.build(OP, TARGET, candidates[0], 0, 1)  # imports TVM, and computes the expected results
    began = time.process_time()
    for candidate in candidates:
        builder.build(OP, TARGET, candidate, 0, 1)
    return jobs * 60 * len(candidates) / (time.process_time() - began)


def draw(path: Path, rates: dict[int, float], builder: float, said: str) -> None:
    """Throughput by size beside the straight line, and the compiler's limit."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 4), layout="constrained")
    axes = figure.add_subplot()
    sizes = sorted(rates)
    axes.plot(sizes, [rates[sizes[0]] / sizes[0] * n for n in sizes], "--", color="0.6",
              label="so many times one device")  # fmt: skip
    axes.plot(sizes, [rates[n] for n in sizes], "o-", label="measured")
    axes.axhline(builder, color="C3", linewidth=1, label="what the compiler makes here")
    axes.set(xscale="log", yscale="log", xlabel="devices", ylabel="candidates a minute")
    axes.set_xticks(sizes, map(str, sizes))
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.set_title(said, fontsize=8)
    axes.legend()
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="1,4,8,16,32,64")
    parser.add_argument("--picture", type=Path)
    given = parser.parse_args()
    sizes, jobs = sorted(map(int, given.sizes.split(","))), most_jobs(1)
    rates: dict[int, float] = {}
    import lpgen.build.lower  # noqa: F401  (TVM, before all is forked)

    seconds = modelled().seconds
    print(f"{len(seconds)} kernels of {min(seconds) * 1e3:.1f} to {max(seconds) * 1e3:.1f} ms")
    with (
        pytest.MonkeyPatch.context() as patched,
        servers(sizes[-1], "sleeping") as there,
    ):
        fork_children(patched)
        with SimulatedFarm(there.tracker, KEY) as farm:
            wait_for(lambda: free(there.tracker) == 0)
            for size in sizes:
                rates[size], cpu = throughput(farm, size, jobs)
                share = rates[size] / size / (rates[sizes[0]] / sizes[0])
                words = ", ".join(f"{name} {spent:.1f}" for name, spent in cpu.items())
                print(
                    f"{size:3} devices: {rates[size]:6.0f} candidates a minute, {share:.2f} of "
                    f"linear; ms of CPU each: {words}",
                    flush=True,
                )
    builder = built_a_minute(jobs)
    enough = builder / (rates[sizes[0]] / sizes[0])
    print(
        f"the compiler makes {builder:.0f} candidates a minute on {jobs} cores: enough for "
        f"{enough:.1f} of these devices"
    )
    if given.picture:
        draw(given.picture, rates, builder, f"{this_cpu()}, {jobs} cores, {time.strftime('%F')}")


if __name__ == "__main__":
    main()
