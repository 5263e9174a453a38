"""Kernels of the versions of a network that read the same packed weights.

A layer has the same weights whatever the sizes of images or the numbers of rows, but the kernel
that is best for one size may store them in another way than that for another. A kernel of a later
version is one that takes the bytes of the first one, unless that is expected to be clearly slower.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from lpgen import cost, templates
from lpgen.build import Choice
from lpgen.cost import Candidate
from lpgen.errors import LpgenError
from lpgen.network.network import Network, Step
from lpgen.ops import Operator
from lpgen.records.choose import choice_of, ranking
from lpgen.records.cold import asking_ahead

SLOWER = 1.1
"""What the expected time may be, that of the kernel chosen alone being 1, for weights kept once."""

MOST_TRIED = 200
"""Candidates of an operator that are looked at."""


class SharedWeights:
    """A chooser of kernels: of an operator that has the weights of one that was chosen before, a
    kernel that stores them in the same bytes. chooser: chooses what stands alone."""

    def __init__(self, networks: Sequence[Network], chooser: Callable[[Operator], Choice]) -> None:
        self._chooser = chooser
        self._steps: dict[Operator, Step] = {}
        self._first: dict[Operator, Operator] = {}  # whose weights an operator has
        self._chosen: dict[Operator, Choice] = {}
        lead: dict[bytes, Operator] = {}
        for step in (step for network in networks for step in network.steps):
            if step.weights is not None:
                first = lead.setdefault(_digest(step), step.op)
                if step.op not in self._steps:
                    self._steps[step.op], self._first[step.op] = step, first

    def __call__(self, op: Operator) -> Choice:
        """The choice for an operator."""
        if op not in self._chosen:
            alone = self._chooser(op)
            first = self._first.get(op, op)
            self._chosen[op] = alone if first == op else self._like(alone, self(first))
        return self._chosen[op]

    def _like(self, alone: Choice, first: Choice) -> Choice:
        """The choice, or one that stores the weights as the first one does."""
        step = self._steps[alone.op]  # the first one has these weights, too
        wanted = _bytes(first, step)
        if _bytes(alone, step) == wanted:
            return alone
        own = cost.evaluate(
            alone.op, alone.target, [(templates.get(alone.template), dict(alone.knobs))]
        )
        if own is None:
            return alone
        for candidate in self._candidates(alone, own.cost + math.log(SLOWER)):
            try:
                other = choice_of(alone.op, alone.target, candidate.template, candidate.knobs)
                same = other.kernel.packed_bytes == first.kernel.packed_bytes
                if same and _bytes(other, step) == wanted:
                    return asking_ahead(other)
            except LpgenError:
                continue
        return alone

    def _candidates(self, alone: Choice, limit: float) -> Iterator[Candidate]:
        ranked: Iterable[Candidate] = ranking(alone.op, alone.target)
        for _, candidate in zip(range(MOST_TRIED), ranked, strict=False):
            if candidate.cost > limit:
                return
            yield candidate


def _bytes(choice: Choice, step: Step) -> tuple[int, bytes]:
    """How many bytes the weights of a step take in a kernel, and what is in them."""
    weights = np.ascontiguousarray(step.weights, choice.op.weight.dtype)
    parameters = choice.op.legal_parameters(step.parameters)
    packed = choice.kernel.layout.pack(weights, **parameters)
    return packed.size, hashlib.sha256(packed).digest()


def _digest(step: Step) -> bytes:
    """What is the same for the same weights and parameters, in operators of one kind."""
    found = hashlib.sha256(f"{step.op.kind} {step.op.weight} {np.shape(step.weights)}".encode())
    for array in (step.weights, *(step.parameters[name] for name in sorted(step.parameters))):
        found.update(np.ascontiguousarray(array))
    return found.digest()
