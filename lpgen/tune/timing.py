"""How long a call takes, on a machine that is not quiet.

Another machine's load on the same physical core slows everything down for milliseconds or for
minutes, by a third and more: in absolute times a good candidate then loses to a bad one that had
luck. What two kernels take in turns wavers little relative to each other, so that candidates are
timed beside a reference, and leaders beside each other.
"""

import math
import time
from collections.abc import Callable, Sequence
from statistics import geometric_mean, median, quantiles
from typing import NamedTuple

# The core changes its clock with the kind of vector instructions and is slow around the change
# for half a millisecond: run until that is over.
WARM_UP = 2e-3
SAMPLE = 2e-4
TURN = 1e-3
BUDGET = 30e-3
LAP = 4e-3
RACE_BUDGET = 5.0
ATTEMPTS = 3
DISTURBED = 1.2
"""A reference that takes this many times longer than it should is disturbed."""
SLOW = 0.2
"""Seconds of timing after which one sample is enough."""

Run = Callable[[int], float]
"""Seconds that some number of calls take together."""


class Timing(NamedTuple):
    """Seconds of one call, and how much its samples wavered: (median - best) / best."""

    seconds: float
    spread: float


def warm_up(run: Run, seconds: float = WARM_UP) -> float:
    """Run for some time; the best seconds of one call seen."""
    best, spent, count = math.inf, 0.0, 1
    while spent < seconds:
        elapsed = run(count)
        spent += elapsed
        best = min(best, elapsed / count)
        count = calls_in(SAMPLE, best)
    return best


def calls_in(span: float, seconds: float) -> int:
    """How many calls of `seconds` each last at least `span` seconds together."""
    return max(1, math.ceil(span / max(seconds, 1e-7)))


def time_calls(run: Run, budget: float = BUDGET, warm: float = WARM_UP) -> Timing:
    """The best of samples of about 0.2 ms over `budget` seconds, after `warm` seconds of calls."""
    count = calls_in(SAMPLE, warm_up(run, warm))
    samples = [elapsed / count for elapsed in _until(budget, lambda: run(count))]
    return Timing(min(samples), median(samples) / min(samples) - 1)


def time_beside(
    run: Run, reference: Run, reference_seconds: float, give_up_above: float = math.inf
) -> Timing:
    """The time of one call relative to a reference that takes `reference_seconds` when undisturbed.

    Both run in turns of about 1 ms; the median of the ratios counts. What slows the reference down
    much may slow this kernel down less (it waits for another part of the core), so that such a
    measurement is repeated twice and the least disturbed one counts. A call that takes longer than
    `give_up_above` seconds after its warm-up is not timed further.
    """
    first = warm_up(run)
    for _ in range(ATTEMPTS - 1):
        if first > give_up_above:  # another one's load may fill all of a warm-up
            first = min(first, warm_up(run))
    if first > give_up_above:
        return Timing(first, 0.0)
    mine = _Turns(run, calls_in(TURN, first))
    its = _Turns(reference, calls_in(TURN, reference_seconds))
    least, result = math.inf, Timing(first, 0.0)
    for _ in range(ATTEMPTS):
        ratios, disturbance = _ratios(mine, its, reference_seconds)
        if disturbance < least:
            least, middle = disturbance, median(ratios)
            result = Timing(middle * reference_seconds, middle / min(ratios) - 1)
        if least < DISTURBED:
            break
    return result


class _Turns(NamedTuple):
    """A run and how many calls of it make a turn."""

    run: Run
    count: int

    def seconds(self) -> float:
        """Of one call, with its operands brought back into the caches before."""
        self.run(1)
        return self.run(self.count) / self.count


def _ratios(mine: _Turns, its: _Turns, reference_seconds: float) -> tuple[list[float], float]:
    """The ratios of pairs of turns, and how many times too slow the reference was (median)."""
    pairs: list[tuple[float, float]] = []

    def pair() -> float:
        pairs.append((mine.seconds(), its.seconds()))
        return pairs[-1][0] * mine.count + pairs[-1][1] * its.count

    _until(BUDGET, pair)
    disturbance = median(reference for _, reference in pairs) / reference_seconds
    return [seconds / reference for seconds, reference in pairs], disturbance


def _until(budget: float, sample: Callable[[], float]) -> list[float]:
    """Seconds of samples that add up to `budget`; at least three unless they are slow."""
    samples: list[float] = []
    while sum(samples) < budget or (len(samples) < 3 and sum(samples) < SLOW):
        samples.append(sample())
    return samples


def time_in_turns(
    runs: list[Run],
    rounds: int,
    on_round: Callable[[], None],
    *,
    before: Callable[[int], None] | None = None,
    lap: float = LAP,
    warm: float = WARM_UP,
) -> list[list[float]]:
    """Seconds of one call for each run in each round, every round timing all of them in turn.

    `on_round` is called before each round, `before` with the place of each run before its turn, in
    which it runs for `warm` seconds and is timed for `lap`. After `RACE_BUDGET` seconds three
    rounds are enough.
    """
    laps: list[list[float]] = [[] for _ in runs]
    end = time.monotonic() + RACE_BUDGET
    for number in range(rounds):
        if number >= 3 and time.monotonic() > end:
            break
        on_round()
        for place, (run, times) in enumerate(zip(runs, laps, strict=True)):
            if before is not None:
                before(place)
            times.append(time_calls(run, lap, warm).seconds)
    return laps


def compare_laps(laps: Sequence[Sequence[float]]) -> list[Timing]:
    """The time of each racer from its seconds in each round.

    In a round all met the same machine: a racer's time is the median of its ratios to the round's
    mean, times that mean in a quiet round (the lower quartile).
    """
    means = [geometric_mean(times) for times in zip(*laps, strict=True)]
    quiet = quantiles(means, n=4)[0] if len(means) > 1 else means[0]
    results = []
    for times in laps:
        ratios = [seconds / mean for seconds, mean in zip(times, means, strict=True)]
        middle = median(ratios)
        results.append(Timing(middle * quiet, middle / min(ratios) - 1))
    return results
