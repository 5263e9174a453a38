"""The search: candidates proposed, measured in worker processes, raced, and written to a log.

Its names are imported when they are used: a device that only measures has no need of the search.
"""

from lpgen.lazily import lazily

_PUBLIC = {
    "STRATEGIES": "search",
    "CandidateMeasured": "events",
    "OperatorFailed": "events",
    "OperatorFinished": "events",
    "OperatorStarted": "events",
    "Progress": "compare",
    "RaceStarted": "events",
    "TuneEvent": "events",
    "TuneResult": "events",
    "compare_search": "compare",
    "most_jobs": "session",
    "race_records": "race",
    "tune": "session",
}
"""Name -> the module that has it."""

__all__ = list(_PUBLIC)
__getattr__, __dir__ = lazily(__name__, _PUBLIC)
