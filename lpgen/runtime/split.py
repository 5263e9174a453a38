"""How the work of a kernel is split among threads: contiguous ranges, as equal as possible."""

from collections.abc import Mapping
from typing import Any, NamedTuple

LEAST_TASK = 3e-6
"""Seconds of work below which a thread of its own does not pay (pool.c, LPGEN_TASK_US)."""


class Split(NamedTuple):
    """tasks: into how many the work is split; largest: the share of all work that the largest has,
    0..1; balance: the mean of the tasks' shares over the largest, 1 where all have as much."""

    tasks: int
    largest: float
    balance: float


def balance(pieces: int, threads: int) -> Split:
    """Equal `pieces` of work split among at most `threads`, each of which gets a range of them: as
    few tasks as have that largest share, since more would not make the call shorter."""
    largest = -(-pieces // threads)
    tasks = -(-pieces // largest)
    return Split(tasks, largest / pieces, pieces / (tasks * largest))


def most_threads(work: float) -> int:
    """On how many threads a call gains that takes `work` seconds on one."""
    return max(1, int(work / LEAST_TASK))


def split_of(variant: Mapping[str, Any], threads: int) -> Split | None:
    """How a call of a kernel is split on `threads` threads, by its entry in a library's manifest.

    None where the library does not say. What is too small for so many is split among fewer.
    """
    if "pieces" not in variant or "work" not in variant:
        return None
    return balance(variant["pieces"], min(threads, most_threads(variant["work"])))
