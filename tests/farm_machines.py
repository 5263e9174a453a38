"""A tracker and servers on this machine, for tests of devices over RPC."""

import contextlib
import socket

import psutil
from processes import gone, started, wait_for

from lpgen.errors import TuneError
from lpgen.farm import Address, listed

KEY = "board"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Machines:
    """A tracker and servers, each a process of its own; closing it ends them, and all that they
    have started."""

    def __init__(self) -> None:
        self.tracker = Address("127.0.0.1", free_port())
        self.processes = [self._start("rpc-tracker", "--port", str(self.tracker.port))]
        wait_for(self._answers)

    def _start(self, *words: str, **options):
        return started("-m", "lpgen.cli", *words, **options)

    def _answers(self) -> bool:
        with contextlib.suppress(TuneError):
            listed(self.tracker)
            return True
        return False

    def serve(self, key: str = KEY, limit: float = 120, **options):
        """One more server, which the tracker has to know in so many seconds; `options` of Popen."""
        before = self.count(key)
        at = "--tracker", str(self.tracker), "--key", key, "--port", str(free_port() % 60000 + 2000)
        process = self._start("rpc-server", *at, **options)
        self.processes.append(process)
        wait_for(lambda: self.count(key) > before, limit)
        return process

    def count(self, key: str = KEY) -> int:
        return sum(len(entry.addresses) for entry in listed(self.tracker) if entry.key == key)

    def close(self) -> None:
        children = [c for p in self.processes for c in family(p.pid)]
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait(timeout=30)
        assert all(gone(child.pid) for child in children)


def family(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).children(recursive=True)
    return []
