"""The integer program that chooses an option for each group of layers.

With x[l,c] = 1 where group l has option c, and z[e,c,d] = 1 where the ends of edge e have options c
and d,

    min  sum of seconds[l,c] x[l,c]  +  sum of crossing[e,c,d] z[e,c,d]
    with sum over c of x[l,c] = 1, sum over d of z[e,c,d] = x[l,c], sum over c of z[e,c,d] = x[m,d]
         sum of loss[l,c] x[l,c] <= a budget;  the same for bytes

or the least loss within a budget of seconds. Options whose crossings are equal share their z, so
that an edge has few of them, whatever the number of options is. What is solved: scipy.optimize.milp
(HiGHS).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

GAP = 1e-3
"""How far, relatively, a solution may be from the best one."""
SECONDS = 1.0
"""After so many the best solution that there is is taken."""


@dataclass(frozen=True)
class Problem:
    """What to choose from.

    seconds, loss, nbytes: of each group, float64[options], numbers of options may differ; loss is
    added up over groups and is no metric: 0 for float. crossings: float64[options, options] seconds
    by the pair of groups (l, m) between which tensors go, for what converts one into the other.
    """

    seconds: Sequence[np.ndarray]
    loss: Sequence[np.ndarray]
    nbytes: Sequence[np.ndarray]
    crossings: Mapping[tuple[int, int], np.ndarray] = field(default_factory=dict)

    def solution(self, choice: Sequence[int]) -> Solution:
        """What a choice, an option for each group, adds up to."""
        seconds = _sum(self.seconds, choice)
        for (one, other), cost in self.crossings.items():
            seconds += float(cost[choice[one], choice[other]])
        return Solution(
            tuple(map(int, choice)), seconds, _sum(self.loss, choice), _sum(self.nbytes, choice)
        )


@dataclass(frozen=True)
class Solution:
    """An option for each group, and what they add up to."""

    choice: tuple[int, ...]
    seconds: float
    loss: float
    nbytes: float


def fastest(
    problem: Problem, max_loss: float = np.inf, max_bytes: float = np.inf
) -> Solution | None:
    """The choice of the fewest seconds within the budgets; None where there is none."""
    return _Program(problem).solve({"seconds": 1.0}, {"loss": max_loss, "nbytes": max_bytes})


def finest(
    problem: Problem, max_seconds: float = np.inf, max_bytes: float = np.inf
) -> Solution | None:
    """The choice of the least loss within the budgets; None where there is none."""
    return _Program(problem).solve({"loss": 1.0}, {"seconds": max_seconds, "nbytes": max_bytes})


def smallest(problem: Problem) -> Solution:
    """The choice of the fewest bytes."""
    found = _Program(problem).solve({"nbytes": 1.0}, {})
    assert found is not None
    return found


def front(problem: Problem, points: int = 24, max_bytes: float = np.inf) -> list[Solution]:
    """Choices of which no other one is both faster and finer, the fastest first; about so many. []
    where no choice has few enough bytes.

    They are the corners of the front's convex hull: between two neighbours, farthest from each
    other first, the sum of seconds and loss is minimized whose weights make these two alike (Aneja
    & Nair, Bicriteria transportation problem, Management Science 25, 1979). Without a budget of
    loss the program is solved at once: along a chain of groups its relaxation is integer.
    """
    program = _Program(problem)
    budget = {"nbytes": max_bytes}
    ends = [program.solve({name: 1.0}, budget) for name in ("seconds", "loss")]
    found = undominated([end for end in ends if end])
    open_, made = [tuple(found)] if len(found) == 2 else [], len(found)
    while open_ and made < points:
        a, b = open_.pop(int(np.argmax([(y.seconds - x.seconds) / x.seconds for x, y in open_])))
        weights = {"seconds": a.loss - b.loss, "loss": b.seconds - a.seconds}
        made += 1
        between = program.solve(weights, budget)
        if between and _worth(between, weights) < _worth(a, weights) * (1 - 2 * GAP):
            found.append(between)
            open_ += [(a, between), (between, b)]
    return undominated(found)


def _worth(solution: Solution, weights: Mapping[str, float]) -> float:
    return sum(weight * getattr(solution, name) for name, weight in weights.items())


def undominated(solutions: Sequence[Solution]) -> list[Solution]:
    """Those that no other one beats in seconds and loss, the fastest first."""
    kept: list[Solution] = []
    for solution in sorted(solutions, key=lambda s: (s.seconds, s.loss)):
        if not kept or solution.loss < kept[-1].loss:
            kept.append(solution)
    return kept


def knee(solutions: Sequence[Solution]) -> Solution:
    """The point of a front that is farthest from the chord between its ends, both axes being
    scaled to one."""
    seconds = np.array([s.seconds for s in solutions])
    loss = np.array([s.loss for s in solutions])
    spans = [float(np.ptp(axis)) or 1.0 for axis in (seconds, loss)]
    x, y = (seconds - seconds.min()) / spans[0], (loss - loss.min()) / spans[1]
    return solutions[int(np.argmin(x + y))]


def _sum(of: Sequence[np.ndarray], choice: Sequence[int]) -> float:
    return float(sum(values[c] for values, c in zip(of, choice, strict=True)))


class _Program:
    """The matrices of a problem, for several objectives and budgets."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        sizes = [len(values) for values in problem.seconds]
        self.starts = np.concatenate([[0], np.cumsum(sizes)]).astype(int)
        self.edges = [
            _Edge.of(one, other, cost)
            for (one, other), cost in problem.crossings.items()
            if np.ptp(cost)
        ]
        every = problem.crossings.values()
        self.fixed = float(sum(np.min(cost) for cost in every))  # seconds, whatever is chosen

    @cached_property
    def rows(self) -> dict[str, np.ndarray]:
        """The coefficients of what is added up, by name: x first, then z."""
        p, count = self.problem, sum(edge.cost.size for edge in self.edges)
        crossing = [edge.cost.ravel() for edge in self.edges]
        return {
            "seconds": np.concatenate([*p.seconds, *crossing]),
            "loss": np.concatenate([*p.loss, np.zeros(count)]),
            "nbytes": np.concatenate([*p.nbytes, np.zeros(count)]),
        }

    @cached_property
    def equalities(self) -> tuple:
        """(matrix, right side): one option for each group, and z as x has it."""
        from scipy.sparse import coo_array

        entries: list[tuple[int, int, float]] = []
        groups = len(self.starts) - 1
        for group in range(groups):
            entries += [(group, x, 1.0) for x in range(*self.starts[group : group + 2])]
        row, column = groups, int(self.starts[-1])
        for edge in self.edges:
            z = column + np.arange(edge.cost.size).reshape(edge.cost.shape)
            for side, end, labels in ((0, edge.one, edge.rows), (1, edge.other, edge.columns)):
                for label in range(edge.cost.shape[side]):
                    entries += [(row, int(place), 1.0) for place in z.take(label, side)]
                    first = int(self.starts[end])
                    entries += [
                        (row, first + int(c), -1.0) for c in np.flatnonzero(labels == label)
                    ]
                    row += 1
            column += edge.cost.size
        i, j, values = zip(*entries, strict=True)
        right = np.concatenate([np.ones(groups), np.zeros(row - groups)])
        return coo_array((values, (i, j)), shape=(row, column)).tocsc(), right

    def solve(
        self, objective: Mapping[str, float], budgets: Mapping[str, float]
    ) -> Solution | None:
        """The choice with the smallest sum, each part with a weight, within the budgets."""
        from scipy.optimize import Bounds, LinearConstraint, milp

        matrix, right = self.equalities
        constraints = [LinearConstraint(matrix, right, right)]
        for name, limit in budgets.items():
            if np.isfinite(limit):
                # Rows of a size of about one: HiGHS takes what exceeds a limit by 1e-6 for equal.
                fixed = self.fixed if name == "seconds" else 0.0
                most = float(np.abs(self.rows[name]).max())
                unit = max(abs(limit), 1e-6 * most) or 1.0  # a limit near 0 makes no row huge
                scaled = self.rows[name][None] / unit
                constraints.append(LinearConstraint(scaled, -np.inf, (limit - fixed) / unit))
        costs = sum(weight * self.rows[name] for name, weight in objective.items())
        costs = costs / (float(np.abs(costs).max()) or 1.0)
        whole = np.zeros(len(costs))
        whole[: self.starts[-1]] = 1  # z follows from x
        given = {"integrality": whole, "bounds": Bounds(0, 1), "constraints": constraints}
        found = milp(costs, **given, options={"mip_rel_gap": GAP, "time_limit": SECONDS})
        if found.x is None and found.status == 1:  # out of time before there was any
            found = milp(costs, **given, options={"mip_rel_gap": 1e-2})
        if found.x is None:
            return None
        pairs = zip(self.starts[:-1], self.starts[1:], strict=True)
        return self.problem.solution([int(np.argmax(found.x[a:b])) for a, b in pairs])


@dataclass(frozen=True)
class _Edge:
    """An edge between groups `one` and `other`; cost: seconds by classes of their options, less
    what all pairs have; rows, columns: the class of each option."""

    one: int
    other: int
    cost: np.ndarray
    rows: np.ndarray
    columns: np.ndarray

    @classmethod
    def of(cls, one: int, other: int, cost: np.ndarray) -> _Edge:
        few, rows = np.unique(cost, axis=0, return_inverse=True)
        few, columns = np.unique(few, axis=1, return_inverse=True)
        return cls(one, other, few - few.min(), rows.ravel(), columns.ravel())
