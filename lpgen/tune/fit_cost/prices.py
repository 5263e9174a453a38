"""Prices of what templates count, by least squares."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from lpgen.cost.model import ELSE, TIMES, Model, own_name
from lpgen.space import Counts
from lpgen.tune.fit_cost.samples import Sample

PRIOR = {
    **{"products": 0.12, "adders": 0.1, "counts": 0.15, "loads": 0.06, "unpack": 0.15},
    **{"indices": 0.1, "flush": 0.3, "spilled": 0.5, "stall": 0.28, "expand": 0.5, "copy": 0.1},
    **{"fold": 0.2, "tiles": 6.0, "runs": 1.5, "stores": 0.2, "finish": 0.1, "code": 2.0},
    **{"l2": 0.01, "l3": 0.04, "dram": 0.08, "weights": 0.1, "rows": 3.0, "far": 0.02},
    **{"written": 0.05, "shuffles": 0.2, "wraps": 0.3, "again": 0.002, "bursts": 0.1},
}
"""Nanoseconds of each count that are believed where nothing says otherwise."""

BELIEF = 0.03
"""How much the prior weighs beside all measurements of a template."""

LEAST = 60
"""Candidates from which on a template gets prices of its own on a CPU."""

DOUBT = 0.003
"""How much the prices of other CPUs weigh beside these candidates."""

ROUNDS = 8


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


def own_prices(samples: Sequence[Sample], model: Model) -> dict[str, dict[str, float]]:
    """Prices that a CPU has of its own, by their names, from candidates of it alone: what other
    CPUs pay is believed where they tell nothing."""
    by_name: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        by_name[own_name(sample.template, sample.target)].append(sample)
    prices, logs = {}, []
    for name, own in by_name.items():
        if not name or len(own) < LEAST:
            continue
        shared = model.shared_prices(own[0].template, own[0].target)
        prices[name] = _own(own, shared)
        logs += [np.log(_price(prices[name], s.counts) / _price(shared, s.counts)) for s in own]
    if prices:
        times = {TIMES: float(np.exp(np.mean(logs)))}
        prices[f"{samples[0].target.name}/{ELSE}"] = times
    return prices


def _own(samples: list[Sample], shared: Mapping[str, float]) -> dict[str, float]:
    """Prices of one template; candidates near the fastest of their operator weigh most."""
    _, run = np.unique([s.group for s in samples], return_inverse=True)
    seconds = np.array([s.seconds for s in samples])
    fastest = np.full(run.max() + 1, np.inf)
    np.minimum.at(fastest, run, seconds)
    near = fastest[run] / seconds
    prior = prices = PRIOR | {name: price for name, price in shared.items() if price > 0}
    for turn in range(ROUNDS):
        logs = np.log(seconds * 1e9 / [_price(prices, s.counts) for s in samples])
        beside = np.bincount(run, near * logs) / np.bincount(run, near)
        # The other CPUs' nanoseconds may be longer or shorter than this one's.
        beside -= 0 if turn else beside.mean()
        factors = {s.group: float(np.exp(beside[r])) for s, r in zip(samples, run, strict=True)}
        prices = _fit(samples, factors, prices, prior, near / near.mean(), DOUBT)
    return prices


def _fit(
    samples: list[Sample],
    factors: Mapping[str, float],
    before: dict[str, float] | None,
    believed: Mapping[str, float] = PRIOR,
    weights: np.ndarray | float = 1.0,
    belief: float = BELIEF,
) -> dict[str, float]:
    """Prices of one template by least squares.

    Errors are seen relative to the geometric mean of what was measured and what the prices `before`
    expect, which makes those of logarithms of them: too little is as wrong as too much.
    """
    from scipy.optimize import nnls

    # What only the static model asks for has no price.
    names = sorted({name for sample in samples for name in sample.counts if name in believed})
    prior = np.array([believed[name] for name in names])
    rows = np.array([[s.counts.get(name, 0.0) for name in names] for s in samples])
    seconds = np.array([s.seconds / factors[s.group] for s in samples])
    expected = seconds
    if before is not None:
        expected = np.clip(rows @ [before[name] for name in names] * 1e-9, seconds / 9, seconds * 9)
    scale = np.sqrt(seconds * expected * len(samples) / weights)
    matrix = np.vstack([rows * prior * 1e-9 / scale[:, None], belief * np.eye(len(names))])
    wanted = np.concatenate([seconds / scale, np.full(len(names), belief)])
    found, _ = nnls(matrix, wanted)
    return dict(zip(names, (found * prior).tolist(), strict=True))


def _price(prices: dict[str, float], counts: Counts) -> float:
    return sum(prices.get(name, 0.0) * count for name, count in counts.items())
