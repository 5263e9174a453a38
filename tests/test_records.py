import json
import multiprocessing
import os
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lpgen import records, target, templates
from lpgen.errors import RecordError
from lpgen.ops import parse
from lpgen.records import Log, Record, RecordWarning, RunnerUp, best, why_not
from lpgen.records.record import MAX_LINE
from lpgen.space import Space

OP = parse("dense m=4 n=16 k=32 act=u8 weight=s8")
TARGET = target.Target.parse("avx2")


class FakeTemplate:
    """mr in 1, 2, 4; serves dense only."""

    def why_not(self, op, target):
        return None if op.kind == "dense" else "serves dense only"

    def space(self, op, target):
        return Space({"mr": (1, 2, 4)})


@pytest.fixture(autouse=True)
def fake_templates(monkeypatch):
    monkeypatch.setattr(templates, "get", lambda name: FakeTemplate())


def record(**changes) -> Record:
    given = {"workload": OP.name, "target": "avx2", "template": "x86/dot", "knobs": {"mr": 2}}
    return Record(**given | {"seconds": 1e-4} | changes)


def test_a_line_is_small_and_reads_back():
    full = record(knobs={"mr": 2, "left": "copy", "unroll": True}, spread=0.1, trials=7, best=True)
    line = full.to_line()
    assert len(line) < 600
    assert "\n" not in line
    assert Record.from_line(line) == full
    failed = record(seconds=None, failed="crashed:\n SIGSEGV" + "x" * 500)
    again = Record.from_line(failed.to_line())
    assert again.failed.startswith("crashed:  SIGSEGVxxx")
    assert len(again.failed) == 120


def test_a_winner_names_the_runner_up():
    won = record(best=True, runner_up=RunnerUp("x86/lut_sum", 1.5e-4))
    assert won.lead == pytest.approx(1.5)
    again = Record.from_line(won.to_line())
    assert again == won
    assert again.runner_up.template == "x86/lut_sum"
    alone = record(best=True)
    assert "runner_up" not in alone.to_line()
    assert alone.lead is None


def test_the_workload_is_made_canonical():
    line = json.loads(record().to_line())
    line["workload"] = "dense weight=s8 act=u8 m=4 n=16 k=32"
    assert Record.from_line(json.dumps(line)).workload == OP.name


def test_names_of_templates_in_earlier_versions_are_read():
    op = parse("conv2d h=9 w=9 ic=64 oc=64 kernel=3 act=u1 weight=b1")
    line = json.loads(record(workload=op.name, target="sapphirerapids").to_line())
    line |= {"template": "avx512bw/bitserial"}
    line |= {"runner_up": {"template": "avx512vnni/group_dot", "seconds": 1.0}}
    found = Record.from_line(json.dumps(line))
    assert (found.template, found.runner_up.template) == ("x86/bitserial", "x86/blockwise_dot")
    assert Record.from_line(found.to_line()) == found


def test_a_record_of_a_level_that_its_target_outdoes_stays_and_fits_no_template(monkeypatch):
    line = json.loads(record().to_line()) | {"template": "sse4/dot"}
    found = Record.from_line(json.dumps(line))
    assert found.template == "sse4/dot"
    monkeypatch.undo()
    assert why_not(found, OP, TARGET) == "template sse4/dot is not known"


def test_fields_of_a_later_version_are_ignored():
    line = json.loads(record().to_line()) | {"energy": 3}
    assert Record.from_line(json.dumps(line)) == record(date=line["date"])


WRONG = [
    ({"seconds": float("nan")}, "not JSON"),
    ({"seconds": float("inf")}, "not JSON"),
    ({"seconds": -1.0}, "seconds=-1.0 is not valid"),
    ({"seconds": 0}, "seconds=0 is not valid"),
    ({"threads": 0}, "threads=0 is not valid"),
    ({"threads": True}, "threads=true is not valid"),
    ({"seconds": True}, "seconds=true is not valid"),
    ({"seconds": "fast"}, 'seconds="fast" is not valid'),
    ({"seconds": 10**400}, "seconds=1000.* is not valid"),
    ({"seconds": None}, "needs one of seconds, failed, cycles"),
    ({"seconds": 1.0, "failed": "no"}, "needs one of seconds, failed, cycles"),
    ({"runner_up": "x86/dot"}, 'runner_up="x86/dot" is not valid'),
    ({"runner_up": {"template": "x86/dot"}}, "runner_up=.* is not valid"),
    ({"runner_up": {"template": "avx2", "seconds": 1.0}}, "runner_up=.* is not valid"),
    ({"runner_up": {"template": "x86/dot", "seconds": 0}}, "runner_up=.* is not valid"),
    ({"spread": -0.5}, "spread=-0.5 is not valid"),
    ({"trials": 0}, "trials=0 is not valid"),
    ({"trials": 1.5}, "trials=1.5 is not valid"),
    ({"best": "yes"}, "best"),
    ({"knobs": [1]}, "knobs"),
    ({"knobs": {"mr": [1]}}, "knobs"),
    ({"knobs": {"mr": 1.5}}, "knobs"),
    ({"knobs": {"a b\x1b[31m": 1}}, "knobs"),
    ({"knobs": {str(i): i for i in range(1000)}}, "knobs"),
    ({"template": "../../etc/passwd"}, "template"),
    ({"template": "dot"}, "template"),
    ({"workload": "dense m=4"}, "dense: missing"),
    ({"workload": "softmax m=4"}, "softmax"),
    ({"workload": 3}, "workload=3 is not valid"),
    ({"target": "z80"}, "target z80 is not known"),
    ({"cpu": "\x1b[2J"}, "cpu"),
    ({"versions": {"tvm": 27}}, "versions"),
]


