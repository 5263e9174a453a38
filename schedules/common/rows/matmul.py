"""Batched products of float32 matrices: register tiles over b as it lies, or over a transposed copy
of a panel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

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
    # Of the registers one is a number of a, one the product; the rest are sums and a row of b.
    beside = 2 if op.rounded == "product" else 1
    return max(1, (isa.registers - beside) // vectors - 1), min(vectors, -(-op.n // isa.lanes))


def matmul(op: MatMul, isa: Isa, vectors: int) -> Rows:
    """Panels of columns of y, of each batch: `vectors` vectors wide."""
    m, n, k = op.m, op.n, op.k
    panel = min(vectors * isa.lanes, n)
    panels = -(-n // panel)
    height = tile(op, isa, vectors)[0]

    def columns(batch: Index, start: Index, count: int, a, b, y) -> None:
        widths = parts_of(count, isa.lanes)
        if op.order == "nk":
            b, at, pitch = _copy(op, batch, start, count, b), 0, count
        else:
            at, pitch = batch * k * n + start, n

        def rows(row: Index, some: Sequence[int]) -> None:
            (tall,) = some
            acc = [Accumulators("float32", widths, 0) for _ in range(tall)]
            with tb.serial(0, k) as i:
                line = [
                    vec.bind(vec.load(b, [place], width))
                    for place, width in side_by_side(at + i * pitch, widths)
                ]
                for j in range(tall):
                    number = vec.bind(a[(batch * m + row + j) * k + i])
                    for v, value in enumerate(line):
                        factor = spread(number, widths[v])
                        acc[j][v] = with_product(acc[j][v], factor, value, op.rounded)
            for j in range(tall):
                places = side_by_side((batch * m + row + j) * n + start, widths)
                for v, (place, width) in enumerate(places):
                    vec.store(y, [place], acc[j][v], width)

        _heights(m, height, rows)

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


def _heights(rows: int, height: int, body) -> None:
    """Emit body(row, [height]) until all rows are done; the last tile has what is left."""
    whole, rest = divmod(rows, height)
    if whole:
        with tb.serial(0, whole) as i:
            body(i * height, [height])
    if rest:
        body(whole * height, [rest])


def _copy(op: MatMul, batch: Index, start: Index, count: int, b):
    """Emit the copy [k, count] of `count` rows of b[n, k], transposed."""
    panel = vec.scratch((op.k * count,), "float32")

    def block(at: Index, widths: Sequence[int]) -> None:
        for column, width in side_by_side(at, widths):
            for row, height in side_by_side(0, parts_of(count, BLOCK)):
                name = vec.Names()
                places = [(batch * op.n + start + row + i) * op.k + column for i in range(height)]
                lines = [name(vec.load(b, [place], width)) for place in places]
                for i, value in enumerate(transposed_block(lines, name)):
                    vec.store(panel, [(column + i) * count + row], value, height)

    strips(op.k, BLOCK, 1, block)
    return panel
