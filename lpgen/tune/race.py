"""The final race: the leaders of a search timed in turns, since single timings waver."""

from typing import NamedTuple

from lpgen.tune.messages import Candidate, Laps
from lpgen.tune.search import Search
from lpgen.tune.timing import compare_laps

LEADERS = 5
MARGIN = 1.25
"""Candidates up to this factor behind the third fastest are leaders."""
CLOSE = 1.5
"""The best of the second template races up to this factor behind the third fastest."""


class Standing(NamedTuple):
    """How a candidate did in the race: seconds of one call and how much they wavered."""

    seconds: float
    spread: float
    candidate: Candidate


def leaders(search: Search) -> list[Candidate]:
    """Who races: the fastest few, the best of the second template if it is close, and the fastest
    default, which shows what tuning gained."""
    measured = search.measured
    # Not relative to the first: its time may be luck.
    third = measured[: LEADERS // 2 + 1][-1][0]
    chosen = [c for s, c in measured[:LEADERS] if s <= MARGIN * third]
    others = (c for s, c in measured if c.template != chosen[0].template and s <= CLOSE * third)
    second = next(others, None)
    if second is not None and second not in chosen:
        chosen.append(second)
    defaults = {candidate.key for candidate in search.defaults}
    reference = next((c for _, c in measured if c.key in defaults), None)
    if reference is not None and reference not in chosen:
        chosen.append(reference)
    return chosen


def standings(candidates: list[Candidate], laps: Laps) -> list[Standing]:
    """The result of a race, winner first."""
    timings = compare_laps(laps.seconds)
    results = [Standing(*timing, c) for timing, c in zip(timings, candidates, strict=True)]
    return sorted(results, key=lambda standing: standing.seconds)
