"""Generated code of the lut_product algorithm: a register tile, and the places of its tables.

Sums grow in three steps, each as long as it is exact (`weights.tables`). Bytes are widened in
place: 16 bits of neighbouring bytes are even + 256 * odd, and

    both += bytes as 16 bits        odd += bytes as 16 bits >> 8

gather their sums with no mask; in the end even = both - 256 * odd, modulo 2^16.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from tvm import tirx
from tvm.sym import Analyzer
from tvm.tirx.script import builder as tb

from lpgen.algorithms.lhs.k_split import KSplit
from lpgen.algorithms.lut_product import Tiling
from lpgen.algorithms.weights.tables import ENTRIES, Tables
from lpgen.isa import Isa
from lpgen.tir import vectors as v
from lpgen.tir.microkernel import Site, for_k_steps

LOOKUPS = 128
"""About how many lookups stand in straight-line code."""

PLACES = 16
"""k steps that are encoded by one vector."""


@dataclass
class LookupTile:
    """Emits one register tile."""

    isa: Isa
    tiling: Tiling
    cut: KSplit
    tables: Tables
    both: tirx.Var | None = field(default=None, init=False)
    odd: tirx.Var | None = field(default=None, init=False)
    rows: list[list[tirx.Var]] = field(default_factory=list, init=False)

    def emit(self, site: Site) -> None:
        """Emit the tile in place of its block: sums of all k steps into the tile's buffer."""
        t, half = self.tiling, self.tiling.lanes // 2
        shape = (t.rows, t.vectors, len(self.tables.shifts), half)
        self.both, self.odd = v.scratch(shape, "uint16"), v.scratch(shape, "uint16")
        self.rows = [
            [v.bind(index) for index in site.sources["encode"].at(mi=row)] for row in range(t.rows)
        ]
        least = self.tables.least * self.cut.steps
        for row, vector in self._places():
            start = site.target.at(mi=row, nv=vector, tail=(0,))
            v.store(site.target.buffer, start, v.splat(least, "int32", t.lanes), t.lanes)
        self._blocks(lambda groups: self._look_up(site, groups), lambda: self._add(site))

    def _places(self) -> list[tuple[int, int]]:
        return [(i, j) for i in range(self.tiling.rows) for j in range(self.tiling.vectors)]

    @property
    def _size(self) -> int:
        """k steps in straight-line code, an even number: as many as the bytes of some part hold,
        as far as that is not too long."""
        room = LOOKUPS // (self.tiling.rows * self.tiling.vectors * len(self.tables.shifts))
        return max(2, min(max(self.tables.steps), room, self.tables.longest) // 2 * 2)

    def _blocks(self, body: Callable[[list[tuple]], None], flush: Callable[[], None]) -> None:
        """Emit `body` for all k steps and `flush` as often as the 16-bit sums need it, the first
        k step of every body an even one of its run, or the run's number known."""
        c, size = self.cut, self._size
        longest = self.tables.longest // size * size

        def part(extents: tuple, place: Callable[[tuple], tuple]) -> None:
            self._zero()
            for_k_steps(extents, size, lambda groups: body([place(group) for group in groups]))
            flush()

        if c.steps <= longest:
            part((c.r, c.s, c.kg), lambda group: group)
            return
        with tb.serial(0, c.r) as r:
            if c.s * c.kg <= longest:
                part((1, c.s, c.kg), lambda group: (r, *group[1:]))
                return
            with tb.serial(0, c.s) as s:
                whole = c.kg // longest
                if whole:
                    with tb.serial(0, whole) as block:
                        first = block * longest
                        part((1, 1, longest), lambda group: (r, s, first + group[2]))
                if c.kg % longest:
                    rest = c.kg % longest
                    part((1, 1, rest), lambda group: (r, s, whole * longest + group[2]))

    def _zero(self) -> None:
        half = self.tiling.lanes // 2
        for row, vector in self._places():
            for part in range(len(self.tables.shifts)):
                for sums in (self.both, self.odd):
                    v.store(sums, (row, vector, part, 0), v.splat(0, "uint16", half), half)

    def _look_up(self, site: Site, groups: list[tuple]) -> None:
        """Add the entries of some k steps to byte sums, and those to the 16-bit sums."""
        t, lanes, tables = self.tiling, self.tiling.lanes, self.tables
        nibbles = _Nibbles(site, t)
        sums: dict[tuple[int, int, int], tirx.Var] = {}
        for step, (r, s, kg) in enumerate(groups):
            at = {"r": r, "s": s, "kg": kg}
            index = [nibbles.load(at, vector, step) for vector in range(t.vectors)]
            encode, contents = site.sources["encode"], site.sources["tables"].buffer
            # Indices are sums of what depends on the row, with a convolution's divisions, and on
            # the k step: taken apart, TVM's analysis of regions is done three times as fast.
            simple = Analyzer().canonical_simplify
            distance = [simple(a - b) for a, b in zip(encode.at(**at), encode.at(), strict=True)]
            for row in range(t.rows):
                where = [a + b for a, b in zip(self.rows[row], distance, strict=True)]
                place = encode.buffer[tuple(where)].astype("int32")
                for part in range(len(tables.shifts)):
                    table = v.load(contents, (place + part * ENTRIES,), ENTRIES)
                    table = v.bind(v.repeat(table, ENTRIES, lanes // ENTRIES))
                    for vector in range(t.vectors):
                        key = row, vector, part
                        found = self.isa.lookup16(table, index[vector])
                        sums[key] = v.bind(sums[key] + found if key in sums else found)
            for part, most in enumerate(tables.steps):
                if (step + 1) % most == 0 or step + 1 == len(groups):
                    self._widen(part, sums)

    def _widen(self, part: int, sums: dict) -> None:
        """Move the byte sums of a part to its 16-bit sums."""
        half = self.tiling.lanes // 2
        for row, vector in self._places():
            pairs = v.bind(v.reinterpret(f"uint16x{half}", sums.pop((row, vector, part))))
            to = row, vector, part, 0
            odd = pairs >> v.splat(8, "uint16", half)
            v.store(self.both, to, v.load(self.both, to, half) + pairs, half)
            v.store(self.odd, to, v.load(self.odd, to, half) + odd, half)

    def _add(self, site: Site) -> None:
        """Add the 16-bit sums to the tile."""
        half = self.tiling.lanes // 2
        for row, vector in self._places():
            totals = [v.splat(0, "uint32", half)] * 2
            for part, shift in enumerate(self.tables.shifts):
                where = row, vector, part, 0
                odd = v.bind(v.load(self.odd, where, half))
                eight = v.splat(8, "uint16", half)
                even = v.bind(v.load(self.both, where, half) - (odd << eight))
                for i, sums in enumerate((even, odd)):
                    wide = sums.astype(f"uint32x{half}") << v.splat(shift, "uint32", half)
                    totals[i] = totals[i] + wide
            for i, total in enumerate(totals):
                to = site.target.at(mi=row, nv=vector, tail=(i * half,))
                # Signed: TVM says of unsigned sums that they do not wrap, and a negative one would.
                old = v.load(site.target.buffer, to, half)
                new = old + v.reinterpret(f"int32x{half}", total)
                v.store(site.target.buffer, to, new, half)


class _Nibbles:
    """The nibbles of a body's k steps; a byte that two of them share is loaded once."""

    def __init__(self, site: Site, tiling: Tiling) -> None:
        self.weights, self.tiling = site.sources["nibbles"], tiling
        self.loaded: dict[tuple, tirx.Var] = {}

    def load(self, at: dict, vector: int, step: int) -> tirx.Var:
        """Those of the k step `at`, number `step` of the body."""
        lanes = self.tiling.lanes
        where = self.weights.at(nv=vector, tail=(0,), **at)
        if not self.tiling.packed:
            return v.bind(v.load(self.weights.buffer, where, lanes))
        kg = at["kg"]
        high = (kg if isinstance(kg, int) else step) % 2
        # Bodies start at even k steps where these are no plain numbers.
        key = vector, str(at["r"]), str(at["s"]), kg // 2 if isinstance(kg, int) else step // 2
        if key not in self.loaded:
            self.loaded[key] = v.bind(v.load(self.weights.buffer, where, lanes))
        byte, fifteen = self.loaded[key], v.splat(15, "uint8", lanes)
        return v.bind(byte >> v.splat(4, "uint8", lanes) if high else byte & fifteen)


def emit_places(tables: Tables, site: Site, count: int) -> None:
    """Emit the stage "encode" for `count` k steps in a row: the place of each one's table."""
    (source,) = site.sources.values()
    kq, base = tables.kq, len(tables.digits)
    word = f"uint{8 * kq}"

    def several(first) -> None:
        *outer, start = source.at(kg=first)
        # Loading the bytes of a k step as a word puts its digits beside each other.
        x = v.bind(v.load(source.buffer, (*outer, start), PLACES * kq))
        digits = v.bind(v.reinterpret(f"{word}x{PLACES}", tables.digit(x, "uint8", PLACES * kq)))
        total = v.splat(0, word, PLACES)
        for t in range(kq):
            digit = digits >> v.splat(8 * t, word, PLACES) & v.splat(255, word, PLACES)
            total = total + digit * v.splat(tables.stride * base**t, word, PLACES)
        where = site.target.at(kg=first)
        v.store(site.target.buffer, where, total.astype(f"uint16x{PLACES}"), PLACES)

    def one(kg) -> None:
        total = v.const(0, "uint16")
        for t in range(kq):
            digit = tables.digit(source.buffer[tuple(source.at(kg=kg, t=t))], "uint16")
            total = total + digit * v.const(tables.stride * base**t, "uint16")
        tb.buffer_store(site.target.buffer, total, site.target.at(kg=kg))

    if count >= PLACES:
        with tb.serial(0, count // PLACES) as i:
            several(i * PLACES)
    if count % PLACES:
        with tb.serial(0, count % PLACES) as i:
            one(count // PLACES * PLACES + i)
