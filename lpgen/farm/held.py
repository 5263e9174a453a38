"""A library on a device: the commands of a session that call, check and time its kernels.

Kernels are compared with the oracle where they were sent from: results go back. What a network
writes is compared here with what its kernels make of the same tensors.
"""

from __future__ import annotations

import base64
import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lpgen.errors import LibraryError
from lpgen.ops.rows import entry_at
from lpgen.runtime import Library, load
from lpgen.runtime.files import load_module
from lpgen.runtime.memory import aligned_copy
from lpgen.target import Target, detect

if TYPE_CHECKING:
    from lpgen.network.check import StepChecked

FILE = "library.so"


@dataclass(frozen=True)
class PackedHere:
    """Weights that the device has packed, by their number."""

    number: int


@dataclass(frozen=True)
class Loops:
    """Machine code of the loops that bound a kernel: shared objects, and what is said of them.

    target: whose code it is; near, far: they read memory; compute: of multiplications, with its
    instruction, operations and outputs (`probes.Loop`) and its target's name, None: there is none.
    """

    target: str
    near: bytes
    far: bytes
    compute: tuple[bytes, tuple[str, int, int], str] | None


class Held:
    """The library of a session, and what was packed for its kernels. All answers are JSON."""

    def __init__(self) -> None:
        self._library: Library | None = None
        self._packed: list[Any] = []
        self._steps: Iterator[StepChecked] | None = None
        self._loops: dict[Loops, Any] = {}
        self.commands: dict[str, Callable[..., dict[str, Any]]] = {
            "target": lambda: {"target": detect().name},
            "library": self.library,
            "pack": self.pack,
            "run": self.run,
            "step": self.step,
            "time": self.time,
            "time network": self.time_network,
        }

    def library(self, code: bytes, asked: str | None, split: bool) -> dict[str, Any]:
        """Take a library; asked: whose kernels, of several targets; split: kernels of any size are
        split among threads."""
        if split:
            os.environ["LPGEN_TASK_US"] = "0"  # libraries read it when they are loaded
        path = Path(FILE)
        path.unlink(missing_ok=True)  # constants of a network are mapped from its file
        path.write_bytes(code)
        self._library = load(path, asked)
        found = self._library
        steps = (
            [(step.name, step.workload) for step in found.network.steps] if found.network else []
        )
        return {
            "lacking": {name: list(lacks) for name, lacks in found.lacking.items()},
            "variants": {name: found[name].variant for name in found.kernels},
            "steps": steps,
        }

    def pack(
        self, name: str, weights: np.ndarray, parameters: dict[str, np.ndarray]
    ) -> dict[str, Any]:
        """Pack weights for a kernel; they stay until the next ones are."""
        self._packed = [self._kernel(name).pack_weights(weights, **parameters)]
        return {"number": 0}

    def run(
        self, name: str, inputs: dict[str, Any], shape: tuple[int, ...], dtype: str, threads: int
    ) -> dict[str, Any]:
        """The result of a kernel, tensors at odd addresses; `PackedHere` is among the inputs."""
        given = {key: self._placed(value) for key, value in inputs.items()}
        y = np.full(shape, 0x5A, dtype)
        self._kernel(name)(**given, out=y, threads=threads)
        return {"y": base64.b64encode(np.ascontiguousarray(y).tobytes()).decode()}

    def step(self, seed: int) -> dict[str, Any]:
        """The next step of the network, checked."""
        from lpgen.network.check import check_steps
        from lpgen.network.examples import inputs_of

        if self._steps is None:
            inputs = inputs_of(self._library.network, np.random.default_rng(seed))
            self._steps = check_steps(self._library, inputs)
        return asdict(next(self._steps))

    def time(
        self, name: str, workload: str, loops: Loops, threads: int, warm: bool, layers: int | None
    ) -> dict[str, Any]:
        """Laps of a kernel that serves `workload`, and of the loops that bound it."""
        from lpgen.bench.laps import take_laps
        from lpgen.bench.measure import pinned
        from lpgen.ops import parse

        if loops not in self._loops:
            self._loops[loops] = _given(loops)
        loop = self._loops[loops]
        with pinned(threads) as cores:
            self._library.set_affinity(cores[:-1] or None)
            kernel, op = self._kernel(name), parse(workload)
            return asdict(take_laps(kernel, op, detect(), loop, threads, 0, warm, layers))

    def time_network(self, threads: int, inputs: dict[str, np.ndarray]) -> dict[str, Any]:
        """The times of the network and its steps on these inputs, others random."""
        from lpgen.bench.network import bench_network
        from lpgen.network.examples import inputs_of

        given = inputs_of(self._library.network, np.random.default_rng(0), inputs)
        return asdict(bench_network(self._library, threads=threads, inputs=given))

    def _kernel(self, name: str) -> Any:
        if self._library is None:
            raise LibraryError("this session has no library")
        return self._library[name]

    def _placed(self, value: Any) -> Any:
        if isinstance(value, PackedHere):
            return self._packed[value.number]
        return aligned_copy(value, value.itemsize) if isinstance(value, np.ndarray) else value


_numbers = itertools.count(1 << 20)
"""Of modules, which tell their names apart; candidates of the tuner begin at 1."""


def _given(loops: Loops) -> tuple[Any, Target] | None:
    """The loop of multiplications and its target, once all functions are where probes take them."""
    from lpgen.bench.probes import Loop, give

    def function(code: bytes, name: str) -> Any:
        return load_module(Path("loop"), code, next(_numbers))[name]

    target = Target.parse(loops.target)
    give({False: function(loops.near, "main"), True: function(loops.far, "main")}, target, None)
    if loops.compute is None:
        return None
    code, said, name = loops.compute
    loop, own = Loop(*said), Target.parse(name)
    give({}, own, (loop, function(code, entry_at(0))))
    return loop, own
