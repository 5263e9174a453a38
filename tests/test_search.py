import json
from collections import Counter

import numpy as np
import pytest
from fake_templates import Moody, Tiles

from lpgen import cost
from lpgen.errors import RecordError
from lpgen.ops import parse
from lpgen.records import Log, Record
from lpgen.space import Space
from lpgen.target import Target
from lpgen.tune.compare import compare_search
from lpgen.tune.cost_model import CostModel, relative_costs
from lpgen.tune.guesses import Guesses
from lpgen.tune.messages import Candidate, Laps
from lpgen.tune.race import LEADERS, leaders, standings
from lpgen.tune.search import Search

OP = parse("dense m=16 n=32 k=64 act=u8 weight=s8")
OTHER = parse("dense m=64 n=32 k=128 act=u8 weight=s8")
TARGET = Target.parse("avx2")


class Big(Tiles):
    """1440 points with one best, a ridge around it, and a knob that matters not at all."""

    def space(self, op, target):
        knobs = {
            "rows": (1, 2, 3, 4, 6, 8, 12, 16, 24, 28),
            "vectors": (1, 2, 3, 4, 6, 8),
            "unroll": (1, 2, 4, 8),
            "order": ("mn", "nm", "km"),
            "copy": (False, True),
        }
        return Space(knobs, lambda p: p["rows"] * p["vectors"] <= 28)

    def default(self, op, target):
        return {"rows": 1, "vectors": 1, "unroll": 1, "order": "mn", "copy": False}


BIG = Big()


def seconds_of(knobs) -> float:
    """1e-4 s at rows=6 vectors=4 unroll=2 order=nm."""
    slow = 1 + abs(np.log2(knobs["rows"] * knobs["vectors"] / 24)) + abs(knobs["rows"] - 6) / 20
    slow += 0.2 * abs(np.log2(knobs["unroll"] / 2)) + 0.5 * (knobs["order"] != "nm")
    return 1e-4 * slow


def search(templates=(BIG,), trials=64, seed=0, **options) -> Search:
    rng = np.random.default_rng(seed)
    return Search(OP, TARGET, templates, trials=trials, rng=rng, **options)


def run(searching: Search, trials: int, measure=seconds_of) -> list[Candidate]:
    done = []
    while len(done) < trials and (candidate := searching.propose()) is not None:
        searching.tell(candidate, measure(candidate.knobs))
        done.append(candidate)
    return done


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


def test_costs_are_relative_and_bounded():
    costs = relative_costs([1e-3, 2e-3, None, 1.0])
    assert costs == pytest.approx([0, 0.5, 1, 0.999])
    assert relative_costs([None]) == [1]


def test_the_model_ranks_and_transfers_to_another_operator():
    model, space, rng = CostModel(0), Big().space(OP, TARGET), np.random.default_rng(0)
    for _ in range(150):
        knobs = space.sample(rng)
        model.add(OP, space, Candidate(Big(), knobs), seconds_of(knobs))
    assert model.rows_of_others(OTHER) == 150
    points = [space.sample(rng) for _ in range(200)]
    truth = np.log([seconds_of(point) for point in points])
    for op in (OP, OTHER):
        model.fit(op)
        predicted = model.predict(op, space, Big().name, points)
        assert np.corrcoef(predicted, truth)[0, 1] > 0.9


def test_the_model_learns_templates_one_after_another():
    model, big, tiles = CostModel(0), Big("fake", "big"), Tiles()
    space, small = big.space(OP, TARGET), tiles.space(OP, TARGET)
    model.add(OP, space, Candidate(big, big.default(OP, TARGET)), 1e-4)
    model.fit(OP)
    assert model.predict(OP, small, tiles.name, list(small)).shape == (len(small),)
    assert model.predict(OP, small, tiles.name, []).shape == (0,)
    model.add(OP, small, Candidate(tiles, tiles.default(OP, TARGET)), None)
    model.fit(OP)
    costs = [
        model.predict(OP, s, t.name, [t.default(OP, TARGET)])
        for s, t in ((space, big), (small, tiles))
    ]
    assert np.all(np.isfinite(costs))


def test_the_model_transfers_to_another_template_with_the_same_knobs():
    model, known, new = CostModel(0), Big("fake", "known"), Big("fake", "new")
    space, rng = Big().space(OP, TARGET), np.random.default_rng(0)
    for _ in range(150):
        knobs = space.sample(rng)
        model.add(OP, space, Candidate(known, knobs), seconds_of(knobs))
    knobs = new.default(OP, TARGET)
    model.add(OP, space, Candidate(new, knobs), 1.5 * seconds_of(knobs))
    model.fit(OP)
    points = [space.sample(rng) for _ in range(200)]
    truth = np.log([seconds_of(point) for point in points])
    predicted = model.predict(OP, space, new.name, points)
    assert np.corrcoef(predicted, truth)[0, 1] > 0.8


