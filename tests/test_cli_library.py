"""lpgen build, check, bench and show: what they print and leave."""

import json
import os
import re
import signal
from pathlib import Path

import psutil
import pytest
from command_line import DENSE, DEPTHWISE, record
from processes import started, wait_for

from lpgen import target as targets
from lpgen.ops import parse
from lpgen.records import Log, Record, RunnerUp
from lpgen.target import cpu_features

LARGE = "conv2d h=60 w=60 ic=4 oc=4 kernel=60 groups=4 act=u4 weight=s4"


def test_build_says_what_is_untuned_and_what_is_generic(lpgen):
    text = lpgen("build", DENSE, LARGE, "--target", "avx2", "-o", "two.so")
    assert "two.so: 2 kernels for avx2" in text
    assert "chosen by the cost model, as no log has a record" in text
    assert re.search(
        r"generic kernel: conv2d 60x60 4->4@60x60 g4 u4 x s4: .*x86/dot, .*: groups=4", text
    )
    assert Path("two.h").read_text().count("_pack_weights(") >= 2


def test_check(lpgen, library):
    text = lpgen("check", str(library))
    assert f"{DENSE}: exact" in text
    assert text.endswith("2 of 2 kernels are exact\n")
    results = [json.loads(line) for line in lpgen("check", str(library), "--json").splitlines()]
    assert [result["exact"] for result in results] == [True, True]


def test_check_fails_with_status_1_when_a_kernel_is_wrong(lpgen, library, monkeypatch):
    from lpgen.build import check

    wrong = check.Checked(DENSE, "x86/dot", 1, "3 of 9 wrong")
    monkeypatch.setattr(check, "check_library", lambda *arguments: iter([wrong]))
    text = lpgen("check", str(library), status=1)
    assert f"{DENSE}: 3 of 9 wrong" in text
    assert "0 of 1 kernels are exact" in text


def test_bench(lpgen, library):
    lines = lpgen("bench", str(library), "--json").splitlines()
    measurements = [json.loads(line) for line in lines]
    assert [m["workload"] for m in measurements] == [DENSE, parse(DEPTHWISE).name]
    for m in measurements:
        assert m["target"] == targets.detect().name
        assert m["threads"] == 1
        assert 0 < m["us_best"] <= m["us_median"]
        assert m["gops"] == pytest.approx(parse(m["workload"]).ops / m["us_best"] * 1e-3, rel=1e-3)
        assert m["bound"] in ("compute", "memory")
        assert m["bandwidth_gbs"] > 0
        assert m["fraction"] > 0
    text = lpgen("bench", str(library), "--threads", "2")
    assert "dense 4x32x64 u8 x s8" in text
    assert text.count("\n") == 3


def test_a_library_of_another_cpu_is_refused_but_shown(lpgen):
    features = targets.cpu_features()
    other = next(t for t in targets.known().values() if t.missing_on(features))
    lpgen("build", DENSE, "--target", other.name, "-o", "other.so")
    missing = other.missing_on(features)[0]
    for command in ("check", "bench"):
        text = lpgen(command, "other.so", status=2)
        assert other.name in text
        assert missing in text
    text = lpgen("show", "other.so")
    assert DENSE in text
    assert "this CPU lacks" in text


def test_show_a_library(lpgen, library):
    text = lpgen("show", str(library))
    assert DENSE in text
    assert "2 workloads, built by lpgen" in text
    entries = [json.loads(line) for line in lpgen("show", str(library), "--json").splitlines()]
    assert entries[0]["workload"] == DENSE
    assert entries[0]["packed_bytes"] >= 32 * 64
    assert entries[0]["target"] == targets.detect().name


def test_a_library_has_a_name_that_its_header_can_say(lpgen, library):
    name = os.fsdecode(b"caf\xe9.so")
    text = lpgen("build", DENSE, "-o", name, status=2)
    assert text == "lpgen: output 'caf\\udce9.so' is not UTF-8, and its header names it\n"
    Path(name).write_bytes(library.read_bytes())
    assert DENSE in lpgen("show", name)


