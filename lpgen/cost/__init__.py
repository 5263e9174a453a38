"""A cost model for kernels that nobody has measured (docs/choice.md).

What a kernel does is counted by its template (`Template.work`): instructions of each kind, bytes
from each cache. Each costs so many nanoseconds, fitted to measurements; trees learn what is left.
Its answers are compared with each other, on one target and operator: they are no forecasts of time.
"""

from lpgen.cost.model import Model, asked, shipped
from lpgen.cost.shortlist import (
    Candidate,
    best_points,
    by_tile,
    candidates,
    evaluate,
    promising,
    tile_of,
)

__all__ = [
    "Candidate",
    "Model",
    "asked",
    "best_points",
    "by_tile",
    "candidates",
    "evaluate",
    "promising",
    "shipped",
    "tile_of",
]
