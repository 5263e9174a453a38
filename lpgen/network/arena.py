"""Arena: where in one piece of memory blocks lie that are not all needed at the same time."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

from lpgen.ops.signature import ALIGNMENT


class Block(NamedTuple):
    """Memory that is needed from step `first` to step `last`, both included; `nbytes` is a multiple
    of ALIGNMENT."""

    nbytes: int
    first: int
    last: int

    def meets(self, other: Block) -> bool:
        """Whether both are needed at one time."""
        return self.first <= other.last and other.first <= self.last


def rounded(nbytes: int) -> int:
    """Bytes up to the next boundary."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def lower_bound(blocks: Sequence[Block]) -> int:
    """The largest sum of blocks that are needed at one time: no arrangement takes less."""
    change: dict[int, int] = {}
    for block in blocks:
        change[block.first] = change.get(block.first, 0) + block.nbytes
        change[block.last + 1] = change.get(block.last + 1, 0) - block.nbytes
    most = now = 0
    for step in sorted(change):
        now += change[step]
        most = max(most, now)
    return most


_ORDERS: tuple[Callable[[Block], tuple], ...] = (
    lambda b: (-b.nbytes, b.first),
    lambda b: (-b.nbytes * (b.last - b.first + 1), b.first),
    lambda b: (b.first, -b.nbytes),
    lambda b: (b.first - b.last, -b.nbytes),
)

_TRIES = 500
_WORK = 5_000_000
"""Changes of an order, and pairs of blocks that are looked at for all of them, about: a second."""


def arrange(blocks: Sequence[Block]) -> tuple[list[int], int]:
    """(offsets, bytes of all): blocks that are needed at one time do not overlap.

    One block after the other goes into the smallest gap that takes it, the largest first and of
    equal ones the first that is needed. Where that exceeds the lower bound other orders are tried,
    and changes of the best: what lies at the top comes earlier. The same blocks are always arranged
    alike. Source: Y. Pisarchyk, J. Lee, Efficient memory management for deep neural net inference,
    https://arxiv.org/abs/2001.03288
    """
    bound, count = lower_bound(blocks), len(blocks)
    if not blocks:
        return [], 0
    meeting = [
        [j for j, b in enumerate(blocks) if j != i and blocks[i].meets(b)] for i in range(count)
    ]

    def placed(order: list[int]) -> tuple[int, list[int]]:
        offsets = _placed(blocks, meeting, order)
        return max(o + b.nbytes for o, b in zip(offsets, blocks, strict=True)), offsets

    orders = [sorted(range(count), key=lambda i: key(blocks[i])) for key in _ORDERS]
    best, order = min(((placed(order), order) for order in orders), key=lambda found: found[0][0])
    rng = random.Random(0)
    for _ in range(min(_TRIES, _WORK // count**2)):
        if best[0] == bound:
            break
        top = max(range(count), key=lambda i: best[1][i] + blocks[i].nbytes)
        moved = top if rng.random() < 0.5 else rng.randrange(count)
        changed = [i for i in order if i != moved]
        changed.insert(rng.randrange(order.index(moved) + 1), moved)
        found = placed(changed)
        if found[0] <= best[0]:
            best, order = found, changed
    return best[1], best[0]


def _placed(
    blocks: Sequence[Block], meeting: Sequence[Sequence[int]], order: Sequence[int]
) -> list[int]:
    """An offset for each block, given out in this order; meeting: the others that each meets."""
    offsets = [-1] * len(blocks)
    for i in order:
        taken = sorted((offsets[j], blocks[j].nbytes) for j in meeting[i] if offsets[j] >= 0)
        offsets[i] = _best_fit(blocks[i].nbytes, taken)
    return offsets


def _best_fit(nbytes: int, taken: list[tuple[int, int]]) -> int:
    """The start of the smallest gap between what is taken, (offset, bytes) by offset, that is large
    enough; else their end."""
    end, gaps = 0, []
    for start, size in taken:
        if start - end >= nbytes:
            gaps.append((start - end, end))
        end = max(end, start + size)
    return min(gaps)[1] if gaps else end
