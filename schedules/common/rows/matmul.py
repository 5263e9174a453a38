"""Batched products of float32 matrices: register tiles over b as it lies, or over a transposed copy
of a panel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from tvm import tirx
from tvm.tirx.script import builder as tb

from lpgen.algorithms.rows import Accumulators, Rows, spread, with_product
from lpgen.isa import Isa
from lpgen.tir import vectors as vec
from lpgen.tir.strips import Index, parts_of, side_by_side, strips
from lpgen.tir.transpose import transposed_block

if TYPE_CHECKING:
    from lpgen.ops.rowwise import MatMul

BLOCK = 8
"""Rows and columns of b that are transposed together."""


def tile(op: MatMul, isa: Isa, vectors: int) -> tuple[int, int]:
    """Rows of a register tile, and its vectors."""
    return tallest(op.rounded, isa, vectors), min(vectors, -(-op.n // isa.lanes))


def tallest(rounded: str, isa: Isa, vectors: int) -> int:
    """Rows of the highest register tile."""
    # Of the registers one is a number of a, one the product; the rest are sums and a row of b.
    beside = 2 if rounded == "product" else 1
    return max(1, (isa.registers - beside) // vectors - 1)


class Lines(NamedTuple):
    """Rows of a matrix in a buffer: where the first one begins, and from one to the next."""

    buffer: tirx.Var
    at: Index
    pitch: int

    def moved(self, rows: Index, columns: Index = 0) -> Lines:
        """The same from another row and column on."""
        return self._replace(at=self.at + rows * self.pitch + columns)


def matmul(op: MatMul, isa: Isa, vectors: int) -> Rows:
    """Panels of columns of y, of each batch: `vectors` vectors wide."""
    m, n, k = op.m, op.n, op.k
    panel = min(vectors * isa.lanes, n)
    panels = -(-n // panel)
    height = tile(op, isa, vectors)[0]

    def columns(batch: Index, start: Index, count: int, a, b, y) -> None:
        widths = parts_of(count, isa.lanes)
        if op.order == "nk":
            copy = vec.scratch((k * count,), "float32")
            right = Lines(copy, 0, count)
            turned(Lines(b, (batch * n + start) * k, k), count, k, right)
        else:
            right = Lines(b, batch * k * n + start, n)
        left, result = Lines(a, batch * m * k, k), Lines(y, batch * m * n + start, n)
        product_of(left, right, result, m, k, widths, height, op.rounded)

    def row(number: Index, a, b, y) -> None:
        batch, start = number // panels, number % panels * panel
        if n % panel == 0:
            columns(batch, start, panel, a, b, y)
            return
        with tb.If(start + panel <= n):
            with tb.Then():
                columns(batch, start, panel, a, b, y)
            with tb.Else():
                columns(batch, start, n % panel, a, b, y)

    return Rows(op.batch * panels, row)


def product_of(
    a: Lines,
    b: Lines,
    y: Lines,
    rows: int,
    depth: int,
    widths: Sequence[int],
    height: int,
    rounded: str,
    end: Callable[[tirx.Expr, Index, Index], tirx.Expr] = lambda value, row, place: value,
) -> None:
    """Emit vectors of these widths, side by side, of y[rows] = a[rows, depth] * b[depth], in tiles
    of `height` rows; rounded: what is; end(sums, row, place): what is made of a vector
    of sums, the place from where the first one is."""

    def tile(row: Index, tall: int) -> None:
        acc = [Accumulators("float32", widths, 0) for _ in range(tall)]
        with tb.serial(0, depth) as i:
            line = [
                vec.bind(vec.load(b.buffer, [place], width))
                for place, width in side_by_side(b.at + i * b.pitch, widths)
            ]
            for j in range(tall):
                number = vec.bind(a.buffer[a.at + (row + j) * a.pitch + i])
                for v, value in enumerate(line):
                    acc[j][v] = with_product(acc[j][v], spread(number, widths[v]), value, rounded)
        for j in range(tall):
            for v, (place, width) in enumerate(side_by_side(0, widths)):
                to = y.at + (row + j) * y.pitch + place
                vec.store(y.buffer, [to], end(acc[j][v], row + j, place), width)

    whole, rest = divmod(rows, height)
    if whole:
        with tb.serial(0, whole) as i:
            tile(i * height, height)
    if rest:
        tile(whole * height, rest)


def turned(x: Lines, rows: int, columns: int, y: Lines) -> None:
    """Emit the transposed copy y[columns] of x[rows, columns]."""

    def block(at: Index, widths: Sequence[int]) -> None:
        for column, width in side_by_side(at, widths):
            for row, height in side_by_side(0, parts_of(rows, BLOCK)):
                name = vec.Names()
                places = [x.at + (row + i) * x.pitch + column for i in range(height)]
                lines = [name(vec.load(x.buffer, [place], width)) for place in places]
                for i, value in enumerate(transposed_block(lines, name)):
                    vec.store(y.buffer, [y.at + (column + i) * y.pitch + row], value, height)

    strips(columns, BLOCK, 1, block)
