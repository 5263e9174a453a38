"""The command line: what each command prints and leaves."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from lpgen import target as targets
from lpgen import tune
from lpgen.cli import app
from lpgen.errors import TuneError
from lpgen.ops import parse, read_workloads
from lpgen.ops.suites import suite
from lpgen.records import Log, Record, RunnerUp
from lpgen.target import Target
from lpgen.templates import templates_for

DENSE = "dense m=4 n=32 k=64 act=u8 weight=s8 out=s32"
LARGE = "conv2d h=60 w=60 ic=4 oc=4 kernel=60 groups=4 act=u4 weight=s4"
DEPTHWISE = "conv2d h=5 w=5 ic=8 oc=8 kernel=3 pad=1 groups=8 act=u4 weight=s4"
COMMANDS = (
    *("targets", "suites", "tune", "build", "check", "bench", "show"),
    *("export-schedule", "quickstart"),
)


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> Path:
    """A library of a dense and a depthwise kernel with default knobs."""
    folder = tmp_path_factory.mktemp("library")
    (folder / "empty.jsonl").touch()
    files = ["-o", str(folder / "small.so"), "--log", str(folder / "empty.jsonl")]
    assert app.run(["build", DENSE, DEPTHWISE, *files]) == 0
    return folder / "small.so"


def test_help_lists_every_command(lpgen):
    text = lpgen("--help")
    assert all(f"\n  {name} " in text for name in COMMANDS)
    assert text == lpgen("-h")
    assert "WORKLOAD" in lpgen(status=2)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(lpgen, command):
    assert f"Usage: lpgen {command} " in lpgen(command, "--help")


def test_version(lpgen):
    assert lpgen("--version").startswith("lpgen 0.")


def test_help_imports_neither_the_compiler_nor_arrays():
    code = (
        "import sys; from lpgen.cli.app import run; run(['--help']);"
        "print(*{n.partition('.')[0] for n in sys.modules}, file=sys.stderr)"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    loaded = set(process.stderr.split())
    assert "click" in loaded
    assert not loaded & {"tvm", "tvm_ffi", "numpy", "rich", "xgboost", "psutil", "filelock"}


def test_targets(lpgen):
    lines = lpgen("targets").splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(targets.known())
    rows = [json.loads(line) for line in lpgen("targets", "--json").splitlines()]
    assert rows[0]["families"] == ["generic"]


def test_targets_detect(lpgen):
    found = json.loads(lpgen("targets", "--detect", "--json"))
    assert found["name"] == targets.detect().name
    assert found["cpu"] == targets.cpu_fingerprint()
    text = lpgen("targets", "--detect")
    assert found["name"] in text
    assert all(feature in text for feature in found["features"])


def test_suites_are_printed_as_files_of_workloads(lpgen):
    assert lpgen("suites").startswith("resnet18 ")
    Path("layers").write_text(lpgen("suites", "resnet18", "--bits", "w1a2"))
    assert read_workloads(["@layers"]) == suite("resnet18", "u2", "b1")
    Path("both").write_text(lpgen("suites", "resnet18", "--bits", "w1a2,w8a8"))
    both = suite("resnet18", "u2", "b1") + suite("resnet18", "u8", "s8")
    assert read_workloads(["@both"]) == both
    Path("u8").write_text(lpgen("suites", "resnet18", "--epilogue", "out=u8 scale=channel relu"))
    (first, *_) = read_workloads(["@u8"])
    assert first.name.endswith(" act=u8 weight=s8 out=u8 scale=channel clamp=relu")
    (first, *_) = lpgen(
        "suites", "llama_7b", "--act", "s8", "--weight", "t2", "--json"
    ).splitlines()
    assert parse(json.loads(first)["workload"]) == suite("llama_7b", "s8", "t2")[0]


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
    monkeypatch.setattr(check, "check_library", lambda path, seed: iter([wrong]))
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


def record(log: Log, seconds: float | None, best: bool = False, **changes) -> Record:
    """A record of DENSE with the default knobs of its first template, in `log`."""
    op, native = parse(DENSE), Target.parse("native")
    template = templates_for(op, native)[0]
    failed = "refused" if seconds is None else None
    given = {
        "workload": op.name,
        "target": native.name,
        "template": template.name,
        "knobs": template.default(op, native),
        "seconds": seconds,
        "best": best,
        "failed": failed,
    }
    found = Record(**given | changes)
    log.append(found)
    return found


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
    assert result["lead"] > 0
    assert result["runner_up"]["template"] in {
        t.name for t in templates_for(parse(DENSE), Target.parse("native"))
    }

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


def started(command: list[str]) -> subprocess.Popen:
    """The command in a session of its own, which Ctrl-C ends: also where pytest is a background
    job, whose children ignore it."""
    return subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def test_ctrl_c_keeps_the_records_and_says_how_to_go_on(home):
    log = home / "log.jsonl"
    command = [sys.executable, "-m", "lpgen.cli", "tune", "--suite", "resnet18", "--log", str(log)]
    process = started(command)
    give_up = time.monotonic() + 120
    while not (log.exists() and log.stat().st_size) and time.monotonic() < give_up:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err.splitlines()[-1].startswith("lpgen: interrupted; ")
    assert str(log) in err
    assert "Traceback" not in err
    assert Log(log).records()


@pytest.mark.parametrize("parent", [signal.SIG_DFL, signal.SIG_IGN])
def test_ctrl_c_is_one_line_while_a_process_checks(library, parent):
    before = signal.signal(signal.SIGINT, parent)
    try:
        process = started([sys.executable, "-m", "lpgen.cli", "check", str(library)])
    finally:
        signal.signal(signal.SIGINT, before)
    give_up = time.monotonic() + 60
    while not psutil.Process(process.pid).children() and time.monotonic() < give_up:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err.strip()) == (130, "lpgen: interrupted")


@pytest.mark.parametrize(
    ("target", "instruction"),
    [("generic", "pm"), ("sse4", "pmaddwd"), ("avx2", "vpmaddwd"), ("avx512vnni", "vpdpbusd")],
)
def test_export_schedule_shows_tir_and_hot_loops(lpgen, target, instruction):
    text = lpgen("export-schedule", DENSE, "--target", target)
    title, tir, *loops = text.split("\n\n#")
    assert title.startswith(f"# {DENSE}\n# ")
    assert "T.prim_func" in tir
    assert loops
    assert all(" hot loop of " in loop and instruction in loop for loop in loops)


def test_export_schedule_of_a_template_that_does_not_serve(lpgen):
    text = lpgen(
        "export-schedule", DEPTHWISE, "--target", "avx2", "--template", "x86/dot", status=2
    )
    assert "does not serve conv2d" in text
    Path("two").write_text(f"{DENSE}\n{DENSE.replace('m=4', 'm=5')}\n")
    text = lpgen("export-schedule", "@two", "--target", "sse4", "--no-asm")
    assert text.count("T.prim_func") == 2


def test_a_reader_that_has_enough_is_no_error():
    code = "from lpgen.cli import main; main(['suites', 'mobilenet_v2'] )"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.close()
    assert "Traceback" not in process.stderr.read()
    process.wait()
    process.stderr.close()


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
