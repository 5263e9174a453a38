"""What a predicate over combinations of knobs says, asked as seldom as can be.

A predicate looks at some knobs, one after the other, and which it looks at next follows from the
values that it has seen. So its verdicts are a decision tree: a node is the knob that is looked at,
a branch one of its choices, a leaf the verdict, for every combination that has these values
whatever its other knobs are. The tree grows by watching the predicate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any


class Verdicts:
    """The decision tree of a predicate, which is a function of the values of the knobs alone."""

    def __init__(self, predicate: Callable[[Mapping[str, Any]], Any]) -> None:
        self._predicate = predicate
        self._root: _Node | bool | None = None

    def of(self, point: Mapping[str, Any]) -> bool:
        """The verdict of a combination."""
        node = self._root
        while isinstance(node, _Node):
            node = node.branches.get(point[node.knob])
        return self._watch(point) if node is None else node

    def count(self, knobs: Mapping[str, Sequence[Any]]) -> int:
        """How many combinations of the choices of `knobs` have the verdict True; the same `knobs`
        in every call."""
        first = {name: values[0] for name, values in knobs.items()}
        return self._count(self._root, first, dict(knobs))

    def _count(self, node: _Node | bool | None, point: dict, free: dict[str, Sequence]) -> int:
        """How many of those whose choices of the knobs in `free` are any, the others of `point`."""
        if node is None:
            self._watch(point)
            node = self._at(point, len(point) - len(free))
        if not isinstance(node, _Node):
            return math.prod(map(len, free.values())) if node else 0
        if node.count is None:
            others = {name: values for name, values in free.items() if name != node.knob}
            node.count = sum(
                self._count(node.branches.get(value), {**point, node.knob: value}, others)
                for value in free[node.knob]
            )
        return node.count

    def number(self, number: int, knobs: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
        """That one of the combinations with the verdict True, which `count` has counted, in the
        order of the tree."""
        node, point, free = self._root, {}, dict(knobs)
        while isinstance(node, _Node):
            values = free.pop(node.knob)
            for value in values:
                branch = node.branches[value]
                count = self._count(branch, point, free)
                if number < count:
                    break
                number -= count
            node, point = branch, {**point, node.knob: value}
        for name, values in free.items():
            number, place = divmod(number, len(values))
            point[name] = values[place]
        return point

    def _at(self, point: Mapping[str, Any], depth: int) -> _Node | bool | None:
        """The node of a combination at that depth."""
        node = self._root
        for _ in range(depth):
            assert isinstance(node, _Node)
            node = node.branches[point[node.knob]]
        return node

    def _watch(self, point: Mapping[str, Any]) -> bool:
        """Ask the predicate, and add what it looks at to the tree."""
        watched = _Watched(point)
        verdict = bool(self._predicate(watched))
        if not watched.seen:
            self._root = verdict
            return verdict
        first, *others = watched.seen
        if self._root is None:
            self._root = _Node(first)
        node = self._root
        assert isinstance(node, _Node)
        for name in others:
            following = node.branches.setdefault(point[node.knob], _Node(name))
            assert isinstance(following, _Node)
            node = following
        node.branches[point[node.knob]] = verdict
        return verdict


class _Node:
    """The knob that is looked at, and what follows for each of its choices; how many combinations
    behind it have the verdict True, when they are counted."""

    __slots__ = ("branches", "count", "knob")

    def __init__(self, knob: str) -> None:
        self.knob = knob
        self.count: int | None = None
        self.branches: dict[Any, _Node | bool] = {}


class _Watched(Mapping):
    """A combination that notes which of its knobs are looked at, in order."""

    def __init__(self, point: Mapping[str, Any]) -> None:
        self._point = point
        self.seen: dict[str, None] = {}

    def __getitem__(self, name: str) -> Any:
        value = self._point[name]
        self.seen[name] = None
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._point)

    def __len__(self) -> int:
        return len(self._point)
