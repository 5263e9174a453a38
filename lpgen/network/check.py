"""Checking a network's library: its steps one after the other, in a process of their own.

What the network writes at each step is compared with what the step's kernel alone makes of the same
tensors and of the weights that the library holds; that the kernels are exact `lpgen.build.check`
finds. With the network that was built it is compared with the oracle, too, weights and all.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lpgen import runtime
from lpgen.build.check import ALWAYS, NATIVE, difference, opened
from lpgen.build.emulated import EmulatedKernel, EmulatedLibrary
from lpgen.build.emulated_network import EmulatedNetwork
from lpgen.build.foreign import ForeignLibrary
from lpgen.errors import LibraryError, LpgenError, NetworkError
from lpgen.network.examples import inputs_of
from lpgen.network.network import Network
from lpgen.network.planes import planes_as_in
from lpgen.network.rounding import rounded_for
from lpgen.runtime.steps import NetworkInterface
from lpgen.supervise import Child, Gone, connect
from lpgen.target import Target

THREADS = (1, 2)


@dataclass(frozen=True)
class StepChecked:
    """What came of one step: `failure` is None when what it wrote was exact, else the reason."""

    step: str
    workload: str
    failure: str | None = None


def check_network(
    path: str | os.PathLike[str],
    seed: int = 0,
    network: Network | None = None,
    target: str | None = None,
    version: int = 0,
    cpu: Target | None = None,
    plan: str = "",
) -> Iterator[StepChecked]:
    """Check the network of the library `path` on random inputs, each step as soon as it is done.

    network: what the library was built of, where that is known; target: whose kernels, as
    `runtime.load` takes it; version: which one, of several sizes of inputs; cpu: the one that an
    emulator runs it on, None: this one; plan: which of several [the first]. Raises LibraryError
    when the library cannot be loaded or holds no network, NetworkError when it holds another one.
    """
    library = runtime.load(path, target) if cpu is None else ForeignLibrary(Path(path))
    if library.network is None:
        raise LibraryError(f"{path}: holds no network")
    built = _versions(library, plan)[version]
    if network is not None:
        network = rounded_for(network, [Target.parse(name) for name in library.targets])
        network = planes_as_in(network, [step.workload for step in built.steps])
        _check_same(built, network)
    given = str(path), str(seed), target or "", cpu.name if cpu else NATIVE, str(version)
    given += (plan,)
    child = Child("lpgen.network.check", *given, environment=ALWAYS)
    try:
        child.send(network)
        for step in built.steps:
            child.enter(f"running step {step.name}")
            message = child.receive()
            if isinstance(message, Gone):
                yield StepChecked(step.name, step.workload, str(message))
                return
            yield StepChecked(*message)
    finally:
        child.stop()


def _versions(library: Any, plan: str) -> Sequence[NetworkInterface]:
    return library.plans[plan].versions if plan else library.versions


def _check_same(built: NetworkInterface, network: Network) -> None:
    """Raise NetworkError, naming the first step that is another, unless the steps are the same."""
    for place, (ours, given) in enumerate(zip(built.steps, network.steps, strict=False)):
        theirs = (given.name, given.op.name, dict(given.inputs), given.output)
        if (ours.name, ours.workload, ours.inputs, ours.output) != theirs:
            raise NetworkError(
                f"step {place} is {ours.name}: {ours.workload}, the model has {given.name}: "
                f"{given.op.name}"
            )
    if len(built.steps) != len(network.steps):
        raise NetworkError(f"{len(built.steps)} steps, the model has {len(network.steps)}")


def check_steps(
    library: runtime.Library | EmulatedLibrary,
    inputs: dict[str, np.ndarray],
    reference: Network | None = None,
    version: int = 0,
    plan: str = "",
) -> Iterator[StepChecked]:
    """The steps of a call on one thread, each with what is wrong; with the last one, what is wrong
    with calls as a whole, on several threads, too."""
    network, tensors = _versions(library, plan)[version], dict(inputs)
    expected = reference.run(inputs) if reference else {}
    last = len(network.steps) - 1
    for i, (step, tensor) in enumerate(network.trace(inputs)):
        tensors[step.output] = tensor
        alone = _alone(library[step.workload], network, step, tensors)
        failure = _differs(step.output, tensor, alone, "its kernel alone")
        if step.output in expected:
            found = expected[step.output].reshape(tensor.shape)
            failure = failure or _differs(step.output, tensor, found, "the oracle")
        if i == last:
            failure = failure or _whole(network, inputs, tensors)
        yield StepChecked(step.name, step.workload, failure)


def _alone(
    kernel: runtime.Kernel | EmulatedKernel,
    network: runtime.Network | EmulatedNetwork,
    step: runtime.Step,
    tensors: dict[str, np.ndarray],
) -> np.ndarray:
    """What the step's kernel makes of tensors of the network and of its own constants."""
    given = dict(step.numbers)
    for argument in kernel.arguments.values():
        name = argument.name
        if name in step.inputs:
            tensor = tensors[step.inputs[name]]
            scalar = argument.role == "scalar"
            given[name] = int(tensor) if scalar else tensor.reshape(argument.shape)
        elif name in step.constants:
            data = network.constant(step.constants[name], argument.nbytes)
            if argument.role == "packed":
                given[name] = kernel.shared_weights(data)
            else:
                given[name] = data.view(argument.dtype).reshape(argument.shape)
    return kernel(**given)


def _whole(
    network: runtime.Network | EmulatedNetwork,
    inputs: dict[str, np.ndarray],
    tensors: dict[str, np.ndarray],
) -> str | None:
    """What of whole calls, on one thread and on two, differs from the steps one by one."""
    for threads in THREADS:
        made = network(inputs, threads=threads)
        made = made if isinstance(made, dict) else dict(zip(network.outputs, [made], strict=True))
        for name, y in made.items():
            expected = tensors[name].reshape(y.shape)
            if failure := _differs(name, y, expected, "the steps one by one"):
                return f"{failure} (threads={threads})"
    return None


def _differs(name: str, y: np.ndarray, expected: np.ndarray, of: str) -> str | None:
    if y.tobytes() == expected.tobytes():
        return None
    same = (y == expected) | ((y != y) & (expected != expected))
    if same.all():
        return None
    return f"not as {of}: {difference(name, y, expected)}"


def _main(
    pipe: str, parent: str, path: str, seed: str, target: str, where: str, version: str, plan: str
) -> None:
    connection = connect(pipe, parent)
    reference: Network | None = connection.recv()
    with opened(path, where, target) as library:
        network = _versions(library, plan)[int(version)]
        inputs = inputs_of(network, np.random.default_rng(int(seed)))
        waiting = iter(network.steps)
        try:
            for checked in check_steps(library, inputs, reference, int(version), plan):
                connection.send(astuple(checked))
                next(waiting)
        except LpgenError as error:
            step = next(waiting)
            connection.send(astuple(StepChecked(step.name, step.workload, str(error))))


if __name__ == "__main__":
    _main(*sys.argv[1:])
