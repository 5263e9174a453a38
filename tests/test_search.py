"""Which candidate is measured next."""

from collections import Counter

import numpy as np
import pytest
from fake_templates import Moody, Tiles
from searching import BIG, OP, TARGET, Big, run, search, seconds_of

from lpgen import cost
from lpgen.tune.cost_model import CostModel
from lpgen.tune.guesses import Guesses
from lpgen.tune.messages import Candidate


def test_defaults_come_first_then_what_was_tuned_before():
    tuned = Candidate(Tiles(), {"tile": 8, "order": "mn", "copy": True})
    stale = Candidate(Tiles(), {"tile": 5, "order": "mn", "copy": True})
    searching = search((Tiles(), Moody()), first=[stale, tuned])
    first = [searching.propose() for _ in range(3)]
    assert first[:2] == searching.defaults
    assert first[2] == tuned


def test_what_is_named_comes_first_then_guesses_then_the_defaults():
    guess = Candidate(Moody(), next(Moody().space(OP, TARGET).enumerate()))
    stale = Candidate(Tiles(), {"tile": 5, "order": "mn", "copy": True})
    knobs = list(Tiles().space(OP, TARGET))[-2:]
    ranked = [cost.Candidate(Tiles(), point, 1.0 - place) for place, point in enumerate(knobs)]
    searching = search((Tiles(), Moody()), named=[stale, guess], guesses=Guesses(ranked, 1))
    proposed = [searching.propose() for _ in range(3)]
    assert proposed[:2] == [guess, Candidate(Tiles(), knobs[1])]
    assert proposed[2] in searching.defaults


def test_nothing_is_proposed_twice_and_all_is_in_the_space():
    searching = search()
    done = run(searching, 100)
    assert len({candidate.key for candidate in done}) == 100
    assert all(candidate.knobs in Big().space(OP, TARGET) for candidate in done)


def test_the_same_seed_gives_the_same_search():
    found = [run(search(seed=seed), 24) for seed in (5, 5, 6)]
    assert found[0] == found[1] != found[2]


def test_what_is_told_from_a_log_is_not_proposed():
    known = [Candidate(Tiles(), knobs) for knobs in Tiles().space(OP, TARGET)][:-3]
    searching = search((Tiles(),))
    for candidate in known:
        searching.tell(candidate, 1e-4)
    rest = run(searching, 100, measure=lambda knobs: 1e-4)
    assert len(rest) == 3
    assert not {c.key for c in rest} & {c.key for c in known}


@pytest.mark.parametrize("strategy", ["model", "random", "exhaustive"])
def test_a_small_space_is_exhausted(strategy):
    searching = search((Tiles(), Moody()), strategy=strategy, trials=10_000)
    done = run(searching, 10_000, measure=lambda knobs: 1e-4)
    assert len(done) == sum(len(t.space(OP, TARGET)) for t in (Tiles(), Moody()))
    assert searching.propose() is None


def test_exhaustive_goes_through_in_order():
    searching = search((Tiles(),), strategy="exhaustive")
    done = [candidate.knobs for candidate in run(searching, 100, measure=lambda knobs: 1e-4)]
    assert done == list(Tiles().space(OP, TARGET))


def test_the_model_beats_random_search():
    def reached(strategy):
        found = []
        for seed in range(5):
            searching = search(seed=seed, strategy=strategy, model=CostModel(seed))
            run(searching, 48)
            found.append(searching.fastest)
        return np.mean(found)

    by_model = reached("model")
    assert by_model < 1.1e-4
    assert by_model < 0.95 * reached("random")


def test_failures_are_no_obstacle():
    def half_fails(knobs):
        return None if knobs["copy"] else seconds_of(knobs)

    searching = search()
    run(searching, 64, measure=half_fails)
    assert searching.fastest < 1.2e-4
    assert all(not candidate.knobs["copy"] for _, candidate in searching.measured)
    nothing = search()
    assert len(run(nothing, 40, measure=lambda knobs: None)) == 40
    assert nothing.fastest is None
    assert nothing.reference is None


def trials_of(factors, trials=64, **options) -> Counter[str]:
    """How many trials templates get that are so many times slower than `seconds_of`."""
    competing = {Big("fake", f"t{i}"): factor for i, factor in enumerate(factors)}
    searching = search(competing, **options)
    counts: Counter[str] = Counter()
    for _ in range(trials):
        candidate = searching.propose()
        counts[candidate.template.algorithm] += 1
        searching.tell(candidate, competing[candidate.template] * seconds_of(candidate.knobs))
    return counts


def test_hopeless_templates_get_their_default_and_a_trial_or_two():
    counts = trials_of([50, 1, 20, 8, 30, 50])
    assert all(counts[f"t{i}"] <= 3 for i in (0, 2, 3, 4, 5))
    assert counts["t1"] >= 52


def test_a_close_template_gets_a_good_part_of_the_trials():
    counts = [trials_of([1.02, 1, 2, 50], seed=seed) for seed in range(3)]
    assert np.median([min(found["t0"], found["t1"]) for found in counts]) >= 20
    assert np.median([found["t2"] for found in counts]) <= 10


def test_equal_shares():
    counts = trials_of([1, 2, 50, 3], trials=24, strategy="equal").values()
    assert max(counts) - min(counts) <= 2


def test_six_hopeless_templates_more_do_not_slow_the_search_down():
    def reached(rivals, strategy):
        found = []
        for seed in range(2):
            factors = {Big("fake", f"t{i}"): 1 if i == 0 else 6 for i in range(rivals + 1)}
            options = {"strategy": strategy, "model": CostModel(seed), "seed": seed}
            searching = search(factors, trials=48, **options)
            for _ in range(48):
                candidate = searching.propose()
                seconds = factors[candidate.template] * seconds_of(candidate.knobs)
                searching.tell(candidate, seconds)
            found.append(searching.fastest)
        return np.mean(found)

    among_rivals = reached(6, "model")
    assert among_rivals < 1.1 * reached(0, "model")
    assert among_rivals < 0.9 * reached(6, "equal")


def test_the_search_ends_where_only_hopeless_candidates_are_left():
    small, slow = Tiles(), Big("fake", "slow")
    searching = search((small, slow), trials=10_000)
    while (candidate := searching.propose()) is not None:
        seconds = 5e-3 if candidate.template is slow else 1e-4
        searching.tell(candidate, seconds)
    templates = Counter(name for name, _ in searching.times)
    assert templates == {"fake/tiles": len(Tiles().space(OP, TARGET)), "fake/slow": 1}


def test_a_template_that_never_works_is_given_up():
    moody, fast = Moody(), Big("fake", "fast")
    searching = search((moody, fast))
    for _ in range(64):
        candidate = searching.propose()
        seconds = seconds_of(candidate.knobs) if candidate.template is fast else None
        searching.tell(candidate, seconds)
    assert Counter(name for name, _ in searching.times)["fake/moody"] <= 4


def test_the_reference_is_the_fastest_default_or_what_works():
    searching = search((Moody(), Tiles(), BIG))
    first, tiles, big = (searching.propose() for _ in range(3))
    searching.tell(first, None)
    assert searching.reference is None
    searching.tell(Candidate(Moody(), {"mood": "hang"}), 1e-5)
    assert searching.reference[1] == 1e-5
    searching.tell(tiles, 2e-4)
    assert searching.reference == (Candidate(Tiles(), Tiles().default(OP, TARGET)), 2e-4)
    searching.tell(big, 1e-4)
    assert searching.reference == (big, 1e-4)
