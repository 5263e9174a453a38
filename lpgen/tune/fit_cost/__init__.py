"""Fits the cost model (`lpgen.cost`) to tuning logs; `python -m lpgen.tune.fit_cost` writes its
data. docs/choice.md says what is fitted and how."""

from collections.abc import Sequence
from dataclasses import replace

from lpgen.cost.model import ELSE, Model
from lpgen.tune.fit_cost.prices import PRIOR, fit_prices
from lpgen.tune.fit_cost.samples import Sample, losers
from lpgen.tune.fit_cost.trees import fit_trees, more_trees


def fit(samples: Sequence[Sample]) -> Model:
    """Prices, and trees on top of them."""
    prices, _ = fit_prices(samples)
    lost = list(losers((s for s in samples if s.best), Model(prices | {ELSE: PRIOR})))
    prices, factors = fit_prices([*samples, *lost])
    made = {
        "winners": sum(s.best for s in samples),
        "candidates": sum(not s.best for s in samples),
        "operators": len({s.op.name for s in samples}),
        "factors": {g: round(factors[g], 3) for g in sorted({s.group for s in samples if s.best})},
    }
    model = Model(prices | {ELSE: PRIOR}, None, made)
    return replace(model, forest=fit_trees([*samples, *lost], model, factors))


def fit_on(samples: Sequence[Sample], model: Model) -> Model:
    """A model that goes on learning from measured candidates, of other CPUs or templates: its
    prices and trees stay, and trees are added for what it gets wrong."""
    added = {"candidates": len(samples), "operators": len({s.op.name for s in samples})}
    made = {**model.made, "added": [*model.made.get("added", ()), added]}
    return replace(model, forest=more_trees(samples, model), made=made)
