"""Trees for what a candidate takes beside its price, by gradient boosting."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from lpgen import cost
from lpgen.cost.features import NAMES, features
from lpgen.cost.model import Model
from lpgen.cost.trees import Forest
from lpgen.space import Counts
from lpgen.tune.fit_cost.samples import Sample

TREES = {"max_depth": 4, "eta": 0.06, "subsample": 0.7, "colsample_bytree": 0.5}
TREES |= {"min_child_weight": 6, "lambda": 4.0, "nthread": 1, "verbosity": 0, "seed": 1}
COUNT = 80
MORE, OF_OWN, LEAST = 160, 480, 10
"""Trees that are added to a model, and for a target's own; and the least weight of the candidates
in a leaf of these."""

FARTHEST = 1.5
"""The largest log that trees are shown."""

LESSON = 0.35
"""What a point counts that a winner was preferred to, beside a measured one."""


def fit_trees(samples: Sequence[Sample], model: Model, factors: dict[str, float]) -> Forest:
    """Trees for the logs of what a candidate took beside its price.

    model: the prices alone. A winner's run is known by its end alone: points that the prices like
    better than the winner were no faster, as a rule.
    """
    rows, labels, weights = _measured([s for s in samples if not s.best], model)
    for winner in (s for s in samples if s.best):
        rows_, labels_ = _lesson(winner, model, factors[winner.group])
        rows += rows_
        labels += labels_
        weights += [LESSON / np.sqrt(len(labels_))] * len(labels_)
    return _trained(rows, labels, weights, COUNT)


def more_trees(samples: Sequence[Sample], model: Model, count: int = MORE) -> Forest:
    """The trees of a model and others behind them, for the logs of what measured candidates took
    beside its costs: what it was right about stays as it is."""
    more = _trained(*_measured(samples, model), count, min_child_weight=LEAST)
    return more if model.forest is None else model.forest.extended(more)


def _measured(
    samples: Sequence[Sample], model: Model
) -> tuple[list[np.ndarray], list[float], list[float]]:
    """Rows, labels and weights of measured candidates; those of a run compare with each other."""
    rows, labels, weights = [], [], []
    runs: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        runs[sample.group].append(sample)
    for own in runs.values():
        found = [model.costs(s.op, s.template, s.target, [s.knobs], [s.counts])[0] for s in own]
        logs = [np.log(s.seconds * 1e9) - cost for s, cost in zip(own, found, strict=True)]
        # What is far behind the fastest decides nothing.
        near = [min(s.seconds for s in own) / s.seconds for s in own]
        middle = np.average(logs, weights=near)
        rows += [_features(s, s.knobs, s.counts, model) for s in own]
        labels += [float(np.clip(log - middle, -0.7, 0.7)) for log in logs]
        weights += near
    return rows, labels, weights


def _trained(
    rows: list[np.ndarray], labels: list[float], weights: list[float], count: int, **changes: Any
) -> Forest:
    import xgboost

    data = xgboost.DMatrix(np.array(rows), label=labels, weight=weights)
    parameters = TREES | {"objective": "reg:squarederror", "base_score": 0.0} | changes
    return forest_of(xgboost.train(parameters, data, count))


def _lesson(winner: Sample, model: Model, factor: float) -> tuple[list[np.ndarray], list[float]]:
    """Rows and labels of a winner and of points that are as cheap by their prices."""
    op, target, template = winner.op, winner.target, winner.template
    own = np.log(model.nanoseconds(template, winner.target, winner.counts))
    rows = [_features(winner, winner.knobs, winner.counts, model)]
    beside = float(np.clip(np.log(winner.seconds * 1e9 / factor) - own, -FARTHEST, FARTHEST))
    labels = [beside]
    if winner.runner_up is None:
        return rows, labels  # knobs that were made up for a template that lost
    others = cost.best_points(op, target, template, 12, Model(model.prices))
    for knobs in others:
        counts = template.work(op, target, knobs)
        ahead = own - np.log(model.nanoseconds(template, winner.target, counts))
        if ahead > 0 and knobs != winner.knobs:
            rows.append(_features(winner, knobs, counts, model))
            labels.append(float(min(beside + ahead + 0.02, 0.7)))
    return rows, labels


def _features(sample: Sample, knobs: dict, counts: Counts, model: Model) -> np.ndarray:
    """The features of a point of the sample's operator and template."""
    prices = model.shared_prices(sample.template, sample.target)
    return features(sample.op, sample.template.algorithm, knobs, counts, prices)


def forest_of(booster: Any) -> Forest:
    """The trees of xgboost as arrays (`Forest`)."""
    dumped = [json.loads(tree) for tree in booster.get_dump(dump_format="json")]
    depth = TREES["max_depth"]
    nodes = 2**depth - 1
    feature = np.zeros((len(dumped), nodes), np.int16)
    threshold = np.full((len(dumped), nodes), np.float32(3e38))
    value = np.zeros((len(dumped), nodes + 1), np.float32)

    def place(tree: int, node: dict, at: int) -> None:
        if at >= nodes:
            value[tree, at - nodes] = node["leaf"]
        elif "leaf" in node:
            place(tree, node, 2 * at + 1)
        else:
            feature[tree, at] = int(node["split"][1:])
            threshold[tree, at] = node["split_condition"]
            by_id = {child["nodeid"]: child for child in node["children"]}
            place(tree, by_id[node["yes"]], 2 * at + 1)
            place(tree, by_id[node["no"]], 2 * at + 2)

    for tree, root in enumerate(dumped):
        place(tree, root, 0)
    assert feature.max(initial=0) < len(NAMES)
    return Forest(feature, threshold, value)
