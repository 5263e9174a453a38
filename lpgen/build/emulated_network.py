"""Networks of libraries for other CPUs, run here by an emulator, step by step.

Nothing stays in the emulator between calls: the arena and the outputs go there and come back.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lpgen.build.emulator import BOTH, GIVEN, LIST, NUMBER, WANTED, Emulator, Passed
from lpgen.errors import LibraryError
from lpgen.runtime.steps import NetworkInterface, Step

_STEPS = {8: "<iiQi4x", 4: "<iiIi"}
"""`lpgen_steps` of the generated header, by the size of an address."""


class EmulatedNetwork(NetworkInterface):
    """The network of a library, as far as checking its steps asks for (`runtime.Network`)."""

    def __init__(
        self,
        emulator: Emulator,
        interface: dict[str, Any],
        path: Path,
        target: str,
        first: EmulatedNetwork | None = None,
    ) -> None:
        super().__init__(interface, path, target)
        self.emulator, self._first = emulator, first or self

    def __call__(self, inputs: Mapping[str, np.ndarray], threads: int = 1) -> dict[str, np.ndarray]:
        """The outputs, by name."""
        call = _Call(self, inputs, threads)
        call.run(0, len(self.steps))
        return {name: call.tensor(name) for name in self.outputs}

    def trace(self, inputs: Mapping[str, np.ndarray]) -> Iterator[tuple[Step, np.ndarray]]:
        """Each step and what it wrote, one after the other."""
        call = _Call(self, inputs, 1)
        for i, step in enumerate(self.steps):
            call.run(i, i + 1)
            yield step, call.tensor(step.output)

    def constant(self, offset: int, nbytes: int) -> np.ndarray:
        """Constants as uint8[nbytes]."""
        self.map()
        wanted = [Passed(NUMBER, offset), Passed(WANTED, nbytes), Passed(NUMBER, nbytes)]
        (data,) = self.emulator.checked(f"{self.name}_constant", wanted)
        return np.frombuffer(data, np.uint8)

    def map(self) -> None:
        """Map the file of the constants, where there is one; it may be mapped already."""
        if self._first is not self:
            self._first.map()
        elif self.weights is not None:
            self._map(self.weights)

    def _map(self, weights: Path) -> None:
        path = np.frombuffer(os.fsencode(weights) + b"\0", np.uint8)
        try:
            self.emulator.checked(f"{self.name}_map_weights", [Passed(GIVEN, path)])
        except LibraryError as error:
            raise LibraryError(f"{weights}: {error}; it holds the weights") from None


class _Call:
    """The memory of a call: inputs, outputs and arena."""

    def __init__(
        self, network: EmulatedNetwork, inputs: Mapping[str, np.ndarray], threads: int
    ) -> None:
        self.network, self.threads = network, threads
        network.map()
        needed, _ = network.emulator.call(f"{network.name}_arena_bytes", [Passed(NUMBER, threads)])
        self.inputs = [np.ascontiguousarray(inputs[name]) for name in network.inputs]
        self.outputs = {t.name: np.zeros(t.nbytes, np.uint8) for t in network.outputs.values()}
        self.arena = np.zeros(max(needed, 1), np.uint8)

    def run(self, first: int, last: int) -> None:
        """Run steps first .. last - 1, behind those in front of them."""
        network, emulator = self.network, self.network.emulator
        layout = _STEPS[emulator.address_bytes]
        steps = np.frombuffer(struct.pack(layout, first, last, 0, -1), np.uint8)
        lists = []
        for kind, arrays in ((GIVEN, self.inputs), (BOTH, self.outputs.values())):
            lists += [Passed(LIST, len(arrays)), *(Passed(kind, array) for array in arrays)]
        memory = [Passed(BOTH, self.arena), Passed(NUMBER, self.arena.nbytes)]
        arguments = [*lists, *memory, Passed(NUMBER, self.threads), Passed(BOTH, steps)]
        *outputs, arena, _ = (
            np.frombuffer(data, np.uint8)
            for data in emulator.checked(f"{network.name}_run_steps", arguments)
        )
        self.outputs = dict(zip(self.outputs, outputs, strict=True))
        self.arena = arena

    def tensor(self, name: str) -> np.ndarray:
        """A tensor, as long as it is there: until the last step that reads it has run."""
        tensor = self.network.tensors[name]
        if name in self.outputs:
            data = self.outputs[name]
        else:
            data = self.arena[tensor.at : tensor.at + tensor.nbytes]
        return data.view(tensor.dtype).reshape(tensor.shape).copy()
