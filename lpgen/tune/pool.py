"""The parent's side of the worker processes: who is free, who is late, who died of what."""

import os
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

from lpgen.errors import TuneError
from lpgen.supervise import Child, Gone, receive
from lpgen.tune.messages import READY, Laps, Measure, Outcome, Phase, Race

_START_LIMIT = 120.0


class _Cores(NamedTuple):
    """The cores on which a worker builds and times; () for any."""

    building: Sequence[int]
    timing: Sequence[int]


class Process(Child):
    """One worker process and what it is doing."""

    def __init__(self, module: str, lock: str, cores: _Cores, *more: str) -> None:
        super().__init__(module, lock, *(",".join(map(str, c)) for c in cores), *more)
        self.cores = cores
        self.request: Measure | Race | None = None
        self.started = False
        self.enter("starting", _START_LIMIT)


class Pool:
    """Worker processes that build in parallel and time one at a time.

    workers: how many; timeout: seconds a candidate may take to build, and again to be checked and
    to be timed; threads: on how many they time. A worker that crashes or is late is replaced, and
    its request is answered with the reason. Use as a context manager: leaving it kills all workers.
    """

    module = "lpgen.tune.worker"
    """What the processes run, with `arguments` behind its own."""
    arguments: tuple[str, ...] = ()
    patience = 600.0
    """Seconds for what is not the candidate's fault, such as the oracle of a large operator."""
    operators = 1
    """How many are tuned at once, where one alone would leave workers idle."""

    def __init__(self, workers: int, timeout: float, threads: int = 1) -> None:
        self._timeout = timeout
        self._ready: deque[tuple[Measure | Race, Outcome | Laps]] = deque()
        # A file in memory, of which nothing is left however this process ends.
        self._lock = os.fdopen(os.memfd_create("lpgen-timing"), "wb")
        self._lock_path = f"/proc/{os.getpid()}/fd/{self._lock.fileno()}"
        self._workers: list[Process] = []
        try:
            for cores in _places(workers, threads):
                self._workers.append(self._process(cores))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Kill all workers, whatever they are doing."""
        for worker in self._workers:
            worker.stop()
        self._workers.clear()
        self._lock.close()

    @property
    def free(self) -> int:
        """How many requests can be submitted now."""
        return sum(worker.request is None for worker in self._workers)

    @property
    def busy(self) -> bool:
        """Whether an answer is to come."""
        return bool(self._ready) or any(worker.request for worker in self._workers)

    def submit(self, request: Measure | Race) -> None:
        """Give the request to a free worker."""
        worker = next(worker for worker in self._workers if worker.request is None)
        worker.request = request
        if worker.started:
            self._send(worker)

    def answer(self) -> tuple[Measure | Race, Any]:
        """Wait for the next request that is done: it and its Outcome or Laps.

        Raises TuneError when workers do not start.
        """
        while not self._ready:
            self._listen()
        return self._ready.popleft()

    def answers(self) -> list[tuple[Measure | Race, Any]]:
        """Wait until some are done, as `answer` does: all that are."""
        found = [self.answer()]
        while any(w.pipe.poll() for w in self._workers if self._expects(w)):
            self._listen()
        found += self._ready
        self._ready.clear()
        return found

    def _listen(self) -> None:
        """Wait until a worker says something."""
        waiting = [worker for worker in self._workers if self._expects(worker)]
        for worker, message in self._receive(waiting):
            self._take(worker, message)

    def _expects(self, worker: Process) -> bool:
        """Whether a worker has something to say."""
        return bool(worker.request) or not worker.started

    def _receive(self, waiting: list) -> list:
        """What some of the processes say."""
        return receive(waiting)

    def _take(self, worker: Process, message: Any) -> None:
        if isinstance(message, Gone):
            self._replace(worker, str(message))
        elif message == READY:
            worker.started = True
            if worker.request:
                self._send(worker)
        elif isinstance(message, Phase):
            worker.enter(message.name, self._timeout if message.limited else self.patience)
        else:
            self._ready.append((worker.request, message))
            worker.request = None

    def _send(self, worker: Process) -> None:
        worker.enter("reading its request", self._timeout)
        worker.send(worker.request)

    def _replace(self, worker: Process, reason: str) -> None:
        if not worker.started:
            raise TuneError(f"a measuring process does not start: {reason}")
        if worker.request:
            failed = Laps((), reason) if isinstance(worker.request, Race) else None
            self._ready.append((worker.request, failed or Outcome(None, failed=reason)))
        at = self._workers.index(worker)
        self._workers[at] = self._process(worker.cores)

    def _process(self, cores: _Cores) -> Process:
        return Process(self.module, self._lock_path, cores, *self.arguments)


def _places(workers: int, threads: int) -> list[_Cores]:
    """The cores of each worker. The last ones time, the first being the busiest.

    On one thread a worker has a core for both; on several all time on the same cores, and build on
    the others, where there are any, so that nobody builds where another one times.
    """
    allowed = allowed_cores()
    if len(allowed) < 2:
        return [_Cores((), ())] * workers
    if threads == 1:
        cores = [[allowed[-1 - i % len(allowed)]] for i in range(workers)]
        return [_Cores(core, core) for core in cores]
    return [_Cores(allowed[:-threads] or allowed, allowed[-threads:])] * workers


def allowed_cores() -> list[int]:
    """The cores that this process may use, in order; none where the system does not say."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
