"""The tables of lut_sum: partial sums of activations, made a vector at a time.

A shuffle spreads one activation over those entries of a table whose index has its bit, and zeros
over the others; the sum of such vectors is a table. A large table is the sum of two small ones, of
the low and of the high bits of the index:

    table[i] = low[i & 3] + high[i >> 2]        # 16 entries out of twice 4, for two activations
    table[i] = low[i & 7] + high[i >> 3]        # 64 entries out of twice 8, for three

A vector has as many tables of 16 entries as 128-bit lanes. The lanes are filled so that those are
neighbours in memory: they belong to successive (k step, row, digit), in this order.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx
from tvm.tirx.script import builder as tb

from lpgen.algorithms.lut_sum import Tables
from lpgen.isa import Isa
from lpgen.tir import vectors as vec
from lpgen.tir.microkernel import Index, Site

TABLE = 16
ZERO = 0x80
"""An index whose top bit is set makes vpshufb deliver 0."""


@dataclass(frozen=True)
class TableCode:
    """Emits the tables of successive k steps of `rows` rows, or pairs of rows that share one."""

    tables: Tables
    isa: Isa
    rows: int

    def __call__(self, site: Site, count: int) -> None:
        """Emit the tables of `count` k steps."""
        whole, rest = divmod(count, 4)
        if whole:
            with tb.serial(0, whole) as step:
                self._some(site, step * 4, 4)
        if rest:
            self._some(site, whole * 4, rest)

    def _some(self, site: Site, first: Index, count: int) -> None:
        """The tables of `count` <= 4 k steps."""
        if self.tables.inputs == 4:
            self._tables(site, first, count)
        else:
            for mi in range(self.rows):
                self._large_tables(site, mi, first, count)

    # ---- tables of 16 entries

    def _tables(self, site: Site, first: Index, count: int) -> None:
        """The tables of `count` <= 4 k steps."""
        rows = [self._sixteen(site, mi, first, count) for mi in range(self.rows)]
        places = [
            (kg, mi, digit)
            for kg in range(count)
            for mi in range(self.rows)
            for digit in range(self.tables.digits)
        ]
        lanes = self.isa.bits // 128
        inputs: dict[tuple, tirx.Expr] = {}
        pairs: dict[tuple, tirx.Expr] = {}
        for start in range(0, len(places), lanes):
            lane_of = places[start : start + lanes]
            used = len(lane_of)
            lane_of += lane_of[-1:] * (lanes - used)
            key = tuple(place[1:] for place in lane_of)
            if key not in inputs:
                inputs[key] = self._activations(rows, key)
            halves = tuple(place[0] // 2 for place in lane_of)
            if (key, halves) not in pairs:
                pairs[key, halves] = self._pairs(inputs[key], halves)
            sums = self._sums(pairs[key, halves], [place[0] for place in lane_of])
            kg, mi, digit = lane_of[0]
            to = site.target.at(kg=first + kg, mi=mi, tail=[digit, 0])
            if used < lanes:
                sums = vec.shuffle(vec.bind(sums), range(used * TABLE))
            vec.store(site.target.buffer, to, sums, used * TABLE)

    def _sixteen(self, site: Site, mi: int, first: Index, count: int) -> tirx.Expr:
        """The activations of `count` k steps of a row, and anything up to 16."""
        (source,) = site.sources.values()
        lanes = 4 * count
        some = vec.bind(vec.load(source.buffer, source.at(mi=mi, kg=first), lanes))
        if self.tables.rows > 1:
            other = vec.load(source.buffer, source.at(mi=mi, kg=first, e2=1), lanes)
            some = vec.bind(some | other << vec.splat(4, "uint8", lanes))
        if count == 4:
            return some
        times = -(-TABLE // lanes)
        return vec.bind(tirx.Shuffle([some] * times, [vec.const(i) for i in range(TABLE)]))

    def _activations(self, rows: list[tirx.Expr], key: tuple) -> tirx.Expr:
        """A vector whose 128-bit lanes are the rows (key: row and digit of each lane)."""
        lanes = len(key)
        if len({mi for mi, _ in key}) == 1:
            vector = vec.bind(vec.repeat(rows[key[0][0]], TABLE, lanes))
        else:
            places = [vec.const(i) for i in range(TABLE * lanes)]
            vector = vec.bind(tirx.Shuffle([rows[mi] for mi, _ in key], places))
        return vector if self.tables.digits == 1 else self._split(vector, [d for _, d in key])

    def _split(self, vector: tirx.Expr, digits: list[int]) -> tirx.Expr:
        """The digits of activations, for each 128-bit lane its own."""
        lanes = len(digits)
        shifts = [digit * self.tables.shift for digit in digits for _ in range(4)]
        words = vec.reinterpret(f"uint32x{4 * lanes}", vector)
        if any(shifts):
            words = words >> vec.constants(shifts, "uint32")
        mask = vec.splat(2**self.tables.shift - 1, "uint8", TABLE * lanes)
        return vec.bind(vec.reinterpret(f"uint8x{TABLE * lanes}", words) & mask)

    def _pairs(self, activations: tirx.Expr, halves: tuple[int, ...]) -> tirx.Expr:
        """In every 128-bit lane the tables of 4 entries of the pairs of two k steps: the first or
        the second half of the lane's four."""
        parts = []
        for t in range(2):
            spread = [
                8 * half + 2 * pair + t if entry >> t & 1 else ZERO
                for half in halves
                for pair in range(4)
                for entry in range(4)
            ]
            parts.append(self._lookup(activations, spread))
        return vec.bind(sum_of(parts))

    def _sums(self, pairs: tirx.Expr, groups: list[int]) -> tirx.Expr:
        """The tables of these k steps, one in each lane."""
        low = [group % 2 * 8 + (entry & 3) for group in groups for entry in range(TABLE)]
        high = [group % 2 * 8 + 4 + (entry >> 2) for group in groups for entry in range(TABLE)]
        return sum_of([self._lookup(pairs, low), self._lookup(pairs, high)])

    def _lookup(self, table: tirx.Expr, places: list[int]) -> tirx.Expr:
        return self.isa.lookup16(table, vec.constants(places, "uint8"))

    # ---- tables of 64 entries

    def _large_tables(self, site: Site, mi: int, first: Index, count: int) -> None:
        """The tables of `count` <= 4 k steps of a row: sums of two tables of 8 entries each, one
        for the low three bits of an index and one for the high ones."""
        lanes = 6 * count
        (source,) = site.sources.values()
        some = vec.bind(vec.load(source.buffer, source.at(mi=mi, kg=first), lanes))
        # A group in every 128-bit lane, and anything behind its six values.
        places = [min(6 * lane + i, lanes - 1) for lane in range(4) for i in range(TABLE)]
        times = -(-4 * TABLE // lanes)
        vector = vec.bind(tirx.Shuffle([some] * times, [vec.const(place) for place in places]))
        for digit in range(self.tables.digits):
            own = self._split(vector, [digit] * 4) if self.tables.digits > 1 else vector
            halves = self._eights(own)
            for group in range(count):
                table = sum_of(self._spread(halves, group))
                to = site.target.at(kg=first + group, mi=mi, tail=[digit, 0])
                vec.store(site.target.buffer, to, table, 64)

    def _eights(self, groups: tirx.Expr) -> tirx.Expr:
        """In every 128-bit lane the two tables of 8 entries of its group."""
        parts = []
        for t in range(3):
            spread = [half + t if entry >> t & 1 else ZERO for half in (0, 3) for entry in range(8)]
            parts.append(self._lookup(groups, spread * 4))
        return vec.bind(sum_of(parts))

    def _spread(self, halves: tirx.Expr, group: int) -> list[tirx.Expr]:
        low = [TABLE * group + (entry & 7) for entry in range(64)]
        high = [TABLE * group + 8 + (entry >> 3) for entry in range(64)]
        return [self.isa.lookup64(halves, vec.constants(places, "uint8")) for places in (low, high)]


def sum_of(parts: list[tirx.Expr]) -> tirx.Expr:
    """Pairs first: a short chain."""
    while len(parts) > 1:
        pairs = [sum(parts[i + 1 : i + 2], parts[i]) for i in range(0, len(parts), 2)]
        parts = pairs
    return parts[0]
