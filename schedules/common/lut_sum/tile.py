"""The register tile of lut_sum: tables of rows, looked up by the indices of columns."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from tvm import tirx
from tvm.tirx.script import builder as tb

from lpgen.algorithms.lhs.encode import AT_SOURCE
from lpgen.algorithms.lut_sum import PACK, IndexWeights, Tables, Tiling
from lpgen.isa import Isa
from lpgen.ops import Conv2d, Dense
from lpgen.schedules.common.inside import for_places
from lpgen.schedules.common.lookup_sums import Sums
from lpgen.schedules.common.places import RowPlaces
from lpgen.tir import vectors as vec
from lpgen.tir.microkernel import Index, Site
from lpgen.tir.prefetch import hint


@dataclass(frozen=True)
class TileCode:
    """Emits the tile; prefetch: bytes of indices to ask for in advance, or 0."""

    op: Dense | Conv2d
    weights: IndexWeights
    tables: Tables
    tiling: Tiling
    isa: Isa
    prefetch: int

    def __call__(self, site: Site) -> None:
        tile = _Tile(self, site)
        if self.tiling.left == "inside":
            for_places(self.op, self.tiling.rows, site.target.outer["mo"], tile.inside)
        else:
            tile.tile()


class _Tile(Sums):
    """A table for each row, or for two; the bytes of a vector are columns, in the order of
    `IndexWeights`."""

    def __init__(self, code: TileCode, site: Site) -> None:
        weights, self.t, self.prefetch = code.weights, code.tiling, code.prefetch
        counts = (self.t.rows // self.t.table_rows, self.t.vectors, self.t.digits)
        super().__init__(site, code.isa, weights.cut, code.tables, counts)
        source, rows = site.sources["encode"], range(0, self.t.rows, self.t.table_rows)
        self._places = RowPlaces(source, rows, (0, 0)) if self.t.left in AT_SOURCE else source
        self.planes = weights.format.bits
        self.unit = 1 if self.t.unpacked else PACK[self.cut.kq][0]

    def table(self, number: int, digit: int, group: tuple) -> tirx.Expr:
        r, s, kg = group
        at = self._places.at(mi=number * self.t.table_rows, r=r, s=s, kg=kg, tail=[digit, 0])
        return vec.load(self.site.sources["encode"].buffer, at, self.tables.entries)

    def indices(self, group: tuple, plane: Index) -> list[list]:
        r, s, kg = group
        lanes, vectors = self.lanes, range(self.t.vectors)
        if self.t.unpacked:
            unpack = self.site.sources["unpack"]
            where = {"r": r, "s": s, "kg": kg, "a0": plane}
            at = [unpack.at(nv=nv, **where, tail=[0]) for nv in vectors]
            return [[vec.bind(vec.load(unpack.buffer, place, lanes)) for place in at]]
        return self._unpacked(group, plane)

    def _unpacked(self, group: tuple, plane: Index) -> list[list]:
        """The same out of the packed weights, see `lut_sum.PACK`."""
        r, s, kg = group
        lanes, vectors = self.lanes, range(self.t.vectors)
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
            own = self._nibbles(*parts) if self.cut.kq == 4 else self._sixes(parts)
            for of_group, index in zip(indices, own, strict=True):
                of_group.append(index)
        return indices

    def _nibbles(self, byte: tirx.Expr) -> list[tirx.Expr]:
        lanes = self.lanes
        mask = vec.splat(15, "uint8", lanes)
        return [vec.bind(byte & mask), vec.bind(byte >> vec.splat(4, "uint8", lanes) & mask)]

    def _sixes(self, parts: list[tirx.Expr]) -> list[tirx.Expr]:
        """vpermb takes the low 6 bits of the bytes as they are."""
        lanes = self.lanes
        last = None
        for i, byte in enumerate(parts):
            bits = byte >> vec.splat(6 - 2 * i, "uint8", lanes) & vec.splat(
                3 << 2 * i, "uint8", lanes
            )
            last = bits if last is None else last | bits
        return [*parts, vec.bind(last)]

    def widen(self, add: bool) -> None:
        lanes, target = self.isa.lanes, self.site.target
        for mi, nv in itertools.product(range(self.t.rows), range(self.t.vectors)):
            for i, value in enumerate(self._wide(mi, nv)):
                to = target.at(mi=mi, nv=nv, tail=[i * lanes])
                if add:
                    value = vec.load(target.buffer, to, lanes) + value
                vec.store(target.buffer, to, value, lanes)

    def _wide(self, row: int, vector: int) -> list[tirx.Expr]:
        """The sums of a vector's columns in order, all digits, as vectors of int32."""
        digits = [self._widened((row, vector, digit)) for digit in range(self.t.digits)]
        if len(digits) == 1:
            return digits[0]
        shift = vec.splat(self.tables.shift, "int32", self.isa.lanes)
        return [low + (high << shift) for low, high in zip(*digits, strict=True)]

    def _widened(self, place: tuple) -> list[tirx.Expr]:
        lanes = self.isa.lanes
        return [
            vec.bind(vec.shuffle(part, range(start, start + lanes)).astype(f"int32x{lanes}"))
            for part in self.halves(place)
            for start in range(0, self.half, lanes)
        ]

    def clear(self) -> None:
        zero = vec.splat(0, "int32", self.isa.lanes)
        for mi, nv in itertools.product(range(self.t.rows), range(self.t.vectors)):
            for column in range(0, self.t.lanes, self.isa.lanes):
                to = self.site.target.at(mi=mi, nv=nv, tail=[column])
                vec.store(self.site.target.buffer, to, zero, self.isa.lanes)
