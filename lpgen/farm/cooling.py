"""Waiting while a device throttles: what is timed on it then is another machine's time.

Candidates are timed beside a reference, which is slowed down as well; races have to be undisturbed.
A device that is hot takes no work until it has cooled, so that others take it, and a race in which
it slowed down is run again. A device that never cools must not stop the run: the waiting is
bounded.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from lpgen.farm.health import Health, slowed

POLL = 2.0
"""Seconds between two looks at a device that cools."""

LONGEST = 60.0
"""Seconds that are waited at most."""

PAUSE = 600.0
"""Seconds without further waiting, after a device has not cooled in the longest."""

RACES = 3
"""How often a race is run at most."""

Call = tuple[str, bytes, float]
"""Command, arguments and seconds, as of `lpgen.farm.protocol`."""


class Cooling:
    """What one device's health means for what is asked of it.

    name: of the device; ask: gives its health now, an answer of the protocol; say: is told in a
    line what is waited for.
    """

    def __init__(self, name: str, ask: Callable[[], str], say: Callable[[str], None]) -> None:
        self._name, self._ask, self._say = name, ask, say
        self._last = Health()
        self._no_waiting_until = 0.0

    def answer(self, call: Call, ask: Callable[..., str]) -> str:
        """The answer to a call; of a race in which the device slowed down, to another one."""
        for number in range(1, RACES + 1):
            text = ask(*call)
            answer = json.loads(text)
            if "health" not in answer:
                break
            self._last = Health(*answer["health"])
            if "before" not in answer or not slowed(Health(*answer["before"]), self._last):
                break
            self._tell_of_race(Health(*answer["before"]), number)
            if number < RACES:
                self.wait()
        return text

    def wait(self) -> None:
        """Wait until the device is at its full speed again, if the last answer said otherwise."""
        began = time.monotonic()
        if not self._last.throttled or began < self._no_waiting_until:
            return
        self._say(f"device {self._name} is hot ({self._last}): waiting until it has cooled")
        while self._last.throttled and time.monotonic() - began < LONGEST:
            time.sleep(POLL)
            self._last = Health(*json.loads(self._ask())["health"])
        waited = f"after {time.monotonic() - began:.0f} s ({self._last})"
        if self._last.throttled:
            self._no_waiting_until = time.monotonic() + PAUSE
            self._say(f"device {self._name} has not cooled {waited}: going on as it is")
        else:
            self._say(f"device {self._name} has cooled {waited}")

    def _tell_of_race(self, before: Health, number: int) -> None:
        what = f"race {number} of {RACES}" if number < RACES else "the last race, which counts,"
        self._say(f"device {self._name} slowed down in {what} ({before}; then {self._last})")
