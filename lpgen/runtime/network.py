"""The network of a loaded library."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tvm_ffi

from lpgen.errors import LibraryError
from lpgen.runtime import arrays
from lpgen.runtime.constants import Constants
from lpgen.runtime.files import Code
from lpgen.runtime.kernel import MAX_THREADS
from lpgen.runtime.memory import KeptMemory, aligned
from lpgen.runtime.steps import NetworkInterface, Step, Tensor


class Network(NetworkInterface):
    """What runs all of a network: `NetworkInterface` says what is in it.

    target: whose kernels it runs. Threads may share it; each has its own arena, which is kept.
    Weights that lie beside the library are mapped by the first call.
    """

    def __init__(
        self,
        code: Code,
        interface: dict,
        path: Path,
        target: str,
        constants: Constants | None = None,
    ) -> None:
        super().__init__(interface, path, target)
        self._code = code  # keeps it loaded
        self._run = code.get_function(f"{self.name}_run")
        self._arena_bytes = code.get_function(f"{self.name}_arena_bytes")
        self._kept = KeptMemory()
        self._constants = constants or Constants(code, self.name, self.weights, self.checks)
        self._others: tuple[Network, ...] = ()

    def __repr__(self) -> str:
        takes, gives = ", ".join(map(str, self.inputs.values())), ", ".join(self.outputs)
        return f"<lpgen network {self.name}: {len(self.steps)} steps, {takes} -> {gives}>"

    @property
    def versions(self) -> "tuple[Network, ...]":
        """Of a library for several sizes of inputs the networks for each; the first one calls the
        one that the shapes of its inputs ask for."""
        return (self, *self._others)

    def arena_bytes(self, threads: int = 1) -> int:
        """Bytes of memory that a call on `threads` threads uses."""
        return self._arena_bytes(arrays.count("threads", threads, MAX_THREADS))

    def __call__(self, *inputs: Any, out: Any = None, threads: int = 1, **named: Any) -> Any:
        """The outputs for the inputs, computed on `threads` threads.

        inputs: in the order of `inputs`, or one dict of all by name: NumPy arrays or DLPack tensors
        in the CPU's memory, of their shapes and dtypes; what is not contiguous is copied. named:
        others by their names, such as layers=3; an int32 of no dimensions may be an int.
        out: contiguous memory for the output, or a dict of it for each by name; it may not overlap
        inputs. Returns the output, of several a dict by name: `out`, or new arrays of the first
        input's library (of NumPy where that takes no DLPack tensors). Other Python threads run
        meanwhile. Raises LibraryError naming what does not fit.
        """
        given = self._given(inputs, named)
        network = self._fitting(given)
        if network is not self:
            return network(given, out=out, threads=threads)
        threads = arrays.count("threads", threads, MAX_THREADS)
        read = self._readable(given)
        if out is None:
            made = {t.name: np.empty(t.shape, t.dtype) for t in self.outputs.values()}
            self.call(*read, *made.values(), self.arena(threads), threads)
            first = next(iter(given.values()), None)
            plain = first is None or isinstance(first, np.ndarray)
            result = made if plain else {n: arrays.like(first, y) for n, y in made.items()}
        else:
            result = self._named("out", out if isinstance(out, Mapping) else (out,), self.outputs)
            wanted = (
                arrays.writable(t.name, result[t.name], t.shape, t.dtype)
                for t in self.outputs.values()
            )
            self.call(*read, *wanted, self.arena(threads), threads)
        return next(iter(result.values())) if len(result) == 1 else result

    def bind(self, *inputs: Any, out: Any, threads: int = 1, **named: Any) -> Callable[[], None]:
        """A function that computes `out` from what is in the inputs by then, checked once, here.

        For loops in which the microseconds that Python takes for a checked call would count. The
        arguments are those of a call; all have to be NumPy arrays, contiguous and writeable: none
        is copied. The function belongs to the calling thread. Raises LibraryError as a call does.
        """
        given = self._given(inputs, named)
        network = self._fitting(given)
        if network is not self:
            return network.bind(given, out=out, threads=threads)
        self(given, out=out, threads=threads)
        for name, array in given.items():
            if not (array.flags.c_contiguous and array.flags.writeable):
                raise LibraryError(f"{name} is not contiguous, or read-only: bind would use a copy")
        out = self._named("out", out if isinstance(out, Mapping) else (out,), self.outputs)
        wanted = [tvm_ffi.from_dlpack(out[name]) for name in self.outputs]
        return partial(self._run, *self._readable(given), *wanted, self.arena(threads), threads)

    def walk(self, *inputs: Any, threads: int = 1) -> "Walk":
        """A call that goes step by step; the arguments are those of a call."""
        return Walk(self, self._readable(self._given(inputs, {})), threads)

    def trace(self, *inputs: Any, threads: int = 1) -> Iterator[tuple[Step, np.ndarray]]:
        """Each step and what it wrote, a copy in the shape of its kernel's output, one after the
        other."""
        walk = self.walk(*inputs, threads=threads)
        for i, step in enumerate(self.steps):
            walk.run(i, i + 1)
            yield step, walk.written(step)

    def _fitting(self, given: Mapping[str, Any]) -> "Network":
        """The version for inputs of these shapes. Raises LibraryError where there is none."""
        if not self._others:
            return self
        shapes = {name: tuple(getattr(value, "shape", ())) for name, value in given.items()}
        for version in self.versions:
            if all(tensor.shape == shapes[name] for name, tensor in version.inputs.items()):
                return version
        known = "; ".join(version.sizes for version in self.versions)
        asked = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
        raise LibraryError(f"network {self.name}: {asked}: it was compiled for {known}")

    def constant(self, offset: int, nbytes: int) -> np.ndarray:
        """A copy of constants, uint8[nbytes] on a 64-byte boundary."""
        self._constants.map()
        data = aligned(nbytes)
        self._code.get_function(f"{self.name}_constant")(offset, tvm_ffi.from_dlpack(data))
        return data

    @property
    def corrected_words(self) -> int | None:
        """How many words of 8 bytes of the file of weights had a wrong bit, where there are check
        bytes, None: nothing was read."""
        return self._constants.corrected_words

    def _given(self, inputs: tuple, named: Mapping[str, Any]) -> dict[str, Any]:
        """What a call gives, by the names of the inputs."""
        what = f"network {self.name}"
        one = inputs[0] if len(inputs) == 1 and isinstance(inputs[0], Mapping) else inputs
        if named:
            others = {name: t for name, t in self.inputs.items() if name not in named}
            one = {**self._named(what, one, others), **named}
        given = self._named(what, one, self.inputs)
        return {name: self._number(name, value) for name, value in given.items()}

    def _number(self, name: str, value: Any) -> Any:
        """An int as the int32 of no dimensions that an input is, anything else as it is."""
        tensor = self.inputs[name]
        if tensor.shape or tensor.dtype != np.int32 or not isinstance(value, int | np.integer):
            return value
        limits = np.iinfo(np.int32)
        return np.array(arrays.count(name, value, limits.max, limits.min), np.int32)

    def _named(
        self, what: str, values: Mapping[str, Any] | tuple, tensors: Mapping[str, Tensor]
    ) -> dict[str, Any]:
        """The values by the names of the tensors, in their order."""
        takes = ", ".join(map(str, tensors.values())) or "nothing"
        if not isinstance(values, Mapping):
            if len(values) != len(tensors):
                raise LibraryError(f"{what}: {len(values)} tensors, expected {takes}")
            values = dict(zip(tensors, values, strict=True))
        for name in (*tensors, *values):
            if name not in values:
                raise LibraryError(f"{what}: {name} is missing")
            if name not in tensors:
                raise LibraryError(f"{what}: {name!r} is not asked for, expected {takes}")
        return {name: values[name] for name in tensors}

    def _readable(self, given: dict[str, Any]) -> list[Any]:
        expected = self.inputs.values()
        return [arrays.readable(t.name, given[t.name], t.shape, t.dtype) for t in expected]

    def call(self, *arguments: Any) -> None:
        """Call the library's function; what the library refuses is a LibraryError."""
        self._constants.map()
        try:
            self._run(*arguments)
        except (RuntimeError, TypeError) as error:
            raise LibraryError(f"network {str(error).strip()}") from None

    def arena(self, threads: int) -> Any:
        """This thread's arena."""
        return self._kept.of(self.arena_bytes(threads))


