"""Which template gets the next trial: the templates of an operator share one budget.

The template with the most hope comes next (optimism in the face of uncertainty: Auer, Cesa-Bianchi,
Fischer: Finite-time analysis of the multiarmed bandit problem, 2002). Its hope, after n trials, is

    (1 + REACH / n) * the leader's best time after its first n trials / its own best time

Templates are compared after equally many trials, as in successive halving, since first guesses may
be poor. So one that is far behind has its default and a trial or two, one that is close has nearly
as many as the leader, and the leader does not lack what hopeless ones would have used.
"""

from collections import Counter
from collections.abc import Mapping

from lpgen.templates import Template

REACH = 3.0
_NEVER_WORKED = 2.0
"""Where all trials of a template failed, it counts as so many times slower than the leader."""


class Shares:
    """The trials and the best times of templates. sizes: how many candidates each has."""

    def __init__(self, sizes: Mapping[Template, int]) -> None:
        self._sizes = dict(sizes)
        self._begun: Counter[Template] = Counter()
        self._told: Counter[Template] = Counter()
        # The best time after each trial from the first that worked.
        self._best: dict[Template, list[float]] = {}

    def begin(self, template: Template) -> None:
        """A candidate of the template is going to be measured, or was."""
        self._begun[template] += 1

    def tell(self, template: Template, seconds: float | None) -> None:
        """The time of a candidate; None: it failed."""
        self._told[template] += 1
        curve = self._best.setdefault(template, [])
        if seconds is not None or curve:
            curve.append(min(t for t in (seconds, *curve[-1:]) if t is not None))

    def hope(self, template: Template, trials: int) -> float:
        """How much faster than the leader the template may still become, after `trials`."""
        leader = min(filter(None, self._best.values()), key=lambda curve: curve[-1])
        reach = 1 + REACH / trials
        if not self._best[template]:
            return reach / _NEVER_WORKED
        return reach * leader[min(trials, len(leader)) - 1] / self._best[template][-1]

    def next(self, count: int, equal: bool = False) -> list[Template]:
        """The templates of the next `count` candidates; fewer where the rest is hopeless or done.

        equal: all in turn, whatever they have shown.
        """
        begun = self._begun.copy()
        in_turn = equal or not any(self._best.values())
        hopeful = [t for t in self._sizes if in_turn or (self._told[t] and self.hope(t, 1) >= 1)]
        chosen: list[Template] = []
        while left := [t for t in hopeful if begun[t] < self._sizes[t]]:
            if len(chosen) == count:
                break
            best = max(left, key=lambda t: -begun[t] if in_turn else self.hope(t, begun[t]))
            begun[best] += 1
            chosen.append(best)
        return chosen
