"""Rows at run time: what a definition says of a size that is given at each call (`ops.rows`).

A function for m rows, from one tile's height on, has all its shapes of the largest m, which is a
multiple of the height. The number of tiles follows from m at run time: loops over rows and over
row tiles are marked (`marks`, `tir.threads`), and end where the rows do. The last tile
starts `height` rows before the end, and computes some rows a second time:

    first row of tile t = min(t * height, m - height)

so that a tile is always whole: no row is masked, and the rows of a tile are neighbours.
"""

from __future__ import annotations

from functools import lru_cache

from tvm import te, tirx
from tvm_ffi import structural_map

from lpgen.ops import Operator, layers
from lpgen.tir.threads import ROWS


@lru_cache(maxsize=256)
def rows_of(op: Operator) -> tirx.Var | None:
    """The variable for the rows of a call, a parameter of the operator's functions; None: there is
    no range of them."""
    return tirx.Var(op.ROWS, "int32") if op.range else None


@lru_cache(maxsize=256)
def layers_of(op: Operator) -> tirx.Var | None:
    """The variable for how many bit layers a call uses (`ops.layers`), a parameter behind the rows;
    None: the operator's weights have none."""
    return tirx.Var(layers.NAME, "int32") if op.layers else None


def first_row(op: Operator, tile: tirx.Expr, height: int) -> tirx.Expr:
    """The first row of a tile of so many rows."""
    start = tile * height
    return te.min(start, rows_of(op) - height) if op.range else start


def row_of_tile(op: Operator, tile: tirx.Expr, place: tirx.Expr, height: int) -> tirx.Expr:
    """The row at a place in a tile of so many rows: with a fixed number of rows the last one for
    all behind it."""
    if op.range:
        return first_row(op, tile, height) + place
    return te.min(tile * height + place, op.matrix.m - 1)


def row_at(op: Operator, place: tirx.Expr, height: int) -> tirx.Expr:
    """The row at a place in the tiles, which lie one behind the other."""
    if not op.range:
        return place
    return first_row(op, place // height, height) + place % height


def marks(op: Operator) -> dict[str, int]:
    """Annotations of a loop over the operator's rows: it ends with those of the call."""
    return {ROWS: 1} if op.range else {}


def stored_where_computed(func: tirx.PrimFunc, op: Operator, height: int) -> tirx.PrimFunc:
    """`func` whose last parameter is indexed by places in tiles, with the rows in their stead."""
    if not op.range:
        return func
    y = func.params[-1]

    def store(node: tirx.BufferStore) -> tirx.BufferStore:
        if not node.buffer.same_as(y):
            return node
        place, *rest = node.indices
        return tirx.BufferStore(y, node.value, [row_at(op, place, height), *rest])

    return func.with_body(structural_map(func.body, (tirx.BufferStore, store)))
