import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from fake_templates import BEHAVIOURS, Moody, Tiles
from processes import started, wait_for

from lpgen import target as targets
from lpgen import templates
from lpgen import tune as tune_package
from lpgen.errors import RecordError, TuneError, UserError
from lpgen.ops import parse
from lpgen.records import Log, RecordWarning, best
from lpgen.records.choose import ranking
from lpgen.target import Target
from lpgen.templates import templates_for
from lpgen.tune import (
    CandidateMeasured,
    OperatorFailed,
    OperatorFinished,
    OperatorStarted,
    RaceStarted,
    pool,
    session,
    tune,
)
from lpgen.tune.pool import allowed_cores
from lpgen.tune.runner import this_machine

OP = parse("dense m=4 n=16 k=8 act=u8 weight=s8")
NATIVE = Target.parse("native")


def test_every_misbehaviour_is_a_failed_candidate_and_nothing_more(tmp_path):
    log = Log(tmp_path / "log.jsonl")
    events = []
    (result,) = tune(
        [OP], timeout=5, log=log, templates=[Moody()], strategy="exhaustive", on_event=events.append
    )
    assert result.best.knobs == {"mood": "good"}
    reasons = {record.knobs["mood"]: record.failed for record in log.records()}
    assert set(reasons) == set(BEHAVIOURS)
    assert reasons == {
        "good": None,
        "crash": "crashed: SIGSEGV while building",
        "abort": "crashed: SIGABRT while building: "
        "LLVM ERROR: Cannot select: intrinsic %llvm.x86.nothing",
        "hang": "no result in 5 s of building",
        "refuse": "refused: tile=3 does not divide n=16",
        "fail": "ZeroDivisionError: the real reason",
        "wrong": "wrong: 64 of 64 results differ on random input",
        "wrong_packing": reasons["wrong_packing"],
    }
    assert "results differ on random input" in reasons["wrong_packing"]
    assert result.failed.total() == len(BEHAVIOURS) - 1
    measured = [event for event in events if isinstance(event, CandidateMeasured)]
    assert [event.done for event in measured] == list(range(1, len(BEHAVIOURS) + 1))


def test_a_run_goes_on_where_the_log_stands(tmp_path):
    log = Log(tmp_path / "log.jsonl")

    def measured(**options):
        events = []
        (result,) = tune([OP], log=log, on_event=events.append, **options)
        return result, [event for event in events if isinstance(event, CandidateMeasured)], events

    first, fresh, events = measured(trials=4, templates=[Tiles()])
    assert [type(event) for event in events] == [
        OperatorStarted,
        *[CandidateMeasured] * 4,
        RaceStarted,
        OperatorFinished,
    ]
    assert (first.trials, first.resumed, len(fresh)) == (4, 0, 4)
    assert first.best.best
    assert first.best.seconds > 0
    assert first.default_seconds is not None
    # What a kill and another program left at the end.
    with log.path.open("a") as file:
        file.write('{"workload": "dense m=4 n=1')
    with pytest.warns(RecordWarning, match="not JSON"):
        second, fresh, _ = measured(trials=7, templates=[Tiles()])
    assert (second.trials, second.resumed, len(fresh)) == (7, 4, 3)
    knobs = [str(record.knobs) for record in log.read().records if not record.best]
    assert len(set(knobs)) == len(knobs) == 7
    # Nothing is left to do: the winner is known.
    third, fresh, events = measured(trials=7, templates=[Tiles()])
    assert third.best == second.best
    assert not fresh
    assert [type(event) for event in events] == [OperatorStarted, OperatorFinished]
    assert sum(record.best for record in log.read().records) == 2


def test_when_all_fail_the_reason_is_said_and_the_others_are_tuned(tmp_path):
    log, events = Log(tmp_path / "log.jsonl"), []
    bad = parse("conv2d h=4 w=4 ic=4 oc=4 kernel=1x1 act=u8 weight=s8")
    refusing = Moody(moods=("refuse", "fail"))
    expected = r"conv2d .*: all 2 candidates failed; 1 of them: refused: tile=3 does not divide"
    with pytest.raises(TuneError, match=expected):
        tune([bad, OP], log=log, trials=3, templates=[refusing, Tiles()], on_event=events.append)
    ends = [event for event in events if isinstance(event, OperatorFailed | OperatorFinished)]
    assert [(type(event), event.op) for event in ends] == [
        (OperatorFailed, bad),
        (OperatorFinished, OP),
    ]
    assert {record.workload for record in log.records() if record.best} == {OP.name}


