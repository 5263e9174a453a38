"""Guesses of the cost model, corrected by what was measured."""

import math

import numpy as np
import pytest

from lpgen import cost, parse
from lpgen.cost.model import ELSE, Model
from lpgen.target import Target
from lpgen.templates import templates_for
from lpgen.tune.fit_cost.prices import PRIOR
from lpgen.tune.guesses import Guesses
from lpgen.tune.messages import Candidate

OP = parse("dense m=128 n=768 k=768 act=u8 weight=s8")
TARGET = Target.parse("avx2")


@pytest.fixture(scope="module")
def ranked() -> list[cost.Candidate]:
    """By prices alone, whatever the model that comes with lpgen has learned."""
    counted = [t for t in templates_for(OP, TARGET) if t.counted]
    return cost.candidates(OP, TARGET, counted, Model({ELSE: PRIOR}))


def seconds_of(candidate: cost.Candidate, factor: float = 1) -> float:
    return factor * 1e-9 * math.exp(candidate.cost)


def test_the_cheapest_comes_first_and_none_twice(ranked):
    guesses = Guesses(ranked, 12)
    first = guesses.propose()
    assert first == Candidate(ranked[0].template, ranked[0].knobs)
    proposed = [first.key]
    while (candidate := guesses.propose()) is not None:
        proposed.append(candidate.key)
    assert len(proposed) == len(set(proposed)) == 12


def test_of_a_tile_not_all_the_blocks_come_first(ranked):
    """Also where nothing is measured yet: workers build several at once."""
    guesses = Guesses(ranked, 8)
    chosen = [guesses.propose() for _ in range(8)]
    assert chosen[0] == Candidate(ranked[0].template, ranked[0].knobs)
    assert len({(c.knobs["rows"], c.knobs["vectors"], c.knobs["left"]) for c in chosen}) > 1
    assert len({c.key for c in chosen}) == 8


def test_what_is_like_a_disappointment_is_not_tried(ranked):
    """Of two values of a knob one is twice as slow as the model expects: it is left soon."""
    costs = {c.key: p for p in ranked for c in [Candidate(p.template, p.knobs)]}
    slow = ranked[0].knobs["rows"]
    guesses, tried = Guesses(ranked, 12), []
    while (candidate := guesses.propose()) is not None:
        tried.append(candidate.knobs["rows"])
        factor = 2 if candidate.knobs.get("rows") == slow else 1
        guesses.tell(candidate, seconds_of(costs[candidate.key], factor))
    assert tried[0] == slow
    assert tried[6:].count(slow) <= 2


def test_failures_teach_nothing_and_are_not_repeated(ranked):
    guesses, keys = Guesses(ranked[:5], 12), set()
    for _ in range(5):
        candidate = guesses.propose()
        keys.add(candidate.key)
        guesses.tell(candidate, None)
    assert len(keys) == 5
    assert guesses.propose() is None


def test_points_that_differ_in_nothing_are_no_obstacle(ranked):
    (first, *_), rng = ranked, np.random.default_rng(0)
    alone = Guesses([first], 3)
    assert alone.propose().knobs == first.knobs
    alone.tell(Candidate(first.template, first.knobs), float(rng.random()))
    assert alone.propose() is None
