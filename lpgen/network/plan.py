"""Plan of a network: where every tensor lies while a call runs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import numpy as np

from lpgen.network.arena import Block, arrange, lower_bound, rounded
from lpgen.network.network import Network
from lpgen.ops.tensor_type import TensorType


class Where(StrEnum):
    """Memory that a step reads or writes."""

    INPUT = "input"
    """What the caller gives."""
    OUTPUT = "output"
    """What the caller wants."""
    ARENA = "arena"
    CONSTANT = "constant"
    """What the library holds."""
    NUMBER = "number"
    """None: a scalar is its own place."""


class Place(NamedTuple):
    """Where something is; at: which input or output, or bytes from the start of the others."""

    where: Where
    at: int


@dataclass(frozen=True)
class Plan:
    """Places of a network's tensors, by name.

    Inputs and outputs lie in the caller's memory, also where a step reads an output. The others lie
    in an arena of `arena_bytes`, on 64-byte boundaries; `lifetimes`: of those, from the step that
    writes to the last that reads. lower_bound: the largest sum of tensors alive at once; sum_bytes:
    the sum of all of them; in whole cache lines.
    """

    places: Mapping[str, Place]
    lifetimes: Mapping[str, Block]
    arena_bytes: int
    lower_bound: int
    sum_bytes: int


def plan(network: Network) -> Plan:
    """The plan of a network."""
    places = {name: Place(Where.INPUT, i) for i, name in enumerate(network.inputs)}
    places |= {name: Place(Where.OUTPUT, i) for i, name in enumerate(network.outputs)}
    lifetimes = _lifetimes(network, set(places))
    blocks = list(lifetimes.values())
    offsets, arena_bytes = arrange(blocks)
    places |= {n: Place(Where.ARENA, at) for n, at in zip(lifetimes, offsets, strict=True)}
    total = sum(block.nbytes for block in blocks)
    return Plan(places, lifetimes, arena_bytes, lower_bound(blocks), total)


def nbytes(kind: TensorType) -> int:
    """Bytes of a tensor."""
    return math.prod(kind.shape) * np.dtype(kind.dtype).itemsize


def _lifetimes(network: Network, elsewhere: set[str]) -> dict[str, Block]:
    """When which tensors are needed, but for those that lie elsewhere."""
    written = {step.output: i for i, step in enumerate(network.steps)}
    last = dict(written)  # a tensor that nobody reads is in the way of its own step alone
    for i, step in enumerate(network.steps):
        last |= {tensor: i for tensor in step.inputs.values()}
    sizes = network.tensors
    return {
        name: Block(rounded(nbytes(sizes[name])), first, last[name])
        for name, first in written.items()
        if name not in elsewhere
    }
