"""What passes between a builder and a runner: plain values, which could cross a network.

A builder has the compiler and the oracle; a runner has the CPU. An operator's `Problem` goes over
once, the `Weights` of a layout once, a candidate's machine code (`Built`) each time. A runner says
what it is (`Machine`) and answers with seconds.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lpgen.ops.signature import Signature


class Case(NamedTuple):
    """One set of inputs, by name, and the exact result.

    rows: how many it has, 0: as many as all; calls: with these inputs in a round that is timed.
    """

    name: str
    inputs: dict[str, np.ndarray]
    y: np.ndarray
    rows: int = 0
    calls: int = 0


@dataclass(frozen=True, eq=False)
class Problem:
    """An operator as a runner knows it.

    key: tells it from others; signature: of its kernels, packed weights of any size; reuse: how
    many times a call uses each weight, at the least; cases: what kernels are checked with, and
    those with calls what they are timed with.
    """

    key: str
    signature: Signature
    reuse: int | None
    cases: tuple[Case, ...]


@dataclass(frozen=True, eq=False)
class Weights:
    """The weights of every case of a problem, packed in one layout: uint8 each."""

    key: str
    packed: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Built:
    """A candidate as machine code.

    problem: the key of what it computes; code: a shared object whose tvm-ffi function "main" has
    the arguments of the signature, or with a range of rows one for each size; weights: the key of
    those it reads, None: it has none; threads: on how many it works.
    """

    problem: str
    code: bytes
    weights: str | None
    threads: int


@dataclass(frozen=True)
class Machine:
    """The CPU of a runner.

    cpu: its model in words, as records name it; features: what it can run; l2: bytes per core, l3:
    bytes; versions: of the packages that decide what the knobs of a record mean.
    """

    cpu: str
    features: frozenset[str]
    l2: int
    l3: int
    versions: dict[str, str]
