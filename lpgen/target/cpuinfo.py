"""/proc/cpuinfo: the CPU that its text tells of.

Every architecture has names of its own for its lines (Linux, arch/*/kernel/: x86/cpu/proc.c,
arm64/cpuinfo.c, riscv/cpu.c).
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Cpu:
    """A CPU as it introduces itself; numbers that it does not tell are -1.

    vendor, brand: texts; flags: its extensions as the system spells them.
    family, model, stepping: on Arm its architecture, part, and 16 * variant + revision; on RISC-V
    model and stepping are marchid and mimpid.
    """

    vendor: str = ""
    brand: str = ""
    family: int = -1
    model: int = -1
    stepping: int = -1
    flags: frozenset[str] = frozenset()


def parse(text: str, board: str = "") -> Cpu:
    """The CPU of a /proc/cpuinfo; board: the name of the machine, which Arm's and RISC-V's tell.

    The first core counts. Where cores differ, as those of big.LITTLE, the brand names every kind.
    """
    cores = [_lines(block) for block in text.strip().split("\n\n")]
    together = {name: value for core in reversed(cores) for name, value in core.items()}
    if "CPU implementer" in together:
        return _arm(cores, together, board)
    if "isa" in together:
        return _riscv(together, board)
    return _x86(cores[0])


def _x86(core: dict[str, str]) -> Cpu:
    return Cpu(
        core.get("vendor_id", ""),
        core.get("model name", ""),
        *(_number(core, name) for name in ("cpu family", "model", "stepping")),
        flags=frozenset(core.get("flags", "").split()),
    )


def _arm(cores: list[dict[str, str]], together: dict[str, str], board: str) -> Cpu:
    kinds = dict.fromkeys(_arm_part(core) for core in cores if "CPU part" in core)
    name = board or together.get("Model") or together.get("Hardware") or ""
    return Cpu(
        together["CPU implementer"],
        f"{name} ({' + '.join(kinds)})".lstrip(),
        family=_number(together, "CPU architecture"),
        model=_number(together, "CPU part"),
        stepping=16 * _number(together, "CPU variant") + _number(together, "CPU revision"),
        flags=frozenset(together.get("Features", "").split()),
    )


def _arm_part(core: dict[str, str]) -> str:
    """A kind of core as Arm's manuals write it: "0xd08 r0p3"."""
    variant, revision = _number(core, "CPU variant"), _number(core, "CPU revision")
    return f"{core['CPU part']} r{variant}p{revision}"


def _riscv(together: dict[str, str], board: str) -> Cpu:
    """Of an ISA such as rv64imafdcv_zba: "rv64" and letters, then longer names."""
    words = (board, together.get("uarch", ""), together["isa"])
    letters, *names = together["isa"].split("_")
    return Cpu(
        together.get("mvendorid", ""),
        " ".join(filter(None, words)),
        model=_number(together, "marchid"),
        stepping=_number(together, "mimpid"),
        flags=frozenset((*re.sub(r"^rv\d+", "", letters), *names)),
    )


def _lines(block: str) -> dict[str, str]:
    return dict(re.findall(r"^([^:\n]+?)[ \t]*:[ \t]*(.*?)[ \t]*$", block, re.MULTILINE))


def _number(lines: dict[str, str], name: str) -> int:
    """The decimal or hexadecimal number of a line, -1: there is none."""
    text = lines.get(name, "")
    return int(text, 0) if re.fullmatch(r"0x[0-9a-fA-F]+|0|[1-9][0-9]*", text) else -1
