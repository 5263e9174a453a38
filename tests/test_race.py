"""The end of a search: who races, who wins, and how near a search comes to the best."""

import json

import pytest
from fake_templates import Moody, Tiles
from searching import OP, OTHER, TARGET, Big, run, search, seconds_of

from lpgen.errors import RecordError
from lpgen.records import Log, Record
from lpgen.tune.compare import compare_search
from lpgen.tune.messages import Candidate, Laps
from lpgen.tune.race import LEADERS, leaders, standings


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
