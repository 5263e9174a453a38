"""The points of large spaces that the cost model likes best.

Knobs of the register tile decide how many instructions there are, those of the blocks around it
where the bytes come from. So the tile is chosen first, with the whole result as one block, and
blocks for the best tiles afterwards: hundreds of points are priced where a space has 10^5.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lpgen.cost.model import Model, asked
from lpgen.space import Counts, Knobs, Space

AROUND = ("m_block", "n_block", "outer", "inner", "prefetch", "block", "order")
"""Knobs of what is around a tile; the first choice of each is that of one block."""

WHOLE = 1500
"""Combinations up to which a space is not cut into tiles and blocks."""

TILES, POINTS = 16, 96
HOPELESS = 1.6
"""A template whose best tile costs so many times more than another's is not looked into."""


@dataclass(frozen=True)
class Candidate:
    """A template with knobs and the log of its cost."""

    template: Any
    knobs: Knobs
    cost: float


@dataclass
class _Priced:
    """Points of one template by their price, cheapest first."""

    template: Any
    op: Any
    target: Any
    model: Model
    space: Space

    def price(self, points: Iterable[Knobs]) -> list[tuple[float, Counts, Knobs]]:
        found = []
        for knobs in points:
            counts = self.template.work(self.op, self.target, knobs)
            price = self.model.nanoseconds(self.template, self.target, counts)
            found.append((price, counts, knobs))
        return sorted(found, key=lambda entry: entry[0])

    def tiles(self) -> list[tuple[float, Counts, Knobs]]:
        """The best tiles with one block around each; of a small space all points."""
        knobs = self.space.knobs
        if self.space.product > WHOLE:
            knobs = {n: v[:1] if n in AROUND else v for n, v in knobs.items()}
        found = self.price(_valid(self.space, knobs))
        if not found:  # an unusual shape
            return self.price(self.space.enumerate())
        return found

    def blocks(self, tiles: list[tuple[float, Counts, Knobs]]) -> list:
        """The best points with the best tiles."""
        if self.space.product <= WHOLE:
            return tiles[:POINTS]
        points = []
        for _, _, tile in tiles[:TILES]:
            knobs = {n: v if n in AROUND else (tile[n],) for n, v in self.space.knobs.items()}
            points += _valid(self.space, knobs)
        return self.price(points)[:POINTS] or tiles[:POINTS]

    def ranked(self, priced: list) -> list[Candidate]:
        points, counts = [p[2] for p in priced], [p[1] for p in priced]
        costs = self.model.costs(self.op, self.template, self.target, points, counts)
        found = [Candidate(self.template, k, float(c)) for k, c in zip(points, costs, strict=True)]
        return sorted(found, key=lambda candidate: candidate.cost)


def _valid(space: Space, knobs: dict[str, tuple]) -> Iterator[Knobs]:
    names = tuple(knobs)
    for values in itertools.product(*knobs.values()):
        point = dict(zip(names, values, strict=True))
        if space.holds(point):
            yield point


def candidates(
    op: Any,
    target: Any,
    templates: Iterable[Any],
    model: Model | None = None,
    chosen: Knobs | None = None,
) -> list[Candidate]:
    """The best points of the templates that may be the best of all, cheapest first.

    chosen: knobs that are given. Of a template that is far behind only its cheapest tile is there,
    and of the portable ones nothing where another one serves. Templates without `work` have their
    default alone, behind all others.
    """
    model = model or asked()
    found, begun = [], []
    templates = list(templates)
    # Portable loops are for what nothing else serves.
    own = [t for t in templates if t.family != target.families[-1]]
    for template in own or templates:
        if not template.counted:
            found.append(Candidate(template, template.default(op, target), float("inf")))
            continue
        space = template.space(op, target).narrowed(chosen or {})
        priced = _Priced(template, op, target, model, space)
        begun.append((priced, priced.tiles()))
    limit = HOPELESS * min((tiles[0][0] for _, tiles in begun), default=0.0)
    for priced, tiles in begun:
        hopeful = tiles[0][0] <= limit
        found += priced.ranked(priced.blocks(tiles) if hopeful else tiles[:1])
    return sorted(found, key=lambda candidate: candidate.cost)


def promising(ranked: Sequence[Candidate]) -> list[Any]:
    """The templates among ranked candidates that may be the best of all: those without `work`, and
    those that are not far behind the first."""
    limit = min((c.cost for c in ranked), default=0.0) + math.log(HOPELESS)
    near = (c.template for c in ranked if c.cost <= limit or not c.template.counted)
    return list(dict.fromkeys(near))


def by_tile(ranked: Sequence[Candidate]) -> list[Candidate]:
    """Ranked candidates, the first of each register tile before all others."""
    first = {}
    for candidate in ranked:
        first.setdefault(tile_of(candidate), candidate)
    return [*first.values(), *(c for c in ranked if c is not first[tile_of(c)])]


def tile_of(candidate: Candidate) -> tuple:
    """What candidates of one register tile share: the template, and the knobs of the tile."""
    knobs = (item for item in candidate.knobs.items() if item[0] not in AROUND)
    return candidate.template.name, *knobs


def evaluate(
    op: Any, target: Any, points: Iterable[tuple[Any, Knobs]], model: Model | None = None
) -> Candidate | None:
    """The cheapest of some templates with knobs; None where none counts its work."""
    model = model or asked()
    found = []
    for template, knobs in points:
        if template.counted:
            counts = template.work(op, target, knobs)
            [log] = model.costs(op, template, target, [knobs], [counts])
            found.append(Candidate(template, knobs, log))
    return min(found, key=lambda candidate: candidate.cost, default=None)


def best_points(
    op: Any, target: Any, template: Any, count: int = 1, model: Model | None = None
) -> list[Knobs]:
    """The best points of one template, the best first."""
    return [c.knobs for c in candidates(op, target, [template], model)[:count]]