def test_two_jobs(tmp_path):
    log = Log(tmp_path / "log.jsonl")
    (result,) = tune([OP], log=log, trials=8, templates=[Tiles()], jobs=2)
    assert result.trials == 8
    assert len(log.records()) == 9


@pytest.mark.skipif(len(allowed_cores()) < 2, reason="needs two cores")
def test_two_threads(tmp_path):
    log = Log(tmp_path / "log.jsonl")
    (alone,) = tune([OP], log=log, trials=3, templates=[Tiles()])
    (result,) = tune([OP], log=log, trials=3, templates=[Tiles()], threads=2)
    # What was measured on one thread is not what is asked for, but its winner is tried.
    assert (alone.resumed, result.resumed, result.trials) == (0, 0, 3)
    assert [record.threads for record in log.records()] == [1] * 4 + [2] * 4
    assert alone.best.knobs in [record.knobs for record in log.records()[4:]]
    assert [record for record in log.records() if record.best] == [alone.best, result.best]


def test_threads_that_time_have_their_cores_alone(monkeypatch):
    monkeypatch.setattr(pool, "allowed_cores", lambda: [0, 1, 4, 5, 6, 7])
    assert pool._places(2, 1) == [([7], [7]), ([6], [6])]
    assert pool._places(2, 4) == [([0, 1], [4, 5, 6, 7])] * 2
    assert pool._places(1, 6) == [([0, 1, 4, 5, 6, 7], [0, 1, 4, 5, 6, 7])]
    monkeypatch.setattr(session, "allowed_cores", pool.allowed_cores)
    assert [session.most_jobs(threads) for threads in (1, 2, 5, 6)] == [6, 4, 1, 1]
    with pytest.raises(TuneError, match="jobs=3 is more than 2: 4 of 6 cores are for timing"):
        tune([OP], threads=4, jobs=3)
    with pytest.raises(TuneError, match=r"threads=7 is outside 1\.\.6"):
        tune([OP], threads=7)


def test_without_a_log_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (result,) = tune([str(OP)], "native", trials=2, templates=[Tiles()])
    assert result.op == OP
    assert list(tmp_path.iterdir()) == []


def test_the_cost_models_best_is_measured_first(tmp_path):
    log = Log(tmp_path / "log.jsonl")
    tune([OP], trials=1, log=log)
    best = ranking(OP, NATIVE)[0]
    assert {(r.template, *r.knobs.items()) for r in log.records()} == {
        (best.template.name, *best.knobs.items())
    }


@pytest.mark.starts
def test_real_templates_compete(tmp_path):
    log = Log(tmp_path / "log.jsonl")
    names = {template.name for template in templates_for(OP, NATIVE)}
    (result,) = tune([OP, OP], trials=len(names) + 12, log=log)
    assert not result.failed
    assert {record.template for record in log.records()} == names
    assert best(OP, NATIVE, [log]) == result.best
    assert result.best.runner_up.template in names - {result.best.template}
    # The winner is in the log with its runner-up, and nothing is left to do.
    (again,) = tune([OP], trials=len(names) + 2, log=log)
    assert again.best == result.best


def test_a_winner_stands_that_the_model_gives_no_hope(tmp_path):
    log = Log(tmp_path / "log.jsonl")
    (result,) = tune([OP], trials=1, log=log)
    portable = templates.get("generic/generic")
    known = replace(result.best, template=portable.name, knobs=portable.default(OP, NATIVE))
    winner = replace(known, seconds=result.best.seconds / 2, trials=2)
    log.append(replace(known, best=False), winner)
    (again,) = tune([OP], trials=2, log=log)
    assert again.best == winner


def test_a_template_that_is_new_to_the_log_competes(tmp_path):
    log, other = Log(tmp_path / "log.jsonl"), Tiles("fake", "other")
    (alone,) = tune([OP], trials=3, templates=[Tiles()], log=log)
    assert alone.best.runner_up is None
    (result,) = tune([OP], trials=3, templates=[Tiles(), other], log=log)
    assert (result.resumed, result.trials) == (3, 4)
    found = {result.best.template, result.best.runner_up.template}
    assert found == {"fake/tiles", "fake/other"}


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"trials": 0}, TuneError, "trials=0 is outside 1..1000000"),
        ({"trials": "many"}, TuneError, "trials='many' is not an integer"),
        ({"timeout": 0}, TuneError, "timeout=0 is outside"),
        ({"timeout": float("nan")}, TuneError, "timeout=nan is outside"),
        ({"jobs": -1}, TuneError, "jobs=-1 is outside 1..256"),
        ({"seed": -1}, TuneError, "seed=-1 is outside"),
        ({"strategy": "magic"}, TuneError, "strategy=magic is unknown; known: model, random, ex"),
        ({"templates": ["x86/magic"]}, UserError, "template: 'x86/magic' is not known"),
        ({"target": "z80"}, UserError, "target 'z80' is unknown"),
        ({"log": "/nowhere/log.jsonl"}, RecordError, "there is no folder /nowhere"),
    ],
)
def test_bad_arguments_are_found_before_anything_starts(arguments, error, message, monkeypatch):
    monkeypatch.setattr(tune_package.session, "Pool", None)
    with pytest.raises(error, match=message) as caught:
        tune([OP], **arguments)
    assert "\n" not in str(caught.value)


