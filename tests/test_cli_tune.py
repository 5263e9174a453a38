"""lpgen tune: what it prints and leaves, also when it is interrupted."""

import json
import os
import signal

from command_line import DENSE, record
from processes import started, wait_for

from lpgen import target as targets
from lpgen import tune
from lpgen.errors import TuneError
from lpgen.ops import parse
from lpgen.records import Log
from lpgen.target import Target
from lpgen.templates import templates_for


def test_tune_then_build_with_the_log_of_the_user(lpgen, home):
    first = lpgen("tune", DENSE, "--trials", "3", "--jobs", "1")
    assert "[1/1] dense 4x32x64 u8 x s8: " in first
    assert "3 candidates in " in first
    assert "ahead of" in first
    log = home / "data" / "lpgen" / f"{targets.detect().name}.jsonl"
    assert f"records: {log}" in first
    assert sum(r.best for r in Log(log).records()) == 1

    again = lpgen("tune", DENSE, "--trials", "3", "--jobs", "1", "--json").splitlines()
    result = json.loads(next(line for line in again if line.startswith("{")))
    assert (result["trials"], result["resumed"]) == (3, 3)
    assert result["workload"] == DENSE
    assert result["peak_gops"] is None or result["peak_gops"] > 0
    assert result["gain"] > 0
    # Few trials are for templates that the cost model gives hope, maybe one.
    templates = {t.name for t in templates_for(parse(DENSE), Target.parse("native"))}
    if result["runner_up"] is not None:
        assert result["runner_up"]["template"] in templates
        assert result["lead"] > 0

    assert "cost model" not in lpgen("build", DENSE, "-o", "lib.so")
    assert "tuned" in lpgen("export-schedule", DENSE, "--no-tir", "--no-asm")


def test_an_exhaustive_run_says_how_good_the_search_would_have_been(lpgen):
    options = ("--template", "generic/generic", "--exhaustive", "--trials", "2")
    text = lpgen("tune", "dense m=2 n=5 k=7 act=u4 weight=s4", *options, "--log", "all.jsonl")
    assert "2 trials reach: model " in text
    assert ", random " in text
    assert "equal" not in text


def test_sharing_the_trials_is_compared_with_tuning_each_template_alone(lpgen):
    two = ("--template", "generic/generic", "--template", "generic/bitserial")
    options = ("--trials", "2", "--jobs", "1", "--log", "log.jsonl", "--separately", *two)
    text = lpgen("tune", "dense m=2 n=5 k=7 act=u4 weight=s4", *options)
    assert " tuned alone: " in text
    assert "2 trials for all templates or for each of them: geometric mean " in text
    alone = {record.template for record in Log("log.alone.jsonl").records() if record.best}
    # The cost model leaves out what is far behind.
    assert alone >= {record.template for record in Log("log.jsonl").records()}


def test_operators_that_work_are_reported_when_another_fails(lpgen, monkeypatch):
    good, bad = parse(DENSE), parse("dense m=1 n=1 k=1 act=u1 weight=b1")
    best = record(Log("log.jsonl"), 2e-6, best=True)

    def fake(ops, target, on_event, **settings):
        on_event(tune.OperatorStarted(good, 0, 2, 1, 0, ("x86/dot",)))
        on_event(tune.OperatorFinished(good, tune.TuneResult(good, best, 3e-6, 1, 0)))
        raise TuneError("dense: all 3 candidates failed")

    monkeypatch.setattr(tune, "tune", fake)
    text = lpgen("tune", DENSE, str(bad), "--log", "log.jsonl", status=2)
    assert "1.50x" in text
    assert "lpgen: dense: all 3 candidates failed" in text


def test_ctrl_c_keeps_the_records_and_says_how_to_go_on(home):
    log = home / "log.jsonl"
    process = started("-m", "lpgen.cli", "tune", "--suite", "resnet18", "--log", str(log))
    wait_for(lambda: log.exists() and log.stat().st_size)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err.splitlines()[-1].startswith("lpgen: interrupted; ")
    assert str(log) in err
    assert "Traceback" not in err
    assert Log(log).records()
