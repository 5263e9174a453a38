"""Search for a plan that meets a wish, by what is measured of the plans themselves.

The integer program adds up losses and times of layers; both are near and not exact. So a plan that
it gives is run whole. For a metric, the budget of loss is bisected until the fastest plan whose
measured metric meets the wish is found, and then single layers are changed as long as the metric
allows it. For a time, the budget of time is corrected by what the plan took.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from lpgen.errors import PlanError
from lpgen.plans.solve import Problem, Solution, fastest, finest, front, knee, smallest

BISECTIONS = 3
"""Steps between two points of the front."""
SWAPS = 6
"""Changes that are tried behind that."""
CORRECTIONS = 3
"""Of a budget of time."""


@dataclass(frozen=True)
class Wish:
    """What a plan has to meet; seconds: of a call, glue included. Without metric and seconds it is
    the knee of the front."""

    min_metric: float = -math.inf
    max_seconds: float = math.inf
    max_bytes: float = math.inf

    def __str__(self) -> str:
        """max-latency 3ms, min-metric 0.99"""
        words = []
        if self.max_seconds < math.inf:
            words.append(f"max-latency {self.max_seconds * 1e3:g}ms")
        if self.min_metric > -math.inf:
            words.append(f"min-metric {self.min_metric:g}")
        if self.max_bytes < math.inf:
            words.append(f"max-bytes {self.max_bytes:.0f}")
        return ", ".join(words) or "knee"


@dataclass
class Search:
    """problem: the integer program; glue: seconds beside it; metric: of a whole plan, measured,
    seconds: of a call of it, None where nothing is compiled."""

    problem: Problem
    glue: float
    metric: Callable[[Solution], float]
    seconds: Callable[[Solution], float] | None = None
    tried: dict[tuple[int, ...], float] = field(default_factory=dict)
    progress: Callable[[str], None] = lambda text: None

    def found(self, wish: Wish) -> Solution:
        """The plan. Raises PlanError for a wish that no plan meets, with the best one."""
        whole = front(self.problem, max_bytes=wish.max_bytes)
        if not whole:
            least = smallest(self.problem).nbytes
            raise PlanError(f"{wish.max_bytes:.0f} bytes asked, {least:.0f} is the smallest plan")
        if wish.min_metric > -math.inf:
            return self._for_metric(wish, whole)
        if wish.max_seconds < math.inf:
            return self._for_time(wish)
        if wish.max_bytes < math.inf:
            return whole[-1]
        return knee(whole)

    def measured(self, solution: Solution) -> float:
        """The metric of a plan, measured once."""
        if solution.choice not in self.tried:
            self.tried[solution.choice] = self.metric(solution)
            self.progress(
                f"{(solution.seconds + self.glue) * 1e3:.4g} ms: {self.tried[solution.choice]:.5g}"
            )
        return self.tried[solution.choice]

    # A metric is asked for

    def _for_metric(self, wish: Wish, whole: Sequence[Solution]) -> Solution:
        meets = lambda solution: self.measured(solution) >= wish.min_metric  # noqa: E731
        low, high = 0, len(whole) - 1
        if not meets(whole[high]):
            raise PlanError(
                f"metric {wish.min_metric:g} asked, {self.measured(whole[high]):.4g} is that of "
                "the finest plan"
            )
        while low < high:  # the fastest of the front that meets it
            middle = (low + high) // 2
            low, high = (low, middle) if meets(whole[middle]) else (middle + 1, high)
        best = whole[high]
        worse = whole[high - 1].loss if high else best.loss
        better = best.loss
        for _ in range(BISECTIONS if worse > better else 0):
            budget = math.sqrt(max(better, worse * 1e-4) * worse)
            between = fastest(self.problem, budget, wish.max_bytes)
            if between is None or between.seconds >= best.seconds:
                better = budget
            elif meets(between):
                best, better = between, budget
            else:
                worse = budget
        best = self._swapped(best, wish)
        if best.seconds + self.glue > wish.max_seconds:
            raise PlanError(
                f"metric {wish.min_metric:g} in {_ms(wish.max_seconds)} asked, "
                f"{_ms(best.seconds + self.glue)} is the fastest plan of that metric"
            )
        return best

    def _swapped(self, best: Solution, wish: Wish) -> Solution:
        """Faster plans near the best one whose measured metric meets the wish."""
        for _ in range(SWAPS):
            moves = self._moves(best, wish.max_bytes)
            move = next((m for m in moves if m.choice not in self.tried), None)
            if move is None:
                break
            if self.measured(move) >= wish.min_metric:
                best = move
        return best

    def _moves(self, best: Solution, max_bytes: float) -> list[Solution]:
        """Plans that are faster by one change, or by two of which one makes it finer; those that
        cost the least loss for the time that they save first."""
        singles = list(self._singles(best))
        lower = [s for s in singles if s.seconds < best.seconds]
        found = list(lower)
        for raised in (s for s in singles if s.loss < best.loss):
            for down in lower:
                i = _changed(best, raised)
                j = _changed(best, down)
                if i != j:
                    choice = list(raised.choice)
                    choice[j] = down.choice[j]
                    found.append(self.problem.solution(choice))
        faster = [s for s in found if s.seconds < best.seconds * 0.999 and s.nbytes <= max_bytes]
        return sorted(faster, key=lambda s: (s.loss - best.loss) / (best.seconds - s.seconds))

    def _singles(self, best: Solution) -> Iterator[Solution]:
        for group, values in enumerate(self.problem.seconds):
            for option in range(len(values)):
                if option != best.choice[group]:
                    choice = list(best.choice)
                    choice[group] = option
                    yield self.problem.solution(choice)

    # A time is asked for

    def _for_time(self, wish: Wish) -> Solution:
        budget = wish.max_seconds
        for _ in range(CORRECTIONS):
            best = finest(self.problem, budget - self.glue, wish.max_bytes)
            if best is None:
                quickest = fastest(self.problem, max_bytes=wish.max_bytes)
                assert quickest is not None
                taken = self._taken(quickest)
                if taken > wish.max_seconds:
                    raise PlanError(
                        f"{_ms(wish.max_seconds)} asked, {_ms(taken)} is the fastest plan"
                    )
                return quickest
            taken = self._taken(best)
            if taken <= wish.max_seconds:
                return best
            budget *= 0.995 * wish.max_seconds / taken
        raise PlanError(f"{_ms(wish.max_seconds)} asked, {_ms(taken)} is what the last plan takes")

    def _taken(self, solution: Solution) -> float:
        """Seconds of a call, measured where that can be."""
        return self.seconds(solution) if self.seconds else solution.seconds + self.glue


def expected_metric(loss: float, points: Sequence[tuple[float, float]]) -> float:
    """The metric at a loss, between points (divergence, metric) that were measured."""
    known = sorted((d, m) for d, m in points if np.isfinite(d) and np.isfinite(m))
    if not known:
        return math.nan
    losses, metrics = zip(*known, strict=True)
    falling = np.minimum.accumulate(metrics)
    return float(np.interp(loss, losses, falling))


def _changed(one: Solution, other: Solution) -> int:
    pairs = zip(one.choice, other.choice, strict=True)
    return next(i for i, (a, b) in enumerate(pairs) if a != b)


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms"
