"""The devices of a key as the tuner has them: links, what became of them, and a pool of workers."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lpgen.build.scratch import scratch_folder
from lpgen.errors import TuneError
from lpgen.farm.pool import FarmPool
from lpgen.farm.protocol import Description
from lpgen.farm.trackers import Address, devices_of
from lpgen.supervise import Child, Gone
from lpgen.target import Target
from lpgen.tune.built import Machine
from lpgen.tune.pool import Pool

FIRST = 180.0
"""Seconds in which some device has to answer: others may hold all of them."""


@dataclass
class Leased:
    """What is known of one link's device.

    device: as it described itself last, None: none was leased yet; state: in a word or two;
    measured: candidates.
    """

    device: Description | None = None
    state: str = "waiting for a device"
    measured: int = 0


class _Link(Child):
    def __init__(self, listening: socket.socket, tracker: Address, key: str) -> None:
        self.started_with = listening, tracker, key
        own = str(listening.fileno()), *map(str, tracker), key
        super().__init__("lpgen.farm.link", *own, inherited=[listening.fileno()])


class Farm:
    """Some devices of one key, leased while the context is open.

    tracker: where it is; key: of the devices; devices: how many at most [all there are]; say: is
    told in a line what becomes of devices. `devices`: what is known of each. Raises TuneError where
    there is no tracker, no device of the key, or none that answers.
    """

    def __init__(
        self,
        tracker: Address,
        key: str,
        devices: int | None = None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        there = len(devices_of(tracker, key).addresses)
        self.tracker, self.key = tracker, key
        self.count = min(there, devices or there)
        self._say = say
        self._links: list[_Link] = []
        self.devices = [Leased() for _ in range(self.count)]
        self._first: Description | None = None

    def __enter__(self) -> Farm:
        self._scratch = scratch_folder()
        self.address = str(Path(self._scratch.__enter__()) / "links")
        try:
            listening = socket.socket(socket.AF_UNIX)
            listening.bind(self.address)
            listening.listen(128)
            self._listening = listening
            self._links = [_Link(listening, self.tracker, self.key) for _ in range(self.count)]
            self._await_first()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        for link in self._links:
            link.stop()
        self._links.clear()
        self._listening.close()
        self._scratch.__exit__(None, None, None)

    @property
    def machine(self) -> Machine:
        """That of the device that answered first."""
        return self._first.machine

    @property
    def children(self) -> list[Child]:
        """The processes that have something to say (`take`)."""
        return list(self._links)

    def check(self, target: Target) -> None:
        """Raise TuneError where the device cannot run code of the target, or read what it is
        sent."""
        device = self._first
        if missing := target.missing_on(device.machine.features):
            raise TuneError(
                f"target {target.name}: device {device.name} of key {self.key} ({device.arch}) "
                f"lacks {', '.join(missing)}"
            )
        device.check_version()

    def pool(self, jobs: int, timeout: float) -> Pool:
        """Workers that build here and measure on the devices."""
        return FarmPool(self, jobs, timeout)

    def take(self, link: Child, message: object) -> None:
        """What a link says."""
        at = self._links.index(link)
        leased = self.devices[at]
        if isinstance(message, Gone):
            leased.state = "lost"
            self._say(f"a link to key {self.key} ended ({message}); another one takes its place")
            self._links[at] = _Link(*link.started_with)
            return
        what, about = message
        if what in ("device", "back"):
            leased.device, leased.state = Description.of(about), "measuring"
            self._first = self._first or leased.device
            self._say(f"device {leased.device.name}: {_described(leased.device)}")
        elif what == "answered":
            leased.measured += about == "measure"
        elif what == "aside":
            leased.state = "set aside"
            self._say(f"a device of key {self.key} is set aside for a while: {about}")
        elif what == "lost":
            leased.state = "lost"
            self._say(f"a device of key {self.key} was lost: {about}")
        else:
            self._say(about)

    def _await_first(self) -> None:
        from lpgen.supervise import receive

        for link in self._links:
            link.enter("waiting for a device", FIRST)
        while self._first is None:
            for link, message in receive(self._links):
                if isinstance(message, Gone) or message[0] == "aside":
                    reason = message if isinstance(message, Gone) else message[1]
                    raise TuneError(f"no device of key {self.key} answers: {reason}")
                self.take(link, message)
        for link in self._links:
            link.enter("serving")


def _described(device: Description) -> str:
    return ", ".join(filter(None, (device.machine.cpu, device.arch, str(device.health))))
