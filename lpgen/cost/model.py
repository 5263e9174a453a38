"""The model itself: prices of what is counted, and trees for what the prices do not explain."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

import numpy as np

from lpgen.cost.features import features
from lpgen.cost.trees import Forest
from lpgen.ops import Product
from lpgen.space import Counts, Knobs

DATA = "model.json"

FITTED = ("x86", "amx", "generic")
"""The families that were measured."""

ELSE = "*"
"""The name of the prices of templates that have none of their own."""


@dataclass(frozen=True)
class Model:
    """prices: level and algorithm, or algorithm alone -> count -> nanoseconds; forest: log of the
    factor that a kernel takes beside its price; made: what it was fitted to."""

    prices: Mapping[str, Mapping[str, float]]
    forest: Forest | None = None
    made: Mapping[str, Any] = field(default_factory=dict)

    def prices_of(self, template: Any, target: Any) -> Mapping[str, float]:
        """The prices of a template on a target: those of its level, or those that its algorithm has
        on all levels of its family, or those of all that nobody measured."""
        own = (template.algorithm,) if template.family in FITTED else ()
        names = (price_name(template, target), *own, ELSE)
        return next(self.prices[name] for name in names if name in self.prices)

    def nanoseconds(self, template: Any, target: Any, counts: Counts) -> float:
        """The price of a kernel; more than 0."""
        prices = self.prices_of(template, target)
        return 1e-3 + sum(prices.get(name, 0.0) * count for name, count in counts.items())

    def costs(
        self,
        op: Any,
        template: Any,
        target: Any,
        points: Sequence[Knobs],
        counts: Sequence[Counts],
    ) -> np.ndarray:
        """log of the cost of each point: float64[len(points)]; of products with the trees' part."""
        priced = np.log([self.nanoseconds(template, target, count) for count in counts])
        if self.forest is None or not points or not isinstance(op, Product):
            return priced
        prices = self.prices_of(template, target)
        rows = [
            features(op, template.algorithm, knobs, count, prices)
            for knobs, count in zip(points, counts, strict=True)
        ]
        return priced + self.forest.predict(np.array(rows))

    def to_json(self) -> dict[str, Any]:
        """As JSON values, numbers to four digits."""
        prices = {name: _rounded(found) for name, found in sorted(self.prices.items())}
        forest = self.forest.to_json() if self.forest else None
        return {"made": dict(self.made), "prices": prices, "forest": forest}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Model:
        """What `to_json` gave."""
        forest = content["forest"] and Forest.from_json(content["forest"])
        return cls(content["prices"], forest, content["made"])


def price_name(template: Any, target: Any) -> str:
    """The name of prices that a level has of its own: "avx2/dot" for x86/dot on AVX2."""
    return f"{template.level(target)}/{template.algorithm}"


def _rounded(prices: Mapping[str, float]) -> dict[str, float]:
    return {name: float(f"{price:.4g}") for name, price in sorted(prices.items())}


@cache
def shipped() -> Model:
    """The model that comes with lpgen."""
    text = (resources.files(__package__) / DATA).read_text(encoding="utf-8")
    return Model.from_json(json.loads(text))
