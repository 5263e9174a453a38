"""The static model: cycles by llvm-mca, records that are modelled, and how it is judged."""

import json
import re
import shutil
from dataclasses import replace

import pytest

from lpgen import cost, records, templates
from lpgen.algorithms.kernel import Function
from lpgen.build import mca, mca_tables
from lpgen.build.assembly import PAIRING, hot_loops
from lpgen.build.lower import lower
from lpgen.errors import RecordError, UserError
from lpgen.ops import parse
from lpgen.records import Log, Record
from lpgen.records.choose import choose
from lpgen.target import Target
from lpgen.templates import templates_for
from lpgen.tune import judging, offline
from lpgen.tune.events import Foreseen
from lpgen.tune.messages import Candidate
from lpgen.tune.race import foreseen

DENSE = parse("dense m=16 n=64 k=64 act=u8 weight=s8")
NATIVE, HASWELL = Target.parse("native"), Target.parse("avx2")


@pytest.fixture
def has_mca():
    try:
        mca.find()
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture
def without_mca(monkeypatch):
    mca.find.cache_clear()
    monkeypatch.setattr(shutil, "which", lambda name: None)
    yield
    mca.find.cache_clear()


def modelled(cycles: float | None, **changes) -> Record:
    """A record of DENSE that was only modelled, with default knobs."""
    template = templates_for(DENSE, NATIVE)[0]
    common = {"workload": DENSE.name, "target": NATIVE.name, "template": template.name}
    knobs = template.default(DENSE, NATIVE)
    return Record(**common | {"knobs": knobs, "seconds": None, "cycles": cycles} | changes)


def test_cycles_of_a_loop(has_mca):
    loop = [".LBB0_1:", "\tvpaddd\t%ymm1, %ymm0, %ymm0", "\tdecq\t%rax", "\tjne\t.LBB0_1"]
    assert mca.loop(loop, HASWELL).cycles == pytest.approx(1.0, abs=0.1)
    slow = [loop[0], *["\tvpmulld\t%ymm1, %ymm0, %ymm0"] * 2, *loop[2:]]
    assert mca.loop(slow, HASWELL).cycles == pytest.approx(20.0, abs=0.5)  # each waits for the last
    arm = [".LBB0_1:", "\tsmlal\tv0.4s, v1.4h, v2.4h", "\tsubs\tx8, x8, #1", "\tb.ne\t.LBB0_1"]
    assert 1 <= mca.loop(arm, Target.parse("cortex-a72")).cycles <= 8


def test_what_llvm_mca_does_not_know_is_one_line(has_mca):
    with pytest.raises(UserError, match=r"does not take the hot loop: .*error") as error:
        mca.loop(["\tvpdpfoo\t%ymm1, %ymm0, %ymm0"], HASWELL)
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="has no table of zen99; a newer LLVM may have one"):
        mca.loop(["\tnop"], replace(HASWELL, llvm_cpu="zen99"))


def test_what_the_table_of_zen_4_has_wrong():
    loop = [
        ".LBB0_1:",
        "\tvpbroadcastd\t-4(%rax,%rcx), %zmm0",
        "\tvpmovzxbw\t(%rax), %zmm1",
        "\tvpdpbusd\t(%rax){1to16}, %zmm1, %zmm2",
        "\tvpopcntd\t%zmm2, %zmm3",
        "\tvpsrlw\t$4, %zmm3, %zmm3",
        "\tvpternlogd\t$150, 64(%rax), %zmm2, %zmm3",
        "\tvmovdqu64\t%zmm3, (%rdi)",
        "\tvmovdqu\t%ymm3, 64(%rdi)",
        "\tjne\t.LBB0_1",
    ]
    assert mca_tables.rewritten("znver4", loop)[1:-3] == [
        "\tvmovdqu64\t-4(%rax,%rcx), %zmm0",
        "\tvmovdqu64\t(%rax), %zmm1\n\tvpshufb\t%zmm1, %zmm1, %zmm1",
        "\tvfmadd231ps\t(%rax){1to16}, %zmm1, %zmm2",
        "\tvplzcntd\t%zmm2, %zmm3",
        "\tvprold\t$4, %zmm3, %zmm3",
        "\tvmovdqu64\t64(%rax), %zmm4",
        "\tvpternlogd\t$150, %zmm4, %zmm2, %zmm3",
    ]
    assert mca_tables.units("znver4", loop) == 3.0  # stores; loads 0.5 + 1 + 0.5 + 1
    assert mca_tables.units("znver4", loop[:7]) == 3.0
    assert mca_tables.units("znver4", loop[:4]) == 2.0
    # Arithmetic counts beside vpternlog: that 1, as much as two of others.
    adders = ["\tvpternlogd\t$150, %zmm1, %zmm2, %zmm3"] * 4 + ["\tvpandd\t%zmm1, %zmm2, %zmm3"] * 2
    assert mca_tables.units("znver4", adders) == 5.0
    assert mca_tables.units("znver4", adders[4:]) == 0.0
    assert mca_tables.rewritten("znver3", loop) == loop
    assert mca_tables.units("znver3", loop) == 0.0


