"""How hot a machine is and how fast its clock runs, where Linux says so (sysfs)."""

from __future__ import annotations

import contextlib
from pathlib import Path

THERMAL = Path("/sys/class/thermal")
CPUS = Path("/sys/devices/system/cpu")

HOT = 0.8
"""Of the highest clock: a machine below it while all is asked of it is slowed down."""


def celsius(folder: Path = THERMAL) -> float | None:
    """The hottest sensor of the machine in degrees; None where there is none."""
    found = [value / 1000 for value in map(_number, folder.glob("thermal_zone*/temp")) if value]
    return max(found, default=None)


def megahertz(folder: Path = CPUS) -> float | None:
    """The fastest clock of a core now; None where the system does not say."""
    found = [_number(path) for path in folder.glob("cpu[0-9]*/cpufreq/scaling_cur_freq")]
    return max((value / 1000 for value in found if value), default=None)


def throttled(folder: Path = CPUS, zones: Path = THERMAL) -> bool:
    """Whether the system slows the machine down now: a cooling device of the processors is at work,
    or the limit of the clock was lowered."""
    for state in zones.glob("cooling_device*/cur_state"):
        with contextlib.suppress(OSError):
            kind = (state.parent / "type").read_text().strip().lower()
            if ("cpu" in kind or "processor" in kind) and _number(state):
                return True
    for path in folder.glob("cpu[0-9]*/cpufreq/scaling_max_freq"):
        most, limit = _number(path.parent / "cpuinfo_max_freq"), _number(path)
        if most and limit and limit < HOT * most:
            return True
    return False


def _number(path: Path) -> int | None:
    """The number in a file of sysfs, None where it cannot be read."""
    with contextlib.suppress(OSError, ValueError):
        return int(path.read_text())
    return None
