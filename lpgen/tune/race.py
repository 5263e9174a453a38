"""The final race: the leaders of a search timed in turns, since single timings waver."""

from typing import NamedTuple

from lpgen.tune.messages import Candidate, Laps
from lpgen.tune.search import Search
from lpgen.tune.timing import compare_laps

LEADERS = 5
MARGIN = 1.25
"""Candidates up to this factor behind the third fastest are leaders."""


class Standing(NamedTuple):
    """How a candidate did in the race: seconds of one call and how much they wavered."""

    seconds: float
    spread: float
    candidate: Candidate


def leaders(search: Search) -> list[Candidate]:
    """Who races: the fastest few, and the fastest default, which shows what tuning gained."""
    measured = search.measured
    # Not relative to the first: its time may be luck.
    limit = MARGIN * measured[: LEADERS // 2 + 1][-1][0]
    chosen = [c for s, c in measured[:LEADERS] if s <= limit]
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
