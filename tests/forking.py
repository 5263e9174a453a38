"""Processes of lpgen that are forked, where starting Python for each of them would take the time.

What is tested is what they do and how they end; that they start by themselves is tested elsewhere.
"""

import importlib
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Pipe
from typing import Any

from lpgen.supervise import Child

_FORK = multiprocessing.get_context("fork")


class Forked:
    """A process that runs a function, in a group of its own; what `Child` uses of Popen."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._process = _FORK.Process(target=_alone, args=(function, *arguments))
        self._process.start()
        self.pid = self._process.pid

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status. Raises TimeoutExpired while it works."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("forked", timeout)
        return self._process.exitcode

    def poll(self) -> int | None:
        """Its exit status, None while it works."""
        return self._process.exitcode

    def kill(self) -> None:
        """End it, by SIGKILL."""
        self._process.kill()


def _alone(function: Callable[..., Any], *arguments: Any) -> None:
    os.setpgid(0, 0)
    function(*arguments)


def fork_children(monkeypatch) -> None:
    """From now on each Child is forked, also those of forked ones; its module needs a `main`."""
    monkeypatch.setattr(Child, "__init__", _start)


def _start(
    self: Child,
    module: str,
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    inherited: Sequence[int] = (),
) -> None:
    self.enter("starting")
    self._output = tempfile.TemporaryFile()
    self.pipe, theirs = Pipe()
    own = [str(theirs.fileno()), str(os.getpid()), *arguments]
    self.process = Forked(_main, module, own, self._output.fileno())
    theirs.close()


def _main(module: str, arguments: list[str], output: int) -> None:
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__  # not what pytest reads
    importlib.import_module(module).main(arguments)
