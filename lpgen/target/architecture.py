"""An architecture: the rows of its CPUs, and the rules by which their features are read."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple


class Row(NamedTuple):
    """A CPU as a line of its architecture's table.

    llvm_cpu: LLVM's name of it (-mcpu); features: what its code may use, in LLVM's spelling;
    l1d, l2, l3: KiB of cache, the first two per core, the last shared by `cores` (0: none);
    mattr: what LLVM has to be told beyond its name ("+v"); triple, abi: "": the architecture's;
    vendor: only CPUs of that vendor are detected as this row, "": of any;
    parts: (vendor, model) of the only ones that are, none: all; aliases: what it is called, too;
    emulated: what the emulator calls a CPU with these features and no others that count.
    """

    name: str
    llvm_cpu: str
    features: tuple[str, ...]
    l1d: int
    l2: int
    l3: int
    cores: int
    vendor: str = ""
    mattr: tuple[str, ...] = ()
    triple: str = ""
    abi: str = ""
    parts: tuple[tuple[str, int], ...] = ()
    aliases: tuple[str, ...] = ()
    emulated: str = ""

    def is_of(self, vendor: str, model: int) -> bool:
        """Whether it is for CPUs of a vendor, of that model."""
        return self.vendor in ("", vendor) and (not self.parts or (vendor, model) in self.parts)


def _all(features: frozenset[str]) -> frozenset[str]:
    return features


@dataclass(frozen=True, eq=False)
class Architecture:
    """What the CPUs of one architecture share.

    machines: what `platform.machine()` calls them, in lower case; triple: LLVM's target triple;
    abi: LLVM's name of the calling convention where the triple leaves a choice, else "";
    rows: in order of ability, the first runs on every one of these CPUs;
    families: feature -> the family of templates that it brings, best first; all have "generic";
    levels: feature -> what a CPU with it is called for short, best first;
    linux: Linux's name of an extension (/proc/cpuinfo) -> LLVM's, where they differ;
    permitted: those of a CPU's features that the system lets this process use, and such as the
        system does not list;
    emulator: the program that runs its code elsewhere (qemu-user), "": none is known;
    fma: the feature that multiplies and adds float32 with one rounding, "": all CPUs have it.
    """

    name: str
    machines: tuple[str, ...]
    triple: str
    rows: tuple[Row, ...]
    families: Mapping[str, str]
    levels: Mapping[str, str]
    linux: Mapping[str, str] = field(default_factory=dict)
    permitted: Callable[[frozenset[str]], frozenset[str]] = _all
    abi: str = ""
    emulator: str = ""
    fma: str = ""

    def families_of(self, features: tuple[str, ...]) -> tuple[str, ...]:
        """The families of templates that serve a CPU with `features`; the last is "generic"."""
        return (*(family for f, family in self.families.items() if f in features), "generic")

    def level_of(self, features: tuple[str, ...]) -> str:
        """The name of the best that a CPU with `features` has, or "generic"."""
        return next((level for f, level in self.levels.items() if f in features), "generic")

    def features_of(self, flags: frozenset[str]) -> frozenset[str]:
        """The features among Linux's `flags`, in LLVM's spelling: those that a row names."""
        named = {self.linux.get(flag, flag.replace("_", "-")) for flag in flags}
        return frozenset(named & {feature for row in self.rows for feature in row.features})
