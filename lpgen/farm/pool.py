"""Workers of the tuner that build here while the devices of a farm measure."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Any

from lpgen.farm.protocol import OPERATORS
from lpgen.tune.messages import Answered, Handed, Measure, Race
from lpgen.tune.pool import Pool, Process

if TYPE_CHECKING:
    from lpgen.farm.farm import Farm


class FarmPool(Pool):
    """Workers that use the links of a farm, and the farm's own news beside their answers.

    Each of the `jobs` workers builds one request at a time and hands it over: as many as there are
    devices are measured meanwhile, and some are built ahead: one for each worker, and one for four
    devices, which become free while others' answers go to the log. A worker that dies of
    what it builds loses what it had handed over, which is built again.
    """

    module = "lpgen.farm.worker"
    patience = math.inf
    """Others may use the devices for hours."""
    operators = OPERATORS

    def __init__(self, farm: Farm, jobs: int, timeout: float) -> None:
        self._farm, self.arguments = farm, (farm.address, str(timeout))
        self._handed: dict[Process, dict[int, Measure | Race]] = {}
        self._again: deque[Measure | Race] = deque()
        super().__init__(jobs, timeout)

    @property
    def free(self) -> int:
        """How many requests can be submitted now."""
        handed = sum(map(len, self._handed.values())) + len(self._again)
        devices = self._farm.count
        ahead = devices + devices // 4 + len(self._workers) - handed
        building = sum(worker.request is not None for worker in self._workers)
        return max(0, min(super().free, ahead - building))

    @property
    def busy(self) -> bool:
        """Whether an answer is to come."""
        return super().busy or any(self._handed.values()) or bool(self._again)

    def _expects(self, worker: Process) -> bool:
        return super()._expects(worker) or bool(self._handed.get(worker))

    def _receive(self, waiting: list) -> list:
        links = self._farm.children
        found = super()._receive([*waiting, *links])
        for child, message in found:
            if child in links:
                self._farm.take(child, message)
        return [(child, message) for child, message in found if child not in links]

    def _take(self, worker: Process, message: Any) -> None:
        if isinstance(message, Handed):
            self._handed.setdefault(worker, {})[message.number] = worker.request
            worker.request = None
            worker.enter("waiting for devices")
        elif isinstance(message, Answered):
            request = self._handed[worker].pop(message.number)
            self._ready.append((request, message.answer))
        else:
            super()._take(worker, message)
        while self._again and any(w.request is None for w in self._workers):
            self.submit(self._again.popleft())

    def _replace(self, worker: Process, reason: str) -> None:
        self._again += self._handed.pop(worker, {}).values()
        super()._replace(worker, reason)