def test_a_target_that_this_cpu_lacks(monkeypatch):
    lesser = replace(this_machine(), features=frozenset({"sse2"}))
    monkeypatch.setattr(tune_package.session, "this_machine", lambda: lesser)
    with pytest.raises(TuneError, match=r"target avx2: .* its CPU lacks sse, sse3.*avx2"):
        tune([OP], "avx2")


def test_records_name_the_machine_of_the_runner(monkeypatch, tmp_path):
    log = Log(tmp_path / "log.jsonl")
    board = replace(this_machine(), cpu="a board", versions={"lpgen": "2", "tvm": "1"})
    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr(tune_package.session, "this_machine", lambda: board)
            (result,) = tune([OP], log=log, trials=2, templates=[Tiles()])
    assert {(record.cpu, record.versions["lpgen"]) for record in log.records()} == {
        ("a board", "2")
    }
    assert result.resumed == 2
    (here,) = tune([OP], log=log, trials=2, templates=[Tiles()])
    assert here.resumed == 0


def test_without_a_linker(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(UserError, match=r"no linker found \(ld, ld.lld\), and no C compiler"):
        tune([OP], templates=[Tiles()])


def test_an_operator_that_no_template_serves():
    conv = parse("conv2d h=4 w=4 ic=4 oc=4 kernel=1x1 act=u8 weight=s8")
    with pytest.raises(
        TuneError, match=r"no template applies on .*: fake/tiles: serves dense only"
    ):
        tune([conv], templates=[Tiles()])


def test_workers_that_do_not_start(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(TuneError, match=r"a measuring process does not start: .*exit status 1"):
        tune([OP], templates=[Tiles()])


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from fake_templates import Moody, Tiles
from lpgen.tune import tune
tune([{op!r}], log={log!r}, trials=1000, templates=[Tiles(), Moody(moods=("good", "hang"))],
     timeout=60, jobs=2, strategy="exhaustive")
"""


@pytest.fixture
def tuning(tmp_path):
    """A process that tunes until both of its workers hang; the process and its log."""
    log = Log(tmp_path / "log.jsonl")
    tests = str(Path(__file__).parent)
    script = SCRIPT.format(tests=tests, op=OP.name, log=str(log.path))
    process = started("-c", script)
    try:
        wait_for(lambda: len(log.read().records) >= 5)
        yield process, log
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def test_ctrl_c_ends_all_processes_and_keeps_the_log(tuning):
    process, log = tuning
    workers = psutil.Process(process.pid).children()
    assert len(workers) == 2
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=30) != 0
    assert "KeyboardInterrupt" in process.stderr.read()
    assert not any(worker.is_running() for worker in workers)
    assert not log.read().problems
    assert len(log.read().records) >= 5


def test_kill_9_leaves_no_process_and_a_log_to_go_on_with(tuning):
    process, log = tuning
    workers = psutil.Process(process.pid).children()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    wait_for(lambda: not any(w.is_running() and w.status() != "zombie" for w in workers))
    assert not log.read().problems
    done = sum(record.template == "fake/tiles" for record in log.records())
    (result,) = tune([OP], log=log, trials=done + 1, templates=[Tiles()])
    assert (result.resumed, result.trials) == (done, done + 1)


def test_nothing_heavy_is_imported_before_it_is_needed():
    code = "import sys, lpgen.tune; print({'tvm', 'xgboost', 'scipy'} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout == "set()\n"


def test_the_target_need_not_be_the_native_one():
    lesser = Target.parse("sse4")
    if lesser.missing_on(targets.cpu_features()):
        pytest.skip("this CPU lacks SSE4")
    (result,) = tune([OP], lesser, trials=2, templates=[Tiles()])
    assert result.best.target == "sse4"


def test_settings_are_integers_of_any_kind_but_no_bools():
    for name in ("trials", "jobs", "seed"):
        for wrong in (True, np.True_, 2.0, "2", None):
            with pytest.raises(TuneError, match=f"{name}=.* is not an integer"):
                tune([OP], **{name: wrong})
        assert tune([], **{name: np.int64(2)}) == []
