"""What a tuning run tells its caller while it works, and what it returns."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from lpgen.records import Record
from lpgen.space import Knobs


@dataclass(frozen=True)
class TuneEvent:
    """Base of the events; `op` is the operator they are about."""

    op: Any


@dataclass(frozen=True)
class OperatorStarted(TuneEvent):
    """The search for one operator begins.

    index of operators: its place in the run; trials: how many candidates it will have, `resumed`
    of which the log already holds; templates: names of those that compete.
    """

    index: int
    operators: int
    trials: int
    resumed: int
    templates: tuple[str, ...]


@dataclass(frozen=True)
class CandidateMeasured(TuneEvent):
    """One candidate is done: its seconds, or None and why it `failed`; `fastest` so far."""

    template: str
    knobs: Knobs
    seconds: float | None
    failed: str | None
    fastest: float | None
    done: int
    trials: int


@dataclass(frozen=True)
class RaceStarted(TuneEvent):
    """The leaders are timed in turns."""

    candidates: int


@dataclass(frozen=True)
class Foreseen:
    """What it gave to begin with the static model's first candidates.

    candidates: how many of them worked; behind: how much longer the best of them takes than the
    fastest of all trials (0: it is the fastest); trial: at which it was measured; caught: at which
    another candidate was as fast first, None: none was.
    """

    candidates: int
    behind: float
    trial: int
    caught: int | None

    def saved(self, trials: int) -> int:
        """How many of the trials it took others to be as fast, or was not enough for them."""
        return (trials if self.caught is None else self.caught) - self.trial


@dataclass(frozen=True)
class TuneResult:
    """What tuning one operator gave.

    best: the record of the winner, which names the runner-up. default_seconds: the fastest
    template's default knobs in the same race (None: they failed). trials: candidates behind the
    choice, `resumed` of them from the log; `failed`: how many of them failed for which reason.
    elapsed: seconds this took. templates: names of those that competed. foreseen: None without
    records of the static model.
    """

    op: Any
    best: Record
    default_seconds: float | None
    trials: int
    resumed: int
    failed: Counter[str] = field(default_factory=Counter)
    elapsed: float = 0.0
    templates: tuple[str, ...] = ()
    foreseen: Foreseen | None = None

    @property
    def gain(self) -> float | None:
        """How many times faster than the default knobs."""
        return self.default_seconds and self.default_seconds / self.best.seconds


@dataclass(frozen=True)
class OperatorFinished(TuneEvent):
    """The winner of one operator is known and logged."""

    result: TuneResult


@dataclass(frozen=True)
class OperatorFailed(TuneEvent):
    """Every candidate of one operator failed; the run goes on with the next and raises at last."""

    reason: str
