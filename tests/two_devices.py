"""What a second device brings: real candidates on servers of this machine, a core for each.

    python tests/two_devices.py [WORKLOAD] [--trials N]

Candidates a minute of tuning here, where one process times, and on one and on two servers, while
there are candidates: neither the first ones, beside which others are timed, nor the race count.
Builders share the cores with the servers, which those of boards do not.
"""

import argparse
import time

from servers import KEY, Servers, servers

from lpgen.farm import Farm
from lpgen.ops import parse
from lpgen.tune import CandidateMeasured, tune
from lpgen.tune.pool import allowed_cores

DEFAULT = "dense m=784 n=512 k=1152 act=u8 weight=s8"
FIRST = 6


def rate(op, trials: int, jobs: int, farm: Farm | None = None) -> float:
    """Candidates a minute."""
    moments = []

    def take(event) -> None:
        if isinstance(event, CandidateMeasured):
            moments.append(time.perf_counter())

    tune([op], trials=trials, jobs=jobs, farm=farm, on_event=take)
    return 60 * (len(moments) - 1 - FIRST) / (moments[-1] - moments[FIRST])


def pinned(there: Servers, cores: list[int]) -> None:
    """A core for each of the servers; sessions inherit it. The tracker is the first process."""
    for place, server in enumerate(there.processes()[1:]):
        server.cpu_affinity([cores[place % len(cores)]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workload", nargs="?", default=DEFAULT)
    parser.add_argument("--trials", type=int, default=40)
    given = parser.parse_args()
    op, cores = parse(given.workload), allowed_cores()
    alone = rate(op, given.trials, 1)
    print(f"here, one process that builds and times: {alone:.0f} a minute", flush=True)
    found = rate(op, given.trials, len(cores))
    print(f"here, {len(cores)} that build: {found:.0f}, {found / alone:.2f} of that", flush=True)
    for count in (1, 2):
        with servers(count) as there, Farm(there.tracker, KEY) as farm:
            pinned(there, cores)
            found = rate(op, given.trials, len(cores), farm)
        print(f"servers: {count}: {found:.0f} a minute, {found / alone:.2f} of that", flush=True)


if __name__ == "__main__":
    main()
