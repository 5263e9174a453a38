"""A network beside other libraries that run its ONNX file, in a process that may die of them."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lpgen import runtime
from lpgen.bench import peers
from lpgen.bench.contest import LIMIT, settings
from lpgen.bench.isa import restraint
from lpgen.bench.messages import NetworkTask, NetworkTimes, Phase
from lpgen.errors import LibraryError
from lpgen.supervise import Child, Gone
from lpgen.target import Target

_ROUNDS = 15


def compare_network(
    library: str | os.PathLike[str],
    model: str | os.PathLike[str],
    names: Sequence[str],
    *,
    threads: int = 1,
    rounds: int = _ROUNDS,
    seed: int = 0,
    inputs: Mapping[str, np.ndarray] = {},
    version: int = 0,
) -> NetworkTimes:
    """Time the network of `library` in turns with libraries that run the ONNX file `model`.

    All get the same inputs, random ones where none are given, and as many threads on the same
    cores; version: of the network, of several sizes of inputs. A library that the process dies of
    is left out, and the rest runs again. Raises UserError for an unknown name, LibraryError where
    the network itself cannot be run.
    """
    for name in names:
        peers.get(name)
    loaded = runtime.load(library)
    target = Target.parse(loaded[loaded.kernels[0]].variant["target"])
    environment, no_amx, _ = restraint(target)
    alive, dead = list(names), {}
    while True:
        given = str(library), str(model), tuple(alive), rounds, seed, dict(inputs), version
        task = NetworkTask(*given)
        child = Child(
            *("lpgen.bench.network_turns", str(int(no_amx)), str(threads)),
            environment=environment | settings(threads),
        )
        try:
            child.send(task)
            phase, answer = _answer(child)
        finally:
            child.stop()
        if isinstance(answer, NetworkTimes):
            answer.refused.update(dead)
            return answer
        if not phase.peer:
            raise LibraryError(f"{library}: the comparison {answer}")
        dead[phase.peer] = str(answer)
        alive.remove(phase.peer)


def _answer(child: Child) -> tuple[Phase, Any]:
    """The result or `Gone`, and what the process was doing."""
    phase = Phase("", "starting")
    while True:
        child.enter(phase.words, LIMIT)
        message = child.receive()
        if isinstance(message, Gone | NetworkTimes):
            return phase, message
        phase = message
