"""A kernel of a loaded library."""

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import tvm_ffi

from lpgen.errors import LibraryError
from lpgen.runtime import arrays
from lpgen.runtime.arguments import Argument
from lpgen.runtime.files import Code
from lpgen.runtime.memory import KeptMemory
from lpgen.runtime.weights import PackedWeights, Packer

MAX_THREADS = 1024

PACKED_KERNEL = 16
"""Where the header of packed weights says whose they are (packed.c)."""


class Kernel:
    """One kernel of a library: `name`, its place in the manifest as `interface` and `variant`.

    arguments: what it takes and gives, by name, in order (`lpgen.runtime.arguments`): inputs that
    are tensors or numbers, the packed weights, the output; weights: what is packed, or None;
    parameters: the names of what is packed with it; packed_bytes: the size of packed weights, 0:
    there are none. rows: the scalar of which the first extent of tensors is taken, None: their
    shapes are fixed. Threads may share it; each has its own workspace, which is kept.
    """

    def __init__(self, code: Code, interface: dict, variant: dict) -> None:
        self.name: str = interface["workload"]
        self.symbol: str = interface["symbol"]
        self.interface, self.variant = interface, variant
        arguments = map(Argument.of_entry, interface["arguments"])
        self.arguments = {argument.name: argument for argument in arguments}
        (self.output,) = (a for a in self.arguments.values() if a.role == "output")
        self._read = [a for a in self.arguments.values() if a.role != "output"]
        named = {a.rows for a in self._read}
        self.rows = next((a for a in self._read if a.name in named), None)
        self.weights = interface["weights"] and Argument.of_entry(interface["weights"])
        self.parameters = tuple(entry["name"] for entry in interface["parameters"])
        self.packed_bytes = sum(a.nbytes for a in self._read if a.role == "packed")
        # Kernels of the same identity and level may share packed weights.
        self.identity: str = variant["identity"]
        self._code = code  # keeps it loaded
        self._run = code.get_function(self.symbol)
        self._packer = Packer(interface, variant, self.packed_bytes, self._call)
        self._kept = KeptMemory()

    def __repr__(self) -> str:
        return f"<lpgen kernel {self.name}: {self.variant['template']}>"

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
        return self._packer.pack(self._function("pack_weights"), weights, parameters)

    def packed_weights(self, data: Any) -> PackedWeights:
        """Packed weights from the bytes of earlier ones (`PackedWeights.numpy`, saved and loaded).

        data: uint8[packed_bytes], or as many `bytes`; they are copied. Raises LibraryError for
        another size, for weights of another kernel, CPU level or build, as their header says, and
        for damaged ones, whose checksum is another.
        """
        return self._packer.restore(self._function("check_weights"), data)

    def own_weights(self, data: np.ndarray) -> PackedWeights:
        """Packed weights of a network in the same library, uint8[packed_bytes] on a 64-byte
        boundary; they are not checked, and not copied."""
        return PackedWeights(self.name, self.identity, self.variant["level"], data)

    def shared_weights(self, data: np.ndarray) -> PackedWeights:
        """The same, where another kernel has packed them, in the same way: their header is changed
        to say that they are this one's."""
        identity = int(self.identity, 16).to_bytes(8, sys.byteorder)
        data[PACKED_KERNEL : PACKED_KERNEL + 8] = np.frombuffer(identity, np.uint8)
        return self.own_weights(data)

    def _function(self, what: str) -> Callable:
        """A function for packed weights."""
        if self.weights is None:
            raise LibraryError(f"{self.name}: has no weights to pack")
        return self._code.get_function(f"{self.symbol}_{what}")

    def __call__(self, *inputs: Any, out: Any = None, threads: int = 1, **named: Any) -> Any:
        """The exact result for the inputs, computed on `threads` threads.

        inputs: in the order of `arguments`, or by their names: kernel(x, packed), kernel(x, packed,
        residual=r). A tensor has the dtype and the shape of its argument, one value per byte, [m,
        k] or NHWC, or packed: a NumPy array or a DLPack tensor in the CPU's memory; what is not
        contiguous is copied. With a range of rows (or images) their number is that of the first
        input. Values outside of the format are not noticed and give a wrong result.
        packed: from `pack_weights` of this kernel. A scalar is an integer within its limits.
        out: contiguous memory of the output's dtype for the result, which is returned; it may not
        overlap what the kernel reads. Without it the result is a new array of the first input's
        library (of NumPy where that takes no DLPack tensors). Other Python threads run meanwhile.
        Raises LibraryError naming the argument that does not fit.
        """
        given = self._given(inputs, named)
        threads = arrays.count("threads", threads, MAX_THREADS)
        arguments, y = self._at_call(given)
        read = [self._readable(a, given[a.name]) for a in arguments]
        if out is None:
            result = np.empty(y.shape, y.dtype)
            self._call(self._run, *read, result, self._workspace(threads), threads)
            first = given[arguments[0].name]
            return result if isinstance(first, np.ndarray) else arrays.like(first, result)
        target = arrays.writable("out", out, y.shape, y.dtype)
        try:
            self._call(self._run, *read, target, self._workspace(threads), threads)
        except LibraryError:
            tensors = ((a, r) for a, r in zip(arguments, read, strict=True) if a.role != "scalar")
            for a, tensor in tensors:  # looked at where it costs nothing
                arrays.check_apart(target, y.nbytes, a.name, tensor, a.nbytes)
            raise
        return out

    def run(self, x: Any, packed: PackedWeights, out: Any, threads: int = 1) -> None:
        """A call of a kernel of one input and packed weights whose arguments are known to fit:
        DLPack tensors in the CPU's memory, contiguous, of the right shapes and dtypes; nothing of
        that is looked at here.

        For layers of a framework, whose calls are many and short. Raises LibraryError for packed
        weights of another kernel or build, and for a kernel that takes more.
        """
        given = {"input": tvm_ffi.from_dlpack(x), "packed": packed.tensor, "scalar": out.shape[0]}
        if len(self._read) != 2 + (self.rows is not None):
            raise LibraryError(f"{self.name}: run is for one input and packed weights")
        read = [given[argument.role] for argument in self._read]
        target = tvm_ffi.from_dlpack(out)
        self._call(self._run, *read, target, self._workspace(threads), threads)

    def bind(
        self, *inputs: Any, out: np.ndarray, threads: int = 1, **named: Any
    ) -> Callable[[], None]:
        """A function that computes `out` from what is in the inputs by then, checked once, here.

        For loops in which the microseconds that Python takes for a checked call would count. The
        arguments are those of a call; tensors have to be NumPy arrays, contiguous and writeable:
        none is copied. The function belongs to the calling thread. Raises LibraryError as a call
        does.
        """
        threads = arrays.count("threads", threads, MAX_THREADS)
        self(*inputs, out=out, threads=threads, **named)
        given = self._given(inputs, named)
        arguments, _ = self._at_call(given)
        for argument in arguments:
            array = given[argument.name]
            if argument.role != "input" or (array.flags.c_contiguous and array.flags.writeable):
                continue
            raise LibraryError(
                f"{argument.name} is not contiguous, or read-only: bind would use a copy"
            )
        read = [self._readable(a, given[a.name]) for a in arguments]
        target, workspace = tvm_ffi.from_dlpack(out), self._workspace(threads)
        return partial(self._run, *read, target, workspace, threads)

    def _given(self, inputs: tuple, named: dict[str, Any]) -> dict[str, Any]:
        """What a call gives, by the names of the arguments that are read. None is nothing given."""
        names = [argument.name for argument in self._read if argument is not self.rows]
        if len(inputs) > len(names):
            takes = ", ".join(names)
            raise LibraryError(f"{self.name}: {len(inputs)} inputs, it takes ({takes})")
        given = dict(zip(names, inputs, strict=False))
        for name, value in named.items():
            if name in given:
                raise LibraryError(f"{self.name}: {name} is given twice")
            if value is not None and name not in names:
                raise LibraryError(f"{self.name}: {name} is not asked for")
            given[name] = value
        for name in names:
            if given.get(name) is None:
                raise LibraryError(f"{self.name}: {name} is missing")
        return given

    def _at_call(self, given: dict[str, Any]) -> tuple[list[Argument], Argument]:
        """What is read, and the output, in a call: with as many rows as it gives, which become
        part of `given`. LibraryError where the kernel does not serve them."""
        rows = self.rows
        if rows is None:
            return self._read, self.output
        first = next(a for a in self._read if a.rows)
        shape = tuple(getattr(given[first.name], "shape", ()))
        count = int(shape[0]) if len(shape) == len(first.shape) else rows.high
        if not rows.low <= count <= rows.high:
            serves = f"the kernel serves {rows.low} to {rows.high}"
            raise LibraryError(f"{self.name}: {rows.name} is {count}, {serves}")
        given[rows.name] = count
        return [a.at(count) for a in self._read], self.output.at(count)

    def _readable(self, argument: Argument, value: Any) -> Any:
        """The value of an argument that is read, as the library takes it."""
        if argument.role == "packed":
            if reason := self._packer.why_not(value):
                raise LibraryError(reason)
            return value.tensor
        if argument.role == "scalar":
            return arrays.count(argument.name, value, argument.high, argument.low)
        return arrays.readable(argument.name, value, argument.shape, argument.dtype)

    def _call(self, function: Callable, *arguments: Any) -> None:
        """Call a function of the library; what it refuses is a LibraryError."""
        try:
            function(*arguments)
        except RuntimeError as error:
            reason = str(error).partition(": ")[2] or str(error)
            raise LibraryError(f"{self.name}: {reason.strip()}") from None

    def _workspace(self, threads: int) -> Any:
        """This thread's workspace."""
        return self._kept.of(self.workspace_bytes(threads))
