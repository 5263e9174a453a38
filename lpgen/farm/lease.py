"""A device held for oneself: libraries are checked and timed in one session after the other.

A session ends when a kernel crashes or takes too long, or when the device is lost; `Lost` says so,
and whoever wants more opens another one.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

from lpgen.errors import LibraryError, TuneError
from lpgen.farm.link import GRACE, START
from lpgen.farm.protocol import Description, packed
from lpgen.farm.session import CONNECTED
from lpgen.farm.trackers import Address, devices_of
from lpgen.runtime.files import machine_called, machine_of
from lpgen.supervise import Child, Gone
from lpgen.tune.messages import READY

PATIENCE = 3.0
"""Seconds of waiting before it is said: a server is back in a moment."""


class Lost(TuneError):
    """A session that ended; the message says how."""


class Lease:
    """A session with a device of a key, which has no other meanwhile. device: what it is."""

    def __init__(self, child: Child, key: str, device: Description) -> None:
        self._child, self.key, self.device = child, key, device

    def call(self, command: str, *arguments: Any, seconds: float) -> dict[str, Any]:
        """The answer to a command that may take so many seconds.

        Raises LibraryError with what the device refuses, and Lost where the session ends.
        """
        self._child.enter(f"answering {command}", seconds + GRACE)
        self._child.send((command, packed(*arguments), seconds))
        try:
            answer = json.loads(_received(self._child))
        except Lost as error:
            raise Lost(f"device {self.device.name} ended its session: {error}") from None
        if "failed" in answer:
            raise LibraryError(f"device {self.device.name}: {answer['failed']}")
        return answer

    def check(self, name: object, code: bytes) -> None:
        """Raise TuneError where the device reads no code of that architecture, or what it is sent
        in another way; name: of what has the code."""
        built, own = machine_of(code), machine_called(self.device.arch)
        if built and built != own:
            raise TuneError(
                f"{name}: was built for {built}, device {self.device.name} of key {self.key} is "
                f"{own}"
            )
        self.device.check_version()


@contextlib.contextmanager
def leased(tracker: Address, key: str, say: Callable[[str], None]) -> Iterator[Lease]:
    """A lease while the context is open; `say` is told where one has to wait for it.

    Raises TuneError where there is no tracker or no device of the key, Lost where none answers.
    """
    entry = devices_of(tracker, key)
    child = Child("lpgen.farm.session", *map(str, tracker), key)
    try:
        child.enter("starting a session", START)
        _expect(child, READY)
        child.enter("waiting for a device")
        if not child.pipe.poll(PATIENCE):
            say(f"all {len(entry.addresses)} devices of key {key} are in use: waiting for one")
        _expect(child, CONNECTED)
        child.enter("asking a device what it is", START)
        yield Lease(child, key, Description.of(_received(child)))
    finally:
        child.stop()


def _received(child: Child) -> Any:
    """The next message. Raises Lost where the process ended."""
    message = child.receive()
    if isinstance(message, Gone):
        late = message.reason.startswith("no result")
        raise Lost(message.reason if late else message.last or message.reason)
    return message


def _expect(child: Child, message: Any) -> None:
    if (found := _received(child)) != message:
        raise Lost(f"an answer that nobody asked for: {str(found)[:80]}")
