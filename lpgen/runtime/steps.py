"""What a network consists of: tensors, and steps that read and write them."""

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np


class Tensor(NamedTuple):
    """A tensor of a network: its name, shape and dtype; where: "input", "output" or "arena"; at:
    which of the inputs or outputs, or its first byte in the arena."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    where: str
    at: int

    @classmethod
    def of_entry(cls, entry: dict, where: str = "", at: int = 0) -> "Tensor":
        """From an entry of the manifest."""
        shape, dtype = tuple(entry["shape"]), np.dtype(entry["dtype"])
        return cls(entry["name"], shape, dtype, entry.get("where", where), entry.get("at", at))

    @property
    def nbytes(self) -> int:
        """Its size in bytes."""
        return self.dtype.itemsize * math.prod(self.shape)

    def __str__(self) -> str:
        return f"{self.name} {self.dtype}{list(self.shape)}"


class Step(NamedTuple):
    """A step of a network: its name, the workload of its kernel, the names of the tensors that it
    reads, by the kernel's arguments, and of the one that it writes; sources: what it computes, such
    as names of ONNX nodes; constants: the first byte of each in those of the target in use."""

    name: str
    workload: str
    inputs: dict[str, str]
    output: str
    numbers: dict[str, int]
    sources: list[str]
    constants: dict[str, int]


class NetworkInterface:
    """A network as its entry of the manifest, `interface`, describes it, for the target `target`.

    name: what its C functions begin with; inputs, outputs: what a call takes and gives (`Tensor`),
    by name, in order; steps: in the order in which they run; tensors: all of them, by name;
    constant_bytes: of its constants, which lie in the file `weights`, None: in the library itself;
    checks: the file with check bytes for these, None: there are none.
    """

    def __init__(self, interface: dict, path: Path, target: str) -> None:
        self.name: str = interface["name"]
        self.interface = interface
        self.inputs, self.outputs = (
            {
                entry["name"]: Tensor.of_entry(entry, where, i)
                for i, entry in enumerate(interface[f"{where}s"])
            }
            for where in ("input", "output")
        )
        self.target, program = target, interface["programs"][target]
        places = zip(interface["steps"], program["constants"], strict=True)
        self.steps = [Step(**entry, constants=constants) for entry, constants in places]
        self.tensors = {entry["name"]: Tensor.of_entry(entry) for entry in interface["tensors"]}
        self.constant_bytes: int = program["constant_bytes"]
        suffix, checks = program["weights_file"], program.get("checks_file", "")
        self.weights = path.with_suffix(suffix) if suffix else None
        self.checks = path.with_suffix(checks) if checks else None

    @property
    def sizes(self) -> str:
        """The shapes of the inputs as text."""
        return ", ".join(f"{t.name} {list(t.shape)}" for t in self.inputs.values())
