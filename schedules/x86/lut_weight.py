"""The lut_weight algorithm on x86: one schedule for SSE4, AVX2 and AVX-512BW.

    for block of rows
      encode: the bits of its activations           # vptestmb, or a shift and vpmovmskb
      for block of panels, row tile, panel
        tile: lookups, then a transposition         # straight-line, see `lookup_sums`
        y = tile (+ correction)

| knob    | meaning                                                                                |
|---------|----------------------------------------------------------------------------------------|
| digits  | tables of a k group: 2 where the sums of whole codes would not fit a byte              |
| vectors | vectors of rows (one byte each) in the register tile                                   |
| columns | columns of the register tile, of which a panel may be several                          |
| m_block | row tiles of a block; 0: all                                                           |
| n_block | panels of a block; 0: all                                                              |
| outer   | order of the blocks: mn (panels vary fastest); rows are outside                        |
| inner   | order of the tiles in a block: mn or nm                                                |
| left    | copied, or folded: of the folded source (few channels)                                 |
"""

from __future__ import annotations

import itertools
import math

from tvm import IRModule, te, tirx
from tvm.s_tir import Schedule
from tvm.tirx.script import builder as tb

from lpgen.algorithms import lut_weight
from lpgen.algorithms.entry import kernel_entry
from lpgen.algorithms.kernel import Kernel
from lpgen.algorithms.lut_weight import ENTRIES, INPUTS, Definition, Tiling, tables_of
from lpgen.algorithms.reduction import foldable
from lpgen.algorithms.tails import peel_partial_vectors
from lpgen.errors import ScheduleRefused
from lpgen.ops import Conv2d, Dense
from lpgen.schedules.x86 import blocks
from lpgen.schedules.x86 import vectors as vec
from lpgen.schedules.x86.isa import Isa
from lpgen.schedules.x86.lookup_sums import Sums
from lpgen.schedules.x86.lut_sum_space import digit_choices
from lpgen.schedules.x86.microkernel import Index, Site, replace_encode, replace_tile
from lpgen.schedules.x86.narrow import narrow_together
from lpgen.space import Knobs, Space

VECTORS = (1, 2, 3, 4)
TOGETHER = 4
"""Columns that are transposed together."""

LINE = 16
"""Results of a cache line."""


def unfit(op: Dense | Conv2d, isa: Isa) -> str | None:
    """Why the algorithm does not serve the operator."""
    if op.matrix.n == 1 and op.matrix.groups > 1:
        return f"groups={op.matrix.groups} leave one output channel each: a depthwise kernel fits"
    lanes = isa.bits // 8
    if op.matrix.m <= lanes // 2:
        return f"m={op.matrix.m}: rows are bytes of a vector, half of {lanes} would be empty"
    return lut_weight.unfit(op)


