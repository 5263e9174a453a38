"""Comparisons with other libraries; none of them is needed, and those there are have to agree."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import DENSE, DEPTHWISE

from lpgen import bench
from lpgen.bench import contest, isa, peers, turns
from lpgen.bench.case import Case, Contender
from lpgen.bench.chart import draw
from lpgen.bench.comparison import Comparison, Entry, Report
from lpgen.bench.comparison import timed as comparison_method
from lpgen.bench.messages import Failed, Phase, Task
from lpgen.build import build
from lpgen.errors import UserError
from lpgen.ops import parse, with_epilogue
from lpgen.records.choose import choose
from lpgen.target import Target, detect


@pytest.fixture
def fake(monkeypatch):
    """A peer named fake_peer beside the real ones."""
    monkeypatch.setattr(peers, "__path__", [*peers.__path__, str(Path(__file__).parent)])
    known = [*peers.known()]
    monkeypatch.setattr(peers, "known", lambda: [n for n in known if not n.startswith("test")])
    return "fake_peer"


@pytest.fixture(scope="module")
def smallest(tmp_path_factory) -> Path:
    """A library of the smallest operator with the formats of DENSE."""
    return build([choose(parse(DENSE).smallest())], tmp_path_factory.mktemp("small") / "lib.so")


def entry(peer="p", way="w", out="u8", us=10.0, call=1.0) -> Entry:
    return Entry(peer, way, out, "int8", us, us + 1, call)


def comparison(ours: Entry, *entries: Entry, **changes) -> Comparison:
    plain = Comparison(DENSE, "avx2", "x86/dot", {"rows": 4}, "model", 1, ours, entries)
    return replace(plain, **changes)


def test_what_is_not_compared_is_named():
    with pytest.raises(UserError, match=r"^quantize: other libraries are compared for conv2d"):
        turns.compared(parse("quantize axis=3 format=u8"))


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("out=u8 scale=channel residual=u8", "adds a residual"),
        ("out=u8 scale=channel zero_out=9 relu", "clamps its results"),
        ("out=f32 scale=channel relu6", "clamps its results"),
        ("out=u4 scale=channel relu", None),
    ],
)
def test_what_no_library_has_is_said(fake, smallest, tmp_path, words, reason):
    op = with_epilogue(parse(DENSE), words)
    case = Case.random(op)
    assert (case.beyond or "").startswith(reason or "")
    assert bool(case.beyond) == bool(reason)
    path = build([choose(op)], tmp_path / "lib.so")
    result = turns.Turns([fake], 1, lambda phase: None).answer(
        Task(str(path), op.name, str(smallest), 3, 0, {})
    )
    assert result.ours.out == op.out
    assert (result.entries == ()) == bool(reason)
    assert result.refused.get(fake, "").startswith(reason or "")


def test_a_format_of_few_bits_is_compared_with_all(fake, smallest, tmp_path):
    op = with_epilogue(parse(DENSE), "out=u4 scale=channel")
    assert Case.random(op).expected.max() == 15
    path = build([choose(op)], tmp_path / "lib.so")
    result = turns.Turns([fake], 1, lambda phase: None).answer(
        Task(str(path), op.name, str(smallest), 3, 0, {})
    )
    assert {e.out for e in result.rivals} == {"s32", "u8", "f32"}


def test_every_way_is_timed_or_refused_with_the_reason(fake, library, smallest):
    said = []
    taking_part = turns.Turns([fake], 1, said.append)
    assert taking_part.present == ({fake: "1.0"}, {})
    skipped = {(fake, "float"): "it was killed"}
    result = taking_part.answer(Task(str(library), DENSE, str(smallest), 3, 0, skipped))
    assert isinstance(result, Comparison)
    assert (result.workload, result.target, result.origin) == (DENSE, detect().name, "model")
    assert (result.ours.peer, result.ours.out) == ("lpgen", "s32")
    assert [(e.way, e.out) for e in result.entries] == [("sums", "s32"), ("requantized", "u8")]
    for e in (result.ours, *result.entries):
        assert 0 < e.us_best <= e.us_median
        assert e.us_call > 0
    reasons = {way.removeprefix(f"{fake} "): reason for way, reason in result.refused.items()}
    assert reasons == {
        "float": "it was killed",
        "wrong": "100.0% of the results differ from the oracle's, by 1",
        "narrow": "only 4 bits",
        "broken": "RuntimeError: first line",
    }
    assert Phase(fake, "sums") in said
    assert Phase("", "timing") in said


def test_what_is_hopeless_is_timed_less(fake, monkeypatch):
    timed = []

    def laps(self, runs, rounds):
        timed.append((sorted(way for _, way in runs), rounds))
        return {key: [seconds[key[1]]] * rounds for key in runs}

    monkeypatch.setattr(turns.Turns, "_laps", laps)
    seconds = {"kernel": 9e-6, "fast": 1e-6, "near": 3e-6, "far": 4e-6}
    found = {
        ("lpgen" if way == "kernel" else fake, way): Contender(lambda: None, lambda: None, "u8", "")
        for way in seconds
    }
    times = turns.Turns([], 1, lambda phase: None)._time(found, Task("", "", "", 10, 0, {}))
    assert timed == [(["far", "fast", "kernel", "near"], 3), (["fast", "kernel", "near"], 7)]
    assert times[fake, "near"] == (pytest.approx(3), pytest.approx(3))


def test_a_library_that_cannot_run_an_operator_is_named(fake, library):
    result = turns.Turns([fake], 1, lambda phase: None).answer(
        Task(str(library), parse(DEPTHWISE).name, "", 3, 0, {})
    )
    assert result.refused == {fake: "no convolutions"}
    assert result.entries == ()
    assert result.ratio is result.best() is result.ratio_without_calls is None


def test_a_wrong_kernel_is_not_timed(fake, library, monkeypatch):
    monkeypatch.setattr(turns.runtime.Kernel, "bind", lambda *args, **named: lambda: None)
    answer = turns.Turns([fake], 1, lambda phase: None).answer(
        Task(str(library), DENSE, "", 3, 0, {})
    )
    assert isinstance(answer, Failed)
    assert "128 of 128 results differ" in answer.reason


def test_rivals_write_what_the_kernel_writes():
    sums, small, real = entry("a", "s", "s32", 30), entry("b", "q", "u8", 20), entry("c", out="f32")
    wide = comparison(entry("lpgen", "t", "s32", 10), sums, small, real)
    assert wide.rivals == (sums, small, real)
    assert wide.best() == real
    assert wide.best("a") == sums
    assert wide.ratio == 1
    narrow = comparison(entry("lpgen", "t", "u8", 10), sums, small, real)
    assert narrow.rivals == (small,)
    assert narrow.ratio == 2
    assert narrow.best("c") is None
    assert comparison(entry("lpgen", "t", "s8", 10), sums, small).rivals == (small,)
    alone = comparison(entry("lpgen", "t", "u8", 10), sums)
    assert alone.rivals == (sums,)


def test_ratios_without_calls():
    ours = entry("lpgen", us=10.0, call=1.0)
    assert comparison(ours, entry(us=20.0, call=2.0)).ratio_without_calls == 2
    assert comparison(ours, entry(us=20.0, call=None)).ratio_without_calls is None
    assert comparison(ours, entry(us=20.0, call=25.0)).ratio_without_calls is None


def report(*rows: Comparison) -> Report:
    made = Report("avx2", 1, {"p": "1.0"}, {"q": "not installed"}, "all is used")
    for number, row in enumerate(rows):
        made.add(f"layer{number}", row)
    return made


def test_a_report_says_everything(tmp_path):
    ours = entry("lpgen", "x86/dot", "s32", 10, 0.5)
    made = report(
        comparison(ours, entry(us=20.0), entry(us=float("inf"), way="endless")),
        comparison(ours, entry(us=5.0), refused={"p w2": "5.1% differ", "p w3": "5% differ"}),
        comparison(ours, refused={"p w2": "7% differ"}),
    )
    assert made.mean == pytest.approx(1)
    assert made.refusals() == [
        ("p w2: 5.1% differ", ["layer1", "layer2"]),
        ("p w3: 5% differ", ["layer1"]),
    ]
    made.write(tmp_path / "report.json")
    data = json.loads((tmp_path / "report.json").read_text())
    assert data["geometric_mean"] == pytest.approx(1)
    assert [row["ratio"] for row in data["rows"]] == [2, 0.5, None]
    assert data["rows"][0]["best"] == "p w"
    assert data["rows"][0]["entries"][1]["us_best"] is None
    assert data["rows"][0]["knobs"] == {"rows": 4}
    assert (data["peers"], data["absent"]) == ({"p": "1.0"}, {"q": "not installed"})
    assert "Kernel.bind" in data["timed"]


def test_the_picture_is_drawn(tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    ours = entry("lpgen", "x86/dot", "s32", 10)
    made = report(comparison(ours, entry(us=20.0)), comparison(ours))
    for name, shown in (("some", made), ("none", report(comparison(ours)))):
        draw(shown, tmp_path / f"{name}.png", "title")
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_peers_are_held_to_the_target():
    native = detect()
    assert isa.restraint(native)[:2] == ({}, False)
    if native.level in ("sse4", "generic"):
        pytest.skip("this CPU has no vectors to leave out")
    environment, refuse, words = isa.restraint(Target.parse("sse4"))
    assert environment == {"ONEDNN_MAX_CPU_ISA": "SSE41"}
    assert refuse == (native.level == "amx")
    assert "more than sse4 has" in words


def test_the_method_stands_with_the_table():
    assert "threads of the turn before sleep" not in comparison_method(1)
    assert "threads of the turn before sleep" in comparison_method(2)


class FakeContest:
    """Compares with nobody: what the command line shows of it."""

    present, absent = {"p": "1.0"}, {"q": "not installed"}
    target, threads, restraint = Target.parse("avx2"), 1, "all is used"

    def __init__(self, names, target, **settings):
        self.names, self.settings = names, settings

    def __enter__(self):
        return self

    def __exit__(self, *args):
        pass

    def compare(self, library, workload):
        ours = entry("lpgen", "x86/dot", "s32", 10, 0.5)
        return comparison(ours, entry(us=25.0), workload=workload, refused={"p w2": "it is wrong"})


def test_the_command_prints_and_saves_the_table(lpgen, library, monkeypatch):
    monkeypatch.setattr(contest, "Contest", FakeContest)
    text = lpgen("bench", str(library), "--against", "torch,litert", "--save", "out")
    row = next(line for line in text.splitlines() if line.startswith("dense 4x32x64 u8 x s8 "))
    assert row.split() == [*"dense 4x32x64 u8 x s8 x86/dot model 10 25 u8 2.50 2.53 p w".split()]
    assert "geometric mean of the time of the fastest other library over lpgen's: 2.50" in text
    assert "missing: q: not installed" in text
    assert "not run: p w2: it is wrong (2 operators)" in text
    assert "outputs differ: lpgen writes s32, others as marked" in text
    assert len(json.loads(Path("out.json").read_text())["rows"]) == 2
    assert Path("out.png").exists()
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    text = lpgen("bench", DENSE, "--against", "all", "--json")
    assert json.loads(text.splitlines()[0])["workload"] == DENSE
    assert "no picture: " in text
    few = entry("lpgen", "x86/dot", "u4", 10, 0.5)
    made = comparison(few, entry(us=25.0), workload=DENSE)
    monkeypatch.setattr(FakeContest, "compare", lambda *args: made)
    text = lpgen("bench", DENSE, "--against", "all")
    assert "u4: requantized with a scale per channel to few bits" in text
    assert "nowhere" in lpgen("bench", DENSE, "--against", "all", "--save", "nowhere/out", status=2)


def test_the_command_says_when_there_is_nobody(lpgen, library, monkeypatch):
    monkeypatch.setattr(FakeContest, "present", {})
    monkeypatch.setattr(contest, "Contest", FakeContest)
    text = lpgen("bench", str(library), "--against", "all", status=2)
    assert "nothing to compare with: q: not installed; pip install 'lpgen[bench]'" in text


def test_bench_builds_what_is_no_library(lpgen):
    (line,) = lpgen("bench", DENSE, "--json").splitlines()
    assert json.loads(line)["workload"] == DENSE
    assert bench.bench
