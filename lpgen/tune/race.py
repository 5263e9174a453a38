"""The final race: the leaders of a search timed in turns, since single timings waver."""

from statistics import median
from typing import NamedTuple

from lpgen.tune.messages import Candidate, Laps
from lpgen.tune.search import Search

LEADERS = 5
MARGIN = 1.25
"""Candidates up to this factor behind the fastest are leaders."""


class Standing(NamedTuple):
    """How a candidate did in the race: seconds of one call (median of its rounds)."""

    seconds: float
    spread: float
    candidate: Candidate


def leaders(search: Search) -> list[Candidate]:
    """Who races: the fastest few, and the fastest default, which shows what tuning gained."""
    measured = search.measured
    chosen = [c for s, c in measured[:LEADERS] if s <= MARGIN * measured[0][0]]
    defaults = {candidate.key for candidate in search.defaults}
    reference = next((c for _, c in measured if c.key in defaults), None)
    if reference is not None and reference not in chosen:
        chosen.append(reference)
    return chosen


def standings(candidates: list[Candidate], laps: Laps) -> list[Standing]:
    """The result of a race, winner first.

    A round's time is the best of some samples, which leaves out short disturbances; the median of
    the rounds leaves out the longer ones and lucky moments of the clock.
    """
    results = []
    for candidate, seconds in zip(candidates, laps.seconds, strict=True):
        middle = median(seconds)
        results.append(Standing(middle, middle / min(seconds) - 1, candidate))
    return sorted(results, key=lambda standing: standing.seconds)
