"""What a tuning run shows: the same events as lines and as a bar."""

import io

import click
import pytest
from rich.console import Console

from lpgen.cli import output, progress, tuning
from lpgen.ops import parse
from lpgen.records import Record, RunnerUp
from lpgen.tune import (
    CandidateMeasured,
    OperatorFailed,
    OperatorFinished,
    OperatorStarted,
    RaceStarted,
    TuneResult,
)

GOOD = parse("dense m=10 n=100 k=1000 act=u8 weight=s8")
SECOND = RunnerUp("x86/lut_sum", 1.25e-4)
BAD = parse("dense m=1 n=2 k=3 act=u8 weight=s8")


def events():
    """A run over GOOD, half of it from the log, and BAD, which fails."""
    yield OperatorStarted(GOOD, 0, 2, 4, 2, ("x86/dot",))
    yield CandidateMeasured(GOOD, "x86/dot", {"rows": 1}, 1e-4, None, 1e-4, 3, 4)
    yield CandidateMeasured(GOOD, "x86/dot", {"rows": 2}, None, "crashed", 1e-4, 4, 4)
    yield RaceStarted(GOOD, 2)
    best = Record(GOOD.name, "avx2", "x86/dot", {"rows": 1}, 1e-4, best=True, runner_up=SECOND)
    result = TuneResult(GOOD, best, 2e-4, 4, 2, elapsed=3.4)
    result.failed.update(["crashed"])
    yield OperatorFinished(GOOD, result)
    yield OperatorStarted(BAD, 1, 2, 4, 0, ("x86/dot",))
    yield OperatorFailed(BAD, "all 4 candidates failed")


LABELS = {GOOD: "layer one", BAD: "layer two"}
LINES = [
    "[1/2] layer one: 100 us, 20 GOP/s, x86/dot (1.25x x86/lut_sum), 4 trials (2 from the log), "
    "1 failed, 3 s",
    "[2/2] layer two: all 4 candidates failed",
]


def test_lines_for_a_file_or_pipe(capsys):
    with progress.progress(LABELS, 4) as take:
        for event in events():
            take(event)
    assert capsys.readouterr().err.splitlines() == LINES


def test_a_bar_for_a_terminal(monkeypatch):
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120, color_system=None)
    monkeypatch.setattr(output, "console", lambda stderr: console)
    with progress.progress(LABELS, 4) as take:
        for event in events():
            take(event)
            take.__self__._bar.refresh()
    shown = screen.getvalue()
    assert all(line in shown for line in LINES)
    assert "[1/2] layer one" in shown
    assert "2/8" in shown
    assert "best 20 GOP/s" in shown
    assert "best 20 GOP/s, 1 failed" in shown
    assert "racing 2 leaders" in shown


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, None), (5.1234e-7, "0.5123"), (1.5e-5, "15"), (0.25, "250000")]
)
def test_microseconds(seconds, text):
    assert output.microseconds(seconds) == text


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [(0, "0 bytes"), (1000, "1000 bytes"), (1536, "1.5 KiB"), (3 << 30, "3072.0 MiB")],
)
def test_file_size(nbytes, text):
    assert output.file_size(nbytes) == text


@pytest.mark.parametrize(
    ("workload", "label"),
    [
        ("dense m=4 n=32 k=64 act=u8 weight=t2", "dense 4x32x64 u8 x t2"),
        (
            "conv2d n=2 h=8 w=9 ic=4 oc=6 kernel=3x1 stride=2 groups=2 act=s4 weight=b1",
            "conv2d 3x1 4->6@8x9 n2 s2 g2 s4 x b1",
        ),
    ],
)
def test_labels(workload, label):
    assert parse(workload).label == label


def test_a_table_on_a_terminal_has_its_wide_texts_below(monkeypatch, capsys):
    rows = [("a", 10, "rows=1"), ("bb", None, "rows=2")]
    output.print_table(("name", ">us"), rows, wide="knobs")
    piped = capsys.readouterr().out.splitlines()
    assert piped == ["name  us  knobs", "a     10  rows=1", "bb     -  rows=2"]
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    output.print_table(("name", ">us"), rows, wide="knobs")
    lines = [click.unstyle(line) for line in capsys.readouterr().out.splitlines()]
    assert lines == ["name  us", "a     10", "    rows=1", "bb     -", "    rows=2"]


def test_the_rate_is_that_of_the_run_in_which_operators_overlap():
    best = Record(GOOD.name, "avx2", "x86/dot", {"rows": 1}, 1e-4, best=True)
    results = [TuneResult(GOOD, best, 2e-4, trials, 2, elapsed=9) for trials in (12, 22)]
    said = tuning.rate(results, 10)
    assert said == "30 candidates in 10 s: 180 a minute; 0 failed"
