"""A cost model: gradient-boosted trees that rank candidates by knobs, template and operator.

In the manner of AutoTVM (Chen et al., "Learning to Optimize Tensor Programs", NeurIPS 2018), with
features of the knobs instead of the loops. Times are seen relative to the operator's fastest, so
that rows of several operators teach together.
"""

import math
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from lpgen import templates
from lpgen.errors import UserError
from lpgen.ops import Product, parse
from lpgen.records import Record
from lpgen.space import Knobs, Space
from lpgen.target import Target
from lpgen.templates import Template
from lpgen.tune.messages import Candidate

_TREES = 60
_PARAMETERS = {
    "objective": "reg:squarederror",
    "max_depth": 6,
    "eta": 0.15,
    "min_child_weight": 1,
    "subsample": 0.9,
    "nthread": 1,
    "verbosity": 0,
}


@dataclass
class _Rows:
    """What was measured for one operator: features of each candidate, and its seconds."""

    features: list[np.ndarray]
    seconds: list[float | None]


class CostModel:
    """Learns from candidates of any operator on one target; the same seed gives the same model."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._columns: dict[str, int] = {}
        self._places: dict[tuple[str, Any], np.ndarray] = {}
        self._rows: dict[str, _Rows] = {}
        self._booster: Any = None

    def _encode(self, op: Any, space: Space, template: str, points: Sequence[Knobs]) -> np.ndarray:
        """The points as rows over all columns known so far; NaN for what a template has not."""
        key = template, space.feature_names
        if key not in self._places:
            names = feature_names(space, template)
            self._places[key] = np.array(
                [self._columns.setdefault(name, len(self._columns)) for name in names]
            )
        rows = np.full((len(points), len(self._columns)), np.nan, np.float32)
        common = operator_features(op)
        for row, point in zip(rows, points, strict=True):
            row[self._places[key]] = features(common, space, point)
        return rows

    def add(self, op: Any, space: Space, candidate: Candidate, seconds: float | None) -> None:
        """Teach the model one measured candidate; seconds is None for a failed one."""
        rows = self._rows.setdefault(op.name, _Rows([], []))
        rows.features += list(self._encode(op, space, candidate.template.name, [candidate.knobs]))
        rows.seconds.append(seconds)

    def rows_of_others(self, op: Any) -> int:
        """How many measured candidates of other operators it has."""
        return sum(len(rows.seconds) for name, rows in self._rows.items() if name != op.name)

    def fit(self, op: Any) -> None:
        """Train on all rows; those of `op` count most."""
        import xgboost

        features, costs, weights = [], [], []
        for name, rows in self._rows.items():
            features += rows.features
            costs += relative_costs(rows.seconds)
            weights += [1.0 if name == op.name else 0.3] * len(rows.seconds)
        data = xgboost.DMatrix(self._matrix(features), label=costs, weight=weights)
        self._booster = xgboost.train(_PARAMETERS | {"seed": self._seed}, data, _TREES)

    def predict(self, op: Any, space: Space, template: str, points: Sequence[Knobs]) -> np.ndarray:
        """The cost of each point (see `relative_costs`), lower is better. Call `fit` before."""
        import xgboost

        matrix = self._encode(op, space, template, points)
        width = self._booster.num_features()
        return self._booster.predict(xgboost.DMatrix(matrix[:, :width]))

    def _matrix(self, rows: list[np.ndarray]) -> np.ndarray:
        matrix = np.full((len(rows), len(self._columns)), np.nan, np.float32)
        for i, row in enumerate(rows):
            matrix[i, : len(row)] = row
        return matrix


def teach(
    model: CostModel, known: Iterable[Record], target: Target, besides: Container[Any] = ()
) -> None:
    """Show the model what records hold of single candidates of operators that are not `besides`."""

    @cache
    def place(workload: str, name: str) -> tuple[Any, Template, Space] | None:
        try:
            op, template = parse(workload), templates.get(name)
        except UserError:
            return None
        if op in besides or template.why_not(op, target) is not None:
            return None
        return op, template, template.space(op, target)

    for record in known:
        found = None if record.best else place(record.workload, record.template)
        if found is not None and record.knobs in found[2]:
            op, template, space = found
            model.add(op, space, Candidate(template, record.knobs), record.seconds)


def relative_costs(seconds: Sequence[float | None]) -> list[float]:
    """The share of the fastest candidate's speed that each one lacks: 0 is best, failures get 1."""
    fastest = min((s for s in seconds if s is not None), default=1.0)
    return [1.0 if s is None else 1.0 - fastest / s for s in seconds]


PRODUCT_FEATURES = (
    *("op:groups", "op:m", "op:n", "op:k", "op:kernel", "op:act", "op:weight"),
    *("op:products", "op:macs", "op:weight bytes", "op:act bytes"),
)


def operator_features(op: Any) -> np.ndarray:
    """Sizes and amounts as log2, bits as they are, in the order of PRODUCT_FEATURES.

    products: pairs of bits, with which the cost of bit-serial kernels grows. Operators that are no
    products have none of them: their candidates are told apart by knobs alone.
    """
    if not isinstance(op, Product):
        return np.full(len(PRODUCT_FEATURES), np.nan, np.float32)
    groups, m, n, k = op.matrix
    act, weight = op.act.bits, op.weight.bits
    sizes = [*op.matrix, math.prod(getattr(op, "kernel", (1,)))]
    amounts = [groups * m * n * k, groups * n * k * weight / 8, groups * m * k * act / 8]
    return np.array(
        [*np.log2(sizes), act, weight, act * weight, *np.log2(amounts)], dtype=np.float32
    )


def feature_names(space: Space, template: str) -> list[str]:
    """The columns of a template's candidates.

    A knob has the same ones in all templates that have it, so that what is known of rows or blocks
    in one is believed of another at first; the columns of template and algorithm tell them apart.
    """
    return [*PRODUCT_FEATURES, template, template.partition("/")[2], *space.feature_names]


def features(operator: np.ndarray, space: Space, knobs: Knobs) -> np.ndarray:
    """The values of a candidate, in the order of `feature_names`."""
    return np.concatenate([operator, [1.0, 1.0], space.features(knobs)])
