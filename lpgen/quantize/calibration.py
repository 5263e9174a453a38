"""What the float model shows of each layer's inputs: Hessians, means, samples of values.

Layers that see the same rows share a Hessian. All of them may be more than memory holds, so that
they are collected in passes over the data, each with as many as fit.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from lpgen.errors import QuantizeError
from lpgen.quantize.biases import Biases
from lpgen.quantize.data import Call
from lpgen.quantize.patches import Place
from lpgen.quantize.session import Session

if TYPE_CHECKING:
    import onnx

MOST_BYTES = 2**30
"""Of the Hessians of one pass."""

MOST_ROWS = 1024
"""Rows of a layer's input that one call adds; of more they are drawn at random."""

MOST_VALUES = 2**15
"""Values of an edge that are kept."""

Progress = Callable[[int, int], None]
"""Told how many calls are done, and of how many."""


@dataclass
class Seen:
    """What layers that see the same rows saw: rows of them; sums: X^T X, float64 [groups, k, k];
    total: sums of X, float64 [groups, k]; largest: the largest |X|, [groups, k]."""

    rows: int = 0
    sums: np.ndarray = field(default_factory=lambda: np.zeros(()))
    total: np.ndarray = field(default_factory=lambda: np.zeros(()))
    largest: np.ndarray = field(default_factory=lambda: np.zeros(()))

    def add(self, x: np.ndarray) -> None:
        """Rows x [groups, rows, k]."""
        self.rows += x.shape[1]
        self.sums = self.sums + (x.swapaxes(1, 2) @ x).astype(np.float64)
        self.total = self.total + x.sum(1, dtype=np.float64)
        self.largest = np.maximum(self.largest, np.abs(x).max(1))

    @property
    def hessian(self) -> np.ndarray:
        """The mean of X^T X, [groups, k, k]."""
        return self.sums / max(1, self.rows)

    @property
    def mean(self) -> np.ndarray:
        """The mean of X, [groups, k]."""
        return self.total / max(1, self.rows)


@dataclass
class Values:
    """Values of an edge: the least, the largest, and up to MOST_VALUES of all, float32."""

    low: float = np.inf
    high: float = -np.inf
    kept: list[np.ndarray] = field(default_factory=list)

    def add(self, x: np.ndarray, most: int, rng: np.random.Generator) -> None:
        """A tensor, of which `most` values are kept."""
        flat = x.ravel()
        self.low, self.high = min(self.low, float(flat.min())), max(self.high, float(flat.max()))
        self.kept.append(flat if flat.size <= most else flat[rng.integers(0, flat.size, most)])

    @property
    def sample(self) -> np.ndarray:
        """What was kept, and the ends."""
        return np.concatenate([*self.kept, np.float32([self.low, self.high])])


def passes(places: Sequence[Place], most_bytes: int = MOST_BYTES) -> Iterator[list[Place]]:
    """The layers in parts whose Hessians fit into so many bytes together; those that see the same
    rows are in one part."""
    sharing: dict[tuple, list[Place]] = {}
    for place in places:
        sharing.setdefault(place.sees, []).append(place)
    part: list[Place] = []
    used = 0
    for sees, same in sharing.items():
        layer = same[0].layer
        size = 8 * layer.k**2 * layer.groups
        if size > most_bytes:
            raise QuantizeError(
                f"the Hessian of {layer.node} (k={layer.k}) has {size >> 20} MiB, the limit is "
                f"{most_bytes >> 20}"
            )
        if part and used + size > most_bytes:
            yield part
            part, used = [], 0
        part += sharing[sees]
        used += size
    if part:
        yield part


def _shifted(progress: Progress, first: int, of: int, done: int) -> None:
    progress(first + done, of)


class Calibration:
    """A float model, the calls that it is calibrated on, and what was seen so far: what fits into
    `most_bytes` is kept for the next time, as other precisions of one model need the same; made:
    layers that were quantized (`lpgen.quantize.model.quantized_layer`), by their names and how.

    Raises QuantizeError where there are no calls.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        calls: Sequence[Call],
        most_bytes: int = MOST_BYTES,
        seed: int = 0,
    ) -> None:
        if not calls:
            raise QuantizeError("there are no calls to calibrate with")
        self.model, self.calls, self.biases = model, calls, Biases(model)
        self._most_bytes, self._seed = most_bytes, seed
        self._seen: dict[tuple, Seen] = {}
        self._values: dict[str, Values] = {}
        self.made: dict[Hashable, Any] = {}

    def seen(
        self, places: Sequence[Place], progress: Progress = lambda done, of: None
    ) -> Iterator[tuple[Place, Seen]]:
        """What each of the layers saw, in some order. Raises QuantizeError where the model refuses
        the data, or makes numbers that are not finite."""
        for place in places:
            if place.sees in self._seen:
                yield place, self._seen[place.sees]
        parts = list(passes([p for p in places if p.sees not in self._seen], self._most_bytes))
        kept = sum(seen.sums.nbytes for seen in self._seen.values())
        for number, part in enumerate(parts):
            first, of = number * len(self.calls), len(parts) * len(self.calls)
            found = self._observed(part, partial(_shifted, progress, first, of))
            size = sum(seen.sums.nbytes for seen in found.values())
            if kept + size <= self._most_bytes:
                self._seen |= found
                kept += size
            for place in part:
                yield place, found[place.sees]

    def values(self, edge: str) -> Values:
        """Values of an edge that some layer reads, whose `seen` was asked for, or of one that was
        observed."""
        return self._values[edge]

    def observe(self, edges: Sequence[str]) -> None:
        """Take values of edges of the graph, in one pass over the calls."""
        if left := [edge for edge in dict.fromkeys(edges) if edge not in self._values]:
            self._observed([], lambda done: None, left)

    def _observed(
        self,
        places: Sequence[Place],
        progress: Callable[[int], None],
        others: Sequence[str] = (),
    ) -> dict[tuple, Seen]:
        """One pass over the calls; others: edges of which values are taken alone."""
        first = {place.sees: place for place in places}
        seen = {sees: Seen() for sees in first}
        edges = list(dict.fromkeys([*(place.layer.input for place in places), *others]))
        fresh = {edge: Values() for edge in edges if edge not in self._values}
        session = Session(self.model, edges)
        for done, call in enumerate(self.calls):
            found = session(call)
            for edge, array in found.items():
                if not np.isfinite(array).all():
                    raise QuantizeError(f"the float model makes {edge} not finite")
                if edge in fresh:
                    most = max(256, MOST_VALUES // len(self.calls))
                    fresh[edge].add(array, most, self._random(done))
            for sees, place in first.items():
                x = found[place.layer.input].astype(np.float32, copy=False)
                seen[sees].add(place.inputs(x, MOST_ROWS, self._random(done)))
            progress(done + 1)
        self._values |= fresh
        return seen

    def _random(self, call: int) -> np.random.Generator:
        """What draws from a tensor of a call: the same, whatever else is observed with it."""
        return np.random.default_rng([self._seed, call])
