"""The process that keeps one device leased and hands its session to one worker after the other.

`python -m lpgen.farm.link PIPE PARENT SOCKET HOST PORT KEY`. Workers connect to SOCKET (a file
descriptor), on which the links of all devices accept: whichever is free takes the next. A client
sends calls (command, arguments, seconds) and receives answers, the device's description before the
first, until it closes. A session that is lost is answered with {"lost": reason}, and leased anew.
"""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from lpgen import supervise
from lpgen.errors import TuneError
from lpgen.farm.cooling import Cooling
from lpgen.farm.protocol import packed
from lpgen.farm.session import CONNECTED
from lpgen.farm.trackers import Address, listed
from lpgen.supervise import Child, Gone
from lpgen.tune.messages import READY

START = 60.0
"""Seconds in which a session's process has to start, and a device to describe itself."""

GRACE = 10.0
"""Seconds that an answer may take longer than the device was told: to send a problem takes some."""

LEASE = 20.0
"""Seconds after which a device goes to others who wait for one."""

TRIES = 3
"""Failed leases after which a device is set aside."""

ASIDE = 30.0
"""Seconds until it is tried again."""


BROKEN = 600.0
"""Seconds for which a device that computes wrong is held, so that nobody else gets it."""


class Lost(Exception):
    """A session that ended: why."""


class Broken(Exception):
    """A device that computes wrong what others compute right."""


class Link:
    """The lease of a device, again and again; `parent`: the pipe to who wants to know of it."""

    def __init__(self, parent: Connection, tracker: Address, key: str) -> None:
        self._parent, self._tracker, self._key = parent, tracker, key

    def sessions(self) -> Iterator[tuple[Child, dict]]:
        """One session after the other with its device's description. After TRIES failures in a row
        the parent is told ("aside", reason), and ("back", name) when a device answers again."""
        failed = 0
        while True:
            child = Child("lpgen.farm.session", *map(str, self._tracker), self._key)
            try:
                description = self._described(child)
            except Lost as error:
                failed += 1
                if failed == TRIES:
                    self._parent.send(("aside", str(error)))
                time.sleep(ASIDE if failed >= TRIES else 1.0)
                continue
            finally:
                if sys.exc_info()[0] is not None:
                    child.stop()
            self._parent.send(("back" if failed >= TRIES else "device", description))
            failed = 0
            try:
                yield child, description
            finally:
                child.stop()

    def _described(self, child: Child) -> dict:
        child.enter("starting a session", START)
        _expect(child, READY)
        child.enter("waiting for a device")
        _expect(child, CONNECTED)
        child.enter("asking a device what it is", START)
        return _receive(child)

    def wanted_by_others(self) -> bool:
        """Whether somebody waits for a device of this key."""
        try:
            return any(entry.key == self._key and entry.pending for entry in listed(self._tracker))
        except TuneError:
            return False


def _receive(child: Child) -> Any:
    """The next message. Raises Lost where the process ended."""
    message = child.receive()
    if isinstance(message, Gone):
        raise Lost(message.last or str(message))
    return message


def _expect(child: Child, message: Any) -> None:
    if (found := _receive(child)) != message:
        raise Lost(f"an answer that nobody asked for: {str(found)[:80]}")


class Session:
    """A device's session: calls are answered, or it is lost. Races wait until it is cool.

    answered: whether any candidate came back.
    """

    def __init__(self, child: Child, description: dict, say: Callable[[str, str], None]) -> None:
        self._child, self._description, self._say = child, description, say
        self.answered = False
        self._cooling = Cooling(description["name"], self._health, partial(say, "heat"))

    @property
    def ended(self) -> bool:
        """Whether it ended by itself, while nobody asked it anything."""
        return self._child.pipe.poll()

    def serve(self, client: Connection) -> None:
        """Pass on a client's calls until it closes, and wait until the device is cool again. Raises
        Lost where the session is lost, Broken where the device is no good; to the client both are a
        lost device."""
        _tell(client, self._description)
        while True:
            try:
                call = client.recv()
            except (EOFError, OSError):
                break
            try:
                answer = self._cooling.answer(call, self._ask)
            except (Lost, Broken) as error:
                _tell(client, {"lost": str(error)})
                raise
            # A device that hangs with candidates may still take what they need.
            if call[0] != "keep" and "needs" not in json.loads(answer):
                self.answered = True
                self._say("answered", call[0])
            _tell(client, answer)
        client.close()
        self._cooling.wait()

    def _ask(self, command: str, arguments: bytes, seconds: float) -> str:
        self._child.enter(f"answering {command}", seconds + GRACE)
        self._child.send((command, arguments, seconds))
        answer = self._child.receive()
        if isinstance(answer, Gone):
            late = answer.reason.startswith("no result")
            raise Lost(answer.reason if late else answer.last or answer.reason)
        if reason := json.loads(answer).get("broken"):
            raise Broken(reason)
        return answer

    def _health(self) -> str:
        return self._ask("health", packed(), START)


def _tell(client: Connection, answer: Any) -> None:
    with contextlib.suppress(OSError):  # a client that was killed: the session is still good
        client.send(answer)


def accept(session: Session, listening: socket.socket, link: Link) -> None:
    """Serve clients until somebody else waits for a device, or it is gone. Raises as `serve`."""
    leased = time.monotonic()
    listening.settimeout(1.0)
    while not session.ended:
        if time.monotonic() - leased > LEASE:
            if link.wanted_by_others():
                return
            leased = time.monotonic()
        try:
            accepted, _ = listening.accept()
        except TimeoutError:
            continue
        accepted.setblocking(True)
        with Connection(accepted.detach()) as client:
            session.serve(client)


def main(arguments: list[str]) -> None:
    """Lease, accept, pass on, until the parent is gone."""
    pipe, parent, descriptor, host, port, key = arguments
    connection = supervise.connect(pipe, parent)
    listening = socket.socket(fileno=int(descriptor))
    link = Link(connection, Address(host, int(port)), key)
    losses = 0
    for child, description in link.sessions():
        session = Session(child, description, lambda *news: connection.send(news))
        try:
            accept(session, listening, link)
            losses = 0
        except Lost as error:
            connection.send(("lost", str(error)))
            losses = 0 if session.answered else losses + 1
            if losses >= TRIES:
                reason = f"{description['name']} has answered nothing in {losses} sessions"
                connection.send(("aside", reason))
                time.sleep(ASIDE)
        except Broken as error:
            connection.send(("aside", f"{description['name']}: {error}"))
            time.sleep(BROKEN)


if __name__ == "__main__":
    main(sys.argv[1:])
