"""A worker process: a builder and a runner side by side, which may die of any candidate.

pool.py starts it as `python -m lpgen.tune.worker PIPE PARENT LOCK CORES TIMING`: the file
descriptor of its end of a pipe, its parent's process id, the file whose lock is its turn to time,
and the cores it is bound to while it builds and while it times ("2,3"; "": any). It serves one
request at a time until the pipe closes. The two halves pass only the values of built.py, so that a
runner on another machine can take the place of this one's (`lpgen.farm.worker`).
"""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from lpgen import supervise
from lpgen.errors import ScheduleRefused
from lpgen.target import cpu_features
from lpgen.tune.builder import Builder
from lpgen.tune.messages import (
    READY,
    Candidate,
    DeviceFailed,
    Laps,
    Measure,
    Outcome,
    Phase,
    Race,
)
from lpgen.tune.runner import Loaded, Runner, bind
from lpgen.tune.workbench import Miscomputed


class Worker:
    """Serves the requests of one pool."""

    def __init__(self, pipe: Connection, builder: Builder, runner: Runner) -> None:
        self._pipe, self._builder, self._runner = pipe, builder, runner
        self._reference: tuple[object, Loaded] | None = None

    def serve(self) -> None:
        """Answer requests until the other end of the pipe is closed."""
        while True:
            try:
                request = self._pipe.recv()
            except EOFError:
                return
            answer = self._race(request) if isinstance(request, Race) else self._measure(request)
            self._send(answer)

    def _send(self, message: Any) -> None:
        self._pipe.send(message)

    def _say(self, name: str, limited: bool = True) -> None:
        self._send(Phase(name, limited))

    @contextlib.contextmanager
    def _turn_to_time(self) -> Iterator[None]:
        self._say("waiting for its turn", limited=False)
        with self._runner.turn():
            yield

    def _measure(self, request: Measure) -> Outcome:
        try:
            loaded = self._load(request, request.candidate)
            reference, known = self._beside(request)
            with self._turn_to_time():
                # Not beside another process's timing either: it would disturb it.
                self._say("checking")
                self._runner.check(loaded)
                self._say("timing")
                fastest = request.fastest or float("inf")
                timing = self._runner.time(loaded, reference, known, fastest)
        except Exception as error:
            # Whatever a candidate does, it is a failed candidate and nothing more.
            return Outcome(None, failed=reason_of(error))
        return Outcome(timing.seconds, timing.spread)

    def _beside(self, request: Measure) -> tuple[Loaded | None, float]:
        """The request's reference and its seconds; loaded when it is a new one."""
        if request.reference is None:
            return None, 0.0
        candidate, seconds = request.reference
        key = request.op, request.target, request.seed, request.threads, candidate.key
        if self._reference is None or self._reference[0] != key:
            self._reference = key, self._load(request, candidate)
        return self._reference[1], seconds

    def _race(self, request: Race) -> Laps:
        try:
            racing = [self._load(request, candidate) for candidate in request.candidates]
            with self._turn_to_time():
                laps = self._runner.race(racing, on_round=lambda: self._say("racing"))
        except Exception as error:
            return Laps((), failed=reason_of(error))
        return Laps(tuple(map(tuple, laps)))

    def _load(self, request: Measure | Race, candidate: Candidate) -> Loaded:
        """Build a candidate and load it."""
        op, seed = request.op, request.seed
        self._say("computing the expected results", limited=False)
        self._runner.open(self._builder.problem(op, seed))
        self._say("building")
        built = self._builder.build(op, request.target, candidate, seed, request.threads)
        self._say("packing weights", limited=False)
        return self._runner.load(built, self._builder.weights)


def reason_of(error: Exception) -> str:
    """Why a candidate failed, in one line."""
    message = supervise.reason_of(error)
    if isinstance(error, Miscomputed):
        return f"wrong: {message}"
    if isinstance(error, DeviceFailed):
        return message
    if isinstance(error, ScheduleRefused):
        return f"refused: {message}"
    return f"{type(error).__name__}: {message}"


class Place(NamedTuple):
    """Where a worker is: the lock of its turn, and its cores while it builds and while it times."""

    lock: str
    cores: list[int]
    timing: list[int]


def serve(
    arguments: list[str],
    runner_at: Callable[[Place], Runner],
    worker: type[Worker] = Worker,
    operators: int = 1,
) -> None:
    """Serve one pool; `arguments` as in the module's description. runner_at: makes the runner;
    worker: of which kind; operators: how many stay with the builder."""
    pipe, parent, lock, *places = arguments
    connection = supervise.connect(pipe, parent)
    place = Place(lock, *([int(core) for core in part.split(",") if core] for part in places))
    bind(place.cores)
    # libtvm's threads are as many as time, on their cores; it reads this when it needs the first.
    threads = max(1, len(place.timing))
    os.environ |= {"TVM_NUM_THREADS": str(threads), "TVM_BIND_THREADS": "0"}
    # Asks the system for the registers that it gives on request only (AMX tiles).
    cpu_features()
    import lpgen.build.lower  # noqa: F401  (TVM, now rather than in the first candidate's time)

    connection.send(READY)
    worker(connection, Builder(operators), runner_at(place)).serve()


def _here(place: Place) -> Runner:
    return Runner(os.open(place.lock, os.O_RDONLY), place.cores, place.timing)


if __name__ == "__main__":
    serve(sys.argv[1:], _here)
