"""A runner whose kernels run on a device: what a worker of the tuner has in place of its own."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

from lpgen.farm.protocol import Description, Timed, digest, packed
from lpgen.tune.built import Built, Machine, Problem, Weights
from lpgen.tune.messages import DeviceFailed
from lpgen.tune.timing import Timing

CHANCES = 2
"""Devices that a candidate may take with it before it is blamed."""

RACE_SECONDS = 60.0


class RemoteRunner:
    """The interface of `lpgen.tune.runner.Runner` over the links of a farm.

    address: the path of the socket on which they accept; timeout: seconds that checking may take,
    and timing. `machine` is that of the device that answered last. What is loaded is no more than
    its code: the device gets it with the call that needs it.
    """

    local = False

    def __init__(self, address: str, timeout: float) -> None:
        self._address, self._timeout = address, timeout
        self.machine: Machine | None = None
        self._problem: Problem | None = None
        self._names: dict[str, str] = {}
        self._weights: dict[str, Weights] = {}

    def turn(self) -> contextlib.AbstractContextManager:
        """Nothing to wait for: each call waits until a device is free."""
        return contextlib.nullcontext()

    def open(self, problem: Problem) -> None:
        """From now on what is loaded solves this problem."""
        if self._problem is None or self._problem.key != problem.key:
            self._problem = problem
            self._names.clear()
            self._weights.clear()

    def load(self, built: Built, weights: Callable[[str], Weights]) -> Built:
        """The candidate, its weights named by their contents: several builders share a device."""
        if built.weights is None:
            return built
        if built.weights not in self._names:
            found = weights(built.weights)
            name = digest(*(memoryview(each).cast("B") for each in found.packed))
            self._names[built.weights] = name
            self._weights[name] = Weights(name, found.packed)
        return replace(built, weights=self._names[built.weights])

    def check(self, loaded: Built) -> None:
        """Nothing: a device checks what it is to time."""

    def time(
        self,
        loaded: Built,
        reference: Built | None = None,
        reference_seconds: float = 0.0,
        fastest: float = float("inf"),
    ) -> Timing:
        """As of a runner. Raises DeviceFailed for a candidate that is wrong or crashes."""
        timed = Timed(loaded, reference, reference_seconds, fastest)
        answer = self._ask("measure", packed(timed), 2 * self._timeout)
        return Timing(float(answer["seconds"]), float(answer["spread"]))

    def race(self, racing: Sequence[Built], on_round: Callable[[], Any]) -> list[list[float]]:
        """As of a runner: all on one device."""
        on_round()
        answer = self._ask("race", packed(*racing), RACE_SECONDS + len(racing) * self._timeout)
        return [[float(seconds) for seconds in lap] for lap in answer["laps"]]

    def _ask(self, command: str, arguments: bytes, seconds: float) -> dict[str, Any]:
        """The answer of a free device; of another one, if the first is lost."""
        for _ in range(CHANCES):
            with connected(self._address) as line:
                self.machine = Description.of(line.recv()).machine
                answer = self._call(line, command, arguments, seconds)
            if "lost" not in answer:
                break
        if lost := answer.get("lost"):
            raise DeviceFailed(f"took {CHANCES} devices with it: {lost}")
        if failed := answer.get("failed"):
            raise DeviceFailed(failed)
        return answer

    def _call(
        self, line: Connection, command: str, arguments: bytes, seconds: float
    ) -> dict[str, Any]:
        """One call, again after the device was given what it says it needs, the problem first."""
        answer = call(line, command, arguments, seconds)
        while needs := answer.get("needs"):
            key = self._problem.key if self._problem.key in needs else needs[0]
            what = self._problem if key == self._problem.key else self._weights[key]
            if "lost" in (kept := call(line, "keep", packed(what), self._timeout)):
                return kept
            answer = call(line, command, arguments, seconds)
        return answer


@contextlib.contextmanager
def connected(address: str):
    """A connection to the first link that is free."""
    client = socket.socket(socket.AF_UNIX)
    client.connect(address)
    with Connection(client.detach()) as line:
        yield line


def call(line: Connection, command: str, arguments: bytes, seconds: float) -> dict[str, Any]:
    """The answer to a call; a link that was killed is a lost device."""
    try:
        line.send((command, arguments, seconds))
        answer = line.recv()
    except (EOFError, OSError):
        return {"lost": "its link ended"}
    return answer if isinstance(answer, dict) else json.loads(answer)
