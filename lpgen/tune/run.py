"""A run over operators on one pool of workers: whose candidate is measured next."""

from collections import deque
from collections.abc import Mapping

from lpgen.errors import TuneError
from lpgen.ops import Operator
from lpgen.templates import Template
from lpgen.tune.events import OperatorFailed, TuneResult
from lpgen.tune.messages import Measure, Race
from lpgen.tune.operator import AllFailed, OperatorSession
from lpgen.tune.pool import Pool
from lpgen.tune.settings import Settings


class Run:
    """The operators of a run, each with the templates that serve it.

    One operator is spread over all workers. While it cannot use them all (its first candidate is
    what others are timed beside, its race is on one device) the next one gets the rest, at most
    `pool.operators` at once: nobody waits while there is anything to measure.
    """

    def __init__(
        self, settings: Settings, serving: Mapping[Operator, list[Template]], pool: Pool
    ) -> None:
        self._settings, self._pool = settings, pool
        self._count = len(serving)
        self._coming = deque(enumerate(serving.items()))
        self._open: dict[Operator, OperatorSession] = {}
        self._results: dict[Operator, TuneResult] = dict.fromkeys(serving)
        self._failures: list[AllFailed] = []

    def results(self) -> list[TuneResult]:
        """Tune all. Raises TuneError when all candidates of an operator failed, at the end."""
        while self._coming or self._open:
            while self._pool.free and (request := self._request()) is not None:
                self._pool.submit(request)
            if not self._pool.busy:
                continue  # the last one to be opened has ended without asking for anything
            for session in self._open.values():
                session.look_ahead()
            answers = self._pool.answers()
            for op in dict.fromkeys(request.op for request, _ in answers):
                self._open[op].take([each for each in answers if each[0].op == op])
            self._close_finished()
        if self._failures:
            count = len(self._failures) - 1
            more = f" (and {count} operators more)" if count else ""
            raise TuneError(f"{self._failures[0]}{more}")
        return [result for result in self._results.values() if result is not None]

    def _request(self) -> Measure | Race | None:
        """What is to be done next, of the first operator that has anything to do."""
        for op, session in [*self._open.items()]:
            if (request := self._request_of(op, session)) is not None:
                return request
        while self._coming and len(self._open) < self._pool.operators:
            index, (op, templates) = self._coming.popleft()
            session = self._open[op] = OperatorSession(self._settings, op, templates)
            session.begin(index, self._count)
            if (request := self._request_of(op, session)) is not None:
                return request
        return None

    def _request_of(self, op: Operator, session: OperatorSession) -> Measure | Race | None:
        try:
            request = session.request()
        except AllFailed as error:
            del self._open[op]
            self._failures.append(error)
            self._settings.on_event(OperatorFailed(op, str(error)))
            return None
        self._close_finished()
        return request

    def _close_finished(self) -> None:
        for op, session in [*self._open.items()]:
            if session.result is not None:
                self._results[op] = session.result
                del self._open[op]