def test_the_table_of_zen_4_put_right(has_mca):
    """What was measured on the CPU, of twelve independent instructions."""
    zen4 = Target.parse("zen4")

    def cycles(line: str) -> float:
        return mca.loop([line.format(i) for i in range(3, 15)], zen4).cycles / 12

    assert cycles("\tvpdpbusd\t%zmm1, %zmm2, %zmm{}") == pytest.approx(1, abs=0.05)
    assert cycles("\tvpopcntd\t%zmm1, %zmm{}") == pytest.approx(1, abs=0.05)
    assert cycles("\tvpbroadcastd\t(%rax), %zmm{}") == pytest.approx(0.5, abs=0.05)
    shuffles = "\tvbroadcasti32x4\t(%rax), %zmm{0}\n\tvpshufb\t%zmm1, %zmm2, %zmm{0}"
    assert cycles(shuffles) == pytest.approx(2, abs=0.1)
    assert cycles("\tvmovdqu64\t%zmm{}, (%rax)") == pytest.approx(2, abs=0.05)


def test_asking_in_advance_for_what_comes_from_memory_takes_time():
    """A line of 64 bytes: a cycle, and a tenth of the shorter of memory and loop."""
    zen4, dot = Target.parse("zen4"), templates.get("x86/dot")
    counts = {"dram": 640_000.0}
    without, hints = (offline.beside(dot, zen4, counts | {"hints": n}, 0.0) for n in (0, 640_000.0))
    assert hints - without == pytest.approx(10_000)


def test_weights_of_the_size_of_the_l2_cache_come_from_memory():
    zen4, found = Target.parse("zen4"), templates.get("x86/telescoped")
    op = parse("dense m=1 n=2048 k=2048 act=u8 weight=s2")
    knobs = found.default(op, zen4) | {"vectors": 8, "n_block": 0}
    assert found.work(op, zen4, knobs)["dram"] == pytest.approx(zen4.l2, rel=0.01)


ARM_MULTIPLIES = re.compile(r"\s+(\w*?)(dot|mul|mla)l?2?\s+v\d+\.(\d+)")


@pytest.mark.sample(3)
@pytest.mark.parametrize("target", ["avx2", "avx512bw", "zen4", "cortex-a53", "cortex-a76"])
@pytest.mark.parametrize(
    ("template", "step", "text"),
    [
        ("dot", "bytes", "dense m=16 n=64 k=256 act=u4 weight=s4"),
        ("dot", "words", "dense m=16 n=64 k=256 act=u8 weight=s8"),
        ("telescoped", None, "dense m=16 n=64 k=256 act=u8 weight=s4"),
        ("grouped_conv", "bytes", "conv2d h=14 w=14 ic=64 oc=64 kernel=3 pad=1 groups=16 act=u4"),
        ("blockwise_dot", None, "dense m=16 n=64 k=256 act=u8 weight=s4 out=f32 scale=group32"),
    ],
)
def test_the_loop_runs_as_often_as_the_products_say(template, step, text, target):
    """Products of an iteration by its instructions, times the iterations that the model counts,
    are those of the operator."""
    cpu = Target.parse(target)
    op = parse(text if "weight" in text else f"{text} weight=s4")
    found = templates.get(f"{cpu.families[0]}/{template}")
    space = found.space(op, cpu)
    if step and step not in space.knobs.get("step", ()):
        pytest.skip(f"{target} has no step={step}")
    knobs = cost.candidates(op, cpu, [found], chosen={"step": step} if step else {})[0].knobs
    functions = {"kernel": found.kernel(op, cpu, knobs).function}
    loops = hot_loops(lower(functions, cpu).compile().inspect_source("asm"))
    loop, often = offline._repeated(found, found.work(op, cpu, knobs), loops)
    products = sum(_products(line, bool(loop.holds(PAIRING))) for line in loop.lines)
    # Some more: tiles are whole, and scales are multiplied.
    assert products * often == pytest.approx(op.ops / 2, rel=0.08)


