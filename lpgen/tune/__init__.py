"""The search: candidates proposed, measured in worker processes, raced, and written to a log."""

from lpgen.tune.compare import Progress, compare_search
from lpgen.tune.events import (
    CandidateMeasured,
    OperatorFailed,
    OperatorFinished,
    OperatorStarted,
    RaceStarted,
    TuneEvent,
    TuneResult,
)
from lpgen.tune.race import race_records
from lpgen.tune.search import STRATEGIES
from lpgen.tune.session import most_jobs, tune

__all__ = [
    "STRATEGIES",
    "CandidateMeasured",
    "OperatorFailed",
    "OperatorFinished",
    "OperatorStarted",
    "Progress",
    "RaceStarted",
    "TuneEvent",
    "TuneResult",
    "compare_search",
    "most_jobs",
    "race_records",
    "tune",
]
