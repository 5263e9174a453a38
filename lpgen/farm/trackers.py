"""What a tracker knows: which devices there are, how many are free, who waits.

A protocol of TVM's: https://tvm.apache.org/docs/reference/api/python/rpc.html
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from lpgen.errors import TuneError

ANSWER = 5.0
"""Seconds in which a tracker has to answer."""


RETURN = 20.0
"""Seconds in which a server that a session has ended may come back."""


class Address(NamedTuple):
    """Host and port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """HOST:PORT. Raises TuneError for anything else."""
        host, colon, port = text.rpartition(":")
        if not colon or not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise TuneError(f"{text!r} is no address: expected HOST:PORT, with a port of 1..65535")
        return cls(host.strip("[]"), int(port))

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class Listed(NamedTuple):
    """The devices of one key at a tracker.

    addresses: of their servers; free: how many wait for work; pending: requests that wait for a
    device.
    """

    key: str
    addresses: tuple[str, ...]
    free: int
    pending: int


def listed(tracker: Address) -> list[Listed]:
    """What a tracker knows of each key. Raises TuneError where there is no tracker."""
    summary = _summary(tracker)
    keys: dict[str, list[str]] = {}
    for server in summary["server_info"]:
        key = server["key"].removeprefix("server:")
        keys.setdefault(key, []).append(":".join(map(str, server["addr"])))
    queues = summary["queue_info"]
    return [
        Listed(key, tuple(sorted(keys.get(key, ()))), queue.get("free", 0), queue.get("pending", 0))
        for key in sorted({*keys, *queues})
        if (queue := queues.get(key, {})) is not None
    ]


def devices_of(tracker: Address, key: str) -> Listed:
    """The devices of a key; of one that had some a while ago they are waited for. Raises TuneError
    where there is none, with the keys that there are."""
    end = time.monotonic() + RETURN
    while True:
        known = listed(tracker)
        found = next((entry for entry in known if entry.key == key), None)
        if found is not None and found.addresses:
            return found
        if found is None or time.monotonic() > end:
            break
        time.sleep(0.2)
    names = ", ".join(entry.key for entry in known if entry.addresses) or "none at all"
    raise TuneError(f"tracker {tracker} has no device of key {key}; keys of its devices: {names}")


@contextlib.contextmanager
def connected(tracker: Address) -> Iterator[Any]:
    """A connection to a tracker. Raises TuneError where nothing answers, or something else does."""
    try:
        socket.create_connection(tracker, ANSWER).close()
    except OSError as error:
        reason = error.strerror or str(error)
        raise TuneError(
            f"no tracker at {tracker}: {reason}; `lpgen rpc-tracker` starts one"
        ) from None
    from tvm import rpc

    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(ANSWER)
    try:
        yield rpc.connect_tracker(*tracker)
    except (OSError, RuntimeError, ValueError, AssertionError) as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise TuneError(f"{tracker} does not answer as a tracker: {reason}") from None
    finally:
        socket.setdefaulttimeout(before)


def _summary(tracker: Address) -> dict[str, Any]:
    with connected(tracker) as session:
        return session.summary()
