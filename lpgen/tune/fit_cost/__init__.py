"""Fits the cost model (`lpgen.cost`) to tuning logs; `lpgen fit-cost` writes its
data. docs/choice.md says what is fitted and how."""

from collections.abc import Sequence
from dataclasses import replace

from lpgen.cost.model import ELSE, Model
from lpgen.tune.fit_cost.prices import PRIOR, fit_prices, own_prices
from lpgen.tune.fit_cost.samples import Sample, losers
from lpgen.tune.fit_cost.trees import COUNT, OF_OWN, fit_trees, more_trees


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
    made = {**model.made, "added": [*model.made.get("added", ()), _counted(samples)]}
    return replace(model, forest=more_trees(samples, model), made=made)


def fit_own(samples: Sequence[Sample], model: Model, target: str) -> Model:
    """A model in which a target has prices and trees of its own, from its candidates, which are
    those of one CPU; nothing changes for others.

    The trees stand on those that the model was made with and learn from all samples: what other
    targets' candidates took beside the shared prices, too.
    """
    its = [sample for sample in samples if sample.target.name == target]
    prices = {
        name: found for name, found in model.prices.items() if not name.startswith(f"{target}/")
    }
    first = model.forest and model.forest.first(COUNT)
    begun = Model({**prices, **own_prices(its, model)}, first)
    own = {**model.own, target: more_trees(samples, begun, OF_OWN)}
    made = {**model.made, "own": {**model.made.get("own", {}), target: _counted(its)}}
    return replace(model, prices=begun.prices, own=own, made=made)


def _counted(samples: Sequence[Sample]) -> dict[str, int]:
    return {"candidates": len(samples), "operators": len({s.op.name for s in samples})}
