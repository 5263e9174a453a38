"""The first trials of an operator: what the cost model likes best, corrected by what was measured.

The log of a candidate's time is taken for a Gaussian process whose mean is what the cost model
expects and whose covariance falls with the share of the knobs in which two candidates differ: a
candidate that was slower than expected makes those that are like it less likely, one that nothing
like it was tried of may be faster than expected. The next candidate is the one with the lowest
bound of its confidence interval (GP-UCB: Srinivas et al.: Gaussian process optimization in the
bandit setting, 2010).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from lpgen import cost
from lpgen.tune.messages import Candidate

OF_KNOBS, OF_TEMPLATE, OF_ALL = 0.15, 0.1, 0.3
"""Standard deviations of what knobs, a template and the whole model are off, as logs of factors.
Like `WIDTH`, `REACH` and `NOISE` they were among the best where 59 logged searches (Ice Lake, about
64 candidates each) were replayed."""

NOISE = 0.04
"""The standard deviation of a measurement."""

REACH = 1.0
"""How many standard deviations below the mean a candidate is judged at."""

WIDTH = 1.0
"""The share of different knobs at which the covariance has fallen to 1/e."""


class Guesses:
    """The candidates that the cost model ranked; `count` of them are proposed."""

    def __init__(self, ranked: Sequence[cost.Candidate], count: int) -> None:
        self.candidates = [Candidate(c.template, c.knobs) for c in ranked]
        self.left = count
        self._place = {c.key: i for i, c in enumerate(self.candidates)}
        self._costs = np.array([c.cost for c in ranked])
        self._covariance = _covariance(self.candidates)
        self._free = np.ones(len(ranked), bool)
        self._told: dict[int, float] = {}

    def begin(self, candidate: Candidate) -> None:
        """The candidate is going to be measured, or was: it is not proposed."""
        if candidate.key in self._place:
            self._free[self._place[candidate.key]] = False

    def tell(self, candidate: Candidate, seconds: float | None) -> None:
        """The time of a candidate; None: it failed."""
        self.begin(candidate)
        if seconds is not None and candidate.key in self._place:
            self._told[self._place[candidate.key]] = math.log(seconds)

    def propose(self) -> Candidate | None:
        """The next candidate; None: no more."""
        if self.left <= 0 or not self._free.any():
            return None
        self.left -= 1
        bounds = np.where(self._free, self._bounds(), np.inf)
        chosen = self.candidates[int(np.argmin(bounds))]
        self.begin(chosen)
        return chosen

    def _bounds(self) -> np.ndarray:
        """Mean less `REACH` standard deviations, of all candidates."""
        begun, told = np.flatnonzero(~self._free), list(self._told)
        means = self._costs
        if told:
            times = np.array(list(self._told.values()))
            # How long the model's unit of time is, is not its business.
            off = times - self._costs[told]
            off -= off[0]
            means = means + self._gain(told) @ off
        # Of those that are being measured the result is not known, but that it will be.
        explained = np.einsum("ij,ij->i", self._gain(begun), self._covariance[:, begun])
        variance = np.diag(self._covariance) - explained
        return means - REACH * np.sqrt(np.maximum(variance, 0))

    def _gain(self, places: Sequence[int] | np.ndarray) -> np.ndarray:
        known = self._covariance[np.ix_(places, places)] + NOISE**2 * np.eye(len(places))
        return np.linalg.solve(known, self._covariance[:, places].T).T


def _covariance(candidates: Sequence[Candidate]) -> np.ndarray:
    found = np.full((len(candidates),) * 2, OF_ALL**2)
    for places in _by_template(candidates).values():
        found[np.ix_(places, places)] += OF_TEMPLATE**2 + OF_KNOBS**2 * np.exp(
            -_different([candidates[i].knobs for i in places]) / WIDTH
        )
    return found


def _by_template(candidates: Sequence[Candidate]) -> dict[str, list[int]]:
    found = defaultdict(list)
    for place, candidate in enumerate(candidates):
        found[candidate.template.name].append(place)
    return found


def _different(points: list[dict[str, Any]]) -> np.ndarray:
    """The share of different knobs of every two points, among the knobs that are not always the
    same."""
    columns = np.array([[repr(point[name]) for name in sorted(point)] for point in points])
    columns = columns[:, (columns != columns[0]).any(axis=0)]
    if not columns.shape[1]:
        return np.zeros((len(points), len(points)))
    return (columns[:, None] != columns[None]).mean(axis=2)
