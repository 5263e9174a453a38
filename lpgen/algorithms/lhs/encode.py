"""The left side encoded: what a k step of `kq` values becomes before the products are summed.

Bit planes of 32 values, tables of the partial sums of 4 values: families that do not multiply
bytes first turn every k step into a few *elements*. The stage "encode" does it, at one of two
places:

* at the source, once for each pixel, and every tap reads the same elements;
* in tile order, `encode[group, row tile, r, s, k step, row, element]`, for a block of rows at a
  time, so that all that a register tile reads lies together and stays in a cache.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm import te, tirx

from lpgen.algorithms.lhs.view import Lhs, is_matrix


@dataclass(frozen=True)
class Encoding:
    """Encoding of a k step as an array [*shape] of `dtype`.

    value(x, t, *element): what value number t of the group, x (uint8), adds to an element.
    """

    shape: tuple[int, ...]
    dtype: str
    value: Callable[..., tirx.Expr]


def encode_at_source(lhs: Lhs, encoding: Encoding) -> Callable[..., tirx.Expr]:
    """The stage over the source; returns at(g, mo, mi, m, r, s, kg, *element).

    lhs.cut must give whole k steps to every pixel (`split`).
    """
    kq = lhs.cut.kq
    *rows, width = (int(extent) for extent in lhs.source.shape)
    t = te.reduce_axis((0, kq), name="t")

    def element(*index):
        row, kg, element = index[: len(rows)], index[len(rows)], index[len(rows) + 1 :]
        return te.sum(encoding.value(lhs.source[(*row, kg * kq + t)], t, *element), axis=[t])

    encoded = te.compute((*rows, width // kq, *encoding.shape), element, name="encode")

    def at(g, mo, mi, m, r, s, kg, *element):
        *row, start = lhs.place(g, m, r, s, kq if not is_matrix(lhs.op) else 1)
        return encoded[(*row, start + kg, *element)]

    return at


def encode_in_tiles(
    lhs: Lhs,
    encoding: Encoding,
    groups: int,
    row_tiles: int,
    rows: int,
    rows_outside: bool = False,
) -> Callable[..., tirx.Expr]:
    """The stage in the order of register tiles; returns at(g, mo, mi, m, r, s, kg, *element).

    rows_outside: the axis of rows stands in front of r, so that the k steps of a row are
    neighbours, as they are at the source.
    """
    c, last = lhs.cut, lhs.op.matrix.m - 1
    t = te.reduce_axis((0, c.kq), name="t")

    def element(g, mo, *index):
        (mi, r, s, kg), element = index[:4], index[4:]
        if not rows_outside:
            r, s, kg, mi = index[:4]
        m = te.min(mo * rows + mi, last)
        x = lhs.at(g, m, r, s, kg * c.kq + t)
        return te.sum(encoding.value(x, t, *element), axis=[t])

    inner = (rows, c.r, c.s, c.kg) if rows_outside else (c.r, c.s, c.kg, rows)
    encoded = te.compute((groups, row_tiles, *inner, *encoding.shape), element, name="encode")

    def at(g, mo, mi, m, r, s, kg, *element):
        place = (mi, r, s, kg) if rows_outside else (r, s, kg, mi)
        return encoded[(g, mo, *place, *element)]

    return at