@pytest.mark.parametrize(("change", "message"), WRONG)
def test_a_wrong_field_is_named(change, message):
    line = json.dumps(json.loads(record().to_line()) | change)
    with pytest.raises(RecordError, match=message) as caught:
        Record.from_line(line)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["workload", "target", "template", "knobs"])
def test_a_missing_field_is_named(name):
    line = json.loads(record().to_line())
    del line[name]
    with pytest.raises(RecordError, match=f"{name} is missing"):
        Record.from_line(json.dumps(line))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=6,
)


@given(st.sampled_from(sorted(records.Record.__dataclass_fields__)), JSON)
def test_any_value_in_any_field_is_a_record_or_an_error(name, value):
    line = json.dumps(json.loads(record().to_line()) | {name: value})
    try:
        Record.from_line(line).to_line()
    except RecordError:
        pass


@given(st.binary(max_size=300))
def test_any_bytes_are_a_record_or_an_error(line):
    with pytest.raises(RecordError):
        Record.from_line(line)


def test_hostile_lines_are_reported_by_number_and_skipped(tmp_path):
    path = tmp_path / "log.jsonl"
    good = record().to_line().encode()
    lines = [good, b"{", b"", b"\xff\xfe\x00", b"[" * 9000, b"x" * 3_000_000, b"null", good]
    path.write_bytes(b"\n".join(lines))
    with pytest.warns(RecordWarning) as caught:
        assert len(Log(path).records()) == 2
    assert [str(w.message).removeprefix(str(path)) for w in caught] == [
        ":2: skipped: not JSON",
        ":4: skipped: not JSON",
        ":5: skipped: not JSON",
        f":6: skipped: longer than {MAX_LINE} bytes",
        ":7: skipped: not a JSON object",
    ]


def test_cut_off_at_any_byte_and_written_on(tmp_path):
    whole = (record(trials=1).to_line() + "\n" + record(trials=2).to_line() + "\n").encode()
    first = whole.index(b"\n")
    for size in range(first + 1, len(whole) + 1):
        path = tmp_path / f"{size}.jsonl"
        path.write_bytes(whole[:size])
        log = Log(path)
        log.append(record(trials=3))
        contents = log.read()
        # A second line that lacks only its newline is whole.
        complete = [1, 3] if size < len(whole) - 1 else [1, 2, 3]
        assert [r.trials for r in contents.records] == complete
        assert len(contents.problems) == (first + 1 < size < len(whole) - 1)


def test_a_log_that_grows_is_read_again(tmp_path):
    log = Log(tmp_path / "log.jsonl")
    assert log.records() == []
    log.append(record())
    assert len(log.records()) == 1
    log.append(record())
    assert len(log.records()) == 2


def _append_many(path, start):
    for number in range(start, start + 50):
        Log(path).append(record(trials=number))


