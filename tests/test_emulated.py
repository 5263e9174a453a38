"""Kernels for CPUs that are not at hand, run by an emulator of the CPU: exact, and with no
instruction that it lacks."""

from dataclasses import replace
from itertools import islice, product

import networks
import numpy as np
import pytest
from algorithm_cases import CASES
from emulated import LEVELS, algorithms_of, case, emulator_of, failures, listed, served

from lpgen import templates
from lpgen.build import Choice, build, toolchain
from lpgen.build.check import check_library
from lpgen.errors import LibraryError
from lpgen.network import build as build_network
from lpgen.network.check import check_network
from lpgen.ops import parse
from lpgen.records.choose import choose
from lpgen.target import Target
from lpgen.target.several import several

SECTIONS = ("pairs", "formats", "sizes", "kinds")
DENSE = "dense m=3 n=20 k=40 act=u8 weight=s8"


def _cases(level: str, algorithm: str, by_day: bool) -> list:
    """The workloads of an algorithm that its level serves; by day one, on every third level
    another one, for a kernel takes a second."""
    target = Target.parse(LEVELS[level])
    first = list(LEVELS).index(level) + algorithms_of(target).index(algorithm)
    if by_day and first % 3:
        return []
    turned = [SECTIONS[(first // 3 + i) % len(SECTIONS)] for i in range(len(SECTIONS))]
    rows = [row for section in turned for row in listed(algorithm, section)]
    texts = [text for row in rows for text in (*row[first % len(row) :], *row[: first % len(row)])]
    found = (one for text in texts if served(one := case(algorithm, text), target))
    return list(dict.fromkeys(islice(found, 1) if by_day else found))


@pytest.mark.parametrize("level", LEVELS)
def test_a_few_cases_of_each_algorithm(level, tmp_path):
    target = emulator_of(LEVELS[level])
    names = [algorithm for algorithm in algorithms_of(target)]
    few = [one for algorithm in names for one in _cases(level, algorithm, by_day=True)]
    assert few
    assert failures(few, target, tmp_path) == []


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("level", "algorithm"), [*product(LEVELS, sorted({*CASES, "dot", "mmla"}))]
)
def test_all_cases(level, algorithm, tmp_path):
    target = emulator_of(LEVELS[level])
    if algorithm not in algorithms_of(target):
        pytest.skip(f"{algorithm} is not of the family")
    assert failures(_cases(level, algorithm, by_day=False), target, tmp_path) == []


SHARED, COUNTED = {"shared": 2}, {"word": 32, "depth": 0}
CHOSEN = [
    (
        *("lut_sum", "conv2d h=6 w=8 ic=12 oc=40 kernel=3 pad=1 stride=2 act=u2 weight=s2"),
        SHARED | {"left": "direct"},
    ),
    (
        "lut_sum",
        "conv2d h=5 w=7 ic=64 oc=20 kernel=3 act=u1 weight=b1",
        SHARED | {"left": "copied"},
    ),
    ("lut_sum", "dense m=7 n=40 k=300 act=t2 weight=s2", SHARED | {"left": "direct"}),
    ("dot", "conv2d h=5 w=5 ic=8 oc=20 kernel=3 pad=1 act=u8 weight=s8", {"step": "words"}),
    ("bitserial", "dense m=2 n=20 k=70000 act=u1 weight=u1", COUNTED | {"vectors": 4, "words": 4}),
    ("bitserial", "conv2d h=5 w=6 ic=96 oc=24 kernel=3 pad=1 act=b1 weight=b1", COUNTED),
    ("bitserial", "dense m=5 n=20 k=300 act=u2 weight=s3", COUNTED | {"depth": 1}),
]


def test_what_few_cases_of_the_cost_model_show(tmp_path):
    """Rows that share tables, products of int16, bits counted in 16 bits, also more than those
    hold."""
    target, choices = emulator_of("cortex-a53"), []
    for algorithm, text, chosen in CHOSEN:
        op, template = parse(text), templates.get(f"arm/{algorithm}")
        knobs = template.space(op, target).narrowed(chosen).sample(np.random.default_rng(1))
        kernel = template.kernel(op, target, knobs)
        choices.append(Choice(op, target, template.name, knobs, kernel))
    path = build(choices, tmp_path / "lib.so")
    failures = [checked.failure for checked in check_library(path, target=target)]
    assert failures == [None] * len(CHOSEN)


def test_an_instruction_that_the_cpu_lacks_is_a_failure(tmp_path):
    """Of one kernel; the emulator is started again for the others."""
    target = emulator_of("cortex-a76")
    # So that it is not the library that refuses the CPU.
    claims = replace(target, features=("neon",))
    wrong = replace(choose(DENSE, target, use_shipped=False), target=claims)
    plain = choose(DENSE.replace("m=3", "m=4"), Target.parse("cortex-a53"), use_shipped=False)
    path = build([wrong, plain], tmp_path / "lib.so")
    first, second = check_library(path, target=Target.parse("cortex-a53"))
    assert first.failure == "crashed: SIGILL (an instruction that the CPU lacks)"
    assert second.failure is None


def test_a_library_tells_what_the_emulated_cpu_lacks(tmp_path):
    target = emulator_of("cortex-a76")
    path = build([choose(DENSE, target, use_shipped=False)], tmp_path / "lib.so")
    (result,) = check_library(path, target=Target.parse("cortex-a53"))
    assert result.failure == "built for cortex-a76; cortex-a53 lacks fullfp16, rdm, dotprod"
    assert [r.failure for r in check_library(path, target=Target.parse("neoverse-n1"))] == [None]
    with pytest.raises(LibraryError, match="was built for cortex-a76, which armv7 does not run"):
        list(check_library(path, target=Target.parse("armv7")))


def test_check_finds_the_emulator_by_itself(lpgen, tmp_path):
    emulator_of("cortex-a72")
    lpgen("build", DENSE, "--target", "rpi4", "-o", "lib.so")
    assert "1 of 1 kernels are exact" in lpgen("check", "lib.so")
    text = lpgen("bench", "lib.so", status=2)
    assert "was built for 64-bit Arm, this machine is x86-64" in text


def test_without_an_emulator_or_a_compiler(lpgen, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(toolchain.importlib.util, "find_spec", lambda name: None)
    text = lpgen("build", DENSE, "--target", "cortex-a53", "-o", "lib.so", status=2)
    assert "aarch64-linux-gnu-gcc with its binutils, clang with lld" in text
    assert "pip install lpgen[cross]" in text
    text = lpgen("check", "lib.so", "--target", "cortex-a53", status=2)
    assert "qemu-aarch64 is not installed (Debian: qemu-user), which runs cortex-a53" in text


def test_a_library_for_several_targets_takes_what_the_cpu_runs(lpgen, tmp_path, monkeypatch):
    old, new = emulator_of("cortex-a53"), emulator_of("cortex-a76")
    choices = [choose(DENSE, target) for target in several(["cortex-a53", "cortex-a76"])]
    path = build(choices, tmp_path / "lib.so")
    for cpu, asked, used in ((new, None, new), (new, "cortex-a53", old), (old, None, old)):
        (checked,) = check_library(path, target=cpu, asked=asked)
        assert (checked.failure, checked.target) == (None, used.name)
    (checked,) = check_library(path, target=old, asked="cortex-a76")
    assert "cortex-a53 lacks " in checked.failure
    monkeypatch.setenv("LPGEN_TARGET", "dotprod")
    assert lpgen("check", str(path), "--target", "neoverse-n1").startswith("dotprod: dense")
    monkeypatch.setenv("LPGEN_TARGET", "avx2")
    text = lpgen("check", str(path), status=2)
    assert "LPGEN_TARGET 'avx2' is not inside; it is built for cortex-a76, cortex-a53" in text


@pytest.mark.parametrize(
    ("name", "beside"),
    [
        ("cortex-a53", True),
        *(pytest.param(name, False, marks=pytest.mark.nightly) for name in ("armv7", "rvv")),
    ],
)
def test_a_network_runs_step_by_step(name, beside, lpgen, tmp_path):
    """As its kernels alone, and as the oracle; constants lie in the library or in a file."""
    target, network = emulator_of(name), networks.two_layers()
    path = build_network(network, target, tmp_path / "two.so", weights_beside=beside)
    for reference in (None, network):
        results = list(check_network(path, 0, reference, cpu=target))
        assert [(r.step, r.failure) for r in results] == [("first", None), ("second", None)]
    assert f"2 steps on 2 kernels for {name}" in lpgen("show", str(path))
    other = networks.two_layers(seed=1)
    first, _ = check_network(path, 0, other, cpu=target)
    assert first.failure.startswith("not as the oracle: ")
    if beside:
        path.with_suffix(".weights").unlink()
        first, *_ = check_network(path, cpu=target)
        assert "two.weights: " in first.failure


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["cortex-a76", "rvv256"])
def test_a_residual_network_runs_step_by_step(name, lpgen, tmp_path):
    """By the command; its text is that of a native check."""
    target, network = emulator_of(name), networks.residual_blocks()
    path = build_network(network, target, tmp_path / "blocks.so")
    text = lpgen("check", str(path))
    assert "11 of 11 steps are as their kernels alone" in text
    assert {r.failure for r in check_network(path, 1, network, cpu=target)} == {None}
