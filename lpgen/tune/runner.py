"""The runner: loads, checks and times what a builder has built, on the CPU of this machine.

It needs no compiler and no operator, only the values of built.py, and TVM's runtime in its process,
which gives kernels their workspace and threads.
"""

import contextlib
import fcntl
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lpgen.ops.rows import entry_at
from lpgen.records import this_cpu, this_versions
from lpgen.runtime.files import load_module
from lpgen.target import cpu_features, detect
from lpgen.tune.built import Built, Machine, Problem, Weights
from lpgen.tune.timing import BUDGET, Run, Timing, time_beside, time_calls, time_in_turns
from lpgen.tune.workbench import Workbench

GIVE_UP = 3.0
"""A candidate this many times slower than the fastest is not timed further."""

ROUNDS = 20

_NUMBERS = itertools.count(1)
"""Of the modules that this process loads, which are told apart by them."""


@cache
def this_machine() -> Machine:
    """What a runner on this machine says of itself."""
    cpu = detect()
    return Machine(this_cpu(), cpu_features(), cpu.l2, cpu.l3, this_versions())


class Loaded(NamedTuple):
    """A candidate in this process: its function, or those for so many rows; the weights it reads,
    case by case with copies for timing; and on how many threads it works."""

    function: Callable[..., None] | dict[int, Callable[..., None]]
    weights: list[list[np.ndarray]] | None
    threads: int


class Runner:
    """Runs the candidates of one problem after the other.

    turn: a file whose lock lets one process of this machine time at once; cores, timing: the cores
    that the process is bound to while it waits and while it times; none: any.
    """

    def __init__(self, turn: int, cores: Sequence[int] = (), timing: Sequence[int] = ()) -> None:
        self.machine = this_machine()
        self._lock, self._cores, self._timing = turn, cores, timing
        self._bench: Workbench | None = None

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Hold the lock that lets one process time at once."""
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        try:
            bind(self._timing)
            yield
        finally:
            bind(self._cores)
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def open(self, problem: Problem) -> None:
        """From now on what is loaded solves this problem."""
        if self._bench is None or self._bench.problem.key != problem.key:
            self._bench = Workbench(problem, self.machine)

    def load(self, built: Built, weights: Callable[[str], Weights]) -> Loaded:
        """Load a candidate. weights: gives those that are not here yet, by their key."""
        module = load_module(Path("candidate"), built.code, next(_NUMBERS))
        packed = None
        if built.weights is not None:
            if not self._bench.holds(built.weights):
                self._bench.keep(weights(built.weights))
            packed = self._bench.packed(built.weights)
        sizes = {case.rows for case in self._bench.problem.cases}
        functions = {rows: module[entry_at(rows)] for rows in sizes}
        return Loaded(functions.get(0, functions), packed, built.threads)

    def check(self, loaded: Loaded) -> None:
        """Compare with the exact results. Raises Miscomputed where they differ."""
        self._bench.check(loaded.function, loaded.weights)

    def time(
        self,
        loaded: Loaded,
        reference: Loaded | None = None,
        reference_seconds: float = 0.0,
        fastest: float = float("inf"),
    ) -> Timing:
        """Seconds of one call; beside a reference, which takes so many seconds, if there is one.

        What is much slower than `fastest` seconds is timed only briefly.
        """
        run = self._run(loaded)
        if reference is None:
            # The scale of all that follow.
            return time_calls(run, 4 * BUDGET)
        beside = self._run(reference)
        timing = time_beside(run, beside, reference_seconds, GIVE_UP * fastest)
        if timing.seconds < fastest:
            # A disturbance that met only the reference must not make a record: the worse of two.
            timing = max(timing, time_beside(run, beside, reference_seconds))
        return timing

    def race(self, racing: Sequence[Loaded], on_round: Callable[[], Any]) -> list[list[float]]:
        """Seconds of one call of each in each round, which all take in turns."""
        return time_in_turns([self._run(loaded) for loaded in racing], ROUNDS, on_round=on_round)

    def _run(self, loaded: Loaded) -> Run:
        return self._bench.run(loaded.function, loaded.weights, loaded.threads)


def bind(cores: Sequence[int]) -> None:
    """Bind this thread, and those it starts from now on, to some cores; none: leave it alone."""
    if cores:
        os.sched_setaffinity(0, cores)
