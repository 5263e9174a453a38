"""The device's side of a session: a runner behind one function, in a process that may die.

The server imports this module once; each session is a fork of it. Needs no compiler.
"""

from __future__ import annotations

import json
import os
import pickle
import platform
import signal
import socket
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from typing import Any

from lpgen import supervise
from lpgen.errors import LpgenError
from lpgen.farm import health
from lpgen.farm.held import Held
from lpgen.farm.protocol import FUNCTION, OPERATORS, Description, Timed, digest
from lpgen.tune.built import Built, Problem, Weights
from lpgen.tune.runner import Loaded, Runner, this_machine
from lpgen.tune.workbench import Miscomputed

KEPT = 64
"""Candidates of an operator that stay loaded."""


class Broken(Exception):
    """This device computes wrong what others compute right."""


class Kept:
    """An operator on the device: its problem, with a runner, weights by their keys, and candidates
    by their code."""

    def __init__(self, problem: Problem, turn: int) -> None:
        self.runner = Runner(turn)
        self.runner.open(problem)
        self.weights: dict[str, Weights] = {}
        self._loaded: dict[str, Loaded] = {}

    def load(self, built: Built) -> Loaded:
        """The candidate, loaded once."""
        key = digest(built.code)
        if key not in self._loaded:
            if len(self._loaded) >= KEPT:
                self._loaded.clear()
            self._loaded[key] = self.runner.load(built, self.weights.__getitem__)
        return self._loaded[key]


class Device:
    """What a session keeps: the last operators that it was given, or a library."""

    def __init__(self) -> None:
        self._held = Held()
        self._turn = os.memfd_create("lpgen-turn")
        self._operators: OrderedDict[str, Kept] = OrderedDict()

    def call(self, command: str, arguments: bytes, seconds: float) -> str:
        """The answer to a command, as JSON; the process ends after so many seconds (SIGALRM)."""
        commands = {
            **{name: partial(self._about_library, name) for name in self._held.commands},
            "describe": self.describe,
            "health": self.health,
            "keep": self.keep,
            "measure": self.measure,
            "race": self.race,
        }
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            return commands[command](*pickle.loads(arguments))
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def describe(self) -> str:
        return describe().to_json()

    def health(self) -> str:
        return json.dumps({"health": health.now()})

    def keep(self, what: Problem | Weights, problem: str = "") -> str:
        if isinstance(what, Weights):
            self._operators[problem].weights[what.key] = what
        else:
            while len(self._operators) >= OPERATORS:
                self._operators.popitem(last=False)
            self._operators[what.key] = Kept(what, self._turn)
        return "{}"

    def measure(self, timed: Timed) -> str:
        several = [timed.built, *([timed.reference] if timed.reference else [])]
        return self._with(several, partial(self._time, timed))

    def race(self, *several: Built) -> str:
        return self._with(several, self._race)

    def _about_library(self, command: str, *arguments: Any) -> str:
        try:
            return json.dumps(self._held.commands[command](*arguments))
        except LpgenError as error:
            return json.dumps({"failed": str(error)})

    def _time(
        self, timed: Timed, runner: Runner, loaded: Loaded, reference: Loaded | None = None
    ) -> dict:
        began = time.perf_counter()
        try:
            runner.check(loaded)
        except Miscomputed:
            if reference is not None:
                _require(runner, reference)
            raise
        timing = runner.time(loaded, reference, timed.reference_seconds, timed.fastest)
        took = time.perf_counter() - began
        return {**timing._asdict(), "took": took, "health": health.now()}

    def _race(self, runner: Runner, *racing: Loaded) -> dict:
        before = health.now()
        laps = runner.race(racing, on_round=lambda: None)
        return {"laps": laps, "before": before, "health": health.now()}

    def _with(self, several: Sequence[Built], work: Callable[..., dict]) -> str:
        """The answer of some work with candidates, once all that they need is here."""
        kept = self._operators.get(several[0].problem)
        wanted = {built.weights for built in several if built.weights}
        if kept is None:
            return json.dumps({"needs": [several[0].problem, *sorted(wanted)]})
        if needs := sorted(wanted - {*kept.weights}):
            return json.dumps({"needs": needs})
        self._operators.move_to_end(several[0].problem)
        try:
            return json.dumps(work(kept.runner, *map(kept.load, several)))
        except Broken as error:
            return json.dumps({"broken": str(error)})
        except Miscomputed as error:
            return json.dumps({"failed": f"wrong: {error}"})
        except Exception as error:
            # Whatever a candidate does, it is a failed candidate and nothing more.
            return json.dumps({"failed": f"{type(error).__name__}: {supervise.reason_of(error)}"})


def _require(runner: Runner, reference: Loaded) -> None:
    """Raise Broken unless a candidate that was right before, maybe elsewhere, is right here."""
    try:
        runner.check(reference)
    except Miscomputed as error:
        raise Broken(f"it computes wrong what was right before: {error}") from None


def describe() -> Description:
    """This machine as a device."""
    return Description(
        socket.gethostname(),
        platform.machine(),
        version("apache-tvm-ffi"),
        this_machine(),
        health.now(),
    )


def register() -> None:
    """Offer the function of this module to sessions; what is slow to import is imported now."""
    import tvm_ffi

    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    this_machine()
    kept: list[Device] = []

    def call(command: str, arguments: bytes, seconds: float) -> str:
        if not kept:
            kept.append(Device())
        return kept[0].call(command, bytes(arguments), seconds)

    tvm_ffi.register_global_func(FUNCTION, call, override=True)
