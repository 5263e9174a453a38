"""The tuning of one operator: resume, search, measure, log, race."""

import time
from collections import Counter
from collections.abc import Sequence

import numpy as np

from lpgen.errors import TuneError
from lpgen.ops import Operator
from lpgen.records import Record, RunnerUp
from lpgen.templates import Template
from lpgen.tune.events import (
    CandidateMeasured,
    OperatorFinished,
    OperatorStarted,
    RaceStarted,
    TuneResult,
)
from lpgen.tune.messages import Candidate, Laps, Measure, Outcome, Race
from lpgen.tune.opening import candidates, opening
from lpgen.tune.race import Standing, Times, foreseen, leaders, next_best, standings
from lpgen.tune.search import Search
from lpgen.tune.settings import Settings


class AllFailed(TuneError):
    """No candidate of an operator worked."""


class OperatorSession:
    """The tuning of one operator by the templates that serve it.

    It says what is to be measured (`request`) and takes the answers, in any order, beside other
    operators' on the same workers. result: what it gave, None until then.
    """

    def __init__(self, settings: Settings, op: Operator, serving: list[Template]) -> None:
        self._settings, self._op = settings, op
        self.result: TuneResult | None = None
        self._next: Candidate | None = None
        self._running, self._racing = 0, False
        self._started = time.monotonic()
        trials = settings.trials[op]
        begin = opening(settings, op, serving)
        self._templates = {template.name: template for template in begin.templates}
        self._modelled = begin.modelled
        self._failed: Counter[str] = Counter()
        self._search = Search(
            op,
            settings.target,
            begin.templates,
            trials=trials,
            # The operator is part of the seed, its place in the run is not.
            rng=np.random.default_rng([settings.seed, *op.name.encode()]),
            strategy=settings.strategy,
            model=settings.model,
            first=begin.winners,
            named=begin.named,
            guesses=begin.guesses,
        )
        size = sum(len(space) for space in self._search.spaces.values())
        self._trials = size if settings.strategy == "exhaustive" else min(size, trials)
        self._winner = self._resume()
        self._resumed = self._done
        untried = sum(c.key not in self._search.times for c in self._search.defaults)
        if trials >= len(begin.templates):
            # What other templates did in an earlier run is no reason to leave these out.
            self._trials = max(self._trials, self._done + untried)

    @property
    def _done(self) -> int:
        return len(self._search.times)

    def _resume(self) -> Record | None:
        """Tell the search what the log holds; the winner that was chosen over all of it, if any."""
        known = self._settings.known_of(self._op)
        # Where nothing worked, everything is tried again: the reason may be gone.
        if all(record.failed is not None for record in known):
            return None
        winner = None
        # Winners last: their times are from races, those of single candidates compare better.
        for record in sorted(known, key=lambda record: record.best):
            candidate = next(iter(candidates([record], self._templates.values())), None)
            if candidate is None or not self._search.holds(candidate):
                continue
            if candidate.key not in self._search.times:
                self._search.tell(candidate, record.seconds)
                self._failed.update([record.failed] if record.failed else [])
            if record.best:
                winner = record
        return winner if winner is not None and winner.trials >= self._done else None

    def begin(self, index: int, operators: int) -> None:
        """Say that the search begins."""
        total, names = max(self._trials, self._done), tuple(self._templates)
        started = OperatorStarted(self._op, index, operators, total, self._resumed, names)
        self._settings.on_event(started)

    def request(self) -> Measure | Race | None:
        """What is to be done next; None: nothing before an answer comes, or `result` is there.

        The candidates until the trials are used up or the space is, then the race. Raises AllFailed
        when no candidate works.
        """
        if self.result is not None or not self._may_submit():
            return None
        if (candidate := self._upcoming()) is not None:
            self._next = None
            self._running += 1
            return self._measure(candidate)
        if self._running:
            return None
        if self._search.fastest is None:
            reason, count = self._failed.most_common(1)[0]
            raise AllFailed(
                f"{self._op.name}: all {self._done} candidates failed; {count} of them: {reason}"
            )
        if self._winner is not None and self._resumed == self._done:
            self._finish(self._winner, self._search.times)
            return None
        self._running += 1
        return self._race()

    def look_ahead(self) -> None:
        """Choose the next candidate while others are measured: ranking takes its time."""
        if self.result is None and not self._racing:
            self._upcoming()

    def take(self, answers: Sequence[tuple[Measure | Race, Outcome | Laps]]) -> None:
        """Answers to requests, which go to the log together."""
        self._running -= len(answers)
        measured = []
        for request, answer in answers:
            if isinstance(request, Race):
                self._take_race(request.candidates, answer)
            else:
                measured.append((request.candidate, answer))
        # Log first: what is told is on disk.
        self._log(*(self._record(*each, self._done + n) for n, each in enumerate(measured, 1)))
        for candidate, outcome in measured:
            self._tell(candidate, outcome)

    def _upcoming(self) -> Candidate | None:
        """The next candidate, None: all are under way."""
        if self._next is None and self._done + self._running < self._trials:
            self._next = self._search.propose()
        return self._next

    def _may_submit(self) -> bool:
        """Not during a race, and not before the first candidate that works: the others are timed
        beside it."""
        return not self._racing and not (self._search.reference is None and self._running)

    def _measure(self, candidate: Candidate) -> Measure:
        settings, search = self._settings, self._search
        common = self._op, settings.target, candidate, settings.seed
        return Measure(*common, search.fastest, search.reference, settings.threads)

    def _tell(self, candidate: Candidate, outcome: Outcome) -> None:
        self._search.tell(candidate, outcome.seconds)
        self._failed.update([outcome.failed] if outcome.failed else [])
        self._settings.on_event(
            CandidateMeasured(
                self._op,
                candidate.template.name,
                candidate.knobs,
                outcome.seconds,
                outcome.failed,
                self._search.fastest,
                self._done,
                max(self._trials, self._done),
            )
        )

    def _log(self, *records: Record) -> None:
        if self._settings.log is not None and records:
            self._settings.log.append(*records)

    def _record(
        self,
        candidate: Candidate,
        outcome: Outcome,
        trials: int,
        best: bool = False,
        runner_up: RunnerUp | None = None,
    ) -> Record:
        machine = outcome.machine or self._settings.machine
        return Record(
            workload=self._op.name,
            target=self._settings.target.name,
            template=candidate.template.name,
            knobs=candidate.knobs,
            seconds=outcome.seconds,
            spread=outcome.spread,
            trials=trials,
            best=best,
            failed=outcome.failed,
            runner_up=runner_up,
            threads=self._settings.threads,
            cpu=machine.cpu,
            versions=machine.versions,
        )

    def _race(self) -> Race:
        """The leaders, to be timed in turns."""
        racing = tuple(leaders(self._search))
        settings = self._settings
        self._racing = True
        settings.on_event(RaceStarted(self._op, len(racing)))
        return Race(self._op, settings.target, racing, settings.seed, settings.threads)

    def _take_race(self, racing: tuple[Candidate, ...], laps: Laps) -> None:
        """Log the winner."""
        if laps.failed is None:
            order = standings(racing, laps)
        else:
            # A candidate that worked before fails now: what was measured stands.
            order = [Standing(s, 0.0, c) for s, c in self._search.measured if c in racing]
        winner = order[0]
        outcome = Outcome(winner.seconds, winner.spread)
        times = self._search.times | {s.candidate.key: s.seconds for s in order}
        second = next_best(order, self._search.times)
        record = self._record(winner.candidate, outcome, self._done, best=True, runner_up=second)
        self._log(record)
        self._finish(record, times)

    def _finish(self, best: Record, times: Times) -> None:
        self.result = self._result(best, times)
        self._settings.on_event(OperatorFinished(self._op, self.result))

    def _result(self, best: Record, times: Times) -> TuneResult:
        defaults = [times[c.key] for c in self._search.defaults if times.get(c.key) is not None]
        return TuneResult(
            op=self._op,
            best=best,
            default_seconds=min(defaults, default=None),
            trials=self._done,
            resumed=self._resumed,
            failed=self._failed,
            elapsed=time.monotonic() - self._started,
            templates=tuple(self._templates),
            foreseen=foreseen(self._modelled, self._search.times),
        )
