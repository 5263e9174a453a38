"""Libraries on devices: sent there, checked against the oracle here, and timed there alone."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from lpgen.bench.laps import Laps
from lpgen.bench.measure import Measurement, measured, peak_of
from lpgen.bench.network import NetworkMeasurement, StepTime
from lpgen.build.check import Checked, check_kernel
from lpgen.errors import LibraryError
from lpgen.farm.held import Loops, PackedHere
from lpgen.farm.lease import Lease, Lost
from lpgen.network.check import StepChecked
from lpgen.ops import Operator, parse
from lpgen.target import Target

CALL = 120.0
"""Seconds that a call of a kernel may take, and all that is around it."""

NETWORK = 600.0

Leases = Callable[[], contextlib.AbstractContextManager[Lease]]
"""Gives a lease of a device, again and again."""


def target_of(lease: Lease) -> str:
    """The target that the device's CPU is."""
    return str(lease.call("target", seconds=CALL)["target"])


class RemoteLibrary:
    """A library on the device of a lease, as far as checking asks for it.

    path: here; asked: whose kernels, of several targets; split: kernels of any size are split among
    threads. `lacking`: what the device's CPU lacks for each of its targets; `variants`: the kernels
    in use by their names; `steps`: (name, workload) of the network's, none: it holds none.
    Raises LibraryError where the device refuses it, TuneError for one of another architecture.
    """

    def __init__(self, lease: Lease, path: Path, asked: str | None, split: bool = False) -> None:
        try:
            code = path.read_bytes()
        except OSError as error:
            raise LibraryError(f"{path}: {error.strerror}") from None
        lease.check(path, code)
        self.lease, self.path = lease, path
        about = lease.call("library", code, asked, split, seconds=CALL)
        self.lacking: dict[str, tuple[str, ...]] = {
            name: tuple(lacks) for name, lacks in about["lacking"].items()
        }
        self.variants: dict[str, dict[str, Any]] = about["variants"]
        self.steps = [(name, workload) for name, workload in about["steps"]]

    def __getitem__(self, name: str) -> RemoteKernel:
        return RemoteKernel(self.lease, name, self.variants[name])


class RemoteKernel:
    """One kernel on the device."""

    def __init__(self, lease: Lease, name: str, variant: dict[str, Any]) -> None:
        self._lease, self._name, self.variant = lease, name, variant
        self.output = parse(name).signature.output

    def pack_weights(self, weights: np.ndarray, **parameters: Any) -> PackedHere:
        """What names the packed weights, which stay there."""
        answer = self._lease.call("pack", self._name, weights, parameters, seconds=CALL)
        return PackedHere(int(answer["number"]))

    def __call__(self, *, out: np.ndarray, threads: int = 1, **inputs: Any) -> None:
        """Compute `out` there."""
        asked = inputs, out.shape, out.dtype.str, threads
        data = base64.b64decode(self._lease.call("run", self._name, *asked, seconds=CALL)["y"])
        if len(data) != out.nbytes:
            raise LibraryError(f"the device sent {len(data)} bytes, not {out.nbytes}")
        out[...] = np.frombuffer(data, out.dtype).reshape(out.shape)


def check_library(
    leases: Leases, path: Path, seed: int = 0, asked: str | None = None
) -> Iterator[Checked]:
    """Check every kernel of a library on devices, as `lpgen.build.check.check_library` does; what
    ends a session is the failure of the kernel that ran, and the next lease goes on."""
    remaining: list[str] | None = None
    while remaining is None or remaining:
        with leases() as lease:
            library = RemoteLibrary(lease, path, asked, split=True)
            remaining = list(library.variants) if remaining is None else remaining
            while remaining:
                name = remaining.pop(0)
                try:
                    yield check_kernel(library, name, seed)
                except Lost as error:
                    yield Checked(name, "", 0, str(error), asked or "")
                    break


def check_network(
    lease: Lease, path: Path, seed: int = 0, asked: str | None = None
) -> Iterator[StepChecked]:
    """Check the steps of a network on a device, as `lpgen.network.check.check_network` does."""
    library = RemoteLibrary(lease, path, asked, split=True)
    for name, workload in library.steps:
        try:
            answer = lease.call("step", seed, seconds=NETWORK)
        except (Lost, LibraryError) as error:
            yield StepChecked(name, workload, str(error))
            return
        yield StepChecked(name, workload, answer["failure"])


def bench_kernel(
    library: RemoteLibrary, name: str, op: Operator, threads: int = 1, warm: bool = False
) -> Iterator[Measurement]:
    """Measure a kernel of the library as `op`, one of its sizes; with every number of bit layers if
    it has some."""
    variant = library.variants[name]
    loops = _loops(variant["target"], variant["template"], tuple(variant["knobs"].items()))
    for layers in op.bit_layers.all if op.layers else (None,):
        asked = name, op.name, loops, threads, warm, layers
        laps = Laps(**library.lease.call("time", *asked, seconds=CALL))
        yield measured(variant, op, laps)


def bench_network(
    library: RemoteLibrary, threads: int, inputs: Mapping[str, Any]
) -> NetworkMeasurement:
    """Measure the network of the library, as `lpgen.bench.network.bench_network` does."""
    if not library.steps:
        raise LibraryError(f"{library.path}: holds no network")
    found = library.lease.call("time network", threads, dict(inputs), seconds=NETWORK)
    steps = tuple(StepTime(**step) for step in found.pop("steps"))
    return NetworkMeasurement(**found, steps=steps)


@cache
def _loops(target: str, template: str, knobs: Sequence[tuple[str, Any]]) -> Loops:
    """The loops that bound a kernel, compiled here."""
    from lpgen.bench.probes import read_module
    from lpgen.build.link import shared_object
    from lpgen.build.lower import jit_module

    own = Target.parse(target)
    near, far = (shared_object(read_module(own, far), own) for far in (False, True))
    found = peak_of({"target": target, "template": template, "knobs": dict(knobs)}, own)
    if found is None:
        return Loops(target, near, far, None)
    peak, chosen = found
    code = shared_object(jit_module(peak.module, chosen), chosen)
    said = peak.instruction, peak.ops, peak.outputs
    return Loops(target, near, far, (code, said, chosen.name))
