"""The knob space of a template: named finite choices and the predicate that joins them."""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from lpgen.verdicts import Verdicts

Knobs = dict[str, Any]

Counts = dict[str, float]
"""What a kernel does, counted: instructions, bytes and the like by name (`Template.work`)."""

MAX_PRODUCT = 2_000_000
_TRIES = 64
_DRAWS = 1000


class Space:
    """All valid combinations of some knobs.

    knobs: name -> its choices (JSON scalars of one type: int, str or bool), in the order in which
        they are printed, one-hot encoded and mutated (put neighbouring sizes side by side).
    valid: predicate over a whole combination; None means that every combination is valid.

    A point is a plain dict with exactly the knobs' names. Raises ValueError, naming the knob, for
    a knob that is empty, mixes types, repeats a choice or is no scalar, and for more than 2 million
    combinations before the predicate: the space is enumerated, so templates keep it small.
    """

    def __init__(
        self,
        knobs: Mapping[str, Sequence[int | str | bool]],
        valid: Callable[[Knobs], bool] | None = None,
    ) -> None:
        self.knobs: dict[str, tuple] = {name: tuple(values) for name, values in knobs.items()}
        self._verdicts = Verdicts(valid) if valid is not None else None
        for name, values in self.knobs.items():
            if not values:
                raise ValueError(f"space: knob {name} has no choices")
            if any(type(value) not in (int, str, bool) for value in values):
                raise ValueError(f"space: knob {name} has a choice that is not int, str or bool")
            if len({type(value) for value in values}) > 1:
                raise ValueError(f"space: knob {name} mixes types: {values}")
            if len(set(values)) != len(values):
                raise ValueError(f"space: knob {name} repeats a choice: {values}")
        self.product = math.prod(len(values) for values in self.knobs.values())
        if self.product > MAX_PRODUCT:
            raise ValueError(f"space: {self.product} combinations, more than {MAX_PRODUCT}")

    def holds(self, point: Knobs) -> bool:
        """Whether a combination of choices is valid."""
        return self._verdicts is None or self._verdicts.of(point)

    def __contains__(self, point: object) -> bool:
        """Whether `point` has exactly these knobs, each one of its choices, and is valid."""
        if not isinstance(point, Mapping) or set(point) != set(self.knobs):
            return False
        # Types are compared too: JSON's true and 1.0 equal 1 but name no choice.
        if any(
            not any(type(point[name]) is type(value) and point[name] == value for value in values)
            for name, values in self.knobs.items()
        ):
            return False
        return self.holds(self.ordered(point))

    def ordered(self, point: Mapping[str, Any]) -> Knobs:
        """The point with its knobs in the space's own order."""
        return {name: point[name] for name in self.knobs}

    def narrowed(self, chosen: Mapping[str, Any]) -> "Space":
        """The space of the points that have these choices."""
        if not chosen:
            return self
        kept = {
            name: tuple(v for v in values if v == chosen.get(name, v))
            for name, values in self.knobs.items()
        }
        return Space(kept, self.holds)

    @cached_property
    def _points(self) -> list[tuple]:
        names = tuple(self.knobs)
        combinations = itertools.product(*self.knobs.values())
        return [point for point in combinations if self.holds(dict(zip(names, point, strict=True)))]

    @cached_property
    def _count(self) -> int:
        return self._verdicts.count(self.knobs) if self._verdicts is not None else self.product

    def __len__(self) -> int:
        """How many valid points there are (counted once)."""
        return self._count

    def __iter__(self) -> Iterator[Knobs]:
        return self.enumerate()

    def enumerate(self) -> Iterator[Knobs]:
        """Every valid point, the last knob varying fastest."""
        names = tuple(self.knobs)
        for point in self._points:
            yield dict(zip(names, point, strict=True))

    def sample(self, rng: np.random.Generator) -> Knobs:
        """A valid point, drawn uniformly. Raises ValueError when no point is valid."""
        if "_count" not in self.__dict__ or self._verdicts is None:
            # Rejection is uniform too, and so many draws are cheaper than to count all.
            for _ in range(_DRAWS):
                point = {n: v[int(rng.integers(len(v)))] for n, v in self.knobs.items()}
                if self.holds(point):
                    return point
        if self._verdicts is None or not len(self):
            raise ValueError("space: no combination of the knobs is valid")
        return self.ordered(self._verdicts.number(int(rng.integers(len(self))), self.knobs))

    def mutate(self, rng: np.random.Generator, point: Mapping[str, Any]) -> Knobs:
        """A valid point that differs from `point` in one knob or two.

        A draw that the predicate refuses is drawn again; where all are refused (an isolated
        point), the result is a fresh sample.
        """
        free = [name for name, values in self.knobs.items() if len(values) > 1]
        for _ in range(_TRIES if free else 0):
            child = self.ordered(point)
            count = min(len(free), 1 if rng.random() < 0.7 else 2)
            for name in (free[i] for i in rng.permutation(len(free))[:count]):
                child[name] = self._neighbour(rng, name, point[name])
            if self.holds(child):
                return child
        return self.sample(rng)

    def _neighbour(self, rng: np.random.Generator, name: str, value: Any) -> Any:
        """Another choice of the knob: half of the time an adjacent one, else any."""
        values = self.knobs[name]
        at = values.index(value)
        if rng.random() < 0.5:
            near = [i for i in (at - 1, at + 1) if 0 <= i < len(values)]
            return values[near[int(rng.integers(len(near)))]]
        step = 1 + int(rng.integers(len(values) - 1))
        return values[(at + step) % len(values)]

    def crossover(
        self, rng: np.random.Generator, a: Mapping[str, Any], b: Mapping[str, Any]
    ) -> Knobs:
        """A valid point that takes each knob from one of two parents (or is a mutant of `a`)."""
        for _ in range(_TRIES):
            of_a = rng.random(len(self.knobs)) < 0.5
            child = {n: (a if first else b)[n] for n, first in zip(self.knobs, of_a, strict=True)}
            if self.holds(child):
                return child
        return self.mutate(rng, a)

    @cached_property
    def feature_names(self) -> tuple[str, ...]:
        """One name for each number of `features`; a choice's name says the knob and the choice."""
        names: list[str] = []
        for name, values in self.knobs.items():
            if isinstance(values[0], str):
                names += [f"{name}={value}" for value in values]
            elif isinstance(values[0], bool):
                names.append(name)
            else:
                names += [name, f"log2({name})"]
        return tuple(names)

    def features(self, point: Mapping[str, Any]) -> np.ndarray:
        """The point as float32 numbers for a cost model, in the order of `feature_names`.

        An int gives itself and log2(1 + |value|), a str one-hot over its choices, a bool 0 or 1.
        """
        numbers = (numbers[point[name]] for name, numbers in self._numbers.items())
        return np.fromiter(itertools.chain.from_iterable(numbers), np.float32)

    @cached_property
    def _numbers(self) -> dict[str, dict[Any, tuple[float, ...]]]:
        """The numbers of each choice of each knob."""

        def of(value: Any, values: tuple) -> tuple[float, ...]:
            if isinstance(value, str):
                return tuple(float(value == choice) for choice in values)
            if isinstance(value, bool):
                return (float(value),)
            return float(value), math.log2(1 + abs(value))

        return {
            name: {value: of(value, values) for value in values}
            for name, values in self.knobs.items()
        }
