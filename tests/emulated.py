"""Kernels for CPUs that are not at hand: many in one library, checked by an emulator of the CPU.

As a program it checks random cases of all algorithms, built for one target, on CPUs that run its
code, and exits with status 1 when one fails:

    python tests/emulated.py cortex-a53 --on cortex-a53,cortex-a72 --cases 2000 --log cases.jsonl

Building a kernel takes most of the time, so that another CPU costs a fifth. Another --seed draws
other cases. The log gets a line for each library as soon as it is checked; a run that was stopped
goes on behind them when it is started again. --totals prints what a log holds.
"""

import argparse
import json
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, zip_longest
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from algorithm_cases import CASES, GENERAL
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from lpgen import templates
from lpgen.build import Choice, build, emulator, toolchain
from lpgen.build.check import check_library
from lpgen.errors import LibraryError, LpgenError
from lpgen.ops import Operator, parse
from lpgen.target import Target
from lpgen.templates import Template

LEVELS = {
    "neon": "cortex-a53",
    "dotprod": "cortex-a76",
    "i8mm": "neoverse-v1",
    "neon32": "armv7",
    "rvv": "rvv",
    "rvv256": "rvv256",
    "zvbb": "rva23",
    "rv64gc": "riscv64",
}
"""The target that stands for each level."""

TOGETHER = 60
"""Kernels of a library: its C part is compiled and an emulator started once for all of them."""


def why_not(name: str) -> str:
    """Why this machine does not build and run code for a target, "" where it does."""
    target = Target.parse(name)
    try:
        toolchain.compiler_of(target)
        emulator.emulator_of(target)
    except LibraryError as error:
        return str(error)
    return ""


def emulator_of(name: str) -> Target:
    """The target; skips the test where there is no emulator of it."""
    if reason := why_not(name):
        pytest.skip(reason)
    return Target.parse(name)


class Case(NamedTuple):
    """A kernel to check; seed: of random knobs, None: the default ones."""

    algorithm: str
    op: Operator
    seed: int | None = None

    def __str__(self) -> str:
        knobs = "default knobs" if self.seed is None else f"knobs of seed {self.seed}"
        return f"{self.algorithm}, {knobs}: {self.op}"


def template_of(algorithm: str, target: Target) -> Template | None:
    """The template of the best family of the target that has the algorithm."""
    found = (t for t in templates.templates_of(target) if t.algorithm == algorithm)
    return next(found, None)


def served(case: Case, target: Target) -> bool:
    """Whether the algorithm serves the operator on the target."""
    template = template_of(case.algorithm, target)
    return template is not None and template.why_not(case.op, target) is None


def choice(case: Case, target: Target) -> Choice:
    """The kernel of a case, scheduled."""
    template = template_of(case.algorithm, target)
    if case.seed is None:
        knobs = template.default(case.op, target)
    else:
        rng = np.random.default_rng(case.seed)
        knobs = template.space(case.op, target).sample(rng)
    kernel = template.kernel(case.op, target, knobs)
    return Choice(case.op, target, template.name, knobs, kernel)


def libraries(cases: Iterable[Case]) -> Iterator[list[Case]]:
    """The cases in lists that one library each can hold: of an operator one kernel."""
    waiting = list(cases)
    while waiting:
        names, together, later = set(), [], []
        for case in waiting:
            fits = case.op.name not in names and len(together) < TOGETHER
            (together if fits else later).append(case)
            names.add(case.op.name)
        yield together
        waiting = later


def failures(
    cases: Iterable[Case], target: Target, folder: Path, cpus: Sequence[Target] = ()
) -> list[str]:
    """What is wrong with the kernels of the cases on the target, or on other CPUs that are given:
    nothing, or a line for each."""
    found = []
    for number, together in enumerate(libraries(cases)):
        path = folder / f"{target.name}-{number}.so"
        try:
            build((choice(case, target) for case in together), path)
        except LpgenError as error:
            if len(together) == 1:
                found += [f"{cpu.name}: {together[0]}: {error}" for cpu in cpus or (target,)]
                continue
            half = len(together) // 2
            for part in (together[:half], together[half:]):
                found += failures(part, target, folder, cpus)
            continue
        for cpu in cpus or (target,):
            results = check_library(path, target=cpu)
            found += [
                f"{cpu.name}: {case}: {result.failure}"
                for case, result in zip(together, results, strict=True)
                if result.failure
            ]
        path.unlink()
    return found


