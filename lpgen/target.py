"""Targets: the CPUs that kernels are generated for, as rows of one table, and which one this is.

A row states what LLVM compiles for (`llvm_cpu`), which instruction set extensions its code may
therefore use (`features`, in LLVM's spelling), and the chain of template families from best to
`generic`. Caches are those of a typical part; `detect` replaces them by this machine's own.
"""

import ctypes
import difflib
import os
import platform
import re
import sys
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from lpgen.errors import TargetError

_KIB = 1024

# Extensions by level: what kernels ask for, and the vector and bit extensions that LLVM may choose
# by itself for the row's CPU (LLVM's X86.td lists them per CPU). Left out: system and cryptographic
# extensions, which only explicit intrinsics reach.
_SSE2 = ("sse", "sse2")
_SSE4 = (*_SSE2, "sse3", "ssse3", "sse4.1", "sse4.2", "popcnt")
_AVX2 = (*_SSE4, "avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe")
_AVX512BW = (*_AVX2, "avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl")
_AVX512VNNI = (*_AVX512BW, "avx512vnni")
_ICELAKE = (
    *_AVX512VNNI,
    *("avx512ifma", "avx512vbmi", "avx512vbmi2", "avx512bitalg", "avx512vpopcntdq", "gfni"),
)
_AMX = ("amx-tile", "amx-int8", "amx-bf16")
_SAPPHIRERAPIDS = (*_ICELAKE, "avxvnni", "avx512bf16", "avx512fp16", *_AMX)
_ZEN3 = (*_AVX2, "sse4a")
_ZEN4 = (*_ICELAKE, "avx512bf16", "sse4a")

_FAMILIES = {"amx-int8": "amx", "sse4.1": "x86"}
"""The families of templates that a feature brings, from best to worst; all have "generic"."""

_LEVELS = {
    "amx-int8": "amx",
    "avx512vnni": "avx512vnni",
    "avx512bw": "avx512bw",
    "avx2": "avx2",
    "sse4.1": "sse4",
}
"""What a CPU with a feature is called for short, from best to worst."""

# Linux's names of the extensions (/proc/cpuinfo) where they differ from LLVM's.
_LLVM_NAME = {
    "pni": "sse3",
    "sse4_1": "sse4.1",
    "sse4_2": "sse4.2",
    "abm": "lzcnt",
    "bmi1": "bmi",
    "avx512_vnni": "avx512vnni",
    "avx512_vbmi2": "avx512vbmi2",
    "avx512_bitalg": "avx512bitalg",
    "avx512_vpopcntdq": "avx512vpopcntdq",
    "avx512_bf16": "avx512bf16",
    "avx512_fp16": "avx512fp16",
    "avx_vnni": "avxvnni",
    "amx_tile": "amx-tile",
    "amx_int8": "amx-int8",
    "amx_bf16": "amx-bf16",
}


