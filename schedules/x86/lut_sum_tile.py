"""The register tile of lut_sum: lookups into bytes, bytes into 16 bits, 16 bits into int32.

    for block of k groups                          # as many as 16 bits hold the sums of
      total = odd = 0
      for plane, the highest first
        total, odd = 2 * total, 2 * odd
        for chunk of k groups                      # as many as a byte holds the sums of
          acc = 0
          for k group: acc += table[row][index]    # vpshufb, vpaddb
          total += acc; odd += acc >> 8            # as 16-bit lanes
      tile += total - (odd << 8) and odd           # the even and the odd bytes of acc

A 16-bit lane of acc is even byte + 256 * odd byte. Its sum modulo 2^16, less 256 times the sum of
the odd bytes, is that of the even bytes: no mask is needed.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx
from tvm.tirx.script import builder as tb

from lpgen.algorithms.lut_sum import PACK, Definition, Tiling
from lpgen.schedules.x86 import vectors as vec
from lpgen.schedules.x86.isa import Isa
from lpgen.schedules.x86.microkernel import Index, Site
from lpgen.schedules.x86.prefetch import hint

STRAIGHT = 16
"""Lookups of a loop's body: about as many. The loop itself costs nothing then, and longer bodies
were slower (1024^3, w1a1: 1543 us with 16, 1571 with 32, 1645 with 128)."""


@dataclass(frozen=True)
class Box:
    """Neighbouring k groups: where they start on the axes r, s, kg and how many there are."""

    start: tuple[Index, Index, Index]
    size: tuple[int, int, int]

    @property
    def count(self) -> int:
        return math.prod(self.size)

    def groups(self) -> list[tuple]:
        """(r, s, kg) of each k group."""
        axes = ([at + i for i in range(n)] for at, n in zip(self.start, self.size, strict=True))
        return list(itertools.product(*axes))

    def part(self, axis: int, start: Index, length: int) -> Box:
        """`length` steps of an axis, from its step `start` on."""
        at, size = list(self.start), list(self.size)
        at[axis], size[axis] = at[axis] + start, length
        return Box(tuple(at), tuple(size))


def for_parts(box: Box, most: int, unit: int, body: Callable[[Box], None]) -> None:
    """Emit `body` for parts of at most `most` k groups that make up the box, in order; a part of a
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


@dataclass(frozen=True)
class TileCode:
    """Emits the tile of a definition; prefetch: bytes of indices to ask for in advance, or 0."""

    definition: Definition
    tiling: Tiling
    isa: Isa
    prefetch: int

    def __call__(self, site: Site) -> None:
        _Emitter(self, site).tile()


