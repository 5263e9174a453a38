"""Blocks of the result and the order of their loops, shared by the schedules of x86.

for g, block of row tiles, block of panels      # parallel; outer=nm: blocks the other way round
  for row tile, panel                           # inner=nm: the other way round
"""

from dataclasses import dataclass

from tvm.s_tir import Schedule

from lpgen.algorithms.reduction import foldable
from lpgen.ops import Conv2d, Dense
from lpgen.space import Knobs

M_BLOCKS = (0, 2, 4, 8, 32, 128)
N_BLOCKS = (0, 1, 2, 4, 8, 16)
WASTE = 8
"""Empty row tiles or panels may be one in so many."""

TASKS = 4
"""Fewest blocks of an operator that is worth several threads."""

LARGE = 2**22
"""Multiplications from which an operator is worth several threads."""


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


def rounded(count: int, block: int) -> int:
    """The tiles in whole blocks: `count` or a little more."""
    return -(-count // block) * block if block else count


def refusal(op, rows: int, columns: int, chosen: Knobs) -> str | None:
    """Why the blocks of tiles of rows x columns are no good for `op`; None if they may be."""
    groups, m, n, k = op.matrix
    tiles, panels = -(-m // rows), -(-n // columns)
    for name, count in (("m_block", tiles), ("n_block", panels)):
        block = chosen[name]
        if block and (block >= count or rounded(count, block) - count > count // WASTE):
            return f"{name}={block} does not divide {count} well"
    if chosen["outer"] != "mn" and not (chosen["m_block"] and chosen["n_block"]):
        return "one block in a direction: there is only one order"
    inside = (chosen["m_block"] or tiles, chosen["n_block"] or panels)
    if chosen["inner"] != "mn" and 1 in inside:
        return "one tile in a direction: there is only one order"
    tasks = groups * -(-tiles // inside[0]) * -(-panels // inside[1])
    if tasks < TASKS <= tiles * panels // 2 and m * n * k * groups >= LARGE:
        return f"{tasks} blocks are too few to share among threads"
    return None


@dataclass(frozen=True)
class Order:
    """Loops of the block "tile" after `order_blocks`."""

    outer: object
    """The parallel loop: over groups and blocks."""
    expand_at: object
    """The loop in which a block's panels are expanded."""
    tile: object
    """The innermost loop over tiles."""
    row: object
    vector: object
    lane: object
    reduction: tuple
    """The loops over k: r, s, and what the definition has of k4, kt or chunks."""


def order_blocks(sch: Schedule, tile, chosen: Knobs, *, copied: bool, panels: bool) -> Order:
    """Split, reorder and parallelize the loops of `tile`.

    copied, panels: whether the left side is copied, and panels are expanded, per block. Such a
    stage belongs to the outer block alone, so that all inner blocks use its result.
    """
    g, mo, no, mi, nv, nl, *k = sch.get_loops(tile)
    mb, mo = sch.split(mo, [None, chosen["m_block"] or sch.get(mo).extent])
    nb, no = sch.split(no, [None, chosen["n_block"] or sch.get(no).extent])
    m_outer = chosen["outer"] == "mn"
    first, second = (mb, nb) if m_outer else (nb, mb)
    tiles = (mo, no) if chosen["inner"] == "mn" else (no, mo)
    k4, *rest = k[2:]
    sch.reorder(g, first, second, *tiles, k[0], k[1], k4, mi, nv, nl, *rest)
    if copied if m_outer else panels:
        outer = sch.fuse(g, first)
        block = second
    else:
        outer = block = sch.fuse(g, first, second)
    sch.parallel(outer)
    expand_at = block if m_outer else outer
    return Order(outer, expand_at, tiles[1], mi, nv, nl, tuple(k))


def place_copy(sch: Schedule, order: Order, chosen: Knobs) -> None:
    """Copy the left side of an outer block where blocks of rows are outside, else all of it."""
    pack = sch.get_sblock("pack")
    if chosen["outer"] == "mn":
        sch.compute_at(pack, order.outer, preserve_unit_loops=True)
    *_, r, s, ko, mi, ki, kt = sch.get_loops(pack)
    sch.reorder(r, s, mi, ko, ki, kt)
    sch.vectorize(sch.fuse(ki, kt))


def expand_panel(sch: Schedule, order: Order, fields: int) -> None:
    """Expand the weights of a block of panels into the cache, `fields` k groups at a time."""
    expand = sch.get_sblock("expand")
    sch.compute_at(expand, order.expand_at, preserve_unit_loops=True)
    *_, kg, nv, nl, kt = sch.get_loops(expand)
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
