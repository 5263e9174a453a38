"""Sums of what is looked up (`lookup_sums`), in bytes or in halves of bytes."""

from __future__ import annotations

from tvm import tirx

from lpgen.tir import vectors as vec


class Bytes:
    """Sums of lookups in bytes; what a byte sums belongs to one row."""

    def __init__(self, lanes: int) -> None:
        self.lanes, self._acc = lanes, vec.scratch((lanes,), "uint8")

    def clear(self) -> None:
        """Start from 0, to be added to in a loop."""
        vec.store(self._acc, [0], vec.splat(0, "uint8", self.lanes), self.lanes)

    def add(self, found: tirx.Expr, fresh: bool) -> None:
        """Add what was looked up; fresh: start with it."""
        add_to(self._acc, found, self.lanes, fresh)

    @property
    def full(self) -> bool:
        """Whether it has to settle before more is added."""
        return False

    def settle(self) -> None:
        """End a piece of straight-line code."""

    def rows(self) -> list[tirx.Expr]:
        """The sums of each row."""
        return [vec.load(self._acc, [0], self.lanes)]


class HalfBytes(Bytes):
    """The same of two rows, each in its halves of the bytes that are looked up, of which a half
    holds the sum of `most`."""

    def __init__(self, lanes: int, most: int) -> None:
        super().__init__(lanes)
        self.most, self._held, self._fresh = most, 0, False
        self._both, self._high = (vec.scratch((lanes,), "uint8") for _ in range(2))

    def clear(self) -> None:
        for sums in (self._both, self._high):
            vec.store(sums, [0], vec.splat(0, "uint8", self.lanes), self.lanes)

    def add(self, found: tirx.Expr, fresh: bool) -> None:
        self._fresh = self._fresh or fresh
        super().add(found, fresh=not self._held)
        self._held += 1

    @property
    def full(self) -> bool:
        return self._held == self.most

    def settle(self) -> None:
        if not self._held:
            return
        acc = vec.bind(vec.load(self._acc, [0], self.lanes))
        add_to(self._both, acc, self.lanes, self._fresh)
        add_to(self._high, acc >> vec.splat(4, "uint8", self.lanes), self.lanes, self._fresh)
        self._held, self._fresh = 0, False

    def rows(self) -> list[tirx.Expr]:
        self.settle()
        high = vec.bind(vec.load(self._high, [0], self.lanes))
        low = vec.load(self._both, [0], self.lanes) - (high << vec.splat(4, "uint8", self.lanes))
        return [low, high]


def add_waiting(waiting: list[tuple[Bytes, tirx.Expr]], fresh: bool) -> list:
    """Add what was looked up to sums; nothing is left."""
    for acc, found in waiting:
        acc.add(found, fresh)
    for acc, _ in waiting:
        if acc.full:
            acc.settle()
    return []


def add_to(sums, value: tirx.Expr, lanes: int, fresh: bool) -> None:
    vec.store(sums, [0], value if fresh else vec.load(sums, [0], lanes) + value, lanes)
