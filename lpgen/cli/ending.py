"""How a signal ends a command: TERM and HUP as Ctrl-C does, so that nothing is left behind."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any, Self


class Ending:
    """Inside of the block TERM and HUP raise KeyboardInterrupt, once; `number`: the signal that
    did, SIGINT if none of them.

    Those that somebody else handles or ignores (`nohup`) are left alone.
    """

    def __init__(self) -> None:
        self.number = signal.SIGINT
        self._before: dict[signal.Signals, Any] = {}

    @property
    def status(self) -> int:
        """The exit status of a command that the signal ended."""
        return 128 + self.number

    @property
    def message(self) -> str:
        """How the command ended, in a word or three."""
        return "interrupted" if self.number == signal.SIGINT else f"ended by {self.number.name}"

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # others may not handle signals
            for number in (signal.SIGTERM, signal.SIGHUP):
                if signal.getsignal(number) == signal.SIG_DFL:
                    self._before[number] = signal.signal(number, self._raise)
        return self

    def _raise(self, number: int, frame: FrameType | None) -> None:
        self.number = signal.Signals(number)
        for other in self._before:  # nothing disturbs the clearing up
            signal.signal(other, signal.SIG_IGN)
        raise KeyboardInterrupt

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