class _Emitter:
    """The tile's registers and the statements on them."""

    def __init__(self, code: TileCode, site: Site) -> None:
        self.site, self.isa, self.t, self.prefetch = site, code.isa, code.tiling, code.prefetch
        self.cut, self.tables = code.definition.cut, code.definition.tables
        self.planes = code.definition.layout.format.bits
        self.encode = site.sources["encode"]
        self.unit = 1 if self.t.expanded else PACK[self.cut.kq][0]
        t, lanes = self.t, self.t.lanes
        self.places = list(itertools.product(range(t.rows), range(t.vectors), range(t.digits)))
        self.acc = {place: vec.scratch((lanes,), "uint8") for place in self.places}
        self.total = {place: vec.scratch((lanes // 2,), "uint16") for place in self.places}
        self.odd = {place: vec.scratch((lanes // 2,), "uint16") for place in self.places}

    def tile(self) -> None:
        whole = Box((0, 0, 0), (self.cut.r, self.cut.s, self.cut.kg))
        most = self.tables.groups // self.unit * self.unit  # not 0, see `refusal`
        several = whole.count > most
        if several:
            self._clear()
        for_parts(whole, most, self.unit, lambda box: self._block(box, add=several))

    def _clear(self) -> None:
        zero = vec.splat(0, "int32", self.isa.lanes)
        for mi, nv in itertools.product(range(self.t.rows), range(self.t.vectors)):
            for column in range(0, self.t.lanes, self.isa.lanes):
                to = self.site.target.at(mi=mi, nv=nv, tail=[column])
                vec.store(self.site.target.buffer, to, zero, self.isa.lanes)

    # ---- from lookups to 16 bits

    def _block(self, box: Box, add: bool) -> None:
        half = self.t.lanes // 2
        for sums in (self.total, self.odd):
            for place in self.places:
                vec.store(sums[place], [0], vec.splat(0, "uint16", half), half)
        # At least a unit: `_lookups` knows when a byte holds less.
        most = max(self.unit, self.tables.lookups // self.unit * self.unit)
        if self.planes == 1:
            for_parts(box, most, self.unit, lambda part: self._chunk(part, 0))
        else:
            with tb.serial(0, self.planes) as step:
                for sums in (self.total, self.odd):
                    for place in self.places:
                        twice = vec.load(sums[place], [0], half) << vec.splat(1, "uint16", half)
                        vec.store(sums[place], [0], twice, half)
                plane = self.planes - 1 - step
                for_parts(box, most, self.unit, lambda part: self._chunk(part, plane))
        self._widen(add)

    def _chunk(self, box: Box, plane: Index) -> None:
        body = max(self.unit, STRAIGHT // len(self.places) // self.unit * self.unit)
        if box.count <= 2 * body:
            self._lookups(box, plane, fresh=True)
        else:
            for place in self.places:
                vec.store(self.acc[place], [0], vec.splat(0, "uint8", self.t.lanes), self.t.lanes)
            for_parts(box, body, self.unit, lambda part: self._lookups(part, plane, fresh=False))
        self._flush()

    def _lookups(self, box: Box, plane: Index, fresh: bool) -> None:
        """acc += the lookups of k groups, in straight-line code; fresh: acc starts with them."""
        groups, done = box.groups(), 0
        for start in range(0, len(groups), self.unit):
            together = groups[start : start + self.unit]
            indices = self._indices(together[0], plane)
            for group, index in zip(together, indices, strict=False):
                if done and done % self.tables.lookups == 0:  # only where a unit is too much
                    self._flush()
                    fresh = True
                self._lookup(group, index, fresh)
                fresh = False
                done += 1

    def _lookup(self, group: tuple, index: list, fresh: bool) -> None:
        r, s, kg = group
        lanes = self.t.lanes
        for mi, digit in itertools.product(range(self.t.rows), range(self.t.digits)):
            at = self.encode.at(mi=mi, r=r, s=s, kg=kg, tail=[digit, 0])
            entries = self.tables.entries
            table = vec.load(self.encode.buffer, at, entries)
            table = vec.bind(vec.repeat(table, entries, lanes // entries))
            lookup = self.isa.lookup if entries == 16 else self.isa.permute
            for nv in range(self.t.vectors):
                found = vec.intrinsic(f"uint8x{lanes}", lookup, table, index[nv])
                acc = self.acc[mi, nv, digit]
                if not fresh:
                    found = vec.load(acc, [0], lanes) + found
                vec.store(acc, [0], found, lanes)

    def _indices(self, group: tuple, plane: Index) -> list[list]:
        """The index vectors [group][vector] of the `unit` groups that start here."""
        r, s, kg = group
        lanes, vectors = self.t.lanes, range(self.t.vectors)
        if self.t.expanded:
            expand = self.site.sources["expand"]
            where = {"r": r, "s": s, "kg": kg, "a0": plane}
            at = [expand.at(nv=nv, **where, tail=[0]) for nv in vectors]
            return [[vec.bind(vec.load(expand.buffer, place, lanes)) for place in at]]
        return self._unpacked(group, plane)

    def _unpacked(self, group: tuple, plane: Index) -> list[list]:
        """The same out of the packed weights, see `lut_sum.PACK`."""
        r, s, kg = group
        lanes, vectors = self.t.lanes, range(self.t.vectors)
        packed = self.site.sources["indices"]
        shared, count = PACK[self.cut.kq]
        indices: list[list] = [[] for _ in range(shared)]
        for nv in vectors:
            parts = []
            for part in range(count):
                at = packed.at(r=r, s=s, kg=kg, a0=plane, tail=[part, nv, 0])
                if self.prefetch:
                    ahead = packed.buffer[(*at[:-1], self.prefetch)]
                    tb.add_to_parent(hint(ahead))
                parts.append(vec.bind(vec.load(packed.buffer, at, lanes)))
            own = self._halves(*parts) if self.cut.kq == 4 else self._sixes(parts)
            for of_group, index in zip(indices, own, strict=True):
                of_group.append(index)
        return indices

    def _halves(self, byte: tirx.Expr) -> list[tirx.Expr]:
        lanes = self.t.lanes
        mask = vec.splat(15, "uint8", lanes)
        return [vec.bind(byte & mask), vec.bind(byte >> vec.splat(4, "uint8", lanes) & mask)]

    def _sixes(self, parts: list[tirx.Expr]) -> list[tirx.Expr]:
        """vpermb takes the low 6 bits of the bytes as they are."""
        lanes = self.t.lanes
        last = None
        for i, byte in enumerate(parts):
            bits = byte >> vec.splat(6 - 2 * i, "uint8", lanes) & vec.splat(
                3 << 2 * i, "uint8", lanes
            )
            last = bits if last is None else last | bits
        return [*parts, vec.bind(last)]

    def _flush(self) -> None:
        half = self.t.lanes // 2
        for place in self.places:
            acc, total, odd = self.acc[place], self.total[place], self.odd[place]
            pair = vec.bind(vec.reinterpret(f"uint16x{half}", vec.load(acc, [0], self.t.lanes)))
            vec.store(total, [0], vec.load(total, [0], half) + pair, half)
            top = pair >> vec.splat(8, "uint16", half)
            vec.store(odd, [0], vec.load(odd, [0], half) + top, half)

    # ---- from 16 bits to int32

    def _widen(self, add: bool) -> None:
        lanes, target = self.isa.lanes, self.site.target
        for mi, nv in itertools.product(range(self.t.rows), range(self.t.vectors)):
            digits = [self._columns((mi, nv, digit)) for digit in range(self.t.digits)]
            for i, parts in enumerate(zip(*digits, strict=True)):
                value = parts[0]
                if len(parts) > 1:
                    value = value + (parts[1] << vec.splat(self.tables.shift, "int32", lanes))
                to = target.at(mi=mi, nv=nv, tail=[i * lanes])
                if add:
                    value = vec.load(target.buffer, to, lanes) + value
                vec.store(target.buffer, to, value, lanes)

    def _columns(self, place: tuple) -> list[tirx.Expr]:
        """The sums of a vector's columns in order, int32."""
        half, lanes = self.t.lanes // 2, self.isa.lanes
        odd = vec.bind(vec.load(self.odd[place], [0], half))
        total = vec.load(self.total[place], [0], half)
        even = vec.bind(total - (odd << vec.splat(8, "uint16", half)))
        return [
            vec.bind(vec.shuffle(part, range(start, start + lanes)).astype(f"int32x{lanes}"))
            for part in (even, odd)
            for start in range(0, half, lanes)
        ]
