"""Targets: the CPUs that kernels are generated for, and which one this is.

A row of an architecture's table (x86.py, arm.py, riscv.py) states what LLVM compiles for and which
instruction set extensions its code may therefore use; families of templates and the level follow
from these.
Caches are those of a typical part; `detect` replaces them by this machine's own (host.py).
"""

import difflib
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any

from lpgen.errors import TargetError
from lpgen.target import host
from lpgen.target.architecture import Architecture, Row
from lpgen.target.arm import ARM64, ARMV7
from lpgen.target.riscv import RISCV64
from lpgen.target.x86 import X86

ARCHITECTURES: dict[str, Architecture] = {a.name: a for a in (X86, ARM64, ARMV7, RISCV64)}


@dataclass(frozen=True)
class Target:
    """A CPU that kernels are generated for.

    architecture: its name in `ARCHITECTURES`
    llvm_cpu, mattr, triple, abi: what LLVM is told: -mcpu, what that does not imply, the target
    triple, the calling convention ("": the triple's)
    features: the extensions that its code may use, in LLVM's spelling
    l1d, l2: bytes per core; l3: bytes shared by its `cores` (0: none)
    emulated: what the architecture's emulator calls such a CPU, "": it has none
    """

    name: str
    architecture: str
    llvm_cpu: str
    mattr: tuple[str, ...]
    triple: str
    abi: str
    features: tuple[str, ...]
    l1d: int
    l2: int
    l3: int
    cores: int
    emulated: str = ""

    @classmethod
    def parse(cls, name: str) -> "Target":
        """The target called `name`, or this machine's CPU for "native", or the first of a level.

        Raises TargetError for an unknown name, listing the near ones.
        """
        if name == "native":
            return detect()
        if name in _TABLE:
            return _TABLE[name]
        if name in ALIASES:
            return _TABLE[ALIASES[name]]
        if first := next((row for row in _TABLE.values() if row.level == name), None):
            return first
        near = difflib.get_close_matches(name[:40], ["native", *_TABLE], n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise TargetError(f"target {name!r} is unknown; {hint}known: native, {', '.join(_TABLE)}")

    def __str__(self) -> str:
        return self.name

    @property
    def is_native(self) -> bool:
        """Whether this machine is of its architecture."""
        return host.machine() in ARCHITECTURES[self.architecture].machines

    @property
    def last_cache(self) -> int:
        """Bytes of the cache in front of memory."""
        return max(self.l2, self.l3)

    @property
    def has_fma(self) -> bool:
        """Whether an instruction multiplies and adds float32 with one rounding."""
        feature = ARCHITECTURES[self.architecture].fma
        return not feature or feature in self.features

    @property
    def families(self) -> tuple[str, ...]:
        """The families of templates that serve it, best first; the last is "generic"."""
        return ARCHITECTURES[self.architecture].families_of(self.features)

    @property
    def level(self) -> str:
        """The name of what its CPU has at best: "avx512vnni", "amx" or the like, else "generic"."""
        return ARCHITECTURES[self.architecture].level_of(self.features)

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
            if row.name != self.name
            and row.architecture == self.architecture
            and not row.missing_on(frozenset(self.features))
        ]
        return tuple(sorted(fitting, key=lambda row: (row.level != self.level, -len(row.features))))

    def describe(self) -> dict[str, Any]:
        """The target as a dict of JSON values, keys as the fields, and its level and families."""
        return asdict(self) | {"level": self.level, "families": list(self.families)}

    def tvm(self) -> Any:
        """The tvm.target.Target to compile with. Imports TVM, which takes seconds."""
        import tvm

        told = {"kind": "llvm", "mtriple": self.triple, "mcpu": self.llvm_cpu, "num-cores": 1}
        if self.mattr:
            told["mattr"] = list(self.mattr)
        if self.abi:
            # 32-bit Arm's conventions differ in where floats are; LLVM has a word of its own there.
            told["mfloat-abi" if self.abi in ("hard", "soft") else "mabi"] = self.abi
        return tvm.target.Target(told)


def _target(architecture: Architecture, row: Row) -> Target:
    return Target(
        name=row.name,
        architecture=architecture.name,
        llvm_cpu=row.llvm_cpu,
        mattr=row.mattr,
        triple=row.triple or architecture.triple,
        abi=row.abi or architecture.abi,
        features=row.features,
        l1d=row.l1d << 10,
        l2=row.l2 << 10,
        l3=row.l3 << 10,
        cores=row.cores,
        emulated=row.emulated,
    )


_TABLE: dict[str, Target] = {
    row.name: _target(architecture, row)
    for architecture in ARCHITECTURES.values()
    for row in architecture.rows
}

ALIASES: dict[str, str] = {
    alias: row.name
    for architecture in ARCHITECTURES.values()
    for row in architecture.rows
    for alias in row.aliases
}
"""Other names of rows."""


def known() -> dict[str, Target]:
    """All targets by name, those of an architecture in order of ability."""
    return dict(_TABLE)


@cache
def detect() -> Target:
    """This machine's CPU: the best row that it and its system offer, own caches and cores.

    `cores` are the physical cores that this process may use. The answer is kept.
    Raises TargetError on a machine of an architecture that has no rows.
    """
    architecture = _architecture_here()
    if architecture is None:
        names = ", ".join(name for a in ARCHITECTURES.values() for name in a.machines[:1])
        raise TargetError(f"this machine is {host.machine()}; native targets are those of {names}")
    cpu = host.cpu()
    row = best_row(cpu_features(), cpu.vendor, architecture, cpu.model)
    return replace(row, **host.caches(), cores=host.cores())


def best_row(
    features: frozenset[str] | set[str],
    vendor: str,
    architecture: Architecture = X86,
    model: int = -1,
) -> Target:
    """The best row of an architecture whose features are all among `features`; rows of a vendor,
    or of some models, are for those CPUs only."""
    fitting = [
        row.name
        for row in architecture.rows
        if features.issuperset(row.features) and row.is_of(vendor, model)
    ]
    # A system that does not list what the first row has is still no less than it.
    return _TABLE[fitting[-1] if fitting else architecture.rows[0].name]


@cache
def cpu_features() -> frozenset[str]:
    """The extensions that this CPU and its operating system offer, in LLVM's spelling.

    Only those that a row of its architecture names; none on an architecture without rows. AMX
    counts when the system lets this process use it.
    """
    architecture = _architecture_here()
    if architecture is None:
        return frozenset()
    return architecture.permitted(architecture.features_of(host.cpu().flags))


def cpu_fingerprint() -> dict[str, Any]:
    """What CPU this is: vendor, brand (text), family, model, stepping (numbers, -1 if unknown)."""
    found = asdict(host.cpu())
    del found["flags"]
    return found


def _architecture_here() -> Architecture | None:
    machine = host.machine()
    return next((a for a in ARCHITECTURES.values() if machine in a.machines), None)
