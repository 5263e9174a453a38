"""Libraries for other CPUs, run here by an emulator: one process serves all calls.

`EmulatedLibrary` looks like `lpgen.runtime.Library` to who checks kernels and networks. Calls go
through the C interface of the library (`lpgen.build.emulator`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lpgen.build.emulated_network import EmulatedNetwork
from lpgen.build.emulator import GIVEN, NUMBER, SCRATCH, WANTED, Emulator, Passed
from lpgen.errors import LibraryError
from lpgen.runtime.arguments import Argument
from lpgen.target import Target


def manifest_in(data: bytes) -> dict[str, Any] | None:
    """The manifest in the bytes of a library, of any architecture; None: there is none."""
    start = data.find(b'{"schema":')
    end = data.find(b"\0", start)
    try:
        return json.loads(data[start:end]) if 0 <= start < end else None
    except ValueError:
        return None


class EmulatedLibrary:
    """The kernels of a library on the CPU `target`, as far as checking them asks for.

    asked: of several targets that the library was built for the one whose kernels are used.
    """

    def __init__(self, path: Path, target: Target, folder: Path, asked: str = "") -> None:
        self.path, self.target = Path(path).absolute(), target
        self.manifest = manifest_in(self.path.read_bytes())
        self.emulator = Emulator(self.path, target, folder, asked)
        self._entries = {entry["workload"]: entry for entry in self.manifest["kernels"]}

    @property
    def workloads(self) -> list[str]:
        return list(self._entries)

    @cached_property
    def versions(self) -> tuple[EmulatedNetwork, ...]:
        """The network for each of the sizes that it was compiled for."""
        names = [row["name"] for row in self.manifest["targets"]]
        network = self.manifest.get("network")
        found: list[EmulatedNetwork] = []
        for entry in [network, *self.manifest.get("versions", [])] if network else []:
            given = self.emulator, entry, self.path, (self.in_use or names)[0]
            found.append(EmulatedNetwork(*given, *found[:1]))
        return tuple(found)

    @property
    def network(self) -> EmulatedNetwork | None:
        """The first of them, None: it is a library of kernels alone."""
        return next(iter(self.versions), None)

    @cached_property
    def missing(self) -> list[str]:
        """What the CPU lacks for kernels which the library does not run there."""
        return self.emulator.text("lpgen_missing_features").split(", ")

    @cached_property
    def in_use(self) -> list[str]:
        """The target whose kernels the library takes, and those behind it; none: it refuses."""
        names = [row["name"] for row in self.manifest["targets"]]
        used = self.emulator.text("lpgen_target")
        return names[names.index(used) :] if used else []

    def __getitem__(self, name: str) -> EmulatedKernel:
        """The kernel of that name; LibraryError where none is in use."""
        entry = self._entries[name]
        for variant in entry["variants"]:
            if variant["target"] in self.in_use:
                return EmulatedKernel(self.emulator, entry, variant)
        built = ", ".join(variant["target"] for variant in entry["variants"])
        lacking = ", ".join(self.missing)
        raise LibraryError(f"built for {built}; {self.target.name} lacks {lacking}")


class EmulatedKernel:
    """One kernel, called through the C interface."""

    def __init__(self, emulator: Emulator, entry: dict[str, Any], variant: dict[str, Any]) -> None:
        self.emulator, self.symbol, self.variant = emulator, entry["symbol"], variant
        every = map(Argument.of_entry, entry["arguments"])
        self.arguments = {argument.name: argument for argument in every}
        self.packing = [*([entry["weights"]] if entry["weights"] else []), *entry["parameters"]]
        (self.output,) = (a for a in self.arguments.values() if a.role == "output")

    def pack_weights(self, weights: np.ndarray, **parameters: Any) -> np.ndarray:
        """The packed weights, as bytes."""
        values = [weights, *(parameters[entry["name"]] for entry in self.packing[1:])]
        (nbytes,) = (a.nbytes for a in self.arguments.values() if a.role == "packed")
        passed = []
        for entry, value in zip(self.packing, values, strict=True):
            array = np.ascontiguousarray(value, entry["dtype"])
            passed += [Passed(GIVEN, array), Passed(NUMBER, array.nbytes)]
        wanted = [Passed(WANTED, nbytes), Passed(NUMBER, nbytes)]
        (packed,) = self.emulator.checked(f"{self.symbol}_pack_weights", [*passed, *wanted])
        return np.frombuffer(packed, np.uint8)

    def shared_weights(self, data: np.ndarray) -> np.ndarray:
        """Packed weights of a network in the same library, as a call takes them."""
        return data

    def __call__(
        self, *, out: np.ndarray | None = None, threads: int = 1, **inputs: Any
    ) -> np.ndarray:
        """The result, in `out` if it is given."""
        arguments = self.arguments.values()
        rows = next((len(inputs[a.name]) for a in arguments if a.rows and a.name in inputs), None)
        if out is None:
            output = self.output.at(rows) if rows is not None else self.output
            out = np.empty(output.shape, output.dtype)
        passed = []
        for argument in arguments:
            value = inputs.get(argument.name, rows)
            if argument.role == "scalar":
                passed.append(Passed(NUMBER, value))
            elif argument.role == "output":
                passed += [Passed(WANTED, out.nbytes, out.itemsize), Passed(NUMBER, out.nbytes)]
            else:
                offset = 0 if argument.role == "packed" else value.itemsize
                passed += [Passed(GIVEN, value, offset), Passed(NUMBER, value.nbytes)]
        sizes: Mapping[str, int] = self.variant["workspace_bytes"]
        nbytes = sizes["serial"] + threads * sizes["per_thread"]
        scratch = [Passed(SCRATCH, nbytes), Passed(NUMBER, nbytes)]
        (y,) = self.emulator.checked(self.symbol, [*passed, *scratch, Passed(NUMBER, threads)])
        out[...] = np.frombuffer(y, out.dtype).reshape(out.shape)
        return out
