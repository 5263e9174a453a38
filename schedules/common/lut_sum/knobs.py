"""The knobs of the lut_sum algorithm, which combinations are valid, and their work.

| knob    | meaning                                                                                |
|---------|----------------------------------------------------------------------------------------|
| inputs  | activations that a table sums: 4 (vpshufb) or 6 (vpermb)                               |
| digits  | tables of a k step: 2 where the sums of whole activations would not fit a byte, or    |
|         | would not for long                                                                     |
| rows    | rows of the register tile                                                              |
| shared  | rows that share a table, 1 or 2; where it is not there, 1                              |
| vectors | vectors of output columns (one byte each) in the register tile                         |
| m_block | row tiles of a block; 0: all                                                           |
| n_block | panels of a block; 0: all                                                              |
| outer   | order of the blocks: mn (panels vary fastest) or nm                                    |
| inner   | order of the tiles in a block, the same way                                            |
| left    | direct: a table for every pixel, used by all taps; inside: the same, and taps in the   |
|         | padding are left out; copied: tables in tile order, for a block of rows at a time;     |
|         | folded: the same of the folded source (few channels)                                   |
| expand  | where the packed indices are taken apart: panel (a block's, once, into the cache) or   |
|         | register (each use)                                                                    |
| prefetch| bytes of indices to ask for in advance, 0: none (few rows, whose weights stream by)    |
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache

from lpgen.algorithms.depthwise import one_channel_each
from lpgen.algorithms.lhs.encode import AT_SOURCE
from lpgen.algorithms.lhs.k_split import foldable
from lpgen.algorithms.lhs.view import is_matrix, line
from lpgen.algorithms.lut_sum import PACK, Tables, Tiling, k_split_of, offset_of, tables_of
from lpgen.isa import Isa
from lpgen.ops import Conv2d, Dense
from lpgen.schedules.common import blocks, inside
from lpgen.schedules.common.cuts import cuts, fits
from lpgen.space import Counts, Knobs, Space

ROWS = (1, 2, 3, 4, 6, 8, 12)
VECTORS = (1, 2, 3, 4)
STREAMED = 8
"""Rows up to which weights stream by, used too rarely to stay in a cache."""


def lanes_of(isa: Isa) -> int:
    """Columns of a vector: bytes."""
    return isa.bits // 8


def tiling(op: Dense | Conv2d, isa: Isa, knobs: Knobs) -> Tiling:
    """The sizes that the knobs mean for this operator."""
    lanes = lanes_of(isa)
    rows, vectors = knobs["rows"], knobs["vectors"]
    unpacked = knobs["expand"] == "panel"
    return Tiling(
        rows=rows,
        vectors=vectors,
        lanes=lanes,
        inputs=knobs["inputs"],
        digits=knobs["digits"],
        **blocks.counts(op, rows, vectors * lanes, knobs),
        left=knobs["left"],
        unpacked=unpacked,
        multiple=1 if unpacked else PACK[knobs["inputs"]][0],
        table_rows=knobs.get("shared", 1),
    )


def space(op: Dense | Conv2d, isa: Isa) -> Space:
    """All knobs with their choices for `op`."""
    m, n = op.matrix.m, op.matrix.n
    known = (entries.bit_length() - 1 for entries in isa.tables)
    inputs = tuple(bits for bits in known if bits in PACK)
    folded = ("folded",) if foldable(op, empty=True) else ()
    return Space(
        {
            "inputs": inputs,
            "digits": tuple(
                sorted({d for i in inputs for d in digit_choices(tables_of(op, i, 1))})
            ),
            "rows": tuple(sorted({*_heights(m), *_lines(op)})),
            **({"shared": (1, 2)} if sharing(op, isa) else {}),
            "vectors": tuple(_vectors(n, lanes_of(isa))),
            **blocks.knobs(m, n, lanes_of(isa)),
            "left": (*(AT_SOURCE if _lines(op) else AT_SOURCE[:1]), "copied", *folded),
            "expand": ("panel", "register"),
            "prefetch": (0, 1024, 4096, 8192) if m <= STREAMED else (0,),
        },
        lambda knobs: refuses(op, isa, knobs) is None,
    )


@lru_cache(maxsize=256)
def _heights(m: int) -> tuple[int, ...]:
    """Tile heights that waste little of the last tile."""
    return tuple(cuts(m, ROWS))


def _lines(op: Dense | Conv2d) -> tuple[int, ...]:
    """Tile heights that may leave out the padding, if that adds nothing."""
    return inside.tile_rows(op, ROWS[-1]) if offset_of(op) + op.zero_act == 0 else ()


def sharing(op: Dense | Conv2d, isa: Isa) -> bool:
    """Whether two rows may share a table: half a byte holds its entries, and one instruction takes
    it out."""
    return isa.shifts_bytes and op.matrix.m > 1 and tables_of(op, 4, 1).most(0) < 2**4


def digit_choices(whole: Tables) -> tuple[int, ...]:
    """Digits whose sums fit a byte; two may pay where one leaves room for few lookups.

    whole: the tables of one digit.
    """
    if whole.most(0) > 255:
        return (2,)
    return (1,) if whole.lookups > 2 else (1, 2)


def _vectors(n: int, lanes: int) -> Iterator[int]:
    """Tile widths that waste little of the last panel."""
    whole = -(-n // lanes)
    for vectors in VECTORS:
        if fits(whole, vectors):
            yield vectors


def why_not(op: Dense | Conv2d, isa: Isa) -> str | None:
    """Why the algorithm does not serve the operator: the values of a code book are no sums of
    their bits, one column per group wastes a vector."""
    if op.weight.book:
        return "weights of a code book are no sums of bits"
    return one_channel_each(op)


def refuses(op: Dense | Conv2d, isa: Isa, knobs: Knobs) -> str | None:
    """Why the combination is not in the space: it cannot be scheduled, does the same as another
    combination, or cannot be any good."""
    rows, vectors = knobs["rows"], knobs["vectors"]
    inputs, digits = knobs["inputs"], knobs["digits"]
    if digits not in digit_choices(tables_of(op, inputs, 1)):
        return f"tables of {inputs} inputs: {digits} digits are too many or too few"
    unit, shared = 1 if knobs["expand"] == "panel" else PACK[inputs][0], knobs.get("shared", 1)
    if shared > 1 and (unshared := _unshared(op, knobs)):
        return unshared
    looked_up = rows * vectors * (shared - 1) // 2
    if rows * vectors * digits + looked_up + unit * vectors + 2 > isa.registers:
        return f"a tile of {rows} x {vectors} vectors exceeds {isa.registers} registers"
    if tables_of(op, inputs, digits).longest < unit:
        return f"16 bits do not hold the sums of the {unit} k steps that share a byte"
    if reason := inside.misplaced(op, knobs["left"], rows, _heights(op.matrix.m), _lines(op)):
        return reason
    if knobs["left"] not in AT_SOURCE and knobs["outer"] == "nm":
        return "tables in tile order are made for blocks of rows: these are outside"
    if knobs["expand"] == "panel":
        if knobs["prefetch"]:
            return "panels are unpacked in one sweep, which the hardware prefetches"
        if knobs["outer"] == "mn" and knobs["m_block"] and knobs["n_block"]:
            return "panels would be unpacked for every block of rows"
    return blocks.refuses(op, rows, vectors * lanes_of(isa), knobs)


def _unshared(op: Dense | Conv2d, knobs: Knobs) -> str | None:
    """Why rows of the tile cannot share tables in pairs, or None."""
    if knobs["rows"] % 2 or knobs["inputs"] != 4 or knobs["digits"] > 1:
        return f"{knobs['rows']} rows x {knobs['digits']} digits are no pairs that share tables"
    if knobs["left"] in AT_SOURCE and line(op) % 2 and not is_matrix(op):
        return f"lines of {line(op)} pixels are no pairs that share tables"
    return None


def work(op: Dense | Conv2d, isa: Isa, knobs: Knobs) -> Counts:
    """What a kernel with these knobs does (`Template.work`)."""
    t = tiling(op, isa, knobs)
    tables = tables_of(op, t.inputs, t.digits, t.table_rows)
    c = k_split_of(op, t.left, t.inputs, t.multiple)
    matrix, planes = op.matrix, op.weight.bits
    tiles = matrix.groups * t.row_tiles * t.panels
    sums = t.rows * t.vectors * t.digits
    # Rows of the kernel are left out as a whole, columns for a part of the tile.
    lines, pixels = inside.shares(op) if t.left == "inside" else (1, 1)
    lookups = tiles * c.steps * planes * sums / tables.rows * lines * pixels
    # Lookups in half a byte are added up as such, and then the halves.
    added = 1 if tables.rows == 1 else 1 + 1 / tables.together
    # Sums of 16 bits are in memory where registers run out.
    fit = 3 * sums + 4 <= isa.registers
    indices = tiles * c.steps * planes * t.vectors
    size = tables.entries * t.digits
    if t.left in AT_SOURCE:
        made = math.prod(op.x_shape) / t.inputs / (tables.rows if is_matrix(op) else 1)
    else:
        made = matrix.groups * t.row_tiles * t.rows * c.steps / tables.rows
    places = matrix.groups * matrix.n * c.steps * planes / lanes_of(isa)
    sweeps = t.row_tiles / (knobs["m_block"] or t.row_tiles) if knobs["outer"] == "mn" else 1
    byte = 1.0 if t.unpacked else PACK[t.inputs][1] / PACK[t.inputs][0]
    return {
        "products": lookups,
        "adders": lookups * (added - 1 / tables.lookups),
        "flush": lookups * tables.rows / tables.lookups * fit,
        "spilled": lookups * tables.rows / tables.lookups * (not fit),
        "unpack": indices * (not t.unpacked),
        "indices": indices * t.unpacked,
        "loads": tiles * c.steps * planes * t.rows * t.digits / tables.rows,
        "expand": places * sweeps * t.unpacked,
        "copy": made * size / 16,
        "tiles": tiles,
        "runs": tiles * c.r * c.s * planes,
        "wraps": tiles * c.r * c.s * blocks.wraps(op, t.rows, t.left),
        "stores": tiles * t.rows * t.vectors * 4,
        **blocks.traffic(
            op,
            knobs,
            t.row_tiles,
            t.panels,
            t.rows * c.steps * size / tables.rows,
            t.vectors * t.lanes * c.steps * planes * byte,
            isa.target,
        ),
    }
