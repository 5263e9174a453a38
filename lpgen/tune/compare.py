"""How good a search is: replayed against what was measured before."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from lpgen import templates
from lpgen.errors import RecordError
from lpgen.records import Log
from lpgen.space import Knobs, Space
from lpgen.templates import Template
from lpgen.tune.cost_model import CostModel, teach
from lpgen.tune.messages import Candidate
from lpgen.tune.search import Search

TRIALS = (8, 16, 32, 64, 128)

Table = dict[tuple[str, str], float | None]
"""Candidate.key -> measured seconds (None: failed)."""


@dataclass(frozen=True)
class Progress:
    """How far a strategy got after some trials, over several seeds.

    A fraction is the best time of all divided by the best time found so far (1: found it).
    """

    strategy: str
    trials: int
    median: float
    worst: float


def compare_search(
    op: Any,
    target: Any,
    log: Log | str | os.PathLike,
    *,
    trials: Sequence[int] = TRIALS,
    seeds: int = 10,
    strategies: Sequence[str] = ("model", "random"),
    among: Sequence[Template | str] | None = None,
    whole: bool = True,
    others: Sequence[Any] = (),
) -> list[Progress]:
    """Replay searches of an operator against what `tune(..., strategy="exhaustive")` logged.

    Nothing is measured. among: the templates that compete (default: all that the log holds for
    the operator). whole: with False the spaces are what the log holds of them, such as the random
    sample of `tune(..., strategy="random")`. others: operators that the cost model knows from the
    log. Raises RecordError when the log does not hold the whole space of one of the templates.
    """
    log = log if isinstance(log, Log) else Log(log)
    table = measured_table(op, target, log)
    names = sorted({name for name, _ in table}) if among is None else among
    competing = [t if isinstance(t, Template) else templates.get(t) for t in names]
    if whole:
        _require_whole(op, target, competing, table, log)
    _require_some(op, table, log)
    if not whole:
        competing = [Sampled.of(t, op, target, table) for t in competing]
    taught = {other.name for other in others} - {op.name}
    known = [r for r in log.records() if r.workload in taught and r.measured_here]
    results = []
    for strategy in strategies:
        runs = []
        for seed in range(seeds):
            model = CostModel(seed)
            teach(model, known, target)
            runs.append(replay(op, target, competing, table, strategy, max(trials), seed, model))
        for count in trials:
            reached = [run[min(count, len(run)) - 1] for run in runs]
            results.append(Progress(strategy, count, median(reached), min(reached)))
    return results


@dataclass(frozen=True)
class Sampled(Template):
    """A template whose space is what was measured of it."""

    original: Template
    points: Space

    @classmethod
    def of(cls, template: Template, op: Any, target: Any, table: Table) -> "Sampled":
        """The template with those of its candidates that the table holds."""
        space = template.space(op, target)
        texts = [knobs for name, knobs in table if name == template.name]
        points = {tuple(space.ordered(json.loads(text)).values()) for text in texts}
        held = Space(space.knobs, lambda knobs: tuple(knobs.values()) in points)
        return cls(template.family, template.algorithm, template, held)

    def space(self, op: Any, target: Any) -> Space:
        return self.points

    def default(self, op: Any, target: Any) -> Knobs:
        """The template's own, or the first that was measured."""
        knobs = self.original.default(op, target)
        return knobs if knobs in self.points else next(self.points.enumerate())


def measured_table(op: Any, target: Any, log: Log) -> Table:
    """The candidates of an operator that the log holds for this CPU and these versions."""
    table: Table = {}
    for record in log.records():
        named = (record.workload, record.target) == (op.name, target.name)
        one = record.threads == 1
        if named and one and record.measured_here and not record.best:
            # The template need not exist for its key.
            family, algorithm = record.template.split("/")
            candidate = Candidate(Template(family, algorithm), record.knobs)
            table[candidate.key] = record.seconds
    return table


def _require_whole(
    op: Any, target: Any, competing: Sequence[Template], table: Table, log: Log
) -> None:
    for template in competing:
        points = [Candidate(template, knobs) for knobs in template.space(op, target)]
        held = sum(candidate.key in table for candidate in points)
        if held < len(points):
            raise RecordError(
                f"log {log.path}: holds {held} of the {len(points)} points of {template.name} for "
                f"{op.name}; measure them with --exhaustive first"
            )


def _require_some(op: Any, table: Table, log: Log) -> None:
    if not any(seconds is not None for seconds in table.values()):
        raise RecordError(f"log {log.path}: holds no candidate that works for {op.name}")


def replay(
    op: Any,
    target: Any,
    competing: Sequence[Template],
    table: Table,
    strategy: str,
    trials: int,
    seed: int,
    model: CostModel | None = None,
) -> list[float]:
    """One search against the table: the fraction of the exhaustive best after each trial."""
    search = Search(
        op,
        target,
        competing,
        trials=trials,
        rng=np.random.default_rng(seed),
        strategy=strategy,
        model=model if model is not None else CostModel(seed),
    )
    names = {template.name for template in competing}
    best = min(s for (name, _), s in table.items() if s is not None and name in names)
    fractions: list[float] = []
    while len(fractions) < trials and (candidate := search.propose()) is not None:
        search.tell(candidate, table[candidate.key])
        fractions.append(best / search.fastest if search.fastest is not None else 0.0)
    return fractions