def test_leaders_are_the_near_best_and_the_default():
    searching = search()
    run(searching, 64)
    racing = leaders(searching)
    fastest = searching.measured[0]
    assert racing[0] == fastest[1]
    assert len(racing) <= LEADERS + 1
    assert racing[-1] == searching.defaults[0]
    times = dict((c.key, s) for s, c in searching.measured)
    assert all(times[c.key] <= 1.25 * searching.measured[2][0] for c in racing[:-1])


def test_the_best_of_the_second_template_races_if_it_is_close():
    def racing(factor):
        first, other = Big("fake", "first"), Big("fake", "other")
        searching = search((first, other))
        for knobs in first.space(OP, TARGET):
            searching.tell(Candidate(first, knobs), seconds_of(knobs))
            searching.tell(Candidate(other, knobs), factor * seconds_of(knobs))
        # Defaults race anyway.
        rivals = [c for c in leaders(searching) if c.template == other]
        return [c.knobs for c in rivals if c not in searching.defaults]

    best = min(Big().space(OP, TARGET), key=seconds_of)
    assert racing(1.4) == [best]
    assert racing(3) == []


def test_a_lucky_time_does_not_keep_others_from_the_race():
    searching = search()
    done = run(searching, 64)
    searching.tell(done[5], 1e-9)
    racing = leaders(searching)
    assert racing[0] == done[5]
    assert len(racing) >= LEADERS


def test_the_race_of_a_single_candidate():
    searching = search((Moody(moods=("good",)),))
    run(searching, 1, measure=lambda knobs: 1e-3)
    assert leaders(searching) == searching.defaults


def test_the_race_decides():
    racing = [Candidate(Tiles(), {"tile": tile}) for tile in (1, 2, 4)]
    laps = Laps(((3e-3, 3.2e-3), (1e-3, 1.1e-3), (2e-3, 2.3e-3)))
    order = standings(racing, laps)
    assert [standing.candidate.knobs["tile"] for standing in order] == [2, 4, 1]
    assert order[0].seconds < order[1].seconds < order[2].seconds


@pytest.fixture
def exhaustive_log(tmp_path):
    """Every point of Tiles with a time, those of odd tiles failed."""
    path = tmp_path / "log.jsonl"
    with path.open("w") as file:
        for i, knobs in enumerate(Tiles().space(OP, TARGET)):
            seconds = None if knobs["tile"] == 1 else 1e-4 * (1 + i / 10)
            failed = None if seconds else "crashed"
            record = Record(OP.name, "avx2", "fake/tiles", knobs, seconds, failed=failed)
            file.write(record.to_line() + "\n")
    return Log(path)


def test_searches_are_compared_by_replaying(exhaustive_log):
    results = compare_search(OP, TARGET, exhaustive_log, trials=(4, 24), seeds=3, among=[Tiles()])
    assert [(r.strategy, r.trials) for r in results] == [
        ("model", 4),
        ("model", 24),
        ("random", 4),
        ("random", 24),
    ]
    assert all(0 <= r.worst <= r.median <= 1 for r in results)
    assert all(r.worst == 1 for r in results if r.trials == 24)


def test_an_incomplete_log_is_not_compared(exhaustive_log):
    lines = exhaustive_log.path.read_text().splitlines()
    exhaustive_log.path.write_text("\n".join(lines[:-2]))
    with pytest.raises(RecordError, match="holds 22 of the 24 points of fake/tiles"):
        compare_search(OP, TARGET, exhaustive_log, among=[Tiles()])
    with pytest.raises(RecordError, match="holds no candidate that works"):
        compare_search(OTHER, TARGET, exhaustive_log)


def test_searches_are_compared_on_a_sample(exhaustive_log):
    lines = exhaustive_log.path.read_text().splitlines()
    exhaustive_log.path.write_text("\n".join(lines[::2]))
    (result, _) = compare_search(
        OP, TARGET, exhaustive_log, trials=(12,), seeds=2, among=[Tiles()], whole=False
    )
    assert result.worst == 1


def test_records_of_another_cpu_are_not_compared(exhaustive_log):
    lines = [json.loads(line) for line in exhaustive_log.path.read_text().splitlines()]
    text = "".join(json.dumps(line | {"cpu": "another"}) + "\n" for line in lines)
    exhaustive_log.path.write_text(text)
    with pytest.raises(RecordError, match="holds 0 of the 24 points"):
        compare_search(OP, TARGET, exhaustive_log, among=[Tiles()])