def test_a_library_for_several_targets(lpgen, monkeypatch):
    """Built, shown with the level of each kernel, checked, and timed as the one asked for."""
    names = ["generic", "sapphirerapids", "sse4"]
    runs = [n for n in ("sse4", "generic") if not targets.known()[n].missing_on(cpu_features())]
    text = lpgen("build", DENSE, "--targets", ",".join(names), "-o", "fat.so")
    assert "fat.so: 1 kernel for sapphirerapids, sse4, generic" in text
    text = lpgen("show", "fat.so")
    assert [line.split()[7:9] for line in text.splitlines()[1:4]] == [
        ["sapphirerapids", "amx"],
        ["sse4", "sse4"],
        ["generic", "generic"],
    ]
    assert "for sapphirerapids, sse4, generic; in use: " in text
    text = lpgen("check", "fat.so")
    assert [f"{name}: 1 of 1 kernels are exact" in text for name in runs] == [True] * len(runs)
    if targets.known()["sapphirerapids"].missing_on(cpu_features()):
        assert "not checked: sapphirerapids: this CPU lacks " in text
    monkeypatch.setenv("LPGEN_TARGET", "generic")
    assert "sse4: " not in lpgen("check", "fat.so")
    (measured,) = map(json.loads, lpgen("bench", "fat.so", "--json").splitlines())
    assert measured["target"] == "generic"
    assert measured["template"].startswith("generic/")
    monkeypatch.setenv("LPGEN_TARGET", "zen9")
    for command in ("show", "check", "bench"):
        text = lpgen(command, "fat.so", status=2)
        assert "LPGEN_TARGET 'zen9' is not inside; it is built for sapphirerapids, " in text
        assert text.count("\n") == 1


def test_show_how_work_is_split(lpgen, library):
    text = lpgen("show", str(library), "--threads", "64")
    assert "tasks" in text
    assert "balance" in text
    entries = map(json.loads, lpgen("show", str(library), "--threads", "3", "--json").splitlines())
    for entry in entries:
        shares = entry["shares"]
        assert shares["threads"] == 3
        assert 1 <= shares["tasks"] <= min(3, entry["pieces"])
        assert shares["balance"] <= 1
    assert "--threads 0 is outside 1..1024" in lpgen(
        "show", str(library), "--threads", "0", status=2
    )
    Path("log.jsonl").touch()
    assert "--threads is for a library" in lpgen("show", "log.jsonl", "--threads", "2", status=2)


def test_show_a_log(lpgen):
    log = Log("log.jsonl")
    record(log, 3e-6)
    best = record(log, 2e-6, best=True, runner_up=RunnerUp("generic/generic", 2.2e-6))
    record(log, None)
    with open("log.jsonl", "a") as file:
        file.write('{"workload": "den')
    text = lpgen("show", "log.jsonl")
    assert text.count(DENSE) == 1
    assert " 2 " in text
    assert " 1.10x generic/generic " in text
    assert "3 records, 1 of failed candidates" in text
    assert "lpgen: warning: log.jsonl:4: skipped" in text
    shown = lpgen("show", "log.jsonl", "--json").splitlines()
    assert Record.from_line(next(line for line in shown if line.startswith("{"))) == best
    everything = lpgen("show", "log.jsonl", "--all")
    assert everything.count(DENSE) == 3
    assert "failed: refused" in everything


def test_build_takes_the_record_of_the_log(lpgen, home):
    log = Log("log.jsonl")
    best = record(log, 2e-6, best=True)
    text = lpgen("build", DENSE, "--log", "log.jsonl", "-o", "lib.so")
    assert "cost model" not in text
    (entry,) = lpgen("show", "lib.so", "--json").splitlines()
    assert json.loads(entry)["seconds"] == best.seconds


def test_a_record_that_no_longer_fits_is_reported_and_not_used(lpgen):
    record(Log("log.jsonl"), 2e-6, best=True, knobs={"rows": 77})
    text = lpgen("build", DENSE, "--log", "log.jsonl", "-o", "lib.so")
    assert "lpgen: warning: log.jsonl: dense" in text
    assert "chosen by the cost model" in text


@pytest.mark.parametrize("parent", [signal.SIG_DFL, signal.SIG_IGN])
def test_ctrl_c_is_one_line_while_a_process_checks(library, parent):
    before = signal.signal(signal.SIGINT, parent)
    try:
        process = started("-m", "lpgen.cli", "check", str(library))
    finally:
        signal.signal(signal.SIGINT, before)
    wait_for(psutil.Process(process.pid).children)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err.strip()) == (130, "lpgen: interrupted")


def test_bench_untuned_says_what_tuning_would_give(lpgen, home):
    log = Log("log.jsonl")
    record(log, 2e-6, best=True)
    text = lpgen("bench", "--untuned", DENSE, "--log", "log.jsonl")
    assert "[1/1] dense 4x32x64 u8 x s8: model " in text
    assert re.search(
        r"model / tuned speed: geometric mean \d\.\d+, lowest \d\.\d+, 1 operator", text
    )
    (line,) = (
        line
        for line in lpgen("bench", "--untuned", DENSE, "--log", "log.jsonl", "--json").splitlines()
        if line.startswith("{")
    )
    found = json.loads(line)
    assert {"model", "tuned"} <= set(found["entries"])
    assert found["entries"]["model"]["origin"] == "model"
    assert "--untuned takes operators" in lpgen("bench", "--untuned", DENSE, "--warm", status=2)
