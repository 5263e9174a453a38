"""Records: what one candidate did, the logs that keep them, and which of them an operator gets.

`lpgen.records.choose`, which also asks the cost model and makes kernels, is imported by itself.
"""

from lpgen.records.log import Contents, Log, RecordWarning, default_log, shipped
from lpgen.records.rank import best, modelled, ranked, why_not
from lpgen.records.record import Record, RunnerUp, this_cpu, this_versions

__all__ = [
    "Contents",
    "Log",
    "Record",
    "RecordWarning",
    "RunnerUp",
    "best",
    "default_log",
    "modelled",
    "ranked",
    "shipped",
    "this_cpu",
    "this_versions",
    "why_not",
]
