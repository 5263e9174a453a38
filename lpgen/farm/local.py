"""A tracker and servers on this machine, to try what a farm does without one."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

from lpgen.errors import TuneError
from lpgen.farm.trackers import Address, devices_of

HOST = "127.0.0.1"

START = 120.0
"""Seconds in which all have to be there."""


@contextlib.contextmanager
def local_devices(count: int, key: str = "local") -> Iterator[Address]:
    """The address of a tracker that knows so many devices of a key, all of them this machine.

    They are what `lpgen rpc-tracker` and `lpgen rpc-server` start, and end with the context. Raises
    TuneError where they do not start.
    """
    tracker, *servers = (Address(HOST, port) for port in _free_ports(1 + count))
    with contextlib.ExitStack() as stack:
        _start(stack, "rpc-tracker", "--port", str(tracker.port))
        for server in servers:
            at = "--tracker", str(tracker), "--key", key, "--port", str(server.port)
            _start(stack, "rpc-server", *at)
        end = time.monotonic() + START
        while _known(tracker, key) < count:
            if time.monotonic() > end:
                raise TuneError(f"{count} devices did not start in {START:.0f} s")
            time.sleep(0.1)
        yield tracker


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(socket.create_server((HOST, 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in found]


def _start(stack: contextlib.ExitStack, *words: str) -> None:
    command = [sys.executable, "-m", "lpgen.cli", *words]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    stack.callback(process.wait)
    stack.callback(process.terminate)


def _known(tracker: Address, key: str) -> int:
    with contextlib.suppress(TuneError):
        return len(devices_of(tracker, key).addresses)
    return 0
