"""A kernel of a loaded library, and weights packed for it."""

import math
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import tvm_ffi

from lpgen.errors import LibraryError
from lpgen.runtime import arrays
from lpgen.runtime.files import Code

MAX_THREADS = 1024


class PackedWeights:
    """Weights as one kernel reads them, made by `Kernel.pack_weights`.

    `name`: the kernel's; `identity`: which kernel of which build they are for, as their header
    says; `nbytes`: their size. A DLPack tensor of uint8[nbytes] on a 64-byte boundary; `numpy()` is
    a view of it, to be saved and given to `Kernel.packed_weights` later.
    """

    def __init__(self, name: str, identity: str, data: np.ndarray) -> None:
        self.name, self.identity, self._data = name, identity, data
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


class Kernel:
    """One kernel of a library: `name`, its place in the manifest as `interface` and `variant`.

    x_shape, x_dtype, weights_shape, weights_dtype, y_shape, y_dtype, packed_bytes: what it takes
    and gives; parameters: the names of what is packed with the weights; residual: whether it adds a
    tensor. Threads may share it; each has its own workspace, which is kept.
    """

    def __init__(self, code: Code, interface: dict, variant: dict) -> None:
        self.name: str = interface["workload"]
        self.interface, self.variant = interface, variant
        self.x_shape = tuple(interface["x"]["shape"])
        self.x_dtype = np.dtype(interface["x"]["dtype"])
        self.weights_shape = tuple(interface["weights"]["shape"])
        self.weights_dtype = np.dtype(interface["weights"]["dtype"])
        self.y_shape = tuple(interface["y"]["shape"])
        self.y_dtype = np.dtype(interface["y"]["dtype"])
        self.parameters = tuple(entry["name"] for entry in interface["parameters"])
        self.residual = interface["residual"] is not None
        self.packed_bytes: int = variant["packed_bytes"]
        # Kernels of the same identity may share packed weights.
        self.identity: str = variant["identity"]
        self._code = code  # keeps it loaded
        self._run = code.get_function(variant["symbol"])
        self._pack = code.get_function(f"{variant['symbol']}_pack_weights")
        self._check = code.get_function(f"{variant['symbol']}_check_weights")
        self._kept = threading.local()

    def __repr__(self) -> str:
        return f"<lpgen kernel {self.name}: {self.variant['template']}>"

    def _sizes(self) -> dict[str, int]:
        """Bytes of what a call reads and writes, in the order of its arguments."""
        size = {"x": self.x_dtype.itemsize * math.prod(self.x_shape), "packed": self.packed_bytes}
        if self.residual:
            entry = self.interface["residual"]
            size["residual"] = np.dtype(entry["dtype"]).itemsize * math.prod(entry["shape"])
        return size | {"out": self.y_dtype.itemsize * math.prod(self.y_shape)}

    def workspace_bytes(self, threads: int = 1) -> int:
        """Bytes of scratch memory that a call on `threads` threads uses."""
        sizes = self.variant["workspace_bytes"]
        return sizes["serial"] + threads * sizes["per_thread"]

    def pack_weights(self, weights: Any, **parameters: Any) -> PackedWeights:
        """The weights in the order in which this kernel reads them, with its parameters.

        weights: their values, one per element: integers of any dtype, [n, k] or OHWI, a NumPy array
        or a DLPack tensor. parameters: by the names in `parameters`; an array, or for one of a
        single element a number. Raises LibraryError for another shape, for a value that the format
        does not have or that is outside of its limits, and for a parameter too many or too few.
        """
        values = arrays.to_numpy("weights", weights)
        arrays.check_shape("weights", values.shape, self.weights_shape)
        arrays.check_values("weights", values, self.interface["weights"])
        plain = np.require(values, self.weights_dtype, ["C", "W"])
        given = self._given(parameters)
        packed = PackedWeights(self.name, self.identity, arrays.aligned(self.packed_bytes))
        self._status(self._pack, *map(tvm_ffi.from_dlpack, (plain, *given)), packed.tensor)
        return packed

    def _given(self, parameters: dict[str, Any]) -> list[np.ndarray]:
        """The parameters as arrays, in the packer's order."""
        for name in parameters:
            if name not in self.parameters:
                known = ", ".join(self.parameters) or "none"
                raise LibraryError(f"{self.name}: no parameter {name}; asked for: {known}")
        missing = [name for name in self.parameters if name not in parameters]
        if missing:
            raise LibraryError(f"{self.name}: parameter {missing[0]} is missing")
        return [
            arrays.parameter(parameters[entry["name"]], entry)
            for entry in self.interface["parameters"]
        ]

    def packed_weights(self, data: Any) -> PackedWeights:
        """Packed weights from the bytes of earlier ones (`PackedWeights.numpy`, saved and loaded).

        data: uint8[packed_bytes], or as many `bytes`; they are copied. Raises LibraryError for
        another size, for weights of another kernel, CPU level or build, as their header says, and
        for damaged ones, whose checksum is another.
        """
        if isinstance(data, bytes | bytearray | memoryview):
            data = np.frombuffer(data, np.uint8)
        data = np.asarray(data)
        if data.dtype != np.uint8 or data.shape != (self.packed_bytes,):
            got, expected = f"{data.dtype}{list(data.shape)}", f"uint8[{self.packed_bytes}]"
            raise LibraryError(f"packed weights are {got}, expected {expected}")
        memory = arrays.aligned(self.packed_bytes)
        memory[...] = data
        packed = PackedWeights(self.name, self.identity, memory)
        self._status(self._check, packed.tensor)
        return packed

    def __call__(
        self,
        x: Any,
        packed: PackedWeights,
        out: Any = None,
        threads: int = 1,
        residual: Any = None,
    ) -> Any:
        """The exact result for activations `x`, computed on `threads` threads.

        x: x_dtype[x_shape], one value per byte, [m, k] or NHWC, or packed: a NumPy array or a
        DLPack tensor in the CPU's memory; what is not contiguous is copied. Values outside of the
        format are not noticed and give a wrong result. packed: from `pack_weights` of this kernel.
        out: contiguous memory of y_dtype for the result, which is returned; it may not overlap what
        the kernel reads. Without it the result is a new array of x's library (of NumPy where that
        takes no DLPack tensors). residual: the tensor that is added, as x. Other Python threads run
        meanwhile.
        Raises LibraryError naming the argument that does not fit.
        """
        if not isinstance(packed, PackedWeights) or packed.identity != self.identity:
            raise LibraryError(self._why_not(packed))
        threads = arrays.count("threads", threads, MAX_THREADS)
        source = arrays.readable("x", x, self.x_shape, self.x_dtype)
        more = self._added(residual)
        if out is None:
            y = np.empty(self.y_shape, self.y_dtype)
            self._status(
                self._run, source, packed.tensor, *more, y, self._workspace(threads), threads
            )
            return y if isinstance(x, np.ndarray) else arrays.like(x, y)
        target = arrays.writable("out", out, self.y_shape, self.y_dtype)
        inputs = (source, packed.tensor, *more)
        try:
            self._status(self._run, *inputs, target, self._workspace(threads), threads)
        except LibraryError:
            arrays.check_apart(target, self._sizes(), inputs)  # looked at where it costs nothing
            raise
        return out

    def _status(self, function: Callable, *arguments: Any) -> None:
        """Call a function of the library; what it refuses is a LibraryError."""
        try:
            function(*arguments)
        except RuntimeError as error:
            reason = str(error).partition(": ")[2] or str(error)
            raise LibraryError(f"{self.name}: {reason.strip()}") from None

    def _added(self, residual: Any) -> list[Any]:
        """The residual as an argument, or none."""
        if self.residual != (residual is not None):
            raise LibraryError(
                f"{self.name}: residual is {'missing' if self.residual else 'not asked for'}"
            )
        if not self.residual:
            return []
        entry = self.interface["residual"]
        shape, dtype = tuple(entry["shape"]), np.dtype(entry["dtype"])
        return [arrays.readable("residual", residual, shape, dtype)]

    def bind(
        self,
        x: np.ndarray,
        packed: PackedWeights,
        out: np.ndarray,
        threads: int = 1,
        residual: np.ndarray | None = None,
    ) -> Callable[[], None]:
        """A function that computes `out` from what is in `x` by then, checked once, here.

        For loops in which the microseconds that Python takes for a checked call would count. The
        arguments are those of a call; x and residual have to be contiguous and writeable: none is
        copied. The function belongs to the calling thread. Raises LibraryError as a call does.
        """
        threads = arrays.count("threads", threads, MAX_THREADS)
        self(x, packed, out=out, threads=threads, residual=residual)
        inputs = {"x": x} | ({"residual": residual} if self.residual else {})
        for what, array in inputs.items():
            if not (array.flags.c_contiguous and array.flags.writeable):
                raise LibraryError(f"{what} is not contiguous, or read-only: bind would use a copy")
        source, *more = map(tvm_ffi.from_dlpack, inputs.values())
        target, workspace = tvm_ffi.from_dlpack(out), self._workspace(threads)
        return partial(self._run, source, packed.tensor, *more, target, workspace, threads)

    def _workspace(self, threads: int) -> Any:
        """This thread's workspace, made larger where it is too small: fresh memory is slow."""
        nbytes = self.workspace_bytes(threads)
        kept = getattr(self._kept, "workspace", None)
        if kept is None or kept.shape[0] < nbytes:
            kept = self._kept.workspace = tvm_ffi.from_dlpack(arrays.aligned(max(nbytes, 1)))
        return kept

    def _why_not(self, packed: Any) -> str:
        if not isinstance(packed, PackedWeights):
            return f"packed: {type(packed).__name__}, expected the result of pack_weights"
        if packed.name != self.name:
            return f"packed: weights of {packed.name!r} do not fit {self.name!r}"
        return f"packed: weights of another build of {self.name!r}; pack them again"
