"""What the tuner and a device say to each other, inside of calls of TVM's RPC.

A call is the name of a command, its arguments (pickled here, and read by the device, which runs
what it is sent anyway) and seconds after which the device ends the session. The answer is JSON: it
comes from a machine that may be anybody's.

| command  | arguments                         | answer                                        |
|----------|-----------------------------------|-----------------------------------------------|
| describe |                                   | `Description` by its fields                   |
| health   |                                   | {"health"} of now                             |
| keep     | a `Problem`, or `Weights` and the | {}                                            |
|          | key of their problem              |                                               |
| measure  | `Timed`                           | {"seconds", "spread", "took", "health"}, or   |
|          |                                   | {"failed"}                                    |
| race     | several `Built`                   | {"laps", "before", "health"} or {"failed"}    |

`measure` and `race` answer {"needs": [keys]} where the device has not been given the problem or the
weights yet: a session begins with nothing. A health is [celsius, megahertz, throttled]
(`lpgen.farm.health.Health`), `before` that of before the race; `took`: seconds of checking and
timing. {"broken": why} is the answer of a device on which the reference is wrong as well.
Commands about a library are those of `lpgen.farm.held`.
"""

from __future__ import annotations

import hashlib
import json
import pickle
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from lpgen.errors import TuneError
from lpgen.farm.health import Health
from lpgen.tune.built import Built, Machine

FUNCTION = "lpgen.device"
"""The global function of a device's session: (command, arguments, seconds) -> JSON."""

OPERATORS = 4
"""Operators that are tuned at once: builders and devices keep the inputs and results of so many."""


@dataclass(frozen=True)
class Timed:
    """A candidate to check and to time, beside a reference that takes so many seconds."""

    built: Built
    reference: Built | None
    reference_seconds: float
    fastest: float


@dataclass(frozen=True)
class Description:
    """A device as it describes itself.

    name: of the host; machine: its CPU; arch: of the machine (uname); tvm_ffi: the version that
    reads what is sent; health: of now.
    """

    name: str
    arch: str
    tvm_ffi: str
    machine: Machine
    health: Health

    def check_version(self) -> None:
        """Raise TuneError where the device reads what it is sent in another way."""
        here = version("apache-tvm-ffi")
        if self.tvm_ffi != here:
            raise TuneError(
                f"device {self.name} has apache-tvm-ffi {self.tvm_ffi}, this machine {here}: "
                "install the same on both"
            )

    def to_json(self) -> str:
        """As the text of an answer."""
        machine = vars(self.machine) | {"features": sorted(self.machine.features)}
        return json.dumps(vars(self) | {"machine": machine})

    @classmethod
    def of(cls, answer: dict[str, Any]) -> Description:
        """From an answer. Raises TuneError for that of another lpgen."""
        try:
            machine = answer["machine"]
            made = Machine(**machine | {"features": frozenset(machine["features"])})
            return cls(**answer | {"machine": made, "health": Health(*answer["health"])})
        except (KeyError, TypeError) as error:
            raise TuneError(
                f"a device describes itself as another lpgen does ({error}): install the same there"
            ) from None


def packed(*arguments: Any) -> bytes:
    """The arguments of a command as bytes."""
    return pickle.dumps(arguments, protocol=pickle.HIGHEST_PROTOCOL)


def digest(*parts: bytes) -> str:
    """A name of contents."""
    found = hashlib.blake2b(digest_size=16)
    for part in parts:
        found.update(part)
    return found.hexdigest()