def _products(line: str, paired: bool) -> int:
    """How many an instruction makes; where vpmaddubsw does, vpmaddwd adds them up."""
    if arm := ARM_MULTIPLIES.match(line):
        return 16 if arm[2] == "dot" else int(arm[3])
    size = 64 if "%zmm" in line else 32
    if "vpdpbusd" in line or "vpmaddubsw" in line:
        return size
    return size // 2 if ("vpmaddwd" in line and not paired) or "vpdpwssd" in line else 0


def test_without_llvm_mca_one_line_says_what_to_install(lpgen, without_mca):
    text = lpgen("tune", DENSE.name, "--target", "avx2", "--offline", status=2)
    assert (
        text == "lpgen: llvm-mca is not installed (Debian: llvm), which --offline asks for cycles\n"
    )


def test_hot_loops_of_arm():
    assembly = """\
	.type	kernel,@function
kernel:                                 // @kernel
.LBB0_1:                                // =>This Inner Loop
	ldr	q1, [x9], #16            // a comment
	smlal	v0.4s, v1.4h, v2.4h
	cmp	x8, #16
	b.ne	.LBB0_1
	cbnz	w10, .LBB0_1
	ret
.Lfunc_end0:
"""
    (loop,) = hot_loops(assembly)
    assert (loop.key_instructions, len(loop.lines)) == (1, 6)
    assert "\tldr\tq1, [x9], #16" in loop.lines


def test_a_modelled_record_is_a_line_and_no_time():
    record = modelled(1234.5, best=True, trials=3)
    content = json.loads(record.to_line())
    assert content["cycles"] == 1234.5
    assert "seconds" not in content
    assert Record.from_line(record.to_line()) == record
    for changed in ({"seconds": 1e-6}, {"cycles": 0}, {"cycles": "many"}, {"failed": "no"}):
        with pytest.raises(RecordError, match=r"needs one of|cycles="):
            Record.from_line(json.dumps(content | changed))


def test_a_measured_record_always_wins(tmp_path):
    log = Log(tmp_path / "log.jsonl")
    points = iter(templates.get(modelled(1).template).space(DENSE, NATIVE))
    for cycles in (500.0, 100.0, 900.0):
        log.append(modelled(cycles, knobs=next(points)))
    choice = choose(DENSE, NATIVE, [log], use_shipped=False)
    assert (choice.origin, choice.cycles, choice.seconds) == ("modelled", 100.0, None)
    assert dict(choice.knobs) == log.modelled()[1].knobs
    assert choose(DENSE, NATIVE, [log], use_shipped=False, lenders=()).origin == "model"
    assert log.records() == []
    assert [r.cycles for r in records.modelled(DENSE, NATIVE, [log])] == [100.0, 500.0, 900.0]
    slow = modelled(None, seconds=1.0)
    log.append(slow)
    choice = choose(DENSE, NATIVE, [log], use_shipped=False)
    assert (choice.origin, choice.seconds) == ("tuned", 1.0)


def test_a_library_of_modelled_kernels_says_so(lpgen, tmp_path):
    Log(tmp_path / "log.jsonl").append(modelled(4321.0, best=True))
    log = str(tmp_path / "log.jsonl")
    text = lpgen("show", log)
    assert "modelled: 4321 cycles" in text
    assert "1 record, 0 of failed candidates" in text
    assert "modelled" in lpgen("build", DENSE.name, "--log", log, "-o", "lib.so")


def test_candidates_are_modelled_and_logged(lpgen, has_mca, tmp_path):
    """For a CPU that this machine need not have; the same log then serves a build for it."""
    log = str(tmp_path / "log.jsonl")
    asked = ("tune", DENSE.name, "--target", "avx2", "--log", log, "--offline", "--trials", "3")
    text = lpgen(*asked)
    assert "cycles modelled" in text
    assert f"records, modelled for avx2: {log}" in text
    found = records.modelled(DENSE, HASWELL, [Log(log)])
    assert len(found) == 3
    assert found[0].best
    assert 16 * 64 * 64 / 100 < found[0].cycles < 16 * 64 * 64
    assert choose(DENSE, HASWELL, [Log(log)], use_shipped=False).origin == "modelled"


