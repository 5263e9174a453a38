"""Constants of a network: packed weights, tables and the like, in one piece that is only read."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from lpgen.build.choice import Variant
from lpgen.build.packed import with_header
from lpgen.errors import FormatError, LpgenError, NetworkError
from lpgen.network.arena import rounded
from lpgen.network.network import Step
from lpgen.ops.signature import ALIGNMENT, Argument

_VERSION = 1
_HEADER = struct.Struct("<8sQQ32sQ")
"""Magic, version, bytes behind it, their SHA-256, zeros."""


class Constants:
    """Arrays one behind the other, each on a 64-byte boundary; equal ones are kept once.

    nbytes: of all of them.
    """

    def __init__(self) -> None:
        self.nbytes = 0
        self._arrays: list[np.ndarray] = []
        self._known: dict[bytes, int] = {}

    def place(self, array: np.ndarray) -> int:
        """The offset of the array's bytes."""
        data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        return self._kept(b"", data, data)

    def packed(self, step: Step, variant: Variant) -> int:
        """The offset of a step's weights with their header; those that lie in the same way for
        several kernels, of other sizes of images or other numbers of rows, are kept once."""
        data = packed_weights(step, variant)
        return self._kept(b"packed", data, with_header(variant, data))

    def _kept(self, kind: bytes, of: np.ndarray, data: np.ndarray) -> int:
        """The offset of data, where there is one of its kind of the same bytes the offset of that
        one."""
        digest = kind + hashlib.sha256(of).digest()
        if digest not in self._known:
            self._known[digest] = self.nbytes
            self._arrays.append(data)
            self.nbytes += rounded(data.size)
        return self._known[digest]

    @property
    def digest(self) -> bytes:
        """The SHA-256 of all of them."""
        found = hashlib.sha256()
        for data in self._pieces():
            found.update(data)
        return found.digest()

    def write(self, path: Path) -> None:
        """All of them as a file of `nbytes`."""
        with path.open("wb") as file:
            file.writelines(self._pieces())

    @property
    def header(self) -> bytes:
        """What stands in front of them in a file of their own, as weights.c has it."""
        return _HEADER.pack(b"lpgen-c", _VERSION, self.nbytes, self.digest, 0)

    @property
    def bytes(self) -> bytes:
        """All of them."""
        return b"".join(bytes(piece) for piece in self._pieces())

    def write_beside(self, path: Path) -> None:
        """The same behind `header`."""
        with path.open("wb") as file:
            file.write(self.header)
            file.writelines(self._pieces())

    def _pieces(self) -> Iterator[np.ndarray | bytes]:
        for data in self._arrays:
            yield data
            yield bytes(-data.size % ALIGNMENT)


def packed_weights(step: Step, variant: Variant) -> np.ndarray:
    """The step's weights and parameters, uint8[n], as the kernel takes them behind a header.

    NumPy packs them: for other CPUs it gives the same bytes. Raises NetworkError, naming the step,
    for values that the kernel's formats do not have.
    """
    op, layout = step.op, variant.choice.kernel.layout
    try:
        weights = np.asarray(step.weights)
        if weights.shape != op.w_shape:
            raise FormatError(f"weights have shape {weights.shape}, expected {op.w_shape}")
        op.weight.check(weights, "weights")
        parameters: Mapping[str, np.ndarray] = op.legal_parameters(step.parameters)
    except LpgenError as error:
        raise NetworkError(f"step {step.name}: {error}") from None
    weights = np.ascontiguousarray(weights, op.weight.dtype)
    return layout.pack(weights, **parameters)


def constant(step: Step, argument: Argument) -> np.ndarray:
    """The array that the step always has for an argument, as its kernel takes it."""
    array = np.asarray(step.constants[argument.name])
    return np.ascontiguousarray(array, argument.dtype)
