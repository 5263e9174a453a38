"""Sums of table lookups: lookups into bytes, bytes into 16 bits, 16 bits into int32.

for block of k steps                          # as many as 16 bits hold the sums of
  total = odd = 0
  for plane, the highest first
    total, odd = 2 * total, 2 * odd
    for chunk of k steps                      # as many as a byte holds the sums of
      acc = 0
      for k step: acc += table[index]         # vpshufb, vpaddb
      total += acc; odd += acc >> 8            # as 16-bit lanes
  tile += total - (odd << 8) and odd           # the even and the odd bytes of acc

A 16-bit lane of acc is even byte + 256 * odd byte. Its sum modulo 2^16, less 256 times the sum of
the odd bytes, is that of the even bytes: no mask is needed.

Of two rows that share a table the sums are apart in the same way, half a byte each:

      for some k steps: acc += table[index]     # as many as half a byte holds the sums of
      both += acc; high += acc >> 4             # as bytes
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from tvm import tirx
from tvm.tirx.script import builder as tb

from lpgen.algorithms.lhs.k_split import KSplit
from lpgen.algorithms.lut_sum import Tables
from lpgen.isa import Isa
from lpgen.schedules.common.inside import Taps
from lpgen.schedules.common.lookup_bytes import Bytes, HalfBytes, add_to, add_waiting
from lpgen.tir import vectors as vec
from lpgen.tir.microkernel import Index, Site

STRAIGHT = 16
"""Lookups of a loop's body: about as many. The loop itself costs nothing then, and longer bodies
were slower (1024^3, w1a1: 1543 us with 16, 1571 with 32, 1645 with 128)."""


@dataclass(frozen=True)
class Box:
    """Neighbouring k steps: where they start on the axes r, s, kg and how many there are."""

    start: tuple[Index, Index, Index]
    size: tuple[int, int, int]

    @property
    def count(self) -> int:
        return math.prod(self.size)

    def groups(self) -> list[tuple]:
        """(r, s, kg) of each k step."""
        axes = ([at + i for i in range(n)] for at, n in zip(self.start, self.size, strict=True))
        return list(itertools.product(*axes))

    def part(self, axis: int, start: Index, length: int) -> Box:
        """`length` steps of an axis, from its step `start` on."""
        at, size = list(self.start), list(self.size)
        at[axis], size[axis] = at[axis] + start, length
        return Box(tuple(at), tuple(size))


def for_parts(box: Box, most: int, unit: int, body: Callable[[Box], None]) -> None:
    """Emit `body` for parts of at most `most` k steps that make up the box, in order; a part of a
    run is a multiple of `unit`, which divides `most`."""
    if box.count <= most:
        body(box)
        return
    axis = next(a for a in range(3) if math.prod(box.size[a + 1 :]) <= most)
    if (axis and box.size[0] > 1) or (axis == 2 and box.size[1] > 1):
        outer = 0 if box.size[0] > 1 else 1
        with tb.serial(0, box.size[outer]) as i:
            for_parts(box.part(outer, i, 1), most, unit, body)
        return
    size, unit = box.size[axis], unit if axis == 2 else 1
    length = most // math.prod(box.size[axis + 1 :])
    length = -(-size // -(-size // length))  # as many parts as needed, of even lengths
    length = -(-length // unit) * unit
    whole = size // length
    if whole == 1:
        body(box.part(axis, 0, length))
    else:
        with tb.serial(0, whole) as i:
            body(box.part(axis, i * length, length))
    if size % length:
        body(box.part(axis, whole * length, size % length))


class Sums(ABC):
    """The registers of a tile of lookups and the statements on them, for tables x vectors of bytes
    and the digits of the tables (`counts`); sums belong to the rows of the tables.

    A tile derives from it and says where tables and indices come from and where sums go:
    `indices`, `table`, `widen` and `clear`.
    """

    def __init__(
        self, site: Site, isa: Isa, cut: KSplit, tables: Tables, counts: tuple[int, int, int]
    ) -> None:
        self.site, self.isa, self.cut, self.tables = site, isa, cut, tables
        self.planes, self.unit = 1, 1
        """Planes of the indices; k steps whose indices come together."""
        self.counts, self.lanes, self.half = counts, isa.bits // 8, isa.bits // 16
        rows, half = tables.rows, tables.together
        self.acc = {
            place: Bytes(self.lanes) if rows == 1 else HalfBytes(self.lanes, half)
            for place in itertools.product(*map(range, counts))
        }
        self.active = range(counts[0])
        """Tables that are looked up in."""
        self.places = list(itertools.product(range(counts[0] * rows), *map(range, counts[1:])))
        """Of the sums in 16 bits, (row, vector, digit)."""
        self.total = {place: vec.scratch((self.half,), "uint16") for place in self.places}
        self.odd = {place: vec.scratch((self.half,), "uint16") for place in self.places}

    @abstractmethod
    def indices(self, group: tuple, plane: Index) -> list[list]:
        """The index vectors [group][vector] of the `unit` k steps that start here."""

    @abstractmethod
    def table(self, number: int, digit: int, group: tuple) -> tirx.Expr:
        """A table of a k step, `tables.entries` bytes."""

    @abstractmethod
    def widen(self, add: bool) -> None:
        """Store the sums; add: to what is there."""

    def tile(self) -> None:
        """Emit the whole tile."""
        whole = Box((0, 0, 0), (self.cut.r, self.cut.s, self.cut.kg))
        several = whole.count > self._longest
        if several:
            self.clear()
        every = range(self.counts[0])
        for_parts(whole, self._longest, self.unit, lambda box: self.block([(box, every)], several))

    @property
    def _longest(self) -> int:
        """k steps whose sums 16 bits hold. Not 0, see `refuses`."""
        return self.tables.longest // self.unit * self.unit

    def inside(self, taps: Taps) -> None:
        """Emit the tile without the taps in the padding, one row of the kernel after the other.
        There nothing is added: tables of several rows count where one of them is inside."""
        rows, kg, most = self.tables.rows, self.cut.kg, self._longest
        spans = {
            s: range(first // rows, -(-stop // rows)) for s, (first, stop) in taps.columns.items()
        }
        self.clear()
        with taps.rows() as r:
            parts = [(Box((r, s, 0), (1, 1, kg)), span) for s, span in spans.items()]
            if kg * len(parts) <= most:
                self.block(parts, add=True)
            else:
                for box, span in parts:
                    for_parts(box, most, self.unit, partial(self._add, span))

    def _add(self, span: range, box: Box) -> None:
        self.block([(box, span)], add=True)

    @abstractmethod
    def clear(self) -> None:
        """Store zeros."""

    # ---- from lookups to 16 bits

    def block(self, parts: Sequence[tuple[Box, range]], add: bool) -> None:
        """The sums of k steps that 16 bits hold, and the tables where they are looked up in; add:
        to what is there."""
        half = self.half
        for sums in (self.total, self.odd):
            for place in self.places:
                vec.store(sums[place], [0], vec.splat(0, "uint16", half), half)
        # At least a unit: `_lookups` knows when a byte holds less.
        most = max(self.unit, self.tables.lookups // self.unit * self.unit)

        def chunks(plane: Index) -> None:
            for box, self.active in parts:
                for_parts(box, most, self.unit, lambda part: self._chunk(part, plane))

        if self.planes == 1:
            chunks(0)
        else:
            with tb.serial(0, self.planes) as step:
                for sums in (self.total, self.odd):
                    for place in self.places:
                        twice = vec.load(sums[place], [0], half) << vec.splat(1, "uint16", half)
                        vec.store(sums[place], [0], twice, half)
                chunks(self.planes - 1 - step)
        self.widen(add)

    def _chunk(self, box: Box, plane: Index) -> None:
        unit = math.lcm(self.unit, self.tables.together if self.tables.rows > 1 else 1)
        body = max(unit, STRAIGHT // len(self.acc) // unit * unit)
        if box.count <= 2 * body:
            self._lookups(box, plane, fresh=True)
        else:
            for acc in self._accumulators().values():
                acc.clear()
            for_parts(box, body, unit, lambda part: self._lookups(part, plane, fresh=False))
        self._flush()

    def _lookups(self, box: Box, plane: Index, fresh: bool) -> None:
        """acc += the lookups of k steps, in straight-line code; fresh: acc starts with them."""
        groups, done = box.groups(), 0
        for start in range(0, len(groups), self.unit):
            together = groups[start : start + self.unit]
            indices = self.indices(together[0], plane)
            for group, index in zip(together, indices, strict=False):
                if done and done % self.tables.lookups == 0:  # only where a unit is too much
                    self._flush()
                    fresh = True
                self._lookup(group, index, fresh)
                fresh = False
                done += 1
        for acc in self._accumulators().values():
            acc.settle()

    def _accumulators(self) -> dict[tuple, Bytes]:
        """Those of the tables that are looked up in."""
        return {place: acc for place, acc in self.acc.items() if place[0] in self.active}

    def _lookup(self, group: tuple, index: list, fresh: bool) -> None:
        lanes, entries = self.lanes, self.tables.entries
        lookup = self.isa.lookup16 if entries == 16 else self.isa.lookup64
        _, vectors, digits = self.counts
        waiting = []
        for number, digit in itertools.product(self.active, range(digits)):
            table = self.table(number, digit, group)
            table = vec.bind(vec.repeat(table, entries, lanes // entries))
            for vector in range(vectors):
                waiting.append((self.acc[number, vector, digit], lookup(table, index[vector])))
                if self.tables.rows == 1:
                    waiting = add_waiting(waiting, fresh)
        # Small CPUs compute in this order, and a sum waits for what was looked up just before.
        add_waiting([(acc, vec.bind(found)) for acc, found in waiting], fresh)

    def _flush(self) -> None:
        half = self.half
        for (number, *place), acc in self._accumulators().items():
            for row, sums in enumerate(acc.rows()):
                at = (number * self.tables.rows + row, *place)
                pair = vec.bind(vec.reinterpret(f"uint16x{half}", sums))
                add_to(self.total[at], pair, half, fresh=False)
                add_to(self.odd[at], pair >> vec.splat(8, "uint16", half), half, fresh=False)

    def halves(self, place: tuple) -> tuple[tirx.Expr, tirx.Expr]:
        """The sums of (row, vector, digit) in 16 bits: of the even bytes, and of the odd ones."""
        odd = vec.bind(vec.load(self.odd[place], [0], self.half))
        total = vec.load(self.total[place], [0], self.half)
        return vec.bind(total - (odd << vec.splat(8, "uint16", self.half))), odd
