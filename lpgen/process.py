"""Processes that may crash: a Python module at the other end of a pipe, and what ended it.

The module is run as `python -m MODULE PIPE PARENT ...`: the file descriptor of its end of the pipe,
its parent's process id, and arguments of its own. It begins with `connect` and says in messages
what it does, so that a death can be told from another.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
from multiprocessing.connection import Connection, Pipe
from typing import BinaryIO

_ONE_THREAD = {
    name: "1"
    for name in ("OMP_NUM_THREADS", "TVM_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
}


class Child:
    """The parent's side of such a process, which has one thread and no terminal.

    doing: what the process is about, for the message if it dies.
    """

    def __init__(self, module: str, *arguments: str) -> None:
        self.doing = "starting"
        self._output: BinaryIO = tempfile.TemporaryFile()
        self.pipe, theirs = Pipe()
        own = str(theirs.fileno()), str(os.getpid())
        path = [entry or os.getcwd() for entry in sys.path]
        try:
            self.process = subprocess.Popen(
                # -P: what lies in the working directory does not shadow any module.
                [sys.executable, "-P", "-m", module, *own, *arguments],
                env=os.environ | _ONE_THREAD | {"PYTHONPATH": os.pathsep.join(path)},
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=self._output,
                pass_fds=[theirs.fileno()],
            )
        finally:
            theirs.close()

    def stop(self) -> None:
        """Kill the process and wait until it is gone."""
        self.process.kill()
        self.process.wait()
        self.pipe.close()
        self._output.close()

    def cause_of_death(self) -> str:
        """What ended the process, with the message of a failed check or of LLVM."""
        try:
            code = self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        what = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        self._output.seek(max(0, self._output.seek(0, os.SEEK_END) - 4096))
        lines = self._output.read().decode(errors="replace").splitlines()
        errors = [line.strip() for line in lines if "error" in line.lower()]
        return f"crashed: {what} while {self.doing}" + (f": {errors[-1]}" if errors else "")


def connect(pipe: str, parent: str) -> Connection:
    """The child's side: its end of the pipe. From now on it dies with its parent."""
    # Ctrl-C reaches the whole group; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with(int(parent))
    return Connection(int(pipe))


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent dies, in whatever way."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, int(signal.SIGKILL))
        # One that takes all memory must not take its parent with it.
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
    if os.getppid() != parent:
        os._exit(1)


def reason_of(error: Exception) -> str:
    """The message of an error in one line: of TVM's the last, behind its backtrace."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else "no message"
