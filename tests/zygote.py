"""A process that has imported TVM, and of which the processes of lpgen that tests start are forks.

Python and TVM take most of a second to start, and tests start hundreds of such processes. What a
`Child` runs, its environment, its end of the pipe and who its parent is are the same; that it
starts by itself is what tests with the mark `starts` see, commands in processes of their own, and
all of `pytest -m nightly`.
"""

import contextlib
import ctypes
import os
import pickle
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Pipe
from pathlib import Path
from typing import Any, NamedTuple

from lpgen.supervise import ONE_THREAD, Child, die_with_parent

MODULES = {
    *("lpgen.build.worker", "lpgen.build.check", "lpgen.network.check"),
    *("lpgen.tune.worker", "lpgen.farm.session"),
}
"""What is forked; what a Child runs beside has libraries with threads of their own."""

_START = Child.__init__
_SUBREAPER = 36
_ROUNDS = 4
_LARGEST = 1 << 18


def start_python(monkeypatch: Any) -> None:
    """From now on no Child is a fork."""
    monkeypatch.setattr(Child, "__init__", _START)


def shorten(monkeypatch: Any) -> None:
    """From now on fewer rounds are timed."""
    for name in ("bench.laps", "bench.network", "tune.runner"):
        monkeypatch.setattr(f"lpgen.{name}.ROUNDS", _ROUNDS)


class Start(NamedTuple):
    """A process to be: what it runs, and where."""

    module: str
    arguments: tuple[str, ...]
    environment: dict[str, str]
    path: list[str]
    folder: str
    cores: set[int]
    parent: int


class Adopted:
    """A process that was forked for this one, which is its parent; what `Child` uses of Popen."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Its exit status, None while it works."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status. Raises TimeoutExpired while it works."""
        end = None if timeout is None else time.monotonic() + timeout
        while (status := self.poll()) is None:
            if end is not None and time.monotonic() > end:
                raise subprocess.TimeoutExpired("forked", timeout)
            time.sleep(0.001)
        return status

    def kill(self) -> None:
        """End it, by SIGKILL."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


class Zygote:
    """The parent's side; it starts the process when there is something to fork."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._executable = sys.executable

    def _begin(self) -> None:
        # What the zygote forks twice is this process's child.
        ctypes.CDLL(None).prctl(_SUBREAPER, 1)
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())],
                env=os.environ | ONE_THREAD,
                pass_fds=[theirs.fileno()],
                process_group=0,
            )

    def fork(self, start: Start, pipe: int, output: int) -> Adopted:
        """A process with its end of a pipe and what it prints to, both file descriptors here."""
        message = pickle.dumps(tuple(start))
        for _ in range(2):
            if self._socket is None:
                self._begin()
            with contextlib.suppress(ConnectionError):
                socket.send_fds(self._socket, [message], [pipe, output])
                if pid := self._socket.recv(64):
                    return Adopted(int(pid))
            # A command that is interrupted ends all that this process has started.
            self._socket = None
        raise ChildProcessError("the zygote does not start")

    def install(self, monkeypatch: Any) -> None:
        """From now on each Child that runs one of MODULES is a fork."""

        def init(
            child: Child,
            module: str,
            *arguments: str,
            environment: Mapping[str, str] = ONE_THREAD,
            inherited: Sequence[int] = (),
        ) -> None:
            if module not in MODULES or inherited or sys.executable != self._executable:
                _START(child, module, *arguments, environment=environment, inherited=inherited)
                return
            child.enter("starting")
            child._output = tempfile.TemporaryFile()
            child.pipe, theirs = Pipe()
            with theirs:
                start = Start(
                    module,
                    arguments,
                    os.environ | environment,
                    [entry or os.getcwd() for entry in sys.path],
                    os.getcwd(),
                    os.sched_getaffinity(0),
                    os.getpid(),
                )
                child.process = self.fork(start, theirs.fileno(), child._output.fileno())

        monkeypatch.setattr(Child, "__init__", init)


def serve(requests: socket.socket) -> None:
    """Fork what is asked for until the other end is closed."""
    while True:
        data, descriptors, *_ = socket.recv_fds(requests, _LARGEST, 2)
        if not data:
            return
        read, write = os.pipe()
        between = os.fork()
        if not between:
            # Its end makes the process below a child of the one that asks.
            process = os.fork()
            if process:
                os.setpgid(process, process)
                os.write(write, str(process).encode())
                os._exit(0)
            requests.close()
            os.closerange(read, write + 1)
            _become(Start(*pickle.loads(data)), *descriptors)
        os.waitpid(between, 0)
        requests.send(os.read(read, 64))
        for descriptor in (read, write, *descriptors):
            os.close(descriptor)


def _become(start: Start, pipe: int, output: int) -> None:
    """Be a process of `python -m MODULE PIPE PARENT ARGUMENTS`."""
    status = 1
    try:
        while os.getppid() != start.parent:
            time.sleep(0.0005)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for ours, standard in ((nothing, 0), (output, 1), (output, 2)):
            os.dup2(ours, standard)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.environ.clear()
        os.environ.update(start.environment)
        os.chdir(start.folder)
        os.sched_setaffinity(0, start.cores)
        sys.path[:] = start.path
        sys.argv = [start.module, str(pipe), str(start.parent), *start.arguments]
        runpy.run_module(start.module, run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as ending:
        status = ending.code if isinstance(ending.code, int) else int(ending.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The package of the checkout in front, and the folder of this file not at all.
    sys.path[0] = str(Path(__file__).parents[1])
    import lpgen.bench.probes
    import lpgen.build.lower
    import lpgen.runtime
    import lpgen.tune.builder
    import lpgen.tune.runner

    lpgen.tune.runner.ROUNDS = _ROUNDS
    serve(socket.socket(fileno=int(sys.argv[1])))