def drawn(operators: SearchStrategy, number: int, first: int) -> list[tuple[Operator, int]]:
    """So many operators, each with a number; not the simplest one, which comes first always."""
    found: list[tuple[Operator, int]] = []

    @seed(first)
    @settings(
        max_examples=number + 1,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.tuples(operators, st.integers(0, 2**31)))
    def draw(one):
        found.append(one)

    draw()
    return found[1:]


def random_cases(algorithms: list[str], target: Target, count: int, first: int) -> list[Case]:
    """So many cases that are served, or some fewer, of all algorithms in turn, with random knobs,
    each of another operator."""
    found: list[list[Case]] = []
    share = -(-count // len(algorithms))
    for algorithm in algorithms:
        operators = CASES.get(algorithm, GENERAL).operators
        own = (Case(algorithm, *one) for one in drawn(operators, 4 * share, first))
        found.append([*islice((case for case in own if served(case, target)), share)])
    mixed = [case for some in zip_longest(*found) for case in some if case]
    return [*{case.op.name: case for case in mixed}.values()][:count]


def algorithms_of(target: Target) -> list[str]:
    """The algorithms of the target's families, the portable ones where there is no other."""
    families = target.families[:-1] or target.families
    return sorted({a for family in families for a in templates.algorithms_of(family)})


def totals(lines: Iterable[dict]) -> Iterator[str]:
    """What lines of a log say of each CPU."""
    cases, wrong = Counter(), Counter()
    for line in lines:
        for cpu in line["on"]:
            pair = f"{cpu}, built for {line['target']}"
            cases[pair] += line["cases"]
            wrong[pair] += sum(failure.startswith(f"{cpu}: ") for failure in line["wrong"])
    yield from (f"{pair}: {cases[pair]} cases, {wrong[pair]} wrong" for pair in cases)


def main() -> int:
    parser = argparse.ArgumentParser(description="Check random kernels on an emulated CPU.")
    parser.add_argument("target")
    parser.add_argument("--on", default="", help="CPUs, separated by commas [the target]")
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--algorithms", default="", help="separated by commas [all]")
    parser.add_argument("--log", type=Path, help="JSON, a line for each library [none]")
    parser.add_argument("--totals", action="store_true", help="of the log; nothing is checked")
    given_ = parser.parse_args()
    lines = given_.log.read_text().splitlines() if given_.log and given_.log.exists() else []
    logged = [json.loads(line) for line in lines]
    if given_.totals:
        print(*totals(logged), sep="\n")
        return 0
    warnings.simplefilter("ignore")
    target = Target.parse(given_.target)
    cpus = [Target.parse(name) for name in given_.on.split(",") if name] or [target]
    chosen = given_.algorithms.split(",") if given_.algorithms else algorithms_of(target)
    run = {"target": target.name, "on": [cpu.name for cpu in cpus], "algorithms": chosen}
    run |= {"seed": given_.seed}
    found = {line["library"]: line for line in logged if run.items() <= line.items()}
    done, number = sum(line["cases"] for line in found.values()), len(found)
    with tempfile.TemporaryDirectory() as folder:
        while done < given_.cases:
            begun, count = time.monotonic(), min(TOGETHER, given_.cases - done)
            cases = random_cases(chosen, target, count, 1000 * given_.seed + number)
            wrong = failures(cases, target, Path(folder), cpus)
            seconds = round(time.monotonic() - begun, 1)
            found[number] = run | {"library": number, "cases": len(cases), "wrong": wrong}
            done, number = done + len(cases), number + 1
            if given_.log:
                with given_.log.open("a") as log:
                    log.write(json.dumps(found[number - 1] | {"seconds": seconds}) + "\n")
            print(*wrong, f"{done} of {given_.cases} cases, {seconds} s", sep="\n", flush=True)
    print(*totals(found.values()), sep="\n")
    return 1 if any(line["wrong"] for line in found.values()) else 0


def listed(algorithm: str, section: str) -> list[list[str]]:
    """The workloads of an algorithm's cases, in rows of which a day tries one each."""
    cases = CASES.get(algorithm, GENERAL)
    return [*cases.rows_of_pairs()] if section == "pairs" else cases.rows(section)


def case(algorithm: str, text: str) -> Case:
    """With default knobs."""
    return Case(algorithm, parse(text))


if __name__ == "__main__":
    sys.exit(main())
