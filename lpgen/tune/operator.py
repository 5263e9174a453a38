"""The tuning of one operator: resume, search, measure, log, race."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lpgen import cost, records
from lpgen.errors import TuneError
from lpgen.ops import Operator
from lpgen.records import Log, Record, RunnerUp
from lpgen.records.choose import lent
from lpgen.target import Target
from lpgen.templates import Template
from lpgen.tune.built import Machine
from lpgen.tune.cost_model import CostModel
from lpgen.tune.events import (
    CandidateMeasured,
    OperatorFinished,
    OperatorStarted,
    RaceStarted,
    TuneEvent,
    TuneResult,
)
from lpgen.tune.guesses import Guesses
from lpgen.tune.messages import Candidate, Laps, Measure, Outcome, Race
from lpgen.tune.race import Standing, Times, foreseen, leaders, next_best, standings
from lpgen.tune.search import Search

_FOR_EACH = 4
"""Trials for each template from which on all have a turn; with fewer, those without hope have none.
"""

_KNOWN_WINNERS = 3
_LENT = 2
_GUESSES = 12
_MODELLED = 5


@dataclass(frozen=True)
class Settings:
    """What the operators of a run share: the arguments of `tune`, and the runner's machine."""

    target: Target
    trials: Mapping[Operator, int]
    log: Log | None
    seed: int
    strategy: str
    model: CostModel
    on_event: Callable[[TuneEvent], None]
    machine: Machine
    threads: int = 1

    def known(self) -> list[Record]:
        """What the log holds of this target, number of threads, CPU and versions, oldest first."""
        logged = self.log.records() if self.log is not None else []
        wanted = self.target.name, self.threads, self.machine.cpu, self.machine.versions
        return [r for r in logged if (r.target, r.threads, r.cpu, r.versions) == wanted]


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
        self._ranked = self._priced(serving)
        self._templates = {template.name: template for template in serving}
        self._modelled: set[tuple[str, str]] = set()
        named = self._named()
        self._known = [r for r in settings.known() if r.workload == op.name]
        if trials < _FOR_EACH * len(serving) and settings.strategy == "model":
            hopeful = {*cost.promising(self._ranked), *(c.template for c in named)}
            # What an earlier run measured, with more trials perhaps, may be the winner.
            measured = {r.template for r in self._known}
            kept = {t for t in serving if t in hopeful or t.name in measured or not t.counted}
            serving = [t for t in serving if t in kept]
            self._templates = {template.name: template for template in serving}
        self._failed: Counter[str] = Counter()
        logs = [settings.log] if settings.log is not None else []
        ranked = records.ranked(op, settings.target, logs, threads=settings.threads)
        winners = [r for _, r in ranked if r.best]
        self._search = Search(
            op,
            settings.target,
            serving,
            trials=trials,
            # The operator is part of the seed, its place in the run is not.
            rng=np.random.default_rng([settings.seed, *op.name.encode()]),
            strategy=settings.strategy,
            model=settings.model,
            first=self._candidates(winners)[:_KNOWN_WINNERS],
            named=named,
            guesses=self._guesses(named),
        )
        size = sum(len(space) for space in self._search.spaces.values())
        self._trials = size if settings.strategy == "exhaustive" else min(size, trials)
        self._winner = self._resume()
        self._resumed = self._done
        untried = sum(c.key not in self._search.times for c in self._search.defaults)
        if trials >= len(serving):
            # What other templates did in an earlier run is no reason to leave these out.
            self._trials = max(self._trials, self._done + untried)

    @property
    def _done(self) -> int:
        return len(self._search.times)

    def _priced(self, serving: list[Template]) -> list[cost.Candidate]:
        """What the cost model says of the templates' points, for a strategy that asks it."""
        if self._settings.strategy in ("random", "exhaustive"):
            return []
        counted = [template for template in serving if template.counted]
        return cost.candidates(self._op, self._settings.target, counted)

    def _named(self) -> list[Candidate]:
        """What the static model ranked for this target, and what records of others lend."""
        settings = self._settings
        if settings.strategy in ("random", "exhaustive"):
            return []
        logs = [settings.log] if settings.log is not None else []
        points = lent(self._op, settings.target, logs, settings.threads)
        named = [Candidate(*p) for p in points if p[0].name in self._templates][:_LENT]
        known = self._candidates(records.modelled(self._op, settings.target, logs))
        first = list({c.key: c for c in known}.values())[:_MODELLED]
        self._modelled = {candidate.key for candidate in first}
        return [*first, *named]

    def _guesses(self, named: list[Candidate]) -> Guesses | None:
        """What the cost model likes best: the first trials, but for an eighth of them."""
        if not self._ranked:
            return None
        trials = self._settings.trials[self._op]
        priced = [
            cost.evaluate(self._op, self._settings.target, [(c.template, c.knobs)]) for c in named
        ]
        known = [c for c in (*self._ranked, *priced) if c and c.template.name in self._templates]
        return Guesses(known, min(max(1, trials - trials // 8), _GUESSES))

    def _candidates(self, known: Iterable[Record]) -> list[Candidate]:
        """The candidates of the records whose templates compete."""
        return [
            Candidate(self._templates[record.template], record.knobs)
            for record in known
            if record.template in self._templates
        ]

    def _resume(self) -> Record | None:
        """Tell the search what the log holds; the winner that was chosen over all of it, if any."""
        known = self._known
        # Where nothing worked, everything is tried again: the reason may be gone.
        if all(record.failed is not None for record in known):
            return None
        winner = None
        # Winners last: their times are from races, those of single candidates compare better.
        for record in sorted(known, key=lambda record: record.best):
            candidate = next(iter(self._candidates([record])), None)
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
