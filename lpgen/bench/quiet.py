"""Waiting until the threads that the last call left behind have gone to sleep.

Threads of most libraries look for more work for milliseconds after a call (they spin), and so take
the cores from the library that is timed next.
"""

import threading
import time
from pathlib import Path

LIMIT = 2.0
"""Seconds after a turn in which a library's threads have to go to sleep."""

_TASKS = Path("/proc/self/task")
_LOOK = 1e-3
_LOOKS = 3
"""All threads have to be asleep at so many looks in succession."""


def wait_until_quiet(limit: float = LIMIT) -> bool:
    """Wait until all other threads of this process sleep, `limit` seconds at most: whether they do.

    A thread that is ready to run, but has no core, does not sleep.
    """
    end = time.monotonic() + limit
    quiet = 0
    while quiet < _LOOKS:
        if time.monotonic() > end:
            return False
        time.sleep(_LOOK)
        quiet = 0 if _working() else quiet + 1
    return True


def _working() -> bool:
    """Whether another thread runs or is ready to."""
    own = str(threading.get_native_id())
    return any(_state(task) == "R" for task in _TASKS.glob("[0-9]*") if task.name != own)


def _state(task: Path) -> str:
    """The letter behind the thread's name, which is in parentheses; "" for one that has ended."""
    try:
        return (task / "stat").read_text(errors="replace").rpartition(") ")[2][:1]
    except OSError:
        return ""
