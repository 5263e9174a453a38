"""The lut_product algorithm: products looked up in tables of 16 bytes.

Inside the blocks (see `blocks`), for every register tile:

    for k steps                                      # as many as a byte holds, straight-line
      for row: table = the 16 bytes that the row's activations chose, in every 128-bit lane
        for vector: bytes[row, vector] += vpshufb(table, nibbles[vector])
    widen the bytes to 16 bits, those to 32, and write y

| knob    | meaning                                                                                |
|---------|----------------------------------------------------------------------------------------|
| rows    | rows of the register tile                                                              |
| vectors | vectors of output columns in the register tile, one byte lane for a column             |
| weights | packed: two k steps share a byte; bytes: one has it alone (twice the memory)          |
| m_block, n_block, outer, inner: see `lpgen.schedules.common.dot.knobs`
"""

import math
from collections.abc import Iterator
from functools import lru_cache, partial

from lpgen.algorithms import lut_product
from lpgen.algorithms.depthwise import one_channel_each
from lpgen.algorithms.kernel import Kernel
from lpgen.algorithms.lhs.k_split import cut
from lpgen.algorithms.weights.tables import TABLE_BYTES, Tables
from lpgen.errors import refuse
from lpgen.isa import Isa
from lpgen.ops import Conv2d, Dense
from lpgen.schedules.common import blocks
from lpgen.schedules.common.finish import finished
from lpgen.schedules.common.lut_product.tile import LookupTile, emit_places
from lpgen.space import Counts, Knobs, Space
from lpgen.tir.microkernel import replace_encode, replace_tile

ROWS = (1, 2, 3, 4, 5, 6, 8)
VECTORS = (1, 2, 3, 4, 6, 8)


tables_of = lru_cache(maxsize=64)(Tables)


def lanes(isa: Isa) -> int:
    """Columns of a vector."""
    return isa.bits // 8


def why_not(op: Dense | Conv2d, isa: Isa) -> str | None:
    """Why the algorithm does not serve the operator."""
    if op.weight.bits > 2:
        return f"weight={op.weight}: tables are addressed by codes of 1 or 2 bits"
    tables = tables_of(op.act, op.weight)
    if tables.count * 2 * 16 > TABLE_BYTES:
        return f"act={op.act} takes {tables.count} tables, more than the L1 cache has room for"
    return one_channel_each(op)


def space(op: Dense | Conv2d, isa: Isa) -> Space:
    """All knobs with their choices for `op`."""
    m, n = op.matrix.m, op.matrix.n
    return Space(
        {
            "rows": tuple(_sizes(m, ROWS)),
            "vectors": tuple(_sizes(-(-n // lanes(isa)), VECTORS)),
            "weights": ("packed", "bytes"),
            **blocks.knobs(m, n, lanes(isa)),
        },
        lambda knobs: refuses(op, isa, knobs) is None,
    )


def _sizes(count: int, sizes: tuple[int, ...]) -> Iterator[int]:
    """Those that leave little of the last tile empty, among them 1 and the whole of a few."""
    for size in sizes:
        if size <= count and (size == 1 or -(-count // size) * size - count <= count // 6):
            yield size


def refuses(op: Dense | Conv2d, isa: Isa, knobs: Knobs) -> str | None:
    """Why the combination is not in the space: it cannot be any good."""
    rows, vectors = knobs["rows"], knobs["vectors"]
    # Byte sums, nibbles, a table; 16-bit sums may be in memory, as they are used seldom.
    if rows * vectors + vectors + 1 > isa.registers:
        return f"a tile of {rows} x {vectors} vectors exceeds {isa.registers} registers"
    return blocks.refuses(op, rows, vectors * lanes(isa), knobs)


def work(op: Dense | Conv2d, isa: Isa, knobs: Knobs) -> Counts:
    """What a kernel with these knobs does (`Template.work`)."""
    t, tables = tiling(op, isa, knobs), tables_of(op.act, op.weight)
    c = cut(op, tables.kq, split=True)
    matrix, parts = op.matrix, len(tables.shifts)
    tiles = matrix.groups * t.row_tiles * t.panels
    groups, sums = tiles * c.steps, t.rows * t.vectors
    flushed = sum(1 / steps for steps in tables.steps)
    panel = t.vectors * t.lanes * c.steps / (2 if t.packed else 1)
    return {
        "products": groups * sums * parts,
        "flush": groups * sums * flushed,
        "unpack": groups * t.vectors * t.packed,
        "indices": groups * t.vectors,
        "loads": groups * t.rows * (1 + parts),
        # Sums of 16 bits, two vectors for one of bytes, are in memory where registers run out.
        "spilled": groups * flushed * max(0, 3 * sums * parts + 4 - isa.registers),
        "copy": math.prod(op.x_shape) / tables.kq,
        "tiles": tiles,
        "runs": tiles * c.r * c.s,
        "wraps": tiles * c.r * c.s * blocks.wraps(op, t.rows),
        "stores": tiles * sums * 4,
        **blocks.traffic(op, knobs, t.row_tiles, t.panels, t.rows * c.steps, panel, isa.target),
    }


def tiling(op: Dense | Conv2d, isa: Isa, knobs: Knobs) -> lut_product.Tiling:
    """The sizes that the knobs mean for this operator."""
    rows, columns = knobs["rows"], knobs["vectors"] * lanes(isa)
    return lut_product.Tiling(
        rows=rows,
        vectors=knobs["vectors"],
        lanes=lanes(isa),
        **blocks.counts(op, rows, columns, knobs),
        packed=knobs["weights"] == "packed",
    )


def kernel(op: Dense | Conv2d, isa: Isa, knobs: Knobs) -> Kernel:
    """The scheduled kernel. Raises ScheduleRefused for knobs outside of the space."""
    refuse(why_not(op, isa) or refuses(op, isa, knobs))
    t = tiling(op, isa, knobs)
    definition = lut_product.define(op, t)
    sch = definition.schedule()
    order = blocks.order_blocks(sch, sch.get_sblock("tile"), knobs, copied=False, panels=False)
    sch.reverse_compute_at(sch.get_sblock("y"), order.tile, preserve_unit_loops=True)
    blocks.copy_out(sch, order, isa.lanes, unroll_rows=True)
    encode = sch.get_sblock("encode")
    *rows, _, _ = sch.get_loops(encode)
    sch.parallel(sch.fuse(*rows) if len(rows) > 1 else rows[0])
    weights = definition.weights
    tile = LookupTile(isa, t, weights.cut, weights.tables)
    func = replace_tile(sch.mod["main"], tile.emit)
    func = replace_encode(func, partial(emit_places, weights.tables), 0)
    return finished(func, definition, isa=isa)
