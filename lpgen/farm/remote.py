"""A runner whose kernels run on a device: what a worker of the tuner has in place of its own."""

from __future__ import annotations

import contextlib
import json
import socket
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from lpgen.farm.protocol import OPERATORS, Description, Timed, digest, packed
from lpgen.tune.built import Built, Problem, Weights
from lpgen.tune.messages import DeviceFailed, Laps, Outcome

CHANCES = 2
"""Devices that a candidate may take with it before it is blamed."""

RACE_SECONDS = 60.0


class Ready(NamedTuple):
    """A candidate with all that a device may ask for, its weights named by their contents."""

    built: Built
    problem: Problem
    weights: Weights | None


class RemoteRunner:
    """Loads as `lpgen.tune.runner.Runner` does, and measures over the links of a farm.

    address: the path of the socket on which they accept; timeout: seconds that checking may take,
    and timing. What is loaded is no more than its code: the device gets it with the call that needs
    it. Any number of threads may wait for devices.
    """

    def __init__(self, address: str, timeout: float) -> None:
        self._address, self._timeout = address, timeout
        self._problem: Problem | None = None
        self._weights: OrderedDict[str, dict[str, Weights]] = OrderedDict()

    def open(self, problem: Problem) -> None:
        """From now on what is loaded solves this problem."""
        self._problem = problem
        self._weights.setdefault(problem.key, {})
        self._weights.move_to_end(problem.key)
        while len(self._weights) > OPERATORS:
            self._weights.popitem(last=False)

    def load(self, built: Built, weights: Callable[[str], Weights]) -> Ready:
        """The candidate; several builders share a device, which knows weights by their contents."""
        if built.weights is None:
            return Ready(built, self._problem, None)
        known = self._weights[built.problem]
        if built.weights not in known:
            found = weights(built.weights).packed
            name = digest(*(memoryview(each).cast("B") for each in found))
            known[built.weights] = Weights(name, found)
        kept = known[built.weights]
        return Ready(replace(built, weights=kept.key), self._problem, kept)

    def time(
        self,
        loaded: Ready,
        reference: Ready | None = None,
        reference_seconds: float = 0.0,
        fastest: float = float("inf"),
    ) -> Outcome:
        """A candidate's time. Raises DeviceFailed for one that is wrong or crashes."""
        beside = reference and reference.built
        timed = Timed(loaded.built, beside, reference_seconds, fastest)
        several = [loaded, *([reference] if reference else [])]
        answer = self.ask("measure", packed(timed), 2 * self._timeout, several)
        seconds, spread = float(answer["seconds"]), float(answer["spread"])
        return Outcome(seconds, spread, machine=answer["device"].machine)

    def race(self, racing: Sequence[Ready]) -> Laps:
        """The laps of a race, all on one device. Raises DeviceFailed as `time` does."""
        arguments = packed(*(ready.built for ready in racing))
        seconds = RACE_SECONDS + len(racing) * self._timeout
        answer = self.ask("race", arguments, seconds, racing)
        return Laps(tuple(tuple(map(float, lap)) for lap in answer["laps"]))

    def ask(
        self, command: str, arguments: bytes, seconds: float, several: Sequence[Ready]
    ) -> dict[str, Any]:
        """The answer of a free device about these candidates, and that device as "device"; of
        another one, if the first is lost. Raises DeviceFailed for two that are lost, or what a
        device says that failed."""
        for _ in range(CHANCES):
            with connected(self._address) as line:
                # Sent before a link accepts, which then has it at once.
                answer = self._call(line, (command, arguments, seconds), several)
            if "lost" not in answer:
                break
        if lost := answer.get("lost"):
            raise DeviceFailed(f"took {CHANCES} devices with it: {lost}")
        if failed := answer.get("failed"):
            raise DeviceFailed(failed)
        return answer

    def _call(
        self, line: Connection, asked: tuple[str, bytes, float], several: Sequence[Ready]
    ) -> dict[str, Any]:
        """One call, again after the device was given what it says it needs, the problem first."""
        problem = several[0].problem
        weights = {ready.weights.key: ready.weights for ready in several if ready.weights}
        answer, device = call(line, *asked, first=True)
        while needs := answer.get("needs"):
            first = problem.key in needs
            what = (problem,) if first else (weights[needs[0]], problem.key)
            answer, _ = call(line, "keep", packed(*what), self._timeout)
            if "lost" not in answer:
                answer, _ = call(line, *asked)
        return answer | {"device": device}


@contextlib.contextmanager
def connected(address: str):
    """A connection to the first link that is free."""
    client = socket.socket(socket.AF_UNIX)
    client.connect(address)
    with Connection(client.detach()) as line:
        yield line


def call(
    line: Connection, command: str, arguments: bytes, seconds: float, first: bool = False
) -> tuple[dict[str, Any], Description | None]:
    """The answer to a call, and to the first of a connection which device it is; a link that was
    killed is a lost device."""
    try:
        line.send((command, arguments, seconds))
        device = Description.of(line.recv()) if first else None
        answer = line.recv()
    except (EOFError, OSError):
        return {"lost": "its link ended"}, None
    return answer if isinstance(answer, dict) else json.loads(answer), device
