"""Asking devices what they are, without keeping them."""

from __future__ import annotations

import contextlib

from lpgen.farm.link import START
from lpgen.farm.protocol import Description
from lpgen.farm.session import CONNECTED
from lpgen.farm.trackers import Address, Listed
from lpgen.supervise import Child, Gone
from lpgen.tune.messages import READY

WAIT = 10.0
"""Seconds to wait for a device that the tracker calls free."""


def visited(tracker: Address, entry: Listed) -> list[Description]:
    """The devices of a key that are free now; one that does not answer is left out."""
    with contextlib.ExitStack() as stack:
        sessions = []  # all at once, so that none is asked twice
        for _ in range(min(entry.free, len(entry.addresses))):
            sessions.append(Child("lpgen.farm.session", *map(str, tracker), entry.key))
            stack.callback(sessions[-1].stop)
        return [found for found in map(_asked, sessions) if found is not None]


def _asked(child: Child) -> Description | None:
    for doing, limit, expected in (
        ("starting a session", START, READY),
        ("waiting for a device", WAIT, CONNECTED),
    ):
        child.enter(doing, limit)
        if child.receive() != expected:
            return None
    child.enter("asking a device what it is", START)
    answer = child.receive()
    return None if isinstance(answer, Gone) else Description.of(answer)