def space(op: Dense | Conv2d, isa: Isa) -> Space:
    """All knobs with their choices for `op`."""
    panel, whole = panel_of(op), -(-op.matrix.m // (isa.bits // 8))
    block_knobs = blocks.knobs(whole, op.matrix.n, panel)
    return Space(
        {
            "digits": digit_choices(tables_of(op, 1)),
            "vectors": tuple(v for v in VECTORS if v <= whole),
            "columns": tuple(c for c in range(TOGETHER, panel + 1, TOGETHER) if panel % c == 0),
            **{**block_knobs, "outer": ("mn",)},
            "left": ("copied", "folded") if foldable(op, empty=True) else ("copied",),
        },
        lambda knobs: refusal(op, isa, knobs) is None,
    )


def panel_of(op: Dense | Conv2d) -> int:
    """Columns of a panel: a tile writes whole cache lines of its rows, which are often so far
    apart that they share a set of the L1 cache, and would not stay there for the rest."""
    n = op.matrix.n
    even = -(-n // -(-n // LINE))
    return -(-even // TOGETHER) * TOGETHER


def refusal(op: Dense | Conv2d, isa: Isa, knobs: Knobs) -> str | None:
    """Why the combination is not in the space."""
    vectors, columns = knobs["vectors"], knobs["columns"]
    if columns * vectors * knobs["digits"] + vectors + 2 > isa.registers:
        return f"a tile of {vectors} vectors x {columns} exceeds {isa.registers} registers"
    if not knobs["m_block"] and not knobs["n_block"] and knobs["inner"] == "mn":
        return None  # whatever the shape, one way is left
    return blocks.refusal(op, vectors * isa.bits // 8, panel_of(op), knobs)


def default(op: Dense | Conv2d, isa: Isa) -> Knobs:
    """A good first guess: few instructions, indices that stay in the L2 cache while the tables,
    much larger, are read once."""
    choices = space(op, isa)
    folds = "folded" in choices.knobs["left"]

    def cost(knobs: Knobs) -> tuple:
        t = tiling(op, isa, knobs)
        tables, sums = tables_of(op, t.digits), t.columns * knobs["vectors"] * t.digits
        # vpshufb and vpaddb, of which the first of a chunk needs none.
        lookup = 2 - 1 / tables.lookups
        # Three instructions for two sums of 16 bits, which are in memory where registers run out.
        inside = 3 * sums + knobs["vectors"] + 2 <= isa.registers
        flush = 3 / tables.lookups * (1 if inside else 2)
        loads = 0.25 / knobs["vectors"] + 0.25 / (t.columns * t.digits)
        computed = t.row_tiles * t.rows * t.panels * t.digits * (lookup + flush + loads)
        indices = (knobs["m_block"] or t.row_tiles) * t.rows * op.matrix.k / INPUTS
        order = (indices > 2**20, -indices, knobs["inner"] != "nm", abs(knobs["n_block"] - 8))
        return folds and not t.folded, computed, *order

    return min(choices.enumerate(), key=cost)


def tiling(op: Dense | Conv2d, isa: Isa, knobs: Knobs) -> Tiling:
    """The sizes that the knobs mean for this operator."""
    rows, panel = knobs["vectors"] * isa.bits // 8, panel_of(op)
    return Tiling(
        rows=rows,
        columns=knobs["columns"],
        parts=panel // knobs["columns"],
        digits=knobs["digits"],
        row_tiles=blocks.rounded(-(-op.matrix.m // rows), knobs["m_block"]),
        panels=blocks.rounded(-(-op.matrix.n // panel), knobs["n_block"]),
        folded=knobs["left"] == "folded",
    )


def kernel(op: Dense | Conv2d, isa: Isa, knobs: Knobs) -> Kernel:
    """The scheduled kernel. Raises ScheduleRefused for knobs outside of the space."""
    reason = lut_weight.unfit(op) or refusal(op, isa, knobs)
    if reason:
        raise ScheduleRefused(reason)
    sizes = tiling(op, isa, knobs)
    definition = lut_weight.define(op, sizes)
    sch = Schedule(IRModule({"main": te.create_prim_func(definition.args)}))
    order = blocks.order_blocks(sch, sch.get_sblock("tile"), knobs, copied=True, panels=False)
    sch.compute_at(sch.get_sblock("encode"), order.outer, preserve_unit_loops=True)
    sch.reverse_compute_at(sch.get_sblock("y"), order.tile, preserve_unit_loops=True)
    blocks.copy_out(sch, order, math.gcd(sizes.parts * sizes.columns, isa.lanes), unroll_rows=False)
    func = replace_tile(sch.mod["main"], lambda site: _Tile(definition, knobs, isa, site).tile())
    bits = _Bits(definition, sizes, isa)
    func = replace_encode(func, bits, elements=0, rows=True)
    func = peel_partial_vectors(narrow_together(func, op, isa.lanes))
    layout = definition.with_parameters
    return Kernel(op, kernel_entry(func, op, layout.sections, definition.prologue), layout)


class _Bits:
    """Emits the indices of successive k groups of a tile's rows."""

    def __init__(self, definition: Definition, sizes: Tiling, isa: Isa) -> None:
        self.mask, self.rows = 1 << definition.bit, sizes.rows
        self.widest = isa.bits // 8

    def __call__(self, site: Site, count: int) -> None:
        with tb.serial(0, self.rows) as mi:
            values, done = min(self.widest, 64), 0
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
        # A vector of bools is no operand of a Bind: its number goes through memory of one element.
        number = vec.scratch((1,), f"uint{lanes}")
        tb.buffer_store(
            number, vec.reinterpret(f"uint{lanes}", is_set.astype(f"uint1x{lanes}")), [0]
        )
        for i in range(groups):
            index = (number[0] >> vec.const(INPUTS * i, f"uint{lanes}")).astype("uint8")
            index = index & vec.const(ENTRIES - 1, "uint8")
            tb.buffer_store(site.target.buffer, index, site.target.at(mi=mi, kg=kg + i))


class _Tile(Sums):
    """A table for each column; the bytes of a vector are rows."""

    def __init__(self, definition: Definition, knobs: Knobs, isa: Isa, site: Site) -> None:
        self.columns, self.vectors = knobs["columns"], knobs["vectors"]
        self.parts, self.first = definition.layout.parts, 0
        counts = (self.columns, self.vectors, knobs["digits"])
        super().__init__(site, isa, definition.cut, definition.tables, counts)

    def tile(self) -> None:
        """Emit the whole tile, some columns at a time."""
        if self.parts == 1:
            super().tile()
            return
        with tb.serial(0, self.parts) as part:
            self.first = part * self.columns
            super().tile()

    def table(self, number: int, digit: int, group: tuple) -> tirx.Expr:
        r, s, kg = group
        tables = self.site.sources["tables"]
        at = tables.at(nl=self.first, r=r, s=s, kg=kg, tail=[number, digit, 0])
        return vec.load(tables.buffer, at, self.tables.entries)

    def indices(self, group: tuple, plane: Index) -> list[list]:
        r, s, kg = group
        encode = self.site.sources["encode"]
        starts = [
            encode.at(mi=vector * self.lanes, r=r, s=s, kg=kg) for vector in range(self.vectors)
        ]
        return [[vec.bind(vec.load(encode.buffer, at, self.lanes)) for at in starts]]

    def clear(self) -> None:
        zero = vec.splat(0, "int32", TOGETHER)
        with tb.serial(0, self.lanes * self.vectors) as mi:
            for column in range(0, self.columns, TOGETHER):
                vec.store(self.site.target.buffer, self._place(mi, column), zero, TOGETHER)

    def _place(self, mi: Index, column: int) -> list:
        return self.site.target.at(mi=mi, tail=[self.first + column])

    def widen(self, add: bool) -> None:
        firsts = range(0, self.columns, TOGETHER)
        for vector, first in itertools.product(range(self.vectors), firsts):
            columns = [map(vec.bind, self.wide(first + i, vector)) for i in range(TOGETHER)]
            for i, parts in enumerate(zip(*columns, strict=True)):
                for row, four in self._transposed(list(parts), i):
                    to = self._place(vector * self.lanes + row, first)
                    if add:
                        four = vec.load(self.site.target.buffer, to, TOGETHER) + four
                    vec.store(self.site.target.buffer, to, four, TOGETHER)

    def _transposed(self, columns: list[tirx.Expr], part: int):
        """(row, its columns) for part number `part` of the sums of four columns."""
        lanes = self.isa.lanes
        left, right = (_interleaved(*columns[i : i + 2], 1) for i in (0, 2))
        odd, first = divmod(part * lanes, self.half)
        for upper, pair in enumerate(zip(left, right, strict=True)):
            for quarter, fours in enumerate(_interleaved(*pair, 2)):
                start = upper * lanes // 2 + quarter * lanes // 4
                for i in range(lanes // TOGETHER):
                    # The sums of the even bytes come first, then those of the odd ones.
                    row = 2 * (first + start + i) + odd
                    yield row, vec.shuffle(fours, range(TOGETHER * i, TOGETHER * (i + 1)))


def _interleaved(a: tirx.Expr, b: tirx.Expr, run: int) -> list[tirx.Expr]:
    """The two halves of: `run` lanes of a, `run` of b, ..."""
    lanes = int(a.ty.dtype.lanes)
    order = [
        lane + side * lanes
        for start in range(0, lanes, run)
        for side in (0, 1)
        for lane in range(start, start + run)
    ]
    halves = (order[:lanes], order[lanes:])
    return [vec.bind(vec.joined([a, b], half)) for half in halves]
