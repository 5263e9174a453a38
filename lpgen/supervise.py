"""Processes that may crash or hang: started, watched, and killed with all that they have started.

A `Child` is a Python module at the other end of a pipe, run as `python -m MODULE PIPE PARENT ...`:
the file descriptor of its end, its parent's process id, arguments of its own. It begins with
`connect` and dies with its parent. The parent says what it has to be about and how long that may
take (`enter`), and `receive` gives its next message, or how it ended. `run` is for other programs.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

ONE_THREAD = {
    name: "1"
    for name in ("OMP_NUM_THREADS", "TVM_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
}
"""An environment in which libraries start no threads of their own."""


class Gone(NamedTuple):
    """How a process ended, as what is received from it last; it is stopped.

    reason: in a few words, such as "crashed: SIGSEGV while building"; error: the message of a
    failed check or of LLVM, "" without one; last: the last line that it printed, or "".
    """

    reason: str
    error: str = ""
    last: str = ""

    def __str__(self) -> str:
        return f"{self.reason}: {self.error}" if self.error else self.reason


class Child:
    """The parent's side of a process that runs `module`, without a terminal.

    environment: what is set in its environment beside the parent's; inherited: file descriptors
    that it has as well.
    doing: what the process is about, for the message if it ends.
    """

    def __init__(
        self,
        module: str,
        *arguments: str,
        environment: Mapping[str, str] = ONE_THREAD,
        inherited: Sequence[int] = (),
    ) -> None:
        self.enter("starting")
        self._output: BinaryIO = tempfile.TemporaryFile()  # a pipe would have to be read
        self.pipe, theirs = Pipe()
        own = str(theirs.fileno()), str(os.getpid())
        path = [entry or os.getcwd() for entry in sys.path]
        try:
            self.process = subprocess.Popen(
                # -P: what lies in the working directory does not shadow any module.
                [sys.executable, "-P", "-m", module, *own, *arguments],
                env=os.environ | environment | {"PYTHONPATH": os.pathsep.join(path)},
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=self._output,
                pass_fds=[theirs.fileno(), *inherited],
                # A group of its own, with what it starts: Ctrl-C is for the parent, which ends it.
                process_group=0,
            )
        finally:
            theirs.close()

    def enter(self, doing: str, limit: float = math.inf) -> None:
        """From now on the process is `doing` something that may take `limit` seconds."""
        self.doing, self._limit = doing, limit
        self._deadline = time.monotonic() + limit

    def send(self, message: Any) -> None:
        """Send a message; that the process is gone is told by what is received."""
        with contextlib.suppress(OSError):
            self.pipe.send(message)

    def receive(self) -> Any:
        """Wait for the next message, or `Gone`: the process ended, or is late and was killed."""
        ((_, message),) = receive([self])
        return message

    def stop(self) -> None:
        """Kill the process and all of its group, and wait until it is gone; again: nothing."""
        if self.pipe.closed:
            return
        _kill_group(self.process)
        self.process.wait()
        self.pipe.close()
        self._output.close()

    def _next(self) -> Any:
        """What there is to receive, without waiting."""
        try:
            return self.pipe.recv()
        except (EOFError, OSError):
            return self._end()

    def _end(self) -> Gone:
        """Kill the process unless it is gone, and say how it ended."""
        late = self._deadline < time.monotonic()
        if late:
            gone = Gone(f"no result in {self._limit:g} s of {self.doing}")
        else:
            code = self._exit_code()
            how = signal.Signals(-code).name if code < 0 else f"exit status {code}"
            self._output.seek(max(0, self._output.seek(0, os.SEEK_END) - 4096))
            said = self._output.read().decode(errors="replace").splitlines()
            lines = [line.strip() for line in said if line.strip()]
            errors = [line for line in lines if "error" in line.lower()]
            reason = f"crashed: {how} while {self.doing}"
            gone = Gone(reason, *("".join(found[-1:]) for found in (errors, lines)))
        self.stop()
        return gone

    def _exit_code(self) -> int:
        """Of a process that has closed its end of the pipe and is about to end."""
        try:
            return self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


def receive(children: Sequence[Child]) -> list[tuple[Child, Any]]:
    """Wait until some of the children have sent a message, are gone, or late; what is received from
    each of those."""
    deadline = min(child._deadline for child in children)
    left = None if deadline == math.inf else max(0.0, deadline - time.monotonic())
    heard = wait([child.pipe for child in children], timeout=left)
    now = time.monotonic()
    return [
        (child, child._next() if child.pipe in heard else child._end())
        for child in children
        if child.pipe in heard or child._deadline < now
    ]


def connect(pipe: str, parent: str) -> Connection:
    """The child's side: its end of the pipe. From now on it dies with its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    die_with_parent()
    if sys.platform == "linux":
        # One that takes all memory must not take its parent with it.
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
    if os.getppid() != int(parent):
        os._exit(1)
    return Connection(int(pipe))


def die_with_parent() -> None:
    """From now on this process is killed when the thread that started it ends (on Linux)."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, int(signal.SIGKILL))


def run(command: Sequence[str], folder: Path, output: int = subprocess.DEVNULL) -> tuple[int, str]:
    """Run a program in a folder, for its temporary files, too; its status and what it said.

    output: the file descriptor of its standard output. Whatever ends this ends the processes that
    it started as well.
    """
    with subprocess.Popen(
        command,
        cwd=folder,
        env=os.environ | {"TMPDIR": str(folder)},
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        process_group=0,
    ) as process:
        try:
            _, said = process.communicate()
        except BaseException:
            _kill_group(process)
            raise
    return process.returncode, said


def end_children() -> None:
    """Kill what this process has started and is left: an exception that a signal raises may come
    between the start of a process and whatever would end it."""
    import psutil

    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()


def reason_of(error: Exception) -> str:
    """The message of an error in one line: of TVM's the last, behind its backtrace."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else "no message"


def _kill_group(process: subprocess.Popen) -> None:
    """Kill a process that leads a group, and the group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
