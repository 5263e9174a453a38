"""Processes that tests start: commands that run until a test ends them, or until pytest ends."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import psutil

from lpgen.supervise import die_with_parent


def started(*arguments: str, **options: Any) -> subprocess.Popen:
    """`python arguments...` in a session of its own, which signals end: also where pytest is a
    background job, or behind nohup, whose children ignore them. It is killed when pytest is;
    `options` of Popen."""
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(
        [sys.executable, *arguments],
        **pipes | options,
        start_new_session=True,
        preexec_fn=_alone,
    )


def _alone() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    die_with_parent()


def wait_for(condition: Callable[[], Any], limit: float = 120) -> None:
    """Wait until it holds; two minutes are for machines that do a lot else."""
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end, "did not happen"
        time.sleep(0.02)


def gone(pid: int) -> bool:
    """Whether a process is no more, soon."""
    end = time.monotonic() + 20
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True