@dataclass(frozen=True)
class Target:
    """A CPU: `l1d`, `l2` are bytes per core, `l3` bytes shared by its `cores` (0: none)."""

    name: str
    llvm_cpu: str
    features: tuple[str, ...]
    l1d: int
    l2: int
    l3: int
    cores: int

    @classmethod
    def parse(cls, name: str) -> "Target":
        """The target called `name`, or this machine's CPU for "native".

        Raises TargetError for an unknown name, listing the near ones.
        """
        if name == "native":
            return detect()
        if name in _TABLE:
            return _TABLE[name]
        near = difflib.get_close_matches(name[:40], ["native", *_TABLE], n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise TargetError(f"target {name!r} is unknown; {hint}known: native, {', '.join(_TABLE)}")

    def __str__(self) -> str:
        return self.name

    @property
    def families(self) -> tuple[str, ...]:
        """The families of templates that serve it, best first; the last is "generic"."""
        return (*(f for feature, f in _FAMILIES.items() if feature in self.features), "generic")

    @property
    def level(self) -> str:
        """The name of what its CPU has at best: "avx512vnni", "amx" or the like, else "generic"."""
        return next((n for feature, n in _LEVELS.items() if feature in self.features), "generic")

    def missing_on(self, cpu_features: frozenset[str] | set[str]) -> tuple[str, ...]:
        """The features that this target's code may use and `cpu_features` lacks, in table order."""
        return tuple(feature for feature in self.features if feature not in cpu_features)

    def lenders(self) -> tuple["Target", ...]:
        """The other rows whose records serve this target, nearest first.

        Their code runs here: all their features are this target's. Those of the same level
        come first; of each the nearest is that with the most features.
        """
        fitting = [
            row
            for row in _TABLE.values()
            if row.name != self.name and not row.missing_on(frozenset(self.features))
        ]
        return tuple(
            sorted(
                fitting,
                key=lambda row: (row.level != self.level, -len(row.features)),
            )
        )

    def describe(self) -> dict[str, Any]:
        """The target as a dict of JSON values, keys as the fields, and its level and families."""
        return asdict(self) | {"level": self.level, "families": list(self.families)}

    def tvm(self) -> Any:
        """The tvm.target.Target to compile with. Imports TVM, which takes seconds."""
        import tvm

        return tvm.target.Target({"kind": "llvm", "mcpu": self.llvm_cpu, "num-cores": 1})


def _row(
    name: str,
    llvm_cpu: str,
    features: tuple[str, ...],
    *caches_in_kib: int,
    cores: int,
) -> Target:
    l1d, l2, l3 = (size * _KIB for size in caches_in_kib)
    return Target(name, llvm_cpu, features, l1d, l2, l3, cores)


# In order of ability: detection takes the last row that fits. Caches in KiB: L1d, L2 per core, L3.
_TABLE: dict[str, Target] = {
    row.name: row
    for row in (
        _row("generic", "x86-64", _SSE2, 32, 256, 4096, cores=4),
        _row("sse4", "nehalem", _SSE4, 32, 256, 8192, cores=4),
        _row("avx2", "haswell", _AVX2, 32, 256, 8192, cores=4),
        _row("zen3", "znver3", _ZEN3, 32, 512, 32768, cores=8),
        _row("avx512bw", "skylake-avx512", _AVX512BW, 32, 1024, 25344, cores=18),
        _row("avx512vnni", "cascadelake", _AVX512VNNI, 32, 1024, 36608, cores=26),
        _row("icelake", "icelake-server", _ICELAKE, 48, 1280, 55296, cores=36),
        _row("zen4", "znver4", _ZEN4, 32, 1024, 32768, cores=8),
        _row(
            "sapphirerapids",
            "sapphirerapids",
            _SAPPHIRERAPIDS,
            48,
            2048,
            107520,
            cores=56,
        ),
    )
}
_AMD_ROWS = ("zen3", "zen4")


def known() -> dict[str, Target]:
    """All targets by name, in order of ability."""
    return dict(_TABLE)


@cache
def detect() -> Target:
    """This machine's CPU: the best row that it and its system offer, own caches and cores.

    `cores` are the physical cores that this process may use. The answer is kept.
    Raises TargetError on a machine that is not x86-64.
    """
    if platform.machine().lower() not in ("x86_64", "amd64"):
        raise TargetError(f"this machine is {platform.machine()}; native targets are x86-64 only")
    row = best_row(cpu_features(), cpu_fingerprint()["vendor"])
    return replace(row, **_caches(row), cores=_cores())


def best_row(features: frozenset[str] | set[str], vendor: str) -> Target:
    """The best row whose features are all among `features`: Zen rows on AMD's CPUs only."""
    fitting = [
        row
        for row in _TABLE.values()
        if not row.missing_on(features) and (row.name not in _AMD_ROWS or vendor == "AuthenticAMD")
    ]
    # x86-64 always has SSE2; a system that does not list it is still no less than the first row.
    return fitting[-1] if fitting else _TABLE["generic"]


@cache
def cpu_features() -> frozenset[str]:
    """The extensions that this CPU and its operating system offer, in LLVM's spelling.

    Only those that a row of the table names. AMX counts when the system lets this process use it.
    """
    flags = _cpu()["flags"].split()
    named = {_LLVM_NAME.get(flag, flag.replace("_", "-")) for flag in flags}
    found = {feature for row in _TABLE.values() for feature in row.features} & named
    return frozenset(found if amx_permitted(found) else found.difference(_AMX))


def amx_permitted(features: frozenset[str] | set[str]) -> bool:
    """Whether a CPU with `features` may run AMX tile instructions in this process.

    Linux grants the tile registers per process, on request: arch_prctl(ARCH_REQ_XCOMP_PERM) with
    XFEATURE_XTILEDATA (Documentation/arch/x86/xstate.rst). Asking again is harmless.
    """
    if not {"amx-tile", "amx-int8"} <= features or sys.platform != "linux":
        return False
    sys_arch_prctl, arch_req_xcomp_perm, xfeature_xtiledata = 158, 0x1023, 18
    syscall = ctypes.CDLL(None, use_errno=True).syscall
    syscall.restype = ctypes.c_long
    arguments = (ctypes.c_long(arch_req_xcomp_perm), ctypes.c_long(xfeature_xtiledata))
    return syscall(ctypes.c_long(sys_arch_prctl), *arguments) == 0


def cpu_fingerprint() -> dict[str, Any]:
    """What CPU this is: vendor, brand (text), family, model, stepping (numbers, -1 if unknown)."""
    cpu = _cpu()
    numbers = {key: int(cpu.get(key, -1)) for key in ("family", "model", "stepping")}
    return {"vendor": cpu["vendor"], "brand": cpu["brand"], **numbers}


@cache
def _cpu() -> dict[str, str]:
    """vendor, brand, flags, family, model, stepping of the first CPU, as texts."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return _cpu_elsewhere()
    return _parse_cpuinfo(text)


def _parse_cpuinfo(text: str) -> dict[str, str]:
    """The first processor's block of Linux's /proc/cpuinfo."""
    block = text.strip().partition("\n\n")[0]
    lines = dict(re.findall(r"^([^:\n]+?)[ \t]*:[ \t]*(.*?)[ \t]*$", block, re.MULTILINE))
    names = {"vendor": "vendor_id", "brand": "model name", "flags": "flags"}
    cpu = {key: lines.get(name, "") for key, name in names.items()}
    names = {"family": "cpu family", "model": "model", "stepping": "stepping"}
    return cpu | {k: lines[name] for k, name in names.items() if lines.get(name, "").isdecimal()}


def _cpu_elsewhere() -> dict[str, str]:
    """As `_cpu`, where there is no /proc: py-cpuinfo asks CPUID, which takes about a second."""
    import cpuinfo

    info = cpuinfo.get_cpu_info()
    cpu = {"vendor": info.get("vendor_id_raw", ""), "brand": info.get("brand_raw", "")}
    cpu["flags"] = " ".join(info.get("flags", ()))
    return cpu | {k: str(info[k]) for k in ("family", "model", "stepping") if k in info}


def _caches(
    row: Target, folder: Path = Path("/sys/devices/system/cpu/cpu0/cache")
) -> dict[str, int]:
    """l1d, l2, l3 in bytes as Linux tells them; the row's own for what it does not."""
    sizes = {"l1d": row.l1d, "l2": row.l2, "l3": row.l3}
    for entry in folder.glob("index*"):
        try:
            level, kind, size = ((entry / f).read_text().strip() for f in ("level", "type", "size"))
        except OSError:
            continue
        key = {("1", "Data"): "l1d", ("2", "Unified"): "l2", ("3", "Unified"): "l3"}.get(
            (level, kind)
        )
        if key and (match := re.fullmatch(r"(\d+)([KM]?)", size)):
            sizes[key] = int(match[1]) * {"": 1, "K": _KIB, "M": _KIB * _KIB}[match[2]]
    return sizes


def _cores() -> int:
    """Physical cores that this process may use."""
    physical = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else physical
    return max(1, min(physical, allowed))
