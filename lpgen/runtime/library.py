"""A loaded library."""

import difflib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lpgen.errors import LibraryError
from lpgen.runtime.files import Code, read_manifest
from lpgen.runtime.kernel import Kernel
from lpgen.runtime.network import Network


def load(path: str | os.PathLike[str]) -> "Library":
    """The library in the file `path`.

    The same contents are loaded once and shared, as often as they are asked for, and unloaded when
    no library or kernel of them is left; a file that was built anew is loaded anew.
    Raises LibraryError when there is no such file, when it is no lpgen library, is cut off, damaged
    or was changed after it was built, and when this CPU lacks instructions that all of its kernels
    need (naming them).
    """
    library = Library(path)
    if not library.kernels:
        raise LibraryError(f"{path}: {library.refuses(library.workloads[0])}")
    return library


class Library:
    """Kernels by the canonical names of their workloads. `load` makes one and checks the CPU.

    `kernels`: names of the kernels that this CPU can run; `workloads`: all names in it;
    `manifest`: what the file says it holds, as JSON values; `missing`: instruction set extensions
    that kernels of the library need and this CPU lacks; `network`: what runs all of them as one
    network, None: it is a library of kernels alone. Threads may share it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).absolute()
        self._code = Code.of(self.path)
        self.manifest = read_manifest(self.path, self._code)
        text = self._code.get_function("lpgen_missing_features")()
        self.missing = tuple(text.split(", ")) if text else ()
        try:
            self._entries = {entry["workload"]: entry for entry in self.manifest["kernels"]}
            self._chosen = {name: self._choose(entry) for name, entry in self._entries.items()}
            network = self.manifest.get("network")
            self.network = Network(self._code, network, self.path) if network else None
        except (KeyError, TypeError):
            raise LibraryError(f"{self.path}: its manifest is damaged") from None
        self._kernels: dict[str, Kernel] = {}

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
            variants = self._entries[name]["variants"]
            fewest = min((self._lacking(variant) for variant in variants), key=len)
            built = ", ".join(variant["target"] for variant in variants)
            return f"built for {built}; this CPU lacks {', '.join(fewest)}"
        near = difflib.get_close_matches(str(name)[:500], self.workloads, n=1, cutoff=0.6)
        hint = f"did you mean {near[0]!r}?" if near else f"it has {len(self)}, see its .kernels"
        return f"no kernel {str(name)[:200]!r}; {hint}"

    def _choose(self, entry: dict[str, Any]) -> dict[str, Any] | None:
        """The first variant that this CPU can run, or None."""
        return next((v for v in entry["variants"] if not self._lacking(v)), None)

    def _lacking(self, variant: dict[str, Any]) -> list[str]:
        return [feature for feature in variant["features"] if feature in self.missing]
