"""Where LLVM's tables of a CPU are wrong about the instructions of low-precision kernels.

Of Zen 4 (znver4 in LLVM 22), cycles after which the next instruction of the kind begins, measured
on the CPU with 512 bits, a loop of twelve independent ones (those of 256 bits take half as many):

| instruction                       | table | CPU | is written as                               |
|-----------------------------------|------:|----:|---------------------------------------------|
| vpdpbusd, vpdpwssd                |     2 |   1 | vfmadd231ps, which adds as late (4 cycles)  |
| vpopcnt of any width              |   0.5 |   1 | vplzcntd                                    |
| shifts by a constant              |   0.5 |   1 | vprold                                      |
| vpbroadcast of a number in memory |     1 | 0.5 | a load                                      |
| vbroadcasti32x4 and the like      |   0.5 |   1 | a load, and vpshufb, whose units it takes   |
| vpmovzx, vpmovsx from memory      |   1.5 |   1 | the same                                    |
| vpternlog with memory             |       |     | a load before it: the table has the other   |
|                                   |       |     | operands wait for the load to begin         |
| loads of 512 bits                 |   0.5 |   1 | `units`                                     |
| stores of 512 bits                |     1 |   2 | `units`                                     |
| vpternlog                         |   0.5 | 0.6 | `units`: as if it took 1 of the two         |
|                                   |       |     | instructions of a cycle                     |

Between other instructions vpternlog takes more than alone (copies of what it overwrites, operands
that are in registers for long: 1). Of 33 loops with carry-save adders, the data in the L1 cache, 1
for each of them, 0.5 for all other arithmetic and 1.4 for a store fit the cycles measured best.
"""

import re
from collections.abc import Sequence

_MEMORY = r"[-\w.]*\(%[^)]*\)"
_ALIKE = (
    (re.compile(r"\tvpdp(?:bus|wss)ds?\t"), "\tvfmadd231ps\t"),
    (re.compile(r"\tvpopcnt[bwdq]\t"), "\tvplzcntd\t"),
    (re.compile(r"\tvps(?:ll|rl|ra)[wdq]\t(?=\$)"), "\tvprold\t"),
    (re.compile(rf"\tvpbroadcast[bwdq]\t(?={_MEMORY}, %[yz])"), "\tvmovdqu64\t"),
    (
        re.compile(rf"\tv(?:broadcast[fi]\d+x\d|pmov[sz]x\w+)\t({_MEMORY}), (%zmm\d+)"),
        r"\tvmovdqu64\t\1, \2\n\tvpshufb\t\2, \2, \2",
    ),
)
_LOGIC = re.compile(rf"(\tvpternlog[dq]\t\$\d+, )({_MEMORY})(?:{{1to\d+}})?(, .*)")
_OPERANDS = re.compile(rf"\t(v\w+)\t(?:\$\d+, )?(?:({_MEMORY})({{1to\d+}})?, )?(.*)")
_REGISTERS = 32


def rewritten(cpu: str, lines: Sequence[str]) -> list[str]:
    """The lines of a loop, with instructions that the table of LLVM's `cpu` is wrong about written
    as others that take as long as they do on the CPU."""
    if cpu != "znver4":
        return [*lines]
    found = []
    used = {int(number) for number in re.findall(r"%[xyz]mm(\d+)", "\n".join(lines))}
    free = next((i for i in range(_REGISTERS) if i not in used), None)
    for line in lines:
        logic = _LOGIC.fullmatch(line)
        if logic and free is not None:
            found.append(f"\tvmovdqu64\t{logic[2]}, %zmm{free}")
            line = f"{logic[1]}%zmm{free}{logic[3]}"
        for pattern, other in _ALIKE:
            line = pattern.sub(other, line)
        found.append(line)
    return found


def units(cpu: str, lines: Sequence[str]) -> float:
    """The cycles that loads, stores or arithmetic of these lines need on that CPU; 0: the table
    knows."""
    if cpu != "znver4":
        return 0.0
    loads = stores = slots = 0.0
    logic = False
    for line in lines:
        found = _OPERANDS.fullmatch(line)
        if found is None:
            continue
        name, memory, each, rest = found.groups()
        wide = "%zmm" in rest
        if name.startswith("vpternlog"):
            logic = True
            slots += 1.0 if wide else 0.5
        elif not name.startswith(("vmov", "vpbroadcast", "vbroadcast")):
            slots += 0.5 if wide else 0.25
        if memory:
            whole = wide and not each and not name.startswith("vpbroadcast")
            loads += 1.0 if whole else 0.5
        elif re.search(rf", {_MEMORY}$", rest):
            stores += 2.0 if wide and name.startswith("vmov") else 1.0
    return max(loads, stores, slots if logic else 0.0)
