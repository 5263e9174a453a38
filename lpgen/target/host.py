"""This machine, as its system tells: the architecture, the CPU, its caches and cores."""

import os
import platform
import re
from functools import cache
from pathlib import Path

import psutil

from lpgen.target import cpuinfo
from lpgen.target.cpuinfo import Cpu

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20}
_CACHES = {("1", "Data"): "l1d", ("2", "Unified"): "l2", ("3", "Unified"): "l3"}


def machine() -> str:
    """The system's name of the architecture, in lower case: "x86_64", "aarch64"."""
    return platform.machine().lower()


@cache
def cpu() -> Cpu:
    """The CPU of this machine. The answer is kept."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return _cpu_elsewhere()
    return cpuinfo.parse(text, _board())


def caches(folder: Path = Path("/sys/devices/system/cpu/cpu0/cache")) -> dict[str, int]:
    """l1d, l2, l3 in bytes, those of them that Linux tells."""
    sizes = {}
    for entry in folder.glob("index*"):
        try:
            level, kind, size = ((entry / f).read_text().strip() for f in ("level", "type", "size"))
        except OSError:
            continue
        key = _CACHES.get((level, kind))
        if key and (match := re.fullmatch(r"(\d+)([KM]?)", size)):
            sizes[key] = int(match[1]) * _UNITS[match[2]]
    return sizes


def cores() -> int:
    """Physical cores that this process may use."""
    physical = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else physical
    return max(1, min(physical, allowed))


def _board() -> str:
    """The name of the machine in its device tree, such as "Raspberry Pi 4 Model B Rev 1.4"."""
    try:
        name = Path("/proc/device-tree/model").read_bytes()
    except OSError:
        return ""
    return name.rstrip(b"\0").decode(errors="replace")


def _cpu_elsewhere() -> Cpu:
    """As `cpu`, where there is no /proc: py-cpuinfo asks CPUID, which takes about a second."""
    import cpuinfo as py_cpuinfo

    info = py_cpuinfo.get_cpu_info()
    numbers = (int(info.get(name, -1)) for name in ("family", "model", "stepping"))
    vendor, brand = info.get("vendor_id_raw", ""), info.get("brand_raw", "")
    return Cpu(vendor, brand, *numbers, flags=frozenset(info.get("flags", ())))
