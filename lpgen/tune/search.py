"""Which candidate to measure next: guesses and defaults, random ones, then what a cost model that
learns from them ranks first.

The search asks nobody and measures nothing: `propose` gives a candidate, `tell` takes its time.
That lets it be replayed against a table of measured times (compare.py).
"""

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from lpgen.space import Knobs, Space
from lpgen.templates import Template
from lpgen.tune.cost_model import CostModel
from lpgen.tune.guesses import Guesses
from lpgen.tune.messages import Candidate
from lpgen.tune.shares import Shares

STRATEGIES = ("model", "random", "exhaustive", "equal")

_BATCH = 8
_POPULATION = 512
_GENERATIONS = 4
_PARENTS = 64
_AT_RANDOM = 0.05
_TRIES = 200
_ROWS_TO_TRUST = 64


class Search:
    """The search over the templates of one operator.

    trials: how many candidates there will be; an eighth of them are drawn at random at first (half
    as many when the model knows other operators). strategy: one of STRATEGIES; "model" and "random"
    share the trials among the templates by what these have shown (shares.py), "equal" is "model"
    with as many for each. named: candidates to try before all others; guesses: what proposes those
    that come next; first: candidates to try right after them and the defaults; all where they fit.
    model: taught by `tell`; shared by the operators of a run.
    """

    def __init__(
        self,
        op: Any,
        target: Any,
        templates: Iterable[Template],
        *,
        trials: int,
        rng: np.random.Generator,
        strategy: str = "model",
        model: CostModel | None = None,
        first: Iterable[Candidate] = (),
        named: Iterable[Candidate] = (),
        guesses: Guesses | None = None,
    ) -> None:
        self.op = op
        self.spaces: dict[Template, Space] = {t: t.space(op, target) for t in templates}
        self.defaults = [Candidate(t, t.default(op, target)) for t in self.spaces]
        self.times: dict[tuple, float | None] = {}
        self._candidates: dict[tuple, Candidate] = {}
        self._proposed: set[tuple] = set()
        self._rng = rng
        self._strategy = strategy
        self._model = model if model is not None else CostModel(seed=0)
        self._shares = Shares({t: len(space) for t, space in self.spaces.items()})
        taught = self._model.rows_of_others(op) >= _ROWS_TO_TRUST
        self._at_random = max(2, trials // (16 if taught else 8))
        self._guesses = guesses
        self._queue = deque(self._fitting(named))
        self._later = deque([*self.defaults, *self._fitting(first)])
        # All that is not random at first; what is told from a log counts.
        self._begin_with = len(self._queue) + len(self.defaults) + (guesses.left if guesses else 0)
        self._random_until: int | None = None
        self._rest = self._everything()

    def _fitting(self, candidates: Iterable[Candidate]) -> list[Candidate]:
        return [c for c in candidates if c.template in self.spaces and self.holds(c)]

    def holds(self, candidate: Candidate) -> bool:
        """Whether the candidate is a point of its template's space."""
        space = self.spaces.get(candidate.template)
        return space is not None and candidate.knobs in space

    def propose(self) -> Candidate | None:
        """The next candidate, never one that was proposed or told before; None: no more.

        There are no more when all are proposed, or only those of templates without hope are left.
        """
        while True:
            candidate = self._next()
            if candidate is None:
                return None
            if candidate.key not in self._proposed:
                self._begin(candidate)
                return candidate

    def _next(self) -> Candidate | None:
        if self._queue:
            return self._queue.popleft()
        guess = self._guesses.propose() if self._guesses else None
        if guess is not None:
            return guess
        return self._later.popleft() if self._later else self._invent()

    def _begin(self, candidate: Candidate) -> None:
        if candidate.key not in self._proposed:
            self._proposed.add(candidate.key)
            self._shares.begin(candidate.template)
            if self._guesses:
                self._guesses.begin(candidate)

    def tell(self, candidate: Candidate, seconds: float | None) -> None:
        """The time of a candidate (None: it failed), proposed here or known from a log."""
        self._begin(candidate)
        self._candidates[candidate.key] = candidate
        self.times[candidate.key] = seconds
        self._shares.tell(candidate.template, seconds)
        if self._guesses:
            self._guesses.tell(candidate, seconds)
        self._model.add(self.op, self.spaces[candidate.template], candidate, seconds)

    @property
    def measured(self) -> list[tuple[float, Candidate]]:
        """Candidates that work, fastest first."""
        timed = [(s, self._candidates[key]) for key, s in self.times.items() if s is not None]
        return sorted(timed, key=lambda entry: entry[0])

    @property
    def fastest(self) -> float | None:
        """Seconds of the fastest candidate."""
        return min((s for s in self.times.values() if s is not None), default=None)

    @property
    def reference(self) -> tuple[Candidate, float] | None:
        """The candidate that others are timed beside, and its seconds.

        The fastest default (a slow one would take the time of all), or the first that works.
        """
        defaults = {candidate.key for candidate in self.defaults}
        for seconds, candidate in self.measured:
            if candidate.key in defaults:
                return candidate, seconds
        first = next((key for key, s in self.times.items() if s is not None), None)
        return first and (self._candidates[first], self.times[first])

    def _invent(self) -> Candidate | None:
        """A candidate for an empty queue, which may be filled with more."""
        if self._strategy == "exhaustive":
            return next(self._rest, None)
        if self._random_until is None:
            begun = min(len(self._proposed), self._begin_with)
            self._random_until = begun + self._at_random
        early = len(self._proposed) < self._random_until
        if self._strategy == "random" or early or self.fastest is None:
            templates = self._shares.next(1, self._strategy == "equal")
            return self._draw(templates[0]) if templates else None
        self._queue.extend(self._ranked())
        return self._queue.popleft() if self._queue else None

    def _everything(self) -> Iterator[Candidate]:
        for template in self.spaces:
            yield from self._points(template)

    def _points(self, template: Template) -> Iterator[Candidate]:
        return (Candidate(template, knobs) for knobs in self.spaces[template].enumerate())

    def _draw(self, template: Template) -> Candidate | None:
        """A new random candidate of a template; None when none is left."""
        for _ in range(_TRIES):
            candidate = Candidate(template, self.spaces[template].sample(self._rng))
            if candidate.key not in self._proposed:
                return candidate
        return next((c for c in self._points(template) if c.key not in self._proposed), None)

    def _ranked(self) -> list[Candidate]:
        """The next batch: of each template that has a share in it, the model's best new candidates,
        and a few at random."""
        batch = []
        shares = Counter(self._shares.next(_BATCH, self._strategy == "equal"))
        if shares:
            self._model.fit(self.op)
        for template, count in shares.items():
            scored = sorted(self._evolve(template).values(), key=lambda entry: entry[0])
            for _, candidate in scored[:count]:
                at_random = self._rng.random() < _AT_RANDOM
                batch.append((at_random and self._draw(template)) or candidate)
        return batch

    def _evolve(self, template: Template) -> dict[tuple, tuple[float, Candidate]]:
        """New candidates of a template with their predicted costs, evolved from good ones."""
        space, rng = self.spaces[template], self._rng
        seen: dict[tuple, tuple[float, Candidate]] = {}
        population = self._founders(template)
        for generation in range(_GENERATIONS + 1):
            new = {c.key: c for c in (Candidate(template, k) for k in population)}
            new = {key: c for key, c in new.items() if key not in seen}
            points = [c.knobs for c in new.values()]
            costs = self._model.predict(self.op, space, template.name, points) if points else []
            for (key, candidate), cost in zip(new.items(), costs, strict=True):
                seen[key] = float(cost), candidate
            if generation == _GENERATIONS or len(seen) == len(space):
                break
            ranked = sorted(seen.values(), key=lambda entry: entry[0])[:_PARENTS]
            population = self._children(space, [c.knobs for _, c in ranked], rng)
        return {key: entry for key, entry in seen.items() if key not in self._proposed}

    def _founders(self, template: Template) -> list[Knobs]:
        """The whole of a small space; else what was fastest, and random points."""
        space = self.spaces[template]
        if len(space) <= _POPULATION:
            return list(space.enumerate())
        known = [c.knobs for _, c in self.measured if c.template == template]
        if self._guesses:
            known += [
                c.knobs for c in self._guesses.candidates[:_PARENTS] if c.template == template
            ]
        drawn = [space.sample(self._rng) for _ in range(_POPULATION - _PARENTS)]
        return known[:_PARENTS] + drawn

    @staticmethod
    def _children(space: Space, parents: list[Knobs], rng: np.random.Generator) -> list[Knobs]:
        # The better a parent, the more often it is drawn.
        places = np.minimum(rng.geometric(0.05, size=(_POPULATION // 2, 2)), len(parents)) - 1
        children = []
        for a, b in places:
            child = space.crossover(rng, parents[a], parents[b])
            children.append(space.mutate(rng, child) if rng.random() < 0.7 else child)
        return children
