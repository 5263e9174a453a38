"""Variants of a network, or of one kernel: its plans with every number of bit layers, and what
each takes, so that a server under load steps down to the best one that is fast enough.

    variants = lib.variants()               # with the times of `lpgen bench LIB.so --variants`
    y = variants.within(800e-6)(x)          # at most 800 us, else the fastest

Plans are in the order in which the library was given them, the best first; with bit layers, more
are better. Switching costs nothing but another argument.
"""

from __future__ import annotations

import json
import math
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lpgen.errors import LibraryError
from lpgen.runtime.kernel import Kernel
from lpgen.runtime.network import Network

if TYPE_CHECKING:
    from lpgen.runtime.library import Library

LAYERS = "layers"
ROUNDS = 20
"""In which variants are timed, in turns; the least time counts, what else runs only adds to it."""
SUFFIX = ".times.json"
"""Of the file beside a library with what its variants took."""


@dataclass(frozen=True)
class Variant:
    """One way to compute: the name of its plan ("" where there is one alone), how many bit layers
    it uses (None: its weights have none), seconds of a call. It is called as what it stands for,
    without the number of layers."""

    plan: str
    layers: int | None
    seconds: float
    runs: Network | Kernel = field(repr=False)
    numbers: Mapping[str, int] = field(default_factory=dict, repr=False)
    """What the inputs that are numbers of layers get."""

    @property
    def name(self) -> str:
        """fast layers=3"""
        words = [self.plan, "" if self.layers is None else f"{LAYERS}={self.layers}"]
        return " ".join(filter(None, words)) or "all"

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        """The result, as `Network` and `Kernel` give it."""
        return self.runs(*inputs, **named, **self.numbers)

    def bind(self, *inputs: Any, **named: Any) -> Callable[[], None]:
        """A function that computes `out`, as `Network.bind` and `Kernel.bind` give it."""
        return self.runs.bind(*inputs, **named, **self.numbers)


class Variants(Sequence[Variant]):
    """All variants, the best first."""

    def __init__(self, variants: Sequence[Variant]) -> None:
        self._variants = list(variants)

    def __len__(self) -> int:
        return len(self._variants)

    def __getitem__(self, place: int) -> Variant:
        return self._variants[place]

    def __iter__(self) -> Iterator[Variant]:
        return iter(self._variants)

    def __repr__(self) -> str:
        times = (f"{v.name} {v.seconds * 1e6:.4g} us" for v in self)
        return f"<lpgen variants: {', '.join(times)}>"

    def within(self, seconds: float) -> Variant:
        """The best variant that takes so long at most; where none does, the fastest one, whose
        `seconds` say so. Raises LibraryError for what is no time."""
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds > 0:
            raise LibraryError(f"within {seconds!r}: expected seconds above 0, such as 800e-6")
        fast = (variant for variant in self if variant.seconds <= seconds)
        return next(fast, None) or min(self, key=lambda variant: variant.seconds)


def variants_of(library: Library, kernel: str | None) -> list[Variant]:
    """The variants of the network, or of a kernel by its workload, without times. Raises
    LibraryError where there is no network and none is named."""
    if kernel is not None:
        found = library[kernel]
        layers = found.arguments.get(LAYERS)
        return _with_layers(
            "", found, {LAYERS: range(layers.low, layers.high + 1)} if layers else {}
        )
    if not library.plans:
        raise LibraryError(f"{library.path}: holds no network; kernel=WORKLOAD names a kernel")
    return [
        variant
        for plan, network in library.plans.items()
        for variant in _with_layers(plan, network, _numbers(library, network))
    ]


def _with_layers(plan: str, runs: Network | Kernel, ranges: Mapping[str, range]) -> list[Variant]:
    """A variant for each number of layers, the most first; an input that has not so many, or so
    few, gets the nearest."""
    if not ranges:
        return [Variant(plan, None, math.nan, runs)]
    low, high = min(r[0] for r in ranges.values()), max(r[-1] for r in ranges.values())
    return [
        Variant(
            *(plan, count, math.nan, runs),
            {name: min(max(count, r[0]), r[-1]) for name, r in ranges.items()},
        )
        for count in range(high, low - 1, -1)
    ]