def test_two_writers_lose_nothing(tmp_path):
    path = tmp_path / "log.jsonl"
    spawn = multiprocessing.get_context("fork")
    writers = [spawn.Process(target=_append_many, args=(path, start)) for start in (1, 101)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    contents = Log(path).read()
    assert not contents.problems
    assert sorted(r.trials for r in contents.records) == [*range(1, 51), *range(101, 151)]


def test_a_log_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(RecordError, match=r"missing/log.jsonl: there is no folder .*missing"):
        Log(tmp_path / "missing" / "log.jsonl").check_writable()
    with pytest.raises(RecordError, match="is a folder, not a file"):
        Log(tmp_path).check_writable()
    with pytest.raises(RecordError, match="is a folder, not a file"):
        Log(tmp_path).records()
    with pytest.raises(RecordError, match="is not a regular file"):
        Log("/dev/zero").read()
    with pytest.raises(RecordError, match="File name too long"):
        Log("x" * 5000).read()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(RecordError, match="is not a regular file"):
        Log(pipe).append(record())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_log_is_named(tmp_path):
    path = tmp_path / "log.jsonl"
    path.touch()
    path.chmod(0o400)
    with pytest.raises(RecordError, match="Permission denied"):
        Log(path).check_writable()


def test_check_writable_changes_no_record(tmp_path):
    log = Log(tmp_path / "log.jsonl")
    log.check_writable()
    assert log.path.read_bytes() == b""
    log.append(record())
    before = log.path.read_bytes()
    log.check_writable()
    assert log.path.read_bytes() == before


def filled(path, *entries) -> Log:
    path.write_text("".join(entry.to_line() + "\n" for entry in entries))
    return Log(path)


def test_best_prefers_winners_then_the_fastest(tmp_path):
    slow, fast = record(seconds=2e-4), record(seconds=1e-4, knobs={"mr": 1})
    log = filled(tmp_path / "a", slow, fast, record(seconds=None, failed="crashed"))
    assert best(OP, TARGET, [log], use_shipped=False) == fast
    winner = replace(slow, best=True, trials=3)
    log = filled(tmp_path / "b", slow, fast, winner)
    assert best(OP, TARGET, [log], use_shipped=False) == winner
    later = replace(slow, best=True, trials=30, seconds=3e-4)
    log = filled(tmp_path / "c", winner, later, fast)
    assert best(OP, TARGET, [log], use_shipped=False) == later


def test_best_ignores_other_operators_and_targets(tmp_path):
    other = parse("dense m=5 n=16 k=32 act=u8 weight=s8")
    log = filled(tmp_path / "a", record(workload=other.name), record(target="sse4"))
    assert best(OP, TARGET, [log], use_shipped=False) is None
    assert best(other, TARGET, [log], use_shipped=False).workload == other.name


def test_the_first_log_decides_unless_it_holds_no_winner(tmp_path):
    mine, shipped = record(seconds=3e-4), record(seconds=2e-4, best=True)
    winner = record(seconds=4e-4, best=True)
    logs = [filled(tmp_path / "mine", mine), filled(tmp_path / "shipped", shipped)]
    assert best(OP, TARGET, logs, use_shipped=False) == shipped
    logs = [filled(tmp_path / "mine2", mine, winner), filled(tmp_path / "shipped2", shipped)]
    assert best(OP, TARGET, logs, use_shipped=False) == winner


def test_records_of_this_cpu_and_version_come_first(tmp_path):
    elsewhere = record(seconds=1e-6, cpu="another CPU", best=True, trials=1000)
    older = record(seconds=1e-6, versions={"lpgen": "0.0.1"}, best=True, trials=1000)
    mine = record(seconds=1e-4, best=True, trials=8)
    log = filled(tmp_path / "a", elsewhere, mine, older)
    assert best(OP, TARGET, [log], use_shipped=False) == mine
    log = filled(tmp_path / "b", elsewhere)
    assert best(OP, TARGET, [log], use_shipped=False) == elsewhere


def test_a_record_says_on_how_many_threads():
    assert "threads" not in record().to_line()
    assert Record.from_line(record().to_line()).threads == 1
    assert Record.from_line(record(threads=8).to_line()) == record(threads=8)


def test_records_of_as_many_threads_come_first(tmp_path):
    one, four = record(seconds=4e-4, best=True), record(seconds=1e-4, best=True, threads=4)
    eight = record(seconds=5e-5, best=True, threads=8)
    log = filled(tmp_path / "a", eight, one, four, record(seconds=1e-5, threads=2))
    for threads, expected in ((1, one), (2, one), (4, four), (8, eight)):
        assert best(OP, TARGET, [log], threads=threads, use_shipped=False) == expected
    log = filled(tmp_path / "b", eight, four)
    assert best(OP, TARGET, [log], use_shipped=False) == eight


def test_a_record_that_no_longer_fits_is_reported_and_skipped(tmp_path):
    stale, usable = record(seconds=1e-5, knobs={"mr": 3}, best=True), record()
    log = filled(tmp_path / "a", stale, usable)
    with pytest.warns(RecordWarning, match=r'x86/dot has no such knobs \{"mr": 3\}'):
        assert best(OP, TARGET, [log], use_shipped=False) == usable


def test_misfit_of_a_template_that_is_gone_or_does_not_apply(monkeypatch):
    conv = parse("conv2d n=1 h=4 w=4 ic=4 oc=4 kernel=1x1 act=u8 weight=s8")
    assert why_not(record(), conv, TARGET) == "serves dense only"
    assert why_not(record(), OP, TARGET) is None
    monkeypatch.undo()
    for name in ("x86/gone", "avx2/dot", "__init__/x", "x86/isa", "common/dot", "generic/__init__"):
        reason = why_not(record(template=name), OP, TARGET)
        assert reason == f"template {name} is not known"


def test_shipped_logs_hold_only_records():
    for log in records.shipped():
        assert not log.read().problems


def test_a_template_that_lost_does_not_replace_a_winner_that_no_longer_fits(tmp_path):
    log = Log(tmp_path / "log.jsonl")
    loser = record(seconds=2.0, template="generic/generic")
    winner = record(seconds=1.0, best=True, trials=9, knobs={"gone": 1})
    log.append(loser)
    assert best(OP, TARGET, [log], use_shipped=False) == loser
    log.append(winner)
    with pytest.warns(RecordWarning, match="no such knobs"):
        assert best(OP, TARGET, [log], use_shipped=False) is None
