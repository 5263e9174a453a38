"""The lut_weight algorithm: one schedule for every Isa.

    for block of rows
      encode: the bits of its activations           # vptestmb, or a shift and vpmovmskb
      for block of panels, row tile, panel
        tile: lookups, then a transposition         # straight-line, see `lookup_sums`
        y = tile (+ compensation)

| knob    | meaning                                                                                |
|---------|----------------------------------------------------------------------------------------|
| digits  | tables of a k step: 2 where the sums of whole codes would not fit a byte              |
| vectors | vectors of rows (one byte each) in the register tile                                   |
| columns | columns of the register tile, of which a panel may be several                          |
| m_block | row tiles of a block; 0: all                                                           |
| n_block | panels of a block; 0: all                                                              |
| outer   | order of the blocks: mn (panels vary fastest); rows are outside                        |
| inner   | order of the tiles in a block: mn or nm                                                |
| left    | copied, or folded: of the folded source (few channels)                                 |
| prefetch| panels whose tables are asked for in advance: 0 or 1                                   |
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from tvm import tirx
from tvm.tirx.script import builder as tb

from lpgen.algorithms import lut_weight
from lpgen.algorithms.depthwise import one_channel_each
from lpgen.algorithms.kernel import Kernel
from lpgen.algorithms.lhs.k_split import foldable
from lpgen.algorithms.lut_weight import ENTRIES, INPUTS, TableWeights, Tiling, tables_of
from lpgen.errors import refuse
from lpgen.isa import Isa
from lpgen.ops import Conv2d, Dense
from lpgen.schedules.common import blocks
from lpgen.schedules.common.cuts import fits
from lpgen.schedules.common.finish import finished
from lpgen.schedules.common.lookup_sums import Box, Sums
from lpgen.schedules.common.lut_sum.knobs import digit_choices
from lpgen.space import Counts, Knobs, Space
from lpgen.tir import vectors as vec
from lpgen.tir.microkernel import Index, Site, replace_encode, replace_tile
from lpgen.tir.prefetch import hint
from lpgen.tir.transpose import WORDS, transposed

VECTORS = (1, 2)
COLUMNS = (4, 8, 16)
LINE = 16
"""Results of a cache line."""


def why_not(op: Dense | Conv2d, isa: Isa) -> str | None:
    """Why the algorithm does not serve the operator."""
    reason = one_channel_each(op)
    if reason:
        return reason
    lanes = isa.bits // 8
    if op.matrix.m <= lanes // 2:
        return f"m={op.matrix.m}: rows are bytes of a vector, half of {lanes} would be empty"
    if op.weight.bits == 1:
        return f"weight={op.weight}: one bit is an index itself, of smaller tables (lut_sum)"
    return lut_weight.why_not(op)


def space(op: Dense | Conv2d, isa: Isa) -> Space:
    """All knobs with their choices for `op`."""
    panel, whole = panel_of(op), -(-op.matrix.m // (isa.bits // 8))
    block_knobs = blocks.knobs(whole, op.matrix.n, panel)
    return Space(
        {
            "digits": digit_choices(tables_of(op, 1)),
            "vectors": tuple(v for v in VECTORS if v <= whole),
            "columns": tuple(c for c in COLUMNS if c <= panel),
            **{**block_knobs, "outer": ("mn",)},
            "left": ("copied", "folded") if foldable(op, empty=True) else ("copied",),
            "prefetch": (0, 1) if -(-op.matrix.n // panel) > 1 else (0,),
        },
        lambda knobs: refuses(op, isa, knobs) is None,
    )


def panel_of(op: Dense | Conv2d) -> int:
    """Columns of a panel: a tile writes whole cache lines of its rows, which are often so far
    apart that they share a set of the L1 cache, and would not stay there for the rest."""
    n = op.matrix.n
    return LINE if fits(n, LINE) else WORDS


def refuses(op: Dense | Conv2d, isa: Isa, knobs: Knobs) -> str | None:
    """Why the combination is not in the space."""
    vectors, columns = knobs["vectors"], knobs["columns"]
    if columns * vectors * knobs["digits"] + vectors + 2 > isa.registers:
        return f"a tile of {vectors} vectors x {columns} exceeds {isa.registers} registers"
    if not knobs["m_block"] and not knobs["n_block"] and knobs["inner"] == "mn":
        return None  # whatever the shape, one way is left
    return blocks.refuses(op, vectors * isa.bits // 8, panel_of(op), knobs)


def work(op: Dense | Conv2d, isa: Isa, knobs: Knobs) -> Counts:
    """What a kernel with these knobs does (`Template.work`)."""
    t, matrix = tiling(op, isa, knobs), op.matrix
    tables, sums = tables_of(op, t.digits), t.columns * knobs["vectors"] * t.digits
    groups = -(-matrix.k // INPUTS)
    tiles = matrix.groups * t.row_tiles * t.panels
    lookups = tiles * t.parts * groups * sums
    # Sums of 16 bits are in memory where registers run out.
    inside = 3 * sums + knobs["vectors"] + 2 <= isa.registers
    table = ENTRIES * t.digits * groups
    return {
        "products": lookups,
        "adders": lookups * (1 - 1 / tables.lookups),
        "flush": lookups / tables.lookups * inside,
        "spilled": lookups / tables.lookups * (not inside),
        "indices": tiles * t.parts * groups * knobs["vectors"],
        "loads": tiles * t.parts * groups * t.columns * t.digits,
        "copy": matrix.groups * t.row_tiles * t.rows * groups,
        "tiles": tiles,
        "runs": tiles * t.parts,
        "stores": tiles * t.rows * panel_of(op) / isa.lanes,
        **blocks.traffic(
            op, knobs, t.row_tiles, t.panels, t.rows * groups, panel_of(op) * table, isa.target
        ),
    }


def tiling(op: Dense | Conv2d, isa: Isa, knobs: Knobs) -> Tiling:
    """The sizes that the knobs mean for this operator."""
    rows, panel = knobs["vectors"] * isa.bits // 8, panel_of(op)
    return Tiling(
        rows=rows,
        lanes=panel,
        columns=knobs["columns"],
        digits=knobs["digits"],
        **blocks.counts(op, rows, panel, knobs),
        folded=knobs["left"] == "folded",
    )


def kernel(op: Dense | Conv2d, isa: Isa, knobs: Knobs) -> Kernel:
    """The scheduled kernel. Raises ScheduleRefused for knobs outside of the space."""
    refuse(lut_weight.why_not(op) or refuses(op, isa, knobs))
    sizes = tiling(op, isa, knobs)
    definition = lut_weight.define(op, sizes)
    sch = definition.schedule()
    order = blocks.order_blocks(sch, sch.get_sblock("tile"), knobs, copied=True, panels=False)
    blocks.place_rows(sch, sch.get_sblock("encode"), order)
    sch.reverse_compute_at(sch.get_sblock("y"), order.tile, preserve_unit_loops=True)
    blocks.copy_out(sch, order, math.gcd(sizes.lanes, isa.lanes), unroll_rows=False)
    weights = definition.weights
    func = replace_tile(sch.mod["main"], lambda site: _Tile(weights, knobs, isa, site).tile())
    bits = _Bits(lut_weight.bit_of(op), sizes.rows, isa)
    func = replace_encode(func, bits, elements=0, rows=True)
    return finished(func, definition, isa=isa)


class _Bits:
    """Emits the indices of successive k steps of a tile's rows."""

    def __init__(self, bit: int, rows: int, isa: Isa) -> None:
        self.mask, self.rows, self.isa = 1 << bit, rows, isa

    def __call__(self, site: Site, count: int) -> None:
        with tb.serial(0, self.rows) as mi:
            values, done = min(self.isa.bits // 8, 64), 0
            while done < count:
                groups = values // INPUTS
                whole = (count - done) // groups
                if whole > 1:
                    with tb.serial(0, whole) as i:
                        self._bytes(site, mi, done + i * groups, groups)
                elif whole:
                    self._bytes(site, mi, done, groups)
                done += whole * groups
                values //= 2

    def _bytes(self, site: Site, mi: Index, kg: Index, groups: int) -> None:
        (source,) = site.sources.values()
        lanes = groups * INPUTS
        x = vec.bind(vec.load(source.buffer, source.at(mi=mi, kg=kg), lanes))
        is_set = tirx.NE(x & vec.splat(self.mask, "uint8", lanes), vec.splat(0, "uint8", lanes))
        bits = max(32, lanes)
        number = self.isa.bits_to_word(is_set, lanes, bits)
        for i in range(groups):
            index = (number >> vec.const(INPUTS * i, f"uint{bits}")).astype("uint8")
            index = index & vec.const(ENTRIES - 1, "uint8")
            tb.buffer_store(site.target.buffer, index, site.target.at(mi=mi, kg=kg + i))


class _Tile(Sums):
    """A table for each column; the bytes of a vector are rows."""

    def __init__(self, weights: TableWeights, knobs: Knobs, isa: Isa, site: Site) -> None:
        self.columns, self.vectors = knobs["columns"], knobs["vectors"]
        self.prefetch = knobs["prefetch"]
        self.parts, self.panel = weights.parts, weights.panel
        self.first: Index = 0
        counts = (self.columns, self.vectors, knobs["digits"])
        super().__init__(site, isa, weights.cut, weights.tables, counts)
        shape = (knobs["digits"], self.panel, self.vectors, 2, self.half)
        self.words = vec.scratch(shape, "uint16")
        """The sums of the even rows of each vector, and of the odd ones."""

    def block(self, parts: Sequence[tuple[Box, range]], add: bool) -> None:
        """The sums of some k steps, some columns at a time, then all of them transposed."""
        with tb.serial(0, self.parts) as part:
            self.first = part * self.columns
            super().block(parts, add)
        self._transpose()
        self._add_up(add)

    def table(self, number: int, digit: int, group: tuple) -> tirx.Expr:
        r, s, kg = group
        tables = self.site.sources["tables"]
        at = tables.at(nl=self.first, r=r, s=s, kg=kg, tail=[number, digit, 0])
        if self.prefetch and (number * self.counts[2] + digit) % (64 // ENTRIES) == 0:
            panel = self.cut.steps * self.panel * self.counts[2] * ENTRIES
            tb.add_to_parent(hint(tables.buffer[(*at[:-1], panel * self.prefetch)]))
        return vec.load(tables.buffer, at, self.tables.entries)

    def indices(self, group: tuple, plane: Index) -> list[list]:
        r, s, kg = group
        encode = self.site.sources["encode"]
        starts = [
            encode.at(mi=vector * self.lanes, r=r, s=s, kg=kg) for vector in range(self.vectors)
        ]
        return [[vec.bind(vec.load(encode.buffer, at, self.lanes)) for at in starts]]

    def clear(self) -> None:
        zero = vec.splat(0, "int32", WORDS)
        with tb.serial(0, self.lanes * self.vectors) as mi:
            for column in range(0, self.panel, WORDS):
                vec.store(self.site.target.buffer, self._place(mi, column), zero, WORDS)

    def _place(self, mi: Index, column: int) -> list:
        return self.site.target.at(mi=mi, tail=[column])

    def widen(self, add: bool) -> None:
        for number, vector, digit in self.places:
            for odd, part in enumerate(self.halves((number, vector, digit))):
                where = (digit, self.first + number, vector, odd, 0)
                vec.store(self.words, where, part, self.half)

    def _transpose(self) -> None:
        """In 128 bits of eight columns, eight rows each, put eight rows, the columns of each."""
        outer = (self.counts[2], self.panel // WORDS, self.vectors, 2)
        with tb.grid(*outer) as (digit, eight, vector, odd):
            places = [(digit, eight * WORDS + i, vector, odd, 0) for i in range(WORDS)]
            columns = [vec.bind(vec.load(self.words, place, self.half)) for place in places]
            for place, row in zip(places, transposed(columns), strict=True):
                vec.store(self.words, place, row, self.half)

    def _add_up(self, add: bool) -> None:
        """Store what was transposed as int32, or add it."""
        digits = range(self.counts[2])
        outer = (self.vectors, 2, self.half // WORDS)
        with tb.grid(*outer) as (vector, odd, eight):
            for row, column in itertools.product(range(WORDS), range(0, self.panel, WORDS)):
                to = self._place(vector * self.lanes + (eight * WORDS + row) * 2 + odd, column)
                total = vec.load(self.site.target.buffer, to, WORDS) if add else None
                for digit in digits:
                    place = (digit, column + row, vector, odd, eight * WORDS)
                    part = vec.load(self.words, place, WORDS).astype(f"int32x{WORDS}")
                    part = part << vec.splat(digit * self.tables.shift, "int32", WORDS)
                    total = part if total is None else total + part
                vec.store(self.site.target.buffer, to, total, WORDS)
