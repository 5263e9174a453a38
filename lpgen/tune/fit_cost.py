"""Fits the cost model (`lpgen.cost`) to tuning logs and writes its data.

    python -m lpgen.tune.fit_cost LOG... [-o lpgen/cost/model.json] [--without WORD]

LOGs hold all candidates of tuning runs (`lpgen tune --log LOG`); the records that come with lpgen,
winners of many CPUs, are added to them. docs/choice.md says what is fitted and how.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import click
import numpy as np

from lpgen import cost, records, templates
from lpgen.cost.features import NAMES, features
from lpgen.cost.model import DATA, ELSE, Model, price_name
from lpgen.cost.trees import Forest
from lpgen.ops import parse
from lpgen.records import Record, RunnerUp, this_cpu
from lpgen.space import Counts
from lpgen.target import Target, detect

PRIOR = {
    **{"products": 0.12, "adders": 0.1, "counts": 0.15, "loads": 0.06, "unpack": 0.15},
    **{"indices": 0.1, "flush": 0.3, "spilled": 0.5, "stall": 0.28, "expand": 0.5, "copy": 0.1},
    **{"fold": 0.2, "tiles": 6.0, "runs": 1.5, "stores": 0.2, "finish": 0.1, "code": 2.0},
    **{"l2": 0.01, "l3": 0.04, "dram": 0.08, "weights": 0.1, "rows": 3.0, "far": 0.02},
    **{"written": 0.05, "shuffles": 0.2},
}
"""Nanoseconds of each count that are believed where nothing says otherwise."""

BELIEF = 0.03
"""How much the prior weighs beside all measurements of a template."""

ROUNDS = 8

MACHINES = {"GenuineIntel 6-167-1 ": {"l1d": 48 << 10, "l2": 2 << 20, "l3": 105 << 20}}
"""Caches of the CPUs whose records come with lpgen: rows of the table have others."""

OWN = ("amx", "avx512vnni", "generic")
"""Levels whose templates have prices of their own: other instructions do their products."""

ALIKE = ("bitserial", "lut_product", "lut_sum", "lut_weight")
"""Algorithms whose instructions are those of AVX-512BW with VNNI, too."""

TREES = {"max_depth": 4, "eta": 0.06, "subsample": 0.7, "colsample_bytree": 0.5}
TREES |= {"min_child_weight": 6, "lambda": 4.0, "nthread": 1, "verbosity": 0, "seed": 1}
COUNT = 80
FARTHEST = 1.5
"""The largest log that trees are shown."""

LESSON = 0.35
"""What a point counts that a winner was preferred to, beside a measured one."""


@dataclass
class Sample:
    """One measured candidate. group: measurements that compare with each other; best: a winner."""

    op: Any
    target: Target
    template: Any
    knobs: dict
    seconds: float
    counts: Counts
    group: str
    best: bool
    runner_up: RunnerUp | None = None

    @property
    def prices(self) -> str:
        """The name of its prices."""
        own = self.template.level(self.target) in OWN and self.template.algorithm not in ALIKE
        return price_name(self.template, self.target) if own else self.template.algorithm


def samples_of(found: Iterable[Record], use: Callable[[Record], bool]) -> list[Sample]:
    """The records that `use` wants and that fit their templates today."""
    samples = []
    for record in found:
        sample = _sample(record) if record.seconds and use(record) else None
        if sample is not None:
            samples.append(sample)
    return samples


_parse = cache(parse)


def _sample(record: Record) -> Sample | None:
    op, template = _parse(record.workload), templates.get(record.template)
    target = _machine(record.cpu, Target.parse(record.target))
    if not template.counted or records.misfit(record, op, target) is not None:
        return None
    # Absolute times of one run are those of a machine that had other things to do; a winner's are
    # from a race. Those of one CPU and width of vectors compare with each other.
    level = template.level(target)
    width = "512" if level.startswith("avx512") else level
    group = f"{record.cpu} {width}" if record.best else f"{record.cpu} {record.workload}"
    counts = template.work(op, target, record.knobs)
    second = record.runner_up if record.best else None
    common = op, target, template, record.knobs, record.seconds, counts, group, record.best
    return Sample(*common, second)


def _machine(cpu: str, row: Target) -> Target:
    if cpu == this_cpu():
        here = detect()
        return replace(row, l1d=here.l1d, l2=here.l2, l3=here.l3)
    caches = next((c for name, c in MACHINES.items() if cpu.startswith(name)), {})
    return replace(row, **caches)


def fit_prices(samples: Sequence[Sample]) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """Prices of every template, and how many times slower each group of samples was measured.

    The relative error is kept small, prices are not negative, and the prior is added as a few
    measurements of its own. Factors of groups and prices are fitted in turns.
    """
    factors: dict[str, float] = defaultdict(lambda: 1.0)
    prices: dict[str, dict[str, float]] = {}
    by_name: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        by_name[sample.prices].append(sample)
    for _ in range(ROUNDS):
        errors = defaultdict(list)
        for name, own in by_name.items():
            prices[name] = _fit(own, factors, prices.get(name))
            for sample in own:
                expected = _price(prices[name], sample.counts) * factors[sample.group]
                errors[sample.group].append(np.log(sample.seconds * 1e9 / expected))
        for group, found in errors.items():
            factors[group] *= float(np.exp(np.median(found)))
        # The prices are those of one group, the largest of winners.
        anchor = max((s.group for s in samples if s.best), key=lambda g: len(errors[g]), default="")
        scale = factors[anchor] if anchor else 1.0
        factors = defaultdict(lambda: 1.0, {g: f / scale for g, f in factors.items()})
    return prices, dict(factors)


def _fit(
    samples: list[Sample], factors: dict[str, float], before: dict[str, float] | None
) -> dict[str, float]:
    """Prices of one template by least squares.

    Errors are seen relative to the geometric mean of what was measured and what the prices `before`
    expect, which makes those of logarithms of them: too little is as wrong as too much.
    """
    from scipy.optimize import nnls

    names = sorted({name for sample in samples for name in sample.counts})
    prior = np.array([PRIOR[name] for name in names])
    rows = np.array([[s.counts.get(name, 0.0) for name in names] for s in samples])
    seconds = np.array([s.seconds / factors[s.group] for s in samples])
    expected = seconds
    if before is not None:
        expected = np.clip(rows @ [before[name] for name in names] * 1e-9, seconds / 9, seconds * 9)
    scale = np.sqrt(seconds * expected * len(samples))
    matrix = np.vstack([rows * prior * 1e-9 / scale[:, None], BELIEF * np.eye(len(names))])
    wanted = np.concatenate([seconds / scale, np.full(len(names), BELIEF)])
    found, _ = nnls(matrix, wanted)
    return dict(zip(names, (found * prior).tolist(), strict=True))


def _price(prices: dict[str, float], counts: Counts) -> float:
    return sum(prices.get(name, 0.0) * count for name, count in counts.items())


def fit_trees(samples: Sequence[Sample], model: Model, factors: dict[str, float]) -> Forest:
    """Trees for the logs of what a candidate took beside its price.

    Measured candidates of a run compare with each other. A winner's run is known by its end alone:
    points that the prices like better than the winner were no faster, as a rule.
    """
    import xgboost

    rows, labels, weights = [], [], []
    runs: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        runs[sample.group if not sample.best else ""].append(sample)
    for winner in runs.pop("", []):
        rows_, labels_ = _lesson(winner, model, factors[winner.group])
        rows += rows_
        labels += labels_
        weights += [LESSON / np.sqrt(len(labels_))] * len(labels_)
    for own in runs.values():
        priced = [model.nanoseconds(s.template, s.target, s.counts) for s in own]
        logs = [np.log(s.seconds * 1e9 / price) for s, price in zip(own, priced, strict=True)]
        # What is far behind the fastest decides nothing.
        near = [min(s.seconds for s in own) / s.seconds for s in own]
        middle = np.average(logs, weights=near)
        rows += [_features(s, s.knobs, s.counts, model) for s in own]
        labels += [float(np.clip(log - middle, -0.7, 0.7)) for log in logs]
        weights += near
    data = xgboost.DMatrix(np.array(rows), label=labels, weight=weights)
    parameters = TREES | {"objective": "reg:squarederror", "base_score": 0.0}
    booster = xgboost.train(parameters, data, COUNT)
    return forest_of(booster)


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
    prices = model.prices_of(sample.template, sample.target)
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


def losers(winners: Iterable[Sample], model: Model) -> Iterator[Sample]:
    """What the winners say of other templates: the runner-up took its seconds, with the knobs that
    the prices like best, and the others, where they seem faster than that, took no less."""
    for winner in winners:
        second = winner.runner_up
        if second is None:
            continue
        op, target = winner.op, winner.target
        scale = winner.seconds / model.nanoseconds(winner.template, winner.target, winner.counts)
        for template in templates.templates_for(op, target):
            if template == winner.template or not template.counted:
                continue
            knobs = cost.best_points(op, target, template, 1, model)[0]
            counts = template.work(op, target, knobs)
            expected = model.nanoseconds(template, winner.target, counts) * scale
            if template.name == second.template or expected < second.seconds:
                common = op, target, template, knobs, second.seconds, counts
                yield Sample(*common, winner.group, True)


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


@click.command()
@click.argument("logs", nargs=-1, type=click.Path(exists=True, path_type=Path), metavar="LOG...")
@click.option("-o", "out", type=click.Path(path_type=Path), help="The data [those of lpgen].")
@click.option("--without", multiple=True, metavar="TEXT", help="Leave out workloads that hold it.")
def main(logs: tuple[Path, ...], out: Path | None, without: tuple[str, ...]) -> None:
    """Fit the cost model to LOGs and to the records that come with lpgen."""
    opened = [records.Log(path) for path in logs]
    found = [record for log in (*opened, *records.shipped()) for record in log.records()]
    # A winner of the LOGs is one of their candidates, timed at another moment.
    here = {id(r) for log in opened for r in log.records() if r.best}
    use = samples_of(
        found, lambda r: id(r) not in here and not any(text in r.workload for text in without)
    )
    model = fit(use)
    path = out or Path(cost.__file__).parent / DATA
    path.write_text(json.dumps(model.to_json(), separators=(",", ":")) + "\n", encoding="utf-8")
    click.echo(f"{path}: {json.dumps(model.made)}")


if __name__ == "__main__":
    main()