def versions_of(
    code: Code, entries: Sequence[dict], path: Path, target: str
) -> tuple[Network, ...]:
    """The networks of a library, of its entries in the manifest; the first one knows all."""
    if not entries:
        return ()
    first = Network(code, entries[0], path, target)
    shared = first._constants
    first._others = tuple(Network(code, entry, path, target, shared) for entry in entries[1:])
    return first.versions


class Walk:
    """A call of a network that goes step by step, on this thread's arena.

    nanoseconds: of each step when it ran last, int64[steps].
    """

    def __init__(self, network: Network, read: list[Any], threads: int) -> None:
        self._network, self._read, self._arena = network, read, network.arena(threads)
        self._threads = threads
        self._outputs = {t.name: np.empty(t.shape, t.dtype) for t in network.outputs.values()}
        self.nanoseconds = np.zeros(len(network.steps), np.int64)

    def run(self, first: int, last: int) -> None:
        """Run steps first .. last - 1, behind those in front of them; one may run again."""
        steps = first, last, tvm_ffi.from_dlpack(self.nanoseconds)
        outputs = self._outputs.values()
        self._network.call(*self._read, *outputs, self._arena, self._threads, *steps)

    def written(self, step: Step) -> np.ndarray:
        """A copy of what a step wrote, in the shape of its kernel's output, as long as it is there:
        until the last step that reads it."""
        tensor = self._network.tensors[step.output]
        if tensor.where == "output":
            return self._outputs[tensor.name].reshape(tensor.shape).copy()
        data = np.from_dlpack(self._arena)[tensor.at : tensor.at + tensor.nbytes]
        return data.view(tensor.dtype).reshape(tensor.shape).copy()
