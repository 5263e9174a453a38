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
from collections.abc import Callable
from functools import partial
from importlib.metadata import version

from lpgen import supervise
from lpgen.farm import health
from lpgen.farm.protocol import FUNCTION, Description, Timed, digest
from lpgen.tune.built import Built, Problem, Weights
from lpgen.tune.runner import Loaded, Runner, this_machine
from lpgen.tune.workbench import Miscomputed

KEPT = 64
"""Candidates that stay loaded; a session begins anew rather than fill the process."""


class Device:
    """What a session keeps: problems and weights by their keys, candidates by their code."""

    def __init__(self) -> None:
        self._runner = Runner(os.memfd_create("lpgen-turn"))
        self._problems: dict[str, Problem] = {}
        self._weights: dict[str, Weights] = {}
        self._loaded: dict[str, Loaded] = {}

    def call(self, command: str, arguments: bytes, seconds: float) -> str:
        """The answer to a command, as JSON; the process ends after so many seconds (SIGALRM)."""
        commands = {
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

    def keep(self, what: Problem | Weights) -> str:
        if isinstance(what, Problem):
            self._problems = {what.key: what}  # the operators before it are done
            self._weights.clear()
            self._loaded.clear()
        else:
            self._weights[what.key] = what
        return "{}"

    def measure(self, timed: Timed) -> str:
        several = [timed.built, *([timed.reference] if timed.reference else [])]
        return self._with(several, partial(self._time, timed))

    def race(self, *several: Built) -> str:
        return self._with(several, self._race)

    def _time(self, timed: Timed, loaded: Loaded, reference: Loaded | None = None) -> dict:
        self._runner.check(loaded)
        beside = timed.reference_seconds
        timing = self._runner.time(loaded, reference, beside, timed.fastest)
        return {"seconds": timing.seconds, "spread": timing.spread, "health": health.now()}

    def _race(self, *racing: Loaded) -> dict:
        before = health.now()
        laps = self._runner.race(racing, on_round=lambda: None)
        return {"laps": laps, "before": before, "health": health.now()}

    def _with(self, several: tuple[Built, ...] | list[Built], work: Callable[..., dict]) -> str:
        """The answer of some work with candidates, once all that they need is here."""
        wanted = {b.problem for b in several} | {b.weights for b in several if b.weights}
        if needs := sorted(wanted - {*self._problems, *self._weights}):
            return json.dumps({"needs": needs})
        try:
            return json.dumps(work(*map(self._load, several)))
        except Miscomputed as error:
            return json.dumps({"failed": f"wrong: {error}"})
        except Exception as error:
            # Whatever a candidate does, it is a failed candidate and nothing more.
            return json.dumps({"failed": f"{type(error).__name__}: {supervise.reason_of(error)}"})

    def _load(self, built: Built) -> Loaded:
        self._runner.open(self._problems[built.problem])
        key = digest(built.code)
        if key not in self._loaded:
            if len(self._loaded) >= KEPT:
                self._loaded.clear()
            self._loaded[key] = self._runner.load(built, self._weights.__getitem__)
        return self._loaded[key]


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
