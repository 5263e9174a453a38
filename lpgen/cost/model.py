"""The model itself: prices of what is counted, and trees for what the prices do not explain."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from lpgen.cost.features import features
from lpgen.cost.trees import Forest
from lpgen.errors import UserError
from lpgen.ops import Product
from lpgen.space import Counts, Knobs

DATA = "model.json"
VARIABLE = "LPGEN_COST_MODEL"
"""Of the environment: a file with another model, for all commands."""

FITTED = ("x86", "amx", "generic")
"""The families that were measured."""

ELSE, TIMES = "*", "times"
"""The names of the prices of templates that have none of their own: of the prices themselves, and
of how many times those of other CPUs they are."""


@dataclass(frozen=True)
class Model:
    """prices: level and algorithm, or algorithm alone -> count -> nanoseconds; forest: log of the
    factor that a kernel takes beside its price; made: what it was fitted to; own: the forests of
    targets that have one of their own."""

    prices: Mapping[str, Mapping[str, float]]
    forest: Forest | None = None
    made: Mapping[str, Any] = field(default_factory=dict)
    own: Mapping[str, Forest] = field(default_factory=dict)

    def prices_of(self, template: Any, target: Any) -> Mapping[str, float]:
        """The prices of a template on a target: its own, or those of other CPUs, as many times as
        the target's own prices of other templates are these."""
        if own := self.prices.get(own_name(template, target)):
            return own
        shared = self.shared_prices(template, target)
        times = self.prices.get(f"{target.name}/{ELSE}", {}).get(TIMES, 1.0)
        return {name: price * times for name, price in shared.items()}

    def shared_prices(self, template: Any, target: Any) -> Mapping[str, float]:
        """The prices of a template on CPUs that have none of their own, by which the trees judge:
        those of its level, or those that its algorithm has on all levels of its family, or those of
        all that nobody measured."""
        family = (template.algorithm,) if template.family in FITTED else ()
        names = (price_name(template, target), *family, ELSE)
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
        forest = self.own.get(target.name, self.forest)
        if forest is None or not points or not isinstance(op, Product):
            return priced
        prices = self.shared_prices(template, target)
        rows = [
            features(op, template.algorithm, knobs, count, prices)
            for knobs, count in zip(points, counts, strict=True)
        ]
        return priced + forest.predict(np.array(rows))

    def to_json(self) -> dict[str, Any]:
        """As JSON values, numbers to four digits."""
        prices = {name: _rounded(found) for name, found in sorted(self.prices.items())}
        forest = self.forest.to_json() if self.forest else None
        own = {name: forest.to_json() for name, forest in sorted(self.own.items())}
        return {"made": dict(self.made), "prices": prices, "forest": forest, "own": own}

    @classmethod
    def read(cls, path: Path) -> Model:
        """The model in a file. Raises UserError where it holds none."""
        try:
            return cls.from_json(json.loads(path.read_text(encoding="utf-8")))
        except OSError as error:
            raise UserError(f"cost model {path}: {error.strerror}") from None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError(f"cost model {path}: is not what `lpgen fit-cost` writes") from None

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Model:
        """What `to_json` gave."""
        forest = content["forest"] and Forest.from_json(content["forest"])
        own = {name: Forest.from_json(found) for name, found in content["own"].items()}
        return cls(content["prices"], forest, content["made"], own)


def price_name(template: Any, target: Any) -> str:
    """The name of prices that a level has of its own: "avx2/dot" for x86/dot on AVX2."""
    return f"{template.level(target)}/{template.algorithm}"


def own_name(template: Any, target: Any) -> str:
    """The name of prices that a CPU has of its own: "zen4/dot" for x86/dot on Zen 4."""
    return f"{target.name}/{template.algorithm}" if template.family == "x86" else ""


def _rounded(prices: Mapping[str, float]) -> dict[str, float]:
    return {name: float(f"{price:.4g}") for name, price in sorted(prices.items())}


def asked() -> Model:
    """The model that LPGEN_COST_MODEL in the environment names, or the one that comes with lpgen.

    Raises UserError where the variable names no model.
    """
    path = os.environ.get(VARIABLE)
    return _read(path) if path else shipped()


@cache
def _read(path: str) -> Model:
    return Model.read(Path(path))


@cache
def shipped() -> Model:
    """The model that comes with lpgen."""
    text = (resources.files(__package__) / DATA).read_text(encoding="utf-8")
    return Model.from_json(json.loads(text))
