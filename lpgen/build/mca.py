"""llvm-mca: how long a hot loop takes on a CPU, by LLVM's tables of its instructions and units."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from lpgen.build import mca_tables
from lpgen.errors import UserError

if TYPE_CHECKING:
    from lpgen.target import Target

_NEWEST, _OLDEST = 40, 13
_ITERATIONS = 100
_SECONDS = 60.0
_CYCLES = re.compile(r"^Total Cycles:\s+(\d+)$", re.MULTILINE)
_BOUND = re.compile(r"^Block RThroughput:\s+([\d.]+)$", re.MULTILINE)


class Loop(NamedTuple):
    """Cycles of an iteration; bound: those that its instructions need of the busiest unit, or to
    be issued, if nothing ever waits for a result."""

    cycles: float
    bound: float


@cache
def find() -> str:
    """The path of llvm-mca, of several that of the newest LLVM. Raises UserError without one."""
    versions = (f"llvm-mca-{number}" for number in range(_NEWEST, _OLDEST, -1))
    for name in (*versions, "llvm-mca"):
        if path := shutil.which(name):
            return path
    raise UserError("llvm-mca is not installed (Debian: llvm), which --offline asks for cycles")


_ADDITIONS = {
    "arm": "add v{0}.16b, v{0}.16b, v16.16b",
    "armv7": "vadd.i8 q{0}, q{0}, q15",
}
_FITTED = 0.5


@cache
def slowness(target: Target) -> float:
    """How many times more cycles vectors are added in than on the CPUs that the cost model was
    fitted to: independent ones, so that their latency does not count."""
    addition = _ADDITIONS.get(target.architecture)
    if addition is None:
        return 1.0
    lines = [addition.format(i) for i in range(12)]
    return loop(lines, target).cycles / len(lines) / _FITTED


def loop(lines: Sequence[str], target: Target) -> Loop:
    """How long an iteration of a loop takes, all of whose data are in the L1 cache.

    lines: its instructions and labels (`assembly.Loop`); those that LLVM's table is known to be
    wrong about count as `mca_tables` says. Raises UserError where llvm-mca is not
    there, does not know the CPU, or does not take an instruction.
    """
    command = [find(), f"-mtriple={target.triple}", f"-mcpu={target.llvm_cpu}"]
    command += [f"-mattr={','.join(target.mattr)}"] if target.mattr else []
    command += [f"-iterations={_ITERATIONS}", "-instruction-info=0", "-resource-pressure=0"]
    text = "\n".join(mca_tables.rewritten(target.llvm_cpu, lines)) + "\n"
    try:
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"{command[0]} cannot be run: {error}") from None
    if "not a recognized processor" in done.stderr:
        raise UserError(
            f"{command[0]} has no table of {target.llvm_cpu}; a newer LLVM may have one"
        )
    found, bound = (pattern.search(done.stdout) for pattern in (_CYCLES, _BOUND))
    if done.returncode != 0 or found is None or bound is None:
        said = next((x for x in done.stderr.splitlines() if "error" in x), "it says nothing")
        raise UserError(f"{command[0]} does not take the hot loop: {said.strip()[:200]}")
    least = mca_tables.units(target.llvm_cpu, lines)
    return Loop(max(least, int(found[1]) / _ITERATIONS), max(least, float(bound[1])))