def test_the_model_is_judged_by_what_was_measured(tmp_path, monkeypatch):
    """Rank correlation, and what the best of the first five lacks; of two measurements, the second
    of which has the second and the third in another order."""
    log, template = Log(tmp_path / "log.jsonl"), templates.get(modelled(1).template)
    space = [k for _, k in zip(range(12), template.space(DENSE, NATIVE), strict=False)]
    cycles = {}
    for place, knobs in enumerate(space):
        cycles[Candidate(template, knobs).key] = float(place if place else 100)
        log.append(modelled(None, knobs=knobs, seconds=1e-6 * (place + 1)))
    monkeypatch.setattr(offline.mca, "find", lambda: "mca")
    monkeypatch.setattr(offline, "cycles", lambda op, cpu, c: offline.Modelled(c, cycles[c.key]))
    second = [1e-6, 2.9e-6, 2.8e-6, *(1e-6 * place for place in range(4, 13))]
    monkeypatch.setattr(judging, "again", lambda op, cpu, known: second[: len(known)])
    (judged,) = judging.judge(DENSE, NATIVE, log, 64)
    assert (judged.template, judged.candidates) == (template.name, 12)
    assert judged.spearman == pytest.approx(1 - 6 * (11**2 + 11) / (12 * (12**2 - 1)))
    assert judged.repeat == pytest.approx(1 - 6 * 2 / (12 * (12**2 - 1)))
    assert judged.regret == pytest.approx((2 * 2.9) ** 0.5 - 1)  # that of 2 and 2.9 us and not of 1
    assert judged.ordered == pytest.approx(1 - 11 / 66)  # all but those with the first
    assert judging.judge(DENSE, NATIVE, log, 4) == []


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--separately",), "--offline goes with operators, --target, --trials,"),
        (("--exhaustive",), "--offline goes with operators, --target, --trials,"),
        (("--trials", "0"), "trials=0 is outside 1.."),
    ],
)
def test_what_does_not_go_with_offline(lpgen, more, message):
    text = lpgen("tune", DENSE.name, "--offline", *more, status=2)
    assert message in text
    assert text.count("\n") == 1


def test_what_beginning_with_the_modelled_ones_saved():
    """Of times in the order of measuring: 3 is the modelled ones' best, as fast first at 2.5."""
    seconds = {"a": 5.0, "b": 3.0, "c": 4.0, "d": None, "e": 2.5, "f": 2.0}
    times = {("x86/dot", knobs): s for knobs, s in seconds.items()}
    modelled = {("x86/dot", knobs) for knobs in "abg"}
    assert foreseen(modelled, times) == Foreseen(2, 0.5, 2, 5)
    assert Foreseen(2, 0.5, 2, 5).saved(6) == 3
    assert foreseen({("x86/dot", "d")}, times) is None
    alone = foreseen({("x86/dot", "f")}, times)
    assert (alone, alone.saved(64)) == (Foreseen(1, 0.0, 6, None), 58)


def test_the_best_modelled_are_measured_first_and_what_that_saved_is_said(lpgen, tmp_path):
    log, record = Log(tmp_path / "log.jsonl"), modelled(1)
    points = iter(templates.get(record.template).space(DENSE, NATIVE))
    first = [next(points), next(points)][::-1]
    for cycles, knobs in zip((100.0, 200.0), first, strict=True):
        log.append(modelled(cycles, knobs=knobs))
    options = ("--trials", "3", "--jobs", "1", "--timeout", "60", "--log", str(log.path))
    text = lpgen("tune", DENSE.name, *options)
    measured = [r.knobs for r in log.records() if not r.best]
    assert measured[:2] == first
    assert re.search(r"best of 2 modelled candidates \d+\.\d% behind the fastest: saved", text)


@pytest.mark.parametrize(
    ("cpu", "knobs", "instruction", "speed"),
    [
        ("cortex-a53", {"step": "bytes"}, "smull 8h + sadalp 4s", 4),
        ("cortex-a53", {"step": "pairs2"}, "smlal 8h", 8),
        ("cortex-a53", {"step": "words"}, "smlal 4s", 4),
        ("cortex-a76", {}, "sdot 16b", None),
    ],
)
def test_peaks_of_arm(has_mca, cpu, knobs, instruction, speed):
    """A loop of its instructions; of the Cortex-A53, which begins one a cycle, its MAC/cycle."""
    target = Target.parse(cpu)
    peak = templates.peak_of("arm", target, knobs)
    assert peak.instruction == instruction
    functions = {"probe": Function.of_module(peak.module)}
    (loop,) = hot_loops(lower(functions, target).compile().inspect_source("asm"))
    names = [line.split()[0] for line in loop.lines if not line.startswith(".")]
    counts = [names.count(name) for name in instruction.split() if name.isalpha()]
    assert min(counts) == max(counts)
    assert counts[0] % 20 == 0
    assert set(names) <= {*instruction.split(), "subs", "b.ne"}
    if speed:
        products = peak.ops / 2 / 4000 * counts[0] / 20
        assert products / mca.loop(loop.lines, target).bound == pytest.approx(speed, rel=0.05)
