"""Trials of a network: how its operators share them, by what they cost in the whole."""

from __future__ import annotations

import math
from collections.abc import Mapping

from lpgen import cost, templates
from lpgen.build import Choice
from lpgen.ops import Operator
from lpgen.records.choose import choose
from lpgen.target import Target

LEAST = 8
"""Trials of an operator that gets any: fewer seldom find anything."""


def costs(uses: Mapping[Operator, int], target: Target) -> dict[Operator, float]:
    """Seconds of all steps of each operator, as expected without the user's own records: so that
    they are the same when tuning goes on. uses: how many steps each has."""
    return {op: count * _expected(choose(op, target)) for op, count in uses.items()}


def _expected(choice: Choice) -> float:
    """Seconds of a call: as recorded, else as the cost model has it."""
    if choice.seconds is None:
        knobs = templates.get(choice.template), dict(choice.knobs)
        modelled = cost.evaluate(choice.op, choice.target, [knobs])
        if modelled is not None and math.isfinite(modelled.cost):
            return math.exp(modelled.cost) * 1e-9
    return choice.work


def shares(costs: Mapping[Operator, float], trials: int) -> dict[Operator, int]:
    """So many trials shared in proportion to the costs, the dearest operator first; no share is
    below LEAST, and operators that would have less than half of that get none.
    """
    ranked = sorted(costs, key=lambda op: -costs[op])
    rest = sum(costs.values())
    while len(ranked) > 1 and 2 * trials * costs[ranked[-1]] < LEAST * rest:
        rest -= costs[ranked.pop()]
    ranked = ranked[: max(1, trials // LEAST)]
    left, rest, found = trials, sum(costs[op] for op in ranked), {}
    for op in reversed(ranked):
        found[op] = min(left, max(LEAST, round(left * costs[op] / rest)))
        left, rest = left - found[op], rest - costs[op]
    return dict(reversed(found.items()))
