"""Blocks of the result and the order of their loops, shared by the schedules of x86.

for g, block of row tiles, block of panels      # parallel; outer=nm: blocks the other way round
  for row tile, panel                           # inner=nm: the other way round

Threads share the tiles and not the blocks (`threads`). Tiles are numbered along the larger side, so
that each thread reads a part of that and all of the smaller one.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from tvm.s_tir import Schedule

from lpgen.algorithms.lhs.k_split import foldable
from lpgen.algorithms.lhs.view import PARALLEL_BYTES, is_matrix, line
from lpgen.ops import Conv2d, Dense
from lpgen.schedules.common.cuts import refuses_block, rounded
from lpgen.space import Counts, Knobs
from lpgen.target import Target
from lpgen.tir.threads import bound_stage, end_with_rows, number_tiles

M_BLOCKS = (0, 2, 4, 8, 32, 128)
N_BLOCKS = (0, 1, 2, 4, 8, 16)
COLD_ROWS = 4
"""Rows up to which each weight is used so rarely that it comes from memory at each call."""

NEAR = 0.75
"""The part of a cache that a working set may fill and stay there, beside everything else."""

STAGE = 2
"""What copying or unpacking an element costs, as a multiple of reading it."""


def knobs(m: int, n: int, lanes: int) -> dict[str, tuple]:
    """The knobs m_block, n_block (0: all), outer and inner for a result of m x n."""
    return {
        "m_block": tuple(block for block in M_BLOCKS if block < m),
        "n_block": tuple(block for block in N_BLOCKS if block * lanes < n),
        "outer": ("mn", "nm"),
        "inner": ("mn", "nm"),
    }


def left_choices(op: Dense | Conv2d) -> tuple[str, ...]:
    """Choices of the knob left."""
    return ("direct", "copied", "folded") if foldable(op) else ("direct", "copied")


def counts(op: Dense | Conv2d, rows: int, columns: int, chosen: Knobs) -> dict[str, int]:
    """Tiles down and across (`definition.Tiling`) of rows x columns, whole blocks of them."""
    return {
        "row_tiles": rounded(-(-op.matrix.m // rows), chosen["m_block"] or 1),
        "panels": rounded(-(-op.matrix.n // columns), chosen["n_block"] or 1),
    }


def refuses(op, rows: int, columns: int, chosen: Knobs) -> str | None:
    """Why the blocks of tiles of rows x columns are no good for `op`; None if they may be."""
    tiles, panels = -(-op.matrix.m // rows), -(-op.matrix.n // columns)
    for name, count in (("m_block", tiles), ("n_block", panels)):
        reason = refuses_block(name, chosen[name], count)
        if reason:
            return reason
    if chosen["outer"] != "mn" and not (chosen["m_block"] and chosen["n_block"]):
        return "one block in a direction: there is only one order"
    inside = (chosen["m_block"] or tiles, chosen["n_block"] or panels)
    if chosen["inner"] != "mn" and 1 in inside:
        return "one tile in a direction: there is only one order"
    return None


def traffic(
    op: Dense | Conv2d,
    knobs: Knobs,
    tiles: int,
    panels: int,
    row: float,
    panel: float,
    target: Target,
) -> Counts:
    """Bytes that tiles read from beyond the L1, the L2 and the L3 cache: "l2", "l3", "dram".

    tiles, panels: how many of them, whole blocks; row, panel: bytes of the left side of a row tile
    and of a panel of weights. A side is read once for each tile; what it comes from is what all has
    been read since its last use.
    """
    groups = op.matrix.groups
    row *= distinct(op, knobs, target)
    down, across = knobs["m_block"] or tiles, knobs["n_block"] or panels
    left, right = down * row, across * panel  # of a block
    all_left, all_right = tiles * row, panels * panel
    one = row + panel
    near = (right + row, one) if knobs["inner"] == "mn" else (one, left + panel)
    if knobs["outer"] == "mn":
        far = all_right + left, left + right
    else:
        far = left + right, all_left + right
    whole = all_left + all_right
    # Weights as large as the L2 cache are no longer in it: sums of columns and the like lie beside.
    cold = target.last_cache * 2 if op.matrix.m <= COLD_ROWS and all_right >= target.l2 else whole
    blocks_down, blocks_across = tiles / down, panels / across
    uses = (
        (all_right, cold),
        (all_right * (blocks_down - 1), far[0]),
        (all_right * (tiles - blocks_down), near[0]),
        (all_left, whole),
        (all_left * (blocks_across - 1), far[1]),
        (all_left * (panels - blocks_across), near[1]),
    )
    found = by_distance(uses, target)
    return {name: groups * nbytes for name, nbytes in found.items()}


def wraps(op: Dense | Conv2d, rows: int, left: str = "direct") -> int:
    """Rows whose place in the source each run of a tile has to find one by one: those of a tile
    that may go on in the next line of pixels, where no other one is a constant distance apart."""
    if is_matrix(op) or left in ("copied", "inside"):
        return 0
    return rows if line(op) % rows and rows % line(op) else 0


def distinct(op: Dense | Conv2d, knobs: Knobs, target: Target) -> float:
    """The part of the left side's bytes that are not those of another tap.

    On x86 all count: the cost model was fitted to them.
    """
    if target.architecture == "x86" or knobs.get("left") not in ("direct", "inside"):
        return 1.0
    matrix = op.matrix
    return min(1.0, math.prod(op.x_shape) / (matrix.groups * matrix.m * matrix.k))


def by_distance(uses: Iterable[tuple[float, float]], target: Target) -> Counts:
    """Bytes from beyond the L1, the L2 and the L3 cache: "l2", "l3", "dram".

    uses: (bytes that are read, what all has been read since their last use).
    """
    found = {"l2": 0.0, "l3": 0.0, "dram": 0.0}
    for nbytes, distance in uses:
        if distance > target.last_cache:
            found["dram"] += nbytes
        elif distance > target.l2 * NEAR:
            found["l3"] += nbytes
        elif distance > target.l1d * NEAR:
            found["l2"] += nbytes
    return found


@dataclass(frozen=True)
class Order:
    """Loops of the block "tile" after `order_blocks`."""

    outer: object
    """The parallel loop: over groups and blocks."""
    copy_at: object | None
    """The loop in which a block of the left side is copied; None: all of it before the blocks."""
    unpack_at: object | None
    """The loop in which a block's panels are unpacked; None: all of them before the blocks."""
    tile: object
    """The innermost loop over tiles."""
    row: object
    vector: object
    lane: object
    reduction: tuple
    """The loops over k: r, s, and what the definition has of k4, kt or chunks."""
    row_stride: int
    """What the number of a tile grows by from one row tile to the next."""
    panel_stride: int
    """The same from one panel to the next."""


