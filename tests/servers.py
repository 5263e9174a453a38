"""A tracker and servers for tests, in one process that imports TVM once and forks each of them.

`python tests/servers.py PORT KEY COUNT [sleeping [bad]]`: a tracker at that port of this machine
and so many servers of the key, as `lpgen rpc-tracker` and `lpgen rpc-server` run them, each forked
again when it ends. Sleeping ones are real but for the kernels: what is sent to a session says how
long they take (simulated_worker.py), and a call sleeps so long. Of sleeping ones that are bad the
first three take three times as long, compute nothing right, and never come back.
"""

import contextlib
import json
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import psutil
from processes import started, wait_for

from lpgen.errors import TuneError
from lpgen.farm import Address, device, listed
from lpgen.supervise import die_with_parent
from lpgen.tune.runner import Runner
from lpgen.tune.workbench import Miscomputed

KEY = "board"
HOST = "127.0.0.1"

CASES = 3
"""Inputs with which a kernel is checked."""


class Sleeper(Runner):
    """A runner whose calls sleep; what is loaded is the seconds of one."""

    slower = 1.0

    def load(self, built, weights):
        return self.slower * json.loads(built.code)["seconds"]

    def check(self, loaded):
        time.sleep(CASES * loaded)

    def _run(self, loaded):
        def run(count: int) -> float:
            time.sleep(count * loaded)
            return count * loaded

        return run


class Slow(Sleeper):
    slower = 3.0


class Wrong(Sleeper):
    def check(self, loaded):
        raise Miscomputed("16 of 16 results differ on random input")


class Hanging(Sleeper):
    def check(self, loaded):
        time.sleep(3600)


BAD = (Slow, Wrong, Hanging)


def serve(tracker: socket.socket, key: str, runners: list[type[Runner]]) -> None:
    """Be a tracker and so many servers until this process ends."""
    from tvm.rpc.server import _listen_loop
    from tvm.rpc.tracker import _tracker_server

    logging.disable()
    device.register()
    address = tracker.getsockname()

    def one(runner: type[Runner]) -> None:
        device.Runner = runner
        with socket.create_server((HOST, 0), backlog=1) as listening:
            _listen_loop(listening, listening.getsockname()[1], key, address, None, None)

    running = {
        _forked(partial(_tracker_server, tracker, "")): partial(_tracker_server, tracker, "")
    }
    for runner in runners:
        running[_forked(partial(one, runner))] = partial(one, runner)
    while True:
        # As one does whose session was killed by a kernel.
        ended, _ = os.wait()
        again = running.pop(ended)
        running[_forked(again)] = again


def _forked(function: Callable[[], None]) -> int:
    """The id of a process that runs a function, and dies with this one."""
    if child := os.fork():
        return child
    die_with_parent()
    try:
        function()
    finally:
        os._exit(1)


class Servers(NamedTuple):
    """Where the tracker is, and the process whose children are the tracker and the servers."""

    host: str
    port: int
    pid: int

    @property
    def tracker(self) -> Address:
        return Address(self.host, self.port)

    def processes(self) -> list[psutil.Process]:
        """The tracker and the servers, in the order in which they were started."""
        found = psutil.Process(self.pid).children()
        return sorted(found, key=lambda process: (process.create_time(), process.pid))


@contextlib.contextmanager
def servers(count: int, *how: str, key: str = KEY) -> Iterator[Servers]:
    """A tracker with so many servers, all of which are free."""
    with socket.socket() as found:
        found.bind((HOST, 0))
        tracker = Address(*found.getsockname())
    words = str(tracker.port), key, str(count), *how
    process = started(str(Path(__file__)), *words, stderr=None)
    try:
        wait_for(lambda: free(tracker) == count)
        yield Servers(*tracker, process.pid)
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
    runners = [Sleeper if how else Runner] * int(count)
    if how == ["sleeping", "bad"]:
        runners[: len(BAD)] = BAD
    serve(socket.create_server((HOST, int(port)), backlog=128), key, runners)
