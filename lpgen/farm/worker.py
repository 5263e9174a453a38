"""A worker process of the tuner that builds here while devices measure what it has built.

`python -m lpgen.farm.worker PIPE PARENT LOCK CORES TIMING LINKS TIMEOUT`: as `lpgen.tune.worker`,
then the address of the farm's links, and the seconds that checking, and timing, may take there.
What is built is handed over, which its parent is told by `Handed`, to a thread that waits for a
device and sends `Answered`; the process builds the next candidate meanwhile.
"""

from __future__ import annotations

import itertools
import sys
import threading
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from lpgen.farm.protocol import OPERATORS
from lpgen.farm.remote import RemoteRunner
from lpgen.tune.builder import Builder
from lpgen.tune.messages import Answered, Handed, Laps, Measure, Outcome, Race
from lpgen.tune.worker import Worker, reason_of, serve

WAKE = 1e-3
"""Seconds until a thread that waits for a device gets on while the process builds."""


class FarmWorker(Worker):
    """Serves the requests of one pool of a farm."""

    def __init__(self, pipe: Connection, builder: Builder, runner: RemoteRunner) -> None:
        super().__init__(pipe, builder, runner)
        self._sending = threading.Lock()

    def serve(self) -> None:
        """Answer requests until the other end of the pipe is closed."""
        for number in itertools.count():
            try:
                request = self._pipe.recv()
            except EOFError:
                return
            try:
                measure = self._built(request)
            except Exception as error:
                # Whatever a candidate does, it is a failed candidate and nothing more.
                self._send(_failed(request, error))
                continue
            self._send(Handed(number))
            waiting = partial(self._finish, number, request, measure)
            threading.Thread(target=waiting, daemon=True).start()

    def _send(self, message: Any) -> None:
        with self._sending:
            self._pipe.send(message)

    def _built(self, request: Measure | Race) -> Callable[[], Outcome | Laps]:
        """What measures the request on a device, all of it being built."""
        if isinstance(request, Race):
            racing = [self._load(request, candidate) for candidate in request.candidates]
            return partial(self._runner.race, racing)
        loaded = self._load(request, request.candidate)
        fastest = request.fastest or float("inf")
        return partial(self._runner.time, loaded, *self._beside(request), fastest)

    def _finish(
        self, number: int, request: Measure | Race, measure: Callable[[], Outcome | Laps]
    ) -> None:
        try:
            answer = measure()
        except Exception as error:
            answer = _failed(request, error)
        self._send(Answered(number, answer))


def _failed(request: Measure | Race, error: Exception) -> Outcome | Laps:
    reason = reason_of(error)
    return Laps((), reason) if isinstance(request, Race) else Outcome(None, failed=reason)


def main(arguments: list[str], worker: type[Worker] = FarmWorker) -> None:
    """Serve one pool; `arguments` as in the module's description. worker: of which kind."""
    *own, links, timeout = arguments
    sys.setswitchinterval(WAKE)
    serve(own, lambda place: RemoteRunner(links, float(timeout)), worker, OPERATORS)


if __name__ == "__main__":
    main(sys.argv[1:])
