"""What a network consists of: tensors, and steps that read and write them."""

import math
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
