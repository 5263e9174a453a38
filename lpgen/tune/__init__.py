"""The search: candidates proposed, measured in worker processes, raced, and written to a log.

Its names are imported when they are used: a device that only measures has no need of the search.
"""

from importlib import import_module
from typing import Any

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


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'lpgen.tune' has no attribute {name!r}")
    return getattr(import_module(f"lpgen.tune.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