def order_blocks(
    sch: Schedule, tile, chosen: Knobs, *, copied: bool, panels: bool, ranged: bool = False
) -> Order:
    """Split, reorder and parallelize the loops of `tile`.

    copied, panels: whether the left side is copied, and panels are unpacked, per block. Such a
    stage belongs to the outer block alone, so that all inner blocks use its result.
    ranged: whether the number of rows is given at each call; they are one block then.
    """
    g, mo, no, mi, nv, nl, *k = sch.get_loops(tile)
    row_tiles, columns = _extent(sch, mo), _extent(sch, no)
    mb, mo = sch.split(mo, [None, chosen["m_block"] or row_tiles])
    nb, no = sch.split(no, [None, chosen["n_block"] or columns])
    m_outer = chosen["outer"] == "mn"
    first, second = (mb, nb) if m_outer else (nb, mb)
    tiles = (mo, no) if chosen["inner"] == "mn" else (no, mo)
    k4, *rest = k[2:]
    sch.reorder(g, first, second, *tiles, k[0], k[1], k4, mi, nv, nl, *rest)
    # A stage of all row tiles, or all panels, precedes the blocks: all threads share it.
    copied = copied and bool(chosen["m_block"])
    panels = panels and bool(chosen["n_block"])
    by_rows = _shares_rows(
        row_tiles * _extent(sch, mi), columns * _extent(sch, nv) * _extent(sch, nl), copied, panels
    )
    strides = (columns, 1) if by_rows else (1, row_tiles)
    numbers = {
        g: (_extent(sch, g), row_tiles * columns),
        mb: (_extent(sch, mb), _extent(sch, mo) * strides[0]),
        nb: (_extent(sch, nb), _extent(sch, no) * strides[1]),
        mo: (_extent(sch, mo), strides[0]),
        no: (_extent(sch, no), strides[1]),
    }
    if copied if m_outer else panels:
        fused, block = (g, first), second
    else:
        fused, block = (g, first, second), None
    outer = sch.fuse(*fused)
    number_tiles(sch, outer, *(numbers[loop] for loop in fused))
    for loop in (*([block] if block else []), *tiles):
        number_tiles(sch, loop, numbers[loop])
    if ranged:
        end_with_rows(sch, mo, _extent(sch, mi))
    sch.parallel(outer)
    block = block or outer
    copy_at = outer if copied and m_outer else None
    unpack_at = (block if m_outer else outer) if panels else None
    return Order(outer, copy_at, unpack_at, tiles[1], mi, nv, nl, tuple(k), *strides)


