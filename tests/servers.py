"""A tracker and servers for tests, in one process that imports TVM once and forks each of them.

`python tests/servers.py PORT KEY COUNT [sleeping]`: a tracker at that port of this machine and so
many servers of the key, as `lpgen rpc-tracker` and `lpgen rpc-server` run them, but for who starts
them again. Sleeping ones are real but for the kernels: what is sent to a session says how long they
take (simulated_worker.py), and a call sleeps so long.
"""

import contextlib
import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from processes import started, wait_for

from lpgen.errors import TuneError
from lpgen.farm import Address, device, listed
from lpgen.supervise import die_with_parent
from lpgen.tune.runner import Runner

KEY = "board"
HOST = "127.0.0.1"

CASES = 3
"""Inputs with which a kernel is checked."""


class Sleeper(Runner):
    """A runner whose calls sleep; what is loaded is the seconds of one."""

    def load(self, built, weights):
        return json.loads(built.code)["seconds"]

    def check(self, loaded):
        time.sleep(CASES * loaded)

    def _run(self, loaded):
        def run(count: int) -> float:
            time.sleep(count * loaded)
            return count * loaded

        return run


def serve(tracker: socket.socket, key: str, count: int) -> None:
    """Be a tracker and so many servers until this process ends."""
    from tvm.rpc.server import _listen_loop
    from tvm.rpc.tracker import _tracker_server

    logging.disable()
    device.register()
    address = tracker.getsockname()
    if _forked():
        _tracker_server(tracker, "")
    for _ in range(count):
        if _forked():
            with socket.create_server((HOST, 0), backlog=1) as listening:
                port = listening.getsockname()[1]
                _listen_loop(listening, port, key, address, None, None)
    signal.pause()


def _forked() -> bool:
    """Whether this is the new process, which dies with the other."""
    if os.fork():
        return False
    die_with_parent()
    return True


@contextlib.contextmanager
def servers(count: int, *how: str, key: str = KEY) -> Iterator[Address]:
    """The address of a tracker with so many servers, all of which are free."""
    with socket.socket() as found:
        found.bind((HOST, 0))
        tracker = Address(*found.getsockname())
    words = str(tracker.port), key, str(count), *how
    process = started(str(Path(__file__)), *words, stderr=None)
    try:
        wait_for(lambda: free(tracker) == count)
        yield tracker
    finally:
        process.kill()
        process.wait()


def free(tracker: Address) -> int | None:
    """How many devices wait for work; None without a tracker."""
    with contextlib.suppress(TuneError):
        return sum(entry.free for entry in listed(tracker))
    return None


if __name__ == "__main__":
    die_with_parent()
    port, key, count, *how = sys.argv[1:]
    if how == ["sleeping"]:
        device.Runner = Sleeper
    serve(socket.create_server((HOST, int(port)), backlog=128), key, int(count))
