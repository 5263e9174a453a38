"""The static model beside what was measured: how well it ranks, and how well it chooses."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from scipy.stats import spearmanr

from lpgen import templates
from lpgen.records import Log
from lpgen.tune.compare import measured_table
from lpgen.tune.messages import Candidate, Measure
from lpgen.tune.offline import model
from lpgen.tune.pool import Pool


class Judged(NamedTuple):
    """The static model beside what was measured, of the candidates of one template.

    spearman: the rank correlation of cycles with seconds; repeat: that of the seconds with those of
    a second measurement, what noise leaves of an order; ordered: of the pairs whose seconds are far
    enough apart to be no noise, the part that is in that order by cycles, ties by half (None: there
    are none); regret: how much longer the best of the five with fewest cycles takes than the best
    of all (0: it is among them).
    """

    template: str
    candidates: int
    spearman: float
    repeat: float
    ordered: float | None
    regret: float


TOP = 5
APART = 1.05
"""By how many times the seconds of a pair differ that are far enough apart."""
TIMEOUT = 60.0
"""Seconds to build a candidate, and to time it, that was measured before."""
FEWEST = 8
"""Candidates of a template below which a rank correlation says nothing."""


def judge(op: Any, target: Any, log: Log, most: int) -> list[Judged]:
    """The model beside the candidates of each template that the log holds for this CPU, of which
    at most `most` are looked at, evenly from the fastest to the slowest. They are measured once
    more; the geometric mean of both times counts."""
    timed: dict[str, list[tuple[float, Candidate]]] = {}
    for (name, knobs), seconds in measured_table(op, target, log).items():
        template = templates.get(name)
        if seconds is not None and template.counted:
            timed.setdefault(name, []).append((seconds, Candidate(template, json.loads(knobs))))
    found = []
    for name, entries in timed.items():
        entries = sorted(entries, key=lambda entry: entry[0])
        step = max(1.0, len(entries) / most)
        some = [entries[int(i * step)] for i in range(min(most, len(entries)))]
        if len(some) < FEWEST:
            continue
        known = [
            (seconds, second, m.cycles)
            for (seconds, _), second, m in zip(
                some, again(op, target, some), model(op, target, (c for _, c in some)), strict=True
            )
            if m.cycles and second
        ]
        if len(known) >= FEWEST:
            first, second, cycles = zip(*known, strict=True)
            both = [math.sqrt(a * b) for a, b in zip(first, second, strict=True)]
            repeat = float(spearmanr(first, second).statistic)
            spearman, *rest = _beside([*zip(both, cycles, strict=True)])
            found.append(Judged(name, len(known), spearman, repeat, *rest))
    return found


def again(op: Any, target: Any, known: Sequence[tuple[float, Candidate]]) -> list[float | None]:
    """Seconds of candidates whose seconds are known, measured once more as a search does: each
    beside the fastest. None: it failed."""
    reference = min(known, key=lambda entry: entry[0])
    found = []
    with Pool(1, TIMEOUT) as pool:
        for _, candidate in known:
            beside = reference[1], reference[0]
            pool.submit(Measure(op, target, candidate, 0, reference[0], beside, 1))
            found.append(pool.answer()[1].seconds)
    return found


def _beside(pairs: Sequence[tuple[float, float]]) -> tuple[float, float | None, float]:
    """(Spearman, ordered, regret) of (seconds, cycles)."""
    seconds, cycles = zip(*pairs, strict=True)
    apart = [
        (fast[1], slow[1])
        for fast, slow in itertools.combinations(sorted(pairs), 2)
        if slow[0] > APART * fast[0]
    ]
    rightly = sum(1.0 if fewer < more else 0.5 * (fewer == more) for fewer, more in apart)
    top = sorted(pairs, key=lambda pair: pair[1])[:TOP]
    return (
        float(spearmanr(seconds, cycles).statistic),
        rightly / len(apart) if apart else None,
        min(top)[0] / min(seconds) - 1,
    )
