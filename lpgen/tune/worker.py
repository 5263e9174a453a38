"""A worker process: builds, checks and times candidates, and may die of any of them.

pool.py starts it as `python -m lpgen.tune.worker PIPE PARENT LOCK CORES TIMING`: the file
descriptor of its end of a pipe, its parent's process id, the file whose lock is its turn to time,
and the cores it is bound to while it builds and while it times ("2,3"; "": any). It serves one
request at a time until the pipe closes.
"""

import contextlib
import fcntl
import os
import sys
from collections.abc import Iterator, Sequence
from functools import lru_cache
from multiprocessing.connection import Connection
from typing import Any

from lpgen import supervise
from lpgen.algorithms.kernel import Layout
from lpgen.errors import ScheduleRefused
from lpgen.target import cpu_features, detect
from lpgen.tune.messages import READY, Candidate, Laps, Measure, Outcome, Phase, Race
from lpgen.tune.timing import BUDGET, Run, Timing, time_beside, time_calls, time_in_turns
from lpgen.tune.workbench import KernelFunction, Miscomputed, Workbench

GIVE_UP = 3.0
"""A candidate this many times slower than the fastest is not timed further."""

ROUNDS = 20


class Worker:
    """Serves the requests of one pool."""

    def __init__(
        self, pipe: Connection, lock: int, cores: Sequence[int] = (), timing: Sequence[int] = ()
    ) -> None:
        self._pipe = pipe
        self._lock = lock
        self._cores, self._timing = cores, timing
        self._workbench = lru_cache(maxsize=1)(Workbench)
        self._machine = detect()
        self._built_reference: tuple[Any, Run] | None = None

    def serve(self) -> None:
        """Answer requests until the other end of the pipe is closed."""
        while True:
            try:
                request = self._pipe.recv()
            except EOFError:
                return
            answer = self._race(request) if isinstance(request, Race) else self._measure(request)
            self._pipe.send(answer)

    def _say(self, name: str, limited: bool = True) -> None:
        self._pipe.send(Phase(name, limited))

    @contextlib.contextmanager
    def _turn_to_time(self) -> Iterator[None]:
        """Hold the lock that lets one process time at once."""
        self._say("waiting for its turn", limited=False)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        try:
            bind(self._timing)
            yield
        finally:
            bind(self._cores)
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def _measure(self, request: Measure) -> Outcome:
        try:
            function, layout = self._build(request, request.candidate)
            reference = self._reference(request)
            with self._turn_to_time():
                # Not beside another process's timing either: it would disturb it.
                self._say("checking")
                bench = self._workbench(request.op, self._machine, request.seed)
                bench.check(function, layout)
                self._say("timing")
                run = bench.run(function, layout, request.threads)
                timing = self._time(run, reference, request)
        except Exception as error:
            # Whatever a candidate does, it is a failed candidate and nothing more.
            return Outcome(None, failed=reason_of(error))
        return Outcome(timing.seconds, timing.spread)

    @staticmethod
    def _time(run: Run, reference: Run | None, request: Measure) -> Timing:
        if reference is None or request.reference is None:
            # The scale of all that follow.
            return time_calls(run, 4 * BUDGET)
        fastest = request.fastest or float("inf")
        timing = time_beside(run, reference, request.reference[1], GIVE_UP * fastest)
        if timing.seconds < fastest:
            # A disturbance that met only the reference must not make a record: the worse of two.
            timing = max(timing, time_beside(run, reference, request.reference[1]))
        return timing

    def _reference(self, request: Measure) -> Run | None:
        """The run of the request's reference, built when it is a new one."""
        if request.reference is None:
            return None
        candidate = request.reference[0]
        key = request.op, request.target, request.seed, request.threads, candidate.key
        if self._built_reference is None or self._built_reference[0] != key:
            self._built_reference = key, self._run(request, candidate)
        return self._built_reference[1]

    def _race(self, request: Race) -> Laps:
        try:
            runs = [self._run(request, candidate) for candidate in request.candidates]
            with self._turn_to_time():
                laps = time_in_turns(runs, ROUNDS, on_round=lambda: self._say("racing"))
        except Exception as error:
            return Laps((), failed=reason_of(error))
        return Laps(tuple(map(tuple, laps)))

    def _run(self, request: Measure | Race, candidate: Candidate) -> Run:
        function, layout = self._build(request, candidate)
        bench = self._workbench(request.op, self._machine, request.seed)
        return bench.run(function, layout, request.threads)

    def _build(
        self, request: Measure | Race, candidate: Candidate
    ) -> tuple[KernelFunction, Layout | None]:
        """The candidate as a function, and its layout, for which the weights are packed."""
        from lpgen.build.lower import jit

        self._say("computing the expected results", limited=False)
        bench = self._workbench(request.op, self._machine, request.seed)
        self._say("building")
        kernel = candidate.template.kernel(request.op, request.target, candidate.knobs)
        function = jit(kernel, request.target, request.threads)
        self._say("packing weights", limited=False)
        if kernel.layout is not None:
            bench.packed(kernel.layout)
        return function, kernel.layout


def reason_of(error: Exception) -> str:
    """Why a candidate failed, in one line."""
    message = supervise.reason_of(error)
    if isinstance(error, Miscomputed):
        return f"wrong: {message}"
    if isinstance(error, ScheduleRefused):
        return f"refused: {message}"
    return f"{type(error).__name__}: {message}"


def bind(cores: Sequence[int]) -> None:
    """Bind this thread, and those it starts from now on, to some cores; none: leave it alone."""
    if cores:
        os.sched_setaffinity(0, cores)


def main(arguments: list[str]) -> None:
    """Serve one pool; `arguments` as in the module's description."""
    pipe, parent, lock, *places = arguments
    connection = supervise.connect(pipe, parent)
    cores, timing = ([int(core) for core in place.split(",") if core] for place in places)
    bind(cores)
    # libtvm's threads are as many as time, on their cores; it reads this when it needs the first.
    os.environ |= {"TVM_NUM_THREADS": str(max(1, len(timing))), "TVM_BIND_THREADS": "0"}
    # Asks the system for the registers that it gives on request only (AMX tiles).
    cpu_features()
    import lpgen.build.lower  # noqa: F401  (TVM, now rather than in the first candidate's time)

    connection.send(READY)
    Worker(connection, os.open(lock, os.O_RDONLY), cores, timing).serve()


if __name__ == "__main__":
    main(sys.argv[1:])
