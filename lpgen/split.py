"""How the work of a kernel is split among threads: contiguous ranges, as equal as possible."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

LEAST_TASK = 3e-6
"""Seconds of work below which a thread of its own does not pay (pool.c, LPGEN_TASK_US)."""


class Split(NamedTuple):
    """tasks: that have something to do; largest: the units of the largest of them; balance: the
    mean of all threads' shares over the largest, 1 where all have as much."""

    tasks: int
    largest: int
    balance: float


def balance(units: int, threads: int) -> Split:
    """`units` of work split among `threads`: task t has those from t * units // threads on."""
    largest = math.ceil(units / threads)
    return Split(min(units, threads), largest, units / (threads * largest))


def most_threads(work: float) -> int:
    """On how many threads a call gains that takes `work` seconds on one."""
    return max(1, int(work / LEAST_TASK))


def total(variant: Mapping[str, Any]) -> int:
    """All units of work of a kernel whose entry in the manifest has them."""
    return math.prod(variant["split"]["units"])


def split_of(variant: Mapping[str, Any], threads: int) -> Split | None:
    """How a call of a kernel is split on `threads` threads, by its entry in a library's manifest.

    None where the library does not say. What is too small for so many is split among fewer.
    """
    if "split" not in variant:
        return None
    return balance(total(variant), min(threads, most_threads(variant["work"])))
