"""Packed weights: how they are made for a kernel, saved, and told apart."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tvm_ffi

from lpgen.errors import LibraryError
from lpgen.runtime import arrays
from lpgen.runtime.memory import aligned, aligned_copy


class PackedWeights:
    """Weights as one kernel reads them, made by `Kernel.pack_weights`.

    `name`: the kernel's; `identity`: which kernel of which build they are for, and `level`: of the
    CPU, as their header says; `nbytes`: their size. A DLPack tensor of uint8[nbytes] on a 64-byte
    boundary; `numpy()` is a view of it, to be saved and given to `Kernel.packed_weights` later.
    """

    def __init__(self, name: str, identity: str, level: str, data: np.ndarray) -> None:
        self.name, self.identity, self.level, self._data = name, identity, level, data
        self.tensor = tvm_ffi.from_dlpack(data)

    @property
    def nbytes(self) -> int:
        return self._data.nbytes

    def numpy(self) -> np.ndarray:
        return self._data

    def __dlpack__(self, **options: Any) -> Any:
        return self._data.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._data.__dlpack_device__()

    def __repr__(self) -> str:
        return f"<weights packed for {self.name}: {self.nbytes} bytes>"


class Packer:
    """What packs the weights of one kernel: its entry of the manifest, and its functions.

    call: calls a function of the library, and makes a LibraryError of what it refuses.
    """

    def __init__(self, interface: dict, variant: dict, nbytes: int, call: Callable) -> None:
        self.name, self.nbytes = interface["workload"], nbytes
        self.identity, self.level = variant["identity"], variant["level"]
        self._weights, self._parameters = interface["weights"], interface["parameters"]
        self._call = call

    def pack(self, pack: Callable, weights: Any, parameters: dict[str, Any]) -> PackedWeights:
        """What the library's function `pack` makes of weights and parameters."""
        values = arrays.to_numpy("weights", weights)
        arrays.check_shape("weights", values.shape, tuple(self._weights["shape"]))
        arrays.check_values("weights", values, self._weights)
        plain = np.require(values, self._weights["dtype"], ["C", "W"])
        given = [plain, *self._given(parameters)]
        packed = PackedWeights(self.name, self.identity, self.level, aligned(self.nbytes))
        self._call(pack, *map(tvm_ffi.from_dlpack, given), packed.tensor)
        return packed

    def _given(self, parameters: dict[str, Any]) -> list[np.ndarray]:
        """The parameters as arrays, in the packer's order."""
        known = [entry["name"] for entry in self._parameters]
        for name in parameters:
            if name not in known:
                asked = ", ".join(known) or "none"
                raise LibraryError(f"{self.name}: no parameter {name}; asked for: {asked}")
        missing = [name for name in known if name not in parameters]
        if missing:
            raise LibraryError(f"{self.name}: parameter {missing[0]} is missing")
        return [arrays.parameter(parameters[entry["name"]], entry) for entry in self._parameters]

    def restore(self, check: Callable, data: Any) -> PackedWeights:
        """Packed weights from the bytes of earlier ones, which the function `check` looks at."""
        if isinstance(data, bytes | bytearray | memoryview):
            data = np.frombuffer(data, np.uint8)
        data = np.asarray(data)
        if data.dtype != np.uint8 or data.shape != (self.nbytes,):
            got, expected = f"{data.dtype}{list(data.shape)}", f"uint8[{self.nbytes}]"
            raise LibraryError(f"packed weights are {got}, expected {expected}")
        packed = PackedWeights(self.name, self.identity, self.level, aligned_copy(data))
        self._call(check, packed.tensor)
        return packed

    def why_not(self, packed: Any) -> str | None:
        """Why `packed` is nothing that this made, None: it is."""
        if not isinstance(packed, PackedWeights):
            return f"packed: {type(packed).__name__}, expected the result of pack_weights"
        if packed.name != self.name:
            return f"packed: weights of {packed.name!r} do not fit {self.name!r}"
        if packed.identity != self.identity:
            return f"packed: weights of another build of {self.name!r}; pack them again"
        if packed.level != self.level:
            return (
                f"packed: weights for CPU level {packed.level}, this is {self.level}; "
                "pack them again"
            )
        return None