def _extent(sch: Schedule, loop) -> int:
    return int(sch.get(loop).extent)


def _shares_rows(rows: int, columns: int, copied: bool, panels: bool) -> bool:
    """Whether threads share rows, and each reads the whole right side, and unpacks it where that is
    done per block (`panels`); or columns, and each reads, and copies, the whole left side, half of
    which another core has in its cache."""
    return rows * (1 + STAGE * copied) >= columns * (1 + STAGE * panels)


def place_rows(sch: Schedule, stage, order: Order) -> None:
    """Compute a stage [group, row tile, ...] of the left side in its loop, or before the blocks:
    then threads share it, if it is large."""
    if order.copy_at is not None:
        sch.compute_at(stage, order.copy_at, preserve_unit_loops=True)
        bound_stage(sch, _axis_loops(sch, stage)[1], order.row_stride)
    else:
        _share(sch, stage)


def place_panels(sch: Schedule, stage, order: Order) -> None:
    """Compute a stage [group, panel, ...] of the weights in its loop, or before the blocks."""
    if order.unpack_at is not None:
        sch.compute_at(stage, order.unpack_at, preserve_unit_loops=True)
        bound_stage(sch, _axis_loops(sch, stage)[1], order.panel_stride)
    else:
        _share(sch, stage)


def _axis_loops(sch: Schedule, stage) -> list:
    """The loops of the stage's own axes."""
    return sch.get_loops(stage)[-len(sch.get(stage).iter_vars) :]


def _share(sch: Schedule, stage) -> None:
    loops = sch.get_loops(stage)
    if math.prod(_extent(sch, loop) for loop in loops) >= PARALLEL_BYTES:
        sch.parallel(sch.fuse(*loops[:2]))


def place_copy(sch: Schedule, order: Order) -> None:
    """Copy the left side of an outer block where blocks of rows are outside, else all of it."""
    pack = sch.get_sblock("pack")
    place_rows(sch, pack, order)
    *_, r, s, ko, mi, ki, kt = sch.get_loops(pack)
    sch.reorder(r, s, mi, ko, ki, kt)
    sch.vectorize(sch.fuse(ki, kt))


def unpack_panel(sch: Schedule, order: Order, fields: int) -> None:
    """Expand the weights of a block of panels into the cache, `fields` k steps at a time."""
    unpack = sch.get_sblock("unpack")
    place_panels(sch, unpack, order)
    *_, kg, nv, nl, kt = sch.get_loops(unpack)
    byte, field = sch.split(kg, [None, fields])
    sch.reorder(byte, nv, field, nl, kt)
    sch.unroll(field)
    sch.vectorize(sch.fuse(nl, kt))


def copy_out(sch: Schedule, order: Order, lanes: int, *, unroll_rows: bool) -> None:
    """Vectorize the stage "y" behind a tile."""
    y = sch.get_sblock("y")
    *_, row, column = sch.get_loops(y)
    vector, lane = sch.split(column, [None, lanes])
    if unroll_rows:
        sch.unroll(row)
    sch.unroll(vector)
    sch.vectorize(lane)
