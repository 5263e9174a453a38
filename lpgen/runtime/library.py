"""A loaded library."""

import difflib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lpgen.errors import LibraryError
from lpgen.runtime import arrays
from lpgen.runtime.files import Code, asked_by_environment, read_manifest
from lpgen.runtime.kernel import MAX_THREADS, Kernel
from lpgen.runtime.network import Network, versions_of
from lpgen.runtime.variants import Variants, timed, variants_of, with_times
from lpgen.runtime.variants import save as save_times


def load(path: str | os.PathLike[str], target: str | None = None) -> "Library":
    """The library in the file `path`.

    target: whose kernels are used, of those that it was built for, by its name or that of its level
    [what LPGEN_TARGET in the environment names, else the best that this CPU runs].
    The same contents for the same target are loaded once and shared, as often as they are asked
    for, and unloaded when no library or kernel of them is left; a file that was built anew is
    loaded anew.
    Raises LibraryError when there is no such file, when it is no lpgen library, is cut off, damaged
    or was changed after it was built, when it was not built for `target`, and when this CPU lacks
    instructions that all of its kernels need (naming them).
    """
    library = Library(path, target)
    if not library.kernels:
        raise LibraryError(f"{path}: {library.refuses(library.workloads[0])}")
    return library


class Library:
    """Kernels by the canonical names of their workloads. `load` makes one and checks the CPU.

    `kernels`: names of the kernels that this CPU can run; `workloads`: all names in it;
    `targets`: the CPUs that it was built for, best first; `lacking`: the instruction set extensions
    of each that this CPU lacks; `target`: the one whose kernels are in use, None: none; `asked`:
    the name under which it was asked for, "": it is the best;
    `manifest`: what the file says it holds, as JSON values; `missing`: extensions that this CPU
    lacks for the others of its kernels; `network`: what runs all of them as one
    network, None: it is a library of kernels alone; `versions`: the network for each of the sizes
    that it was compiled for, `network` being the first; `plans`: of several plans the networks of
    the first size by their names, the best first, `network` being the first of all; {"": network}
    of one alone. Threads may share it.
    """

    def __init__(self, path: str | os.PathLike[str], target: str | None = None) -> None:
        self.path = Path(path).absolute()
        if not isinstance(target, str | None):
            raise LibraryError(f"target {target!r} is no name")
        self.asked = target or asked_by_environment()
        self._by = "target" if target else "LPGEN_TARGET"
        self._code = Code.of(self.path, self.asked)
        self.manifest = read_manifest(self.path, self._code)
        self.missing = _listed(self._code.get_function("lpgen_missing_features")())
        try:
            self._read_targets()
            self._entries = {entry["workload"]: entry for entry in self.manifest["kernels"]}
            self._chosen = {n: self._choose(i) for i, n in enumerate(self._entries)}
            self.plans = self._read_plans()
        except (KeyError, TypeError):
            raise LibraryError(f"{self.path}: its manifest is damaged") from None
        self._kernels: dict[str, Kernel] = {}

    def _read_plans(self) -> dict[str, Network]:
        """The networks by the names of their plans."""
        alone = [{"plan": "", **self.manifest}] if self.manifest.get("network") else []
        named = self.target or self.targets[0]
        found = {}
        for plan in self.manifest.get("plans", alone):
            entries = [plan["network"], *plan.get("versions", [])]
            found[plan["plan"]] = versions_of(self._code, entries, self.path, named)[0]
        return found

    @property
    def network(self) -> Network | None:
        """What runs all kernels as one network: of several plans the first."""
        return next(iter(self.plans.values()), None)

    @property
    def versions(self) -> tuple[Network, ...]:
        """The network for each of the sizes that it was compiled for, none where there is none."""
        return self.network.versions if self.network else ()

    @property
    def digest(self) -> str:
        """The SHA-256 of its contents."""
        return self._code.key[0].hex()

    def variants(self, kernel: str | None = None, threads: int = 1) -> Variants:
        """The ways to run the network, or the kernel of that workload: plans and numbers of bit
        layers, the best first, with the times that were measured on this CPU and kept beside the
        library (`measure_variants`). Raises LibraryError where there are none."""
        return with_times(self, kernel, arrays.count("threads", threads, MAX_THREADS))

    def measure_variants(
        self,
        *inputs: Any,
        kernel: str | None = None,
        threads: int = 1,
        save: bool = True,
        **named: Any,
    ) -> Variants:
        """The same, measured now, in turns, on the inputs of a call without numbers of layers;
        save: keep the times beside the library. Raises LibraryError as a call does."""
        threads = arrays.count("threads", threads, MAX_THREADS)
        found = timed(variants_of(self, kernel), inputs, named, threads)
        if save:
            save_times(self, kernel, threads, found)
        return found

    def _read_targets(self) -> None:
        """Which targets there are, and of which this CPU runs the kernels. Raises LibraryError for
        one that is asked for and not there."""
        rows, function = self.manifest["targets"], self._code.get_function
        self.targets = tuple(row["name"] for row in rows)
        if self.asked and self.asked not in (*self.targets, *(row["level"] for row in rows)):
            raise LibraryError(
                f"{self.path}: {self._by} {self.asked[:80]!r} is not inside; it is built for "
                f"{', '.join(self.targets)}"
            )
        texts = (function("lpgen_lacking")(place) for place in range(len(rows)))
        self.lacking = {n: _listed(text) for n, text in zip(self.targets, texts, strict=True)}
        self.target: str | None = function("lpgen_target")() or None
        self._levels = {row["name"]: row["level"] for row in rows}

    @property
    def workloads(self) -> list[str]:
        return list(self._entries)

    @property
    def kernels(self) -> list[str]:
        return [name for name, variant in self._chosen.items() if variant is not None]

    def __getitem__(self, name: str) -> Kernel:
        """The kernel for the canonical workload text `name`; LibraryError if there is none."""
        if name not in self._kernels:
            variant = self._chosen.get(name)
            if variant is None:
                raise LibraryError(f"{self.path.name}: {self.refuses(name)}")
            self._kernels[name] = Kernel(self._code, self._entries[name], variant)
        return self._kernels[name]

    def __contains__(self, name: object) -> bool:
        return name in self.kernels

    def __iter__(self) -> Iterator[str]:
        return iter(self.kernels)

    def __len__(self) -> int:
        return len(self.kernels)

    def __repr__(self) -> str:
        return f"<lpgen library {self.path}: {len(self)} kernels>"

    def set_affinity(self, cpus: Iterable[int] | None) -> None:
        """Run the workers of this library's calls on `cpus`, one on each, and no more of them.

        None: wherever the process may run, whatever the calling thread is bound to. The calling
        thread itself stays where it is. Raises LibraryError for a CPU that may not be used.
        """
        chosen = [] if cpus is None else list(cpus)
        if cpus is not None and not chosen:
            raise LibraryError("cpus is empty; None is the default")
        try:
            self._code.get_function("lpgen_set_affinity")(*map(int, chosen))
        except RuntimeError:
            raise LibraryError(f"cpus={chosen}: one of them may not be used here") from None

    def refuses(self, name: str) -> str:
        """Why the library has no kernel of that name here, in one line."""
        if name in self._entries:
            built = [variant["target"] for variant in self._entries[name]["variants"]]
            if self.target and self.asked and self.target not in built:
                return f"built for {', '.join(built)}, not for {self.target} ({self._by})"
            named = [target for target in built if self.asked in (target, self._levels[target])]
            asked = f" ({self._by} {self.asked})" if named else ""
            fewest = min((self.lacking[target] for target in named or built), key=len)
            return f"built for {', '.join(built)}; this CPU lacks {', '.join(fewest)}{asked}"
        near = difflib.get_close_matches(str(name)[:500], self.workloads, n=1, cutoff=0.6)
        hint = f"did you mean {near[0]!r}?" if near else f"it has {len(self)}, see its .kernels"
        return f"no kernel {str(name)[:200]!r}; {hint}"

    def _choose(self, place: int) -> dict[str, Any] | None:
        """The variant of the kernel at a place of the manifest that is in use, or None."""
        variants = self.manifest["kernels"][place]["variants"]
        chosen = self._code.get_function("lpgen_variant")(place)
        return variants[chosen] if chosen < len(variants) else None


def _listed(text: str) -> tuple[str, ...]:
    return tuple(text.split(", ")) if text else ()
