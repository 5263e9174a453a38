"""How hot a machine is, how fast its clock runs, and whether the system slows it down, where Linux
says so (sysfs)."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import NamedTuple

THERMAL = Path("/sys/class/thermal")
CPUS = Path("/sys/devices/system/cpu")
FIRMWARE = Path("/sys/devices/platform/soc/soc:firmware/get_throttled")
"""Of a Raspberry Pi, whose firmware lowers the clock unseen by cpufreq."""
CAPPED = 0b1110
"""Its bits for: the clock is capped, throttled, above the soft limit of the temperature."""

HOT = 0.8
"""Of the highest clock: a machine below it while all is asked of it is slowed down."""


class Health(NamedTuple):
    """How a machine is at a moment.

    celsius: the hottest sensor, None where there is none; megahertz: of the fastest clock, None
    where the system does not say; throttled: the system slows it down.
    """

    celsius: float | None = None
    megahertz: float | None = None
    throttled: bool = False

    def __str__(self) -> str:
        words = [f"{self.celsius:.0f} C"] if self.celsius is not None else []
        words += [f"{self.megahertz:.0f} MHz"] if self.megahertz is not None else []
        return ", ".join([*words, *(["slowed down by the system"] if self.throttled else [])])


def now() -> Health:
    """Of this machine."""
    return Health(celsius(), megahertz(), throttled())


def slowed(before: Health, after: Health) -> bool:
    """Whether a machine was slowed down in between; both at work, so that its clock is up."""
    if before.throttled or after.throttled:
        return True
    clocks = before.megahertz, after.megahertz
    return None not in clocks and clocks[1] < HOT * clocks[0]


def celsius(folder: Path = THERMAL) -> float | None:
    """The hottest sensor of the machine in degrees; None where there is none."""
    found = [value / 1000 for value in map(_number, folder.glob("thermal_zone*/temp")) if value]
    return max(found, default=None)


def megahertz(folder: Path = CPUS) -> float | None:
    """The fastest clock of a core now; None where the system does not say."""
    found = [_number(path) for path in folder.glob("cpu[0-9]*/cpufreq/scaling_cur_freq")]
    return max((value / 1000 for value in found if value), default=None)


def throttled(folder: Path = CPUS, zones: Path = THERMAL, firmware: Path = FIRMWARE) -> bool:
    """Whether the system slows the machine down now: a cooling device of the processors is at work,
    the limit of the clock was lowered, or the firmware says so."""
    with contextlib.suppress(OSError, ValueError):
        if int(firmware.read_text(), 16) & CAPPED:
            return True
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
