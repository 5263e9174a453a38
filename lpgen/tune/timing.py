"""How long a call takes, on a machine that is not quiet."""

import math
import time
from collections.abc import Callable
from statistics import median
from typing import NamedTuple

# The core changes its clock with the kind of vector instructions and is slow around the change
# for half a millisecond: run until that is over.
WARM_UP = 2e-3
SAMPLE = 2e-4
BUDGET = 30e-3
LAP = 4e-3
RACE_BUDGET = 4.0
SLOW = 0.5
"""Seconds: a call slower than this is timed once after its warm-up."""

Run = Callable[[int], float]
"""Seconds that some number of calls take together."""


class Timing(NamedTuple):
    """Seconds of one call: the best sample and the median of the samples."""

    best: float
    median: float

    @property
    def spread(self) -> float:
        return self.median / self.best - 1


def warm_up(run: Run, seconds: float = WARM_UP) -> float:
    """Run for some time; the best seconds of one call seen."""
    best, spent, count = math.inf, 0.0, 1
    while spent < seconds:
        elapsed = run(count)
        spent += elapsed
        best = min(best, elapsed / count)
        count = calls_per_sample(best)
    return best


def calls_per_sample(seconds: float) -> int:
    """So many calls that the clock's resolution and its own cost do not count."""
    return max(1, math.ceil(SAMPLE / max(seconds, 1e-7)))


def time_calls(run: Run, give_up_above: float = math.inf, budget: float = BUDGET) -> Timing:
    """The time of one call: best and median of samples of about 0.2 ms over `budget` seconds.

    A call that takes longer than `give_up_above` seconds after its warm-up is not timed further.
    """
    first = warm_up(run)
    if first > give_up_above:
        return Timing(first, first)
    count = calls_per_sample(first)
    samples, spent = [], 0.0
    while spent < budget or (len(samples) < 3 and spent < SLOW):
        elapsed = run(count)
        spent += elapsed
        samples.append(elapsed / count)
    return Timing(min(samples), median(samples))


def time_in_turns(runs: list[Run], rounds: int, on_round: Callable[[], None]) -> list[list[float]]:
    """Seconds of one call for each run in each round, every round timing all of them in turn.

    What disturbs the machine for longer than a round disturbs all of them. `on_round` is called
    before each round. After `RACE_BUDGET` seconds three rounds are enough.
    """
    laps: list[list[float]] = [[] for _ in runs]
    end = time.monotonic() + RACE_BUDGET
    for number in range(rounds):
        if number >= 3 and time.monotonic() > end:
            break
        on_round()
        for run, times in zip(runs, laps, strict=True):
            times.append(time_calls(run, budget=LAP).best)
    return laps
