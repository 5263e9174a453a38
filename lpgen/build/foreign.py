"""Libraries that this CPU's architecture does not run, as far as their manifest describes them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from lpgen import runtime
from lpgen.build.emulated import manifest_in
from lpgen.errors import LibraryError
from lpgen.runtime.files import machine_of, this_machine
from lpgen.runtime.steps import NetworkInterface
from lpgen.target import Target


class ForeignLibrary:
    """What `runtime.Library` says of one that it could load; nothing is in use; plans: names."""

    asked, target, missing = "", None, ()

    def __init__(self, path: Path) -> None:
        self.path, self.manifest = path, foreign_manifest(path)
        self.targets = tuple(row["name"] for row in self.manifest["targets"])
        self.workloads = [entry["workload"] for entry in self.manifest["kernels"]]
        network = self.manifest.get("network")
        entries = [network, *self.manifest.get("versions", [])] if network else []
        self.versions = tuple(ForeignNetwork(self, entry) for entry in entries)
        self.network = next(iter(self.versions), None)
        self.plans = {plan["plan"]: None for plan in self.manifest.get("plans", [])}


class ForeignNetwork(NetworkInterface):
    """The network of such a library, for the first of its targets."""

    def __init__(self, library: ForeignLibrary, interface: dict[str, Any]) -> None:
        super().__init__(interface, library.path, library.targets[0])
        variants = (v for entry in library.manifest["kernels"] for v in entry["variants"])
        self._workspaces = [v["workspace_bytes"] for v in variants if v["target"] == self.target]

    def arena_bytes(self, threads: int = 1) -> int:
        """Bytes of memory that a call on `threads` threads uses."""
        sizes = (s["serial"] + threads * s["per_thread"] for s in self._workspaces)
        return self.interface["arena"]["tensor_bytes"] + max(sizes, default=0)


def described(path: str | os.PathLike[str]) -> runtime.Library | ForeignLibrary:
    """The library `path`, loaded where this machine's architecture runs it. Raises LibraryError for
    what is none."""
    path = Path(path)
    return ForeignLibrary(path) if is_foreign(path) else runtime.Library(path)


def is_foreign(path: Path) -> bool:
    """Whether a file is a library of another architecture; not where it cannot be read."""
    try:
        head = path.read_bytes()[:64] if path.is_file() else b""  # opening a pipe may block
    except OSError:
        return False  # loading it says why
    return machine_of(head) not in ("", this_machine())


def foreign_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a library of any architecture, found without running it."""
    try:
        manifest = manifest_in(path.read_bytes())
    except OSError as error:
        raise LibraryError(f"{path}: {error.strerror}") from None
    if manifest is None:
        raise LibraryError(f"{path}: is not an lpgen library (it has no manifest)")
    return manifest


def targets_in(manifest: dict[str, Any]) -> list[Target]:
    """What a library was built for, best first."""
    return [Target.parse(row["name"]) for row in manifest["targets"]]