def _numbers(library: Library, network: Network) -> dict[str, range]:
    """The inputs of a network that are numbers of layers, and which ones all their steps have."""
    found: dict[str, range] = {}
    for step in network.steps:
        name = step.inputs.get(LAYERS)
        if name in network.inputs and LAYERS in (arguments := library[step.workload].arguments):
            low, high = arguments[LAYERS].low, arguments[LAYERS].high
            known = found.get(name, range(low, high + 1))
            found[name] = range(max(low, known[0]), min(high, known[-1]) + 1)
            if not found[name]:
                raise LibraryError(f"network {network.name}: no number fits all steps of {name}")
    return found


def timed(variants: Sequence[Variant], inputs: tuple, named: dict, threads: int) -> Variants:
    """The variants with the time of a call on these inputs each, measured in turns."""
    calls = [_call(variant, inputs, named, threads) for variant in variants]
    least = [math.inf] * len(calls)
    for _ in range(ROUNDS):
        for place, call in enumerate(calls):
            for _ in range(2):  # the second finds its weights as near as a server does
                start = time.perf_counter()
                call()
                least[place] = min(least[place], time.perf_counter() - start)
    pairs = zip(variants, least, strict=True)
    return Variants([replace(variant, seconds=seconds) for variant, seconds in pairs])


def _call(variant: Variant, inputs: tuple, named: dict, threads: int) -> Callable[[], None]:
    out = variant(*inputs, **named, threads=threads)
    return variant.bind(*inputs, **named, out=out, threads=threads)


# ---- the file


def path_of(library: Library) -> Path:
    """Where the times of a library are kept."""
    return library.path.with_suffix(SUFFIX)


def save(library: Library, kernel: str | None, threads: int, variants: Variants) -> Path:
    """Write the times, beside those of other numbers of threads. Raises LibraryError where the
    file cannot be written."""
    path, kept = path_of(library), _read(library)
    kept[_key(kernel, threads)] = {variant.name: variant.seconds for variant in variants}
    text = json.dumps({**_owner(library), "seconds": kept}, indent=1)
    partial_path = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        partial_path.write_text(text + "\n", encoding="utf-8")
        os.replace(partial_path, path)
    except OSError as error:
        partial_path.unlink(missing_ok=True)
        raise LibraryError(f"{path}: {error.strerror}") from None
    return path


def with_times(library: Library, kernel: str | None, threads: int) -> Variants:
    """The variants with the times of the file. Raises LibraryError where it has none of this
    library, on this CPU, for so many threads."""
    known = _read(library).get(_key(kernel, threads), {})
    found = variants_of(library, kernel)
    if missing := [variant.name for variant in found if variant.name not in known]:
        raise LibraryError(
            f"{path_of(library)}: has no times of {missing[0]} on this CPU with threads={threads}; "
            "`lpgen bench LIB.so --variants` and measure_variants measure them"
        )
    return Variants([replace(variant, seconds=known[variant.name]) for variant in found])


def _key(kernel: str | None, threads: int) -> str:
    return f"{kernel or 'network'} threads={threads}"


def _owner(library: Library) -> dict[str, str]:
    """What times belong to: a library, a target and a CPU."""
    return {"library": library.digest, "target": library.target or "", "cpu": _cpu()}


def _read(library: Library) -> dict[str, dict[str, float]]:
    """The times in the file, none where it is not there or belongs to something else."""
    path = path_of(library)
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if any(stored[key] != value for key, value in _owner(library).items()):
            return {}
        tables = stored["seconds"].items()
        return {key: {n: float(s) for n, s in table.items()} for key, table in tables}
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise LibraryError(f"{path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise LibraryError(
            f"{path}: is no file of times; without it they are measured again"
        ) from None


def _cpu() -> str:
    """The model of this machine's CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = ("model name", "Model", "CPU part", "uarch")
    found = {
        key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)
    }
    return " ".join(found[name] for name in names if name in found) or platform.machine()
