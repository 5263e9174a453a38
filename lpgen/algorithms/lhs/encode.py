"""The left side encoded: what a k step of `kq` values becomes before the products are summed.

Bit planes of 32 values, tables of the partial sums of 4 values: families that do not multiply
bytes first turn every k step into a few *elements*. The stage "encode" does it, at one of two
places:

* at the source, once for each pixel, and every tap reads the same elements;
* in tile order, `encode[group, row tile, r, s, k step, row, element]`, for a block of rows at a
  time, so that all that a register tile reads lies together and stays in a cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tvm import te, tirx

from lpgen.algorithms.lhs.view import Lhs, is_matrix

AT_SOURCE = ("direct", "inside")
"""Values of the knob `left` that encode at the source; "inside" leaves out taps in the padding."""


@dataclass(frozen=True)
class Encoding:
    """Encoding of a k step as an array [*shape] of `dtype`.

    value(x, t, *element): what value number t of the group, x (uint8), adds to an element;
    rows: 1, or 2 neighbouring rows that share an element: the second row adds 2^4 times as much.
    """

    shape: tuple[int, ...]
    dtype: str
    value: Callable[..., tirx.Expr]
    rows: int = 1

    @property
    def axes(self) -> tuple[tirx.IterVar, ...]:
        """Reduction axes of the rows, where they are several."""
        return (te.reduce_axis((0, self.rows), name="h"),) if self.rows > 1 else ()

    def part(self, x: tirx.Expr, t: tirx.Expr, h: Sequence, element: tuple) -> tirx.Expr:
        """What value number t of row number h (none: the only one) adds."""
        value = self.value(x, t, *element)
        return value << (h[0] * 4).astype(self.dtype) if h else value


def encode_at_source(lhs: Lhs, encoding: Encoding) -> Callable[..., tirx.Expr]:
    """The stage over the source; returns at(g, mo, mi, m, r, s, kg, *element).

    lhs.cut must give whole k steps to every pixel (`split`); rows that share elements lie in one
    line, of an even length (`view.line`).
    """
    kq, together = lhs.cut.kq, encoding.rows
    *rows, width = (int(extent) for extent in lhs.source.shape)
    t, h = te.reduce_axis((0, kq), name="t"), encoding.axes
    matrix = is_matrix(lhs.op)
    # The second row of an element: the next one of a matrix, or pixels further on.
    distance = 0 if matrix or not h else lhs.row_distance
    shape = (-(-rows[0] // together), *rows[1:]) if matrix else tuple(rows)

    def element(*index):
        row, kg, element = index[: len(rows)], index[len(rows)], index[len(rows) + 1 :]
        k = kg * kq + t
        if h and matrix:
            row = (te.min(row[0] * together + h[0], rows[0] - 1), *row[1:])
        elif h:
            k = k + h[0] * distance
        x = lhs.source[(*row, k)]
        return te.sum(encoding.part(x, t, h, element), axis=[*h, t])

    encoded = te.compute((*shape, (width - distance) // kq, *encoding.shape), element, "encode")

    def at(g, mo, mi, m, r, s, kg, *element):
        first = m // together * together if h else m
        *row, start = lhs.place(g, first, r, s, 1 if matrix else kq)
        if h and matrix:
            row = [row[0] // together]
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
    c, last, together = lhs.cut, lhs.op.matrix.m - 1, encoding.rows
    t, h = te.reduce_axis((0, c.kq), name="t"), encoding.axes

    def element(g, mo, *index):
        (mi, r, s, kg), element = index[:4], index[4:]
        if not rows_outside:
            r, s, kg, mi = index[:4]
        m = te.min(mo * rows + (mi * together + h[0] if h else mi), last)
        x = lhs.at(g, m, r, s, kg * c.kq + t)
        return te.sum(encoding.part(x, t, h, element), axis=[*h, t])

    count = rows // together
    inner = (count, c.r, c.s, c.kg) if rows_outside else (c.r, c.s, c.kg, count)
    encoded = te.compute((groups, row_tiles, *inner, *encoding.shape), element, name="encode")

    def at(g, mo, mi, m, r, s, kg, *element):
        own = mi // together if h else mi
        place = (own, r, s, kg) if rows_outside else (r, s, kg, own)
        return encoded[(g, mo, *place, *element)]

    return at
