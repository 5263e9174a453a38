"""Planning: the formats of a model's layers for a wish, by measured losses and measured times."""

from lpgen.planner.planning import Planning, Point, flips_of, wanted_by
from lpgen.planner.search import Search, Wish
from lpgen.planner.times import Compiler, Times, times_of, uniform_where
from lpgen.planner.whole import Whole

__all__ = [
    "Compiler",
    "Planning",
    "Point",
    "Search",
    "Times",
    "Whole",
    "Wish",
    "flips_of",
    "times_of",
    "uniform_where",
    "wanted_by",
]
