"""What the tuner and its worker processes say to each other."""

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from lpgen.space import Knobs
from lpgen.templates import Template
from lpgen.tune.built import Machine


@dataclass(frozen=True)
class Candidate:
    """A template with one choice of its knobs."""

    template: Template
    knobs: Knobs

    @cached_property
    def key(self) -> tuple[str, str]:
        """What makes two candidates of one operator the same."""
        return self.template.name, json.dumps(self.knobs, sort_keys=True)

    def __str__(self) -> str:
        return " ".join([self.template.name, *(f"{k}={v}" for k, v in self.knobs.items())])


@dataclass(frozen=True)
class Measure:
    """Build, check and time a candidate; one much slower than `fastest` seconds only briefly.

    reference: a candidate that works and its seconds, beside which this one is timed; threads: on
    how many it is timed.
    """

    op: Any
    target: Any
    candidate: Candidate
    seed: int
    fastest: float | None = None
    reference: tuple[Candidate, float] | None = None
    threads: int = 1


@dataclass(frozen=True)
class Race:
    """Time candidates that were measured before in turns, on `threads` threads."""

    op: Any
    target: Any
    candidates: tuple[Candidate, ...]
    seed: int
    threads: int = 1


@dataclass(frozen=True)
class Outcome:
    """What measuring a candidate gave: seconds of one call, or why it failed; machine: of the
    device on which it ran, None: this one."""

    seconds: float | None
    spread: float = 0.0
    failed: str | None = None
    machine: Machine | None = None


@dataclass(frozen=True)
class Laps:
    """What a race gave: for each candidate the seconds of one call in each round (none: failed)."""

    seconds: tuple[tuple[float, ...], ...]
    failed: str | None = None


@dataclass(frozen=True)
class Handed:
    """What a worker was sent is built, and waits for a device from now on, under this number."""

    number: int


@dataclass(frozen=True)
class Answered:
    """What became of a request that was handed over."""

    number: int
    answer: Outcome | Laps


@dataclass(frozen=True)
class Phase:
    """What a worker does from now on, and whether the time limit of a candidate counts for it."""

    name: str
    limited: bool


class DeviceFailed(Exception):
    """What the device says on which a candidate failed."""


READY = Phase("waiting for work", False)
