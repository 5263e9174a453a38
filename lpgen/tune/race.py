"""The final race: the leaders of a search timed in turns, since single timings waver."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from lpgen import templates
from lpgen.errors import TuneError
from lpgen.records import Record, RunnerUp
from lpgen.tune.events import Foreseen
from lpgen.tune.messages import Candidate, Laps, Race
from lpgen.tune.pool import Pool
from lpgen.tune.search import Search
from lpgen.tune.timing import compare_laps

LEADERS = 5
MARGIN = 1.25
"""Candidates up to this factor behind the third fastest are leaders."""
CLOSE = 1.5
"""The best of the second template races up to this factor behind the third fastest."""

Times = Mapping[tuple[str, str], float | None]
"""Candidate.key -> seconds of one call (None: failed)."""


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


def standings(candidates: Sequence[Candidate], laps: Laps) -> list[Standing]:
    """The result of a race, winner first."""
    timings = compare_laps(laps.seconds)
    results = [Standing(*timing, c) for timing, c in zip(timings, candidates, strict=True)]
    return sorted(results, key=lambda standing: standing.seconds)


def race_records(
    records: Mapping[Any, Sequence[Record]],
    target: Any,
    *,
    seed: int = 0,
    timeout: float = 10.0,
    threads: int = 1,
) -> dict[Any, list[float]]:
    """Seconds of what records of each operator name, timed in turns and in their order.

    For records of different searches, whose times were taken at different moments. Raises TuneError
    when one of them does not work.
    """
    results = {}
    with Pool(1, timeout, threads) as pool:
        for op, several in records.items():
            racing = tuple(Candidate(templates.get(r.template), r.knobs) for r in several)
            pool.submit(Race(op, target, racing, seed, threads))
            _, laps = pool.answer()
            if laps.failed is not None:
                raise TuneError(f"{op.name}: racing {', '.join(map(str, racing))}: {laps.failed}")
            results[op] = [timing.seconds for timing in compare_laps(laps.seconds)]
    return results


def next_best(
    order: list[Standing], times: Mapping[tuple[str, str], float | None]
) -> RunnerUp | None:
    """The fastest of the other templates' candidates. Of a template that raced the race counts; of
    another one, by what it was slower than the winner in the search."""
    winner = order[0]
    scale = winner.seconds / times[winner.candidate.key]
    found: dict[str, float] = {}
    for standing in reversed(order):
        found[standing.candidate.template.name] = standing.seconds
    raced = set(found)
    for (template, _), seconds in times.items():
        if seconds is not None and template not in raced:
            found[template] = min(seconds * scale, found.get(template, seconds * scale))
    del found[winner.candidate.template.name]
    return min((RunnerUp(*item) for item in found.items()), key=lambda r: r.seconds, default=None)


def foreseen(modelled: set[tuple[str, str]], times: Times) -> Foreseen | None:
    """What the candidates of the static model gave, of all that were timed in this order."""
    timed = [(s, n, key in modelled) for n, (key, s) in enumerate(times.items(), 1) if s]
    ours = [(seconds, trial) for seconds, trial, named in timed if named]
    if not ours:
        return None
    best, trial = min(ours)
    caught = (n for seconds, n, named in timed if seconds <= best and not named)
    behind = best / min(seconds for seconds, *_ in timed) - 1
    return Foreseen(len(ours), behind, trial, next(caught, None))
