"""How good a search is: replayed against a space that was measured exhaustively."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from lpgen import templates
from lpgen.errors import RecordError
from lpgen.records import Log
from lpgen.templates import Template
from lpgen.tune.cost_model import CostModel
from lpgen.tune.messages import Candidate
from lpgen.tune.search import Search

TRIALS = (8, 16, 32, 64, 128)

Table = dict[tuple[str, str], float | None]
"""Candidate.key -> measured seconds (None: failed)."""


@dataclass(frozen=True)
class Progress:
    """How far a strategy got after some trials, over several seeds.

    A fraction is the exhaustive best time divided by the best time found so far (1: found it).
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
) -> list[Progress]:
    """Replay searches of an operator against what `tune(..., strategy="exhaustive")` logged.

    Nothing is measured. `among`: the templates that compete (default: all that the log holds for
    the operator). Raises RecordError when the log does not hold the whole space of one of them.
    """
    log = log if isinstance(log, Log) else Log(log)
    table = measured_table(op, target, log)
    names = sorted({name for name, _ in table}) if among is None else among
    competing = [t if isinstance(t, Template) else templates.get(t) for t in names]
    _require_whole(op, target, competing, table, log)
    results = []
    for strategy in strategies:
        runs = [
            replay(op, target, competing, table, strategy, max(trials), seed)
            for seed in range(seeds)
        ]
        for count in trials:
            reached = [run[min(count, len(run)) - 1] for run in runs]
            results.append(Progress(strategy, count, median(reached), min(reached)))
    return results


def measured_table(op: Any, target: Any, log: Log) -> Table:
    """The candidates of an operator that the log holds for this CPU and these versions."""
    table: Table = {}
    for record in log.records():
        named = (record.workload, record.target) == (op.name, target.name)
        if named and record.measured_here and not record.best:
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
) -> list[float]:
    """One search against the table: the fraction of the exhaustive best after each trial."""
    search = Search(
        op,
        target,
        competing,
        trials=trials,
        rng=np.random.default_rng(seed),
        strategy=strategy,
        model=CostModel(seed),
    )
    names = {template.name for template in competing}
    best = min(s for (name, _), s in table.items() if s is not None and name in names)
    fractions: list[float] = []
    while len(fractions) < trials and (candidate := search.propose()) is not None:
        search.tell(candidate, table[candidate.key])
        fractions.append(best / search.fastest if search.fastest is not None else 0.0)
    return fractions
