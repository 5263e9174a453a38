"""Attention, head by head: the scores of some queries, their softmax and what it weighs follow each
other while they are in the caches."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from tvm import tirx
from tvm.tirx.script import builder as tb

from lpgen.algorithms.result.epilogue import product
from lpgen.algorithms.rows import Rows, real
from lpgen.isa import Isa
from lpgen.schedules.common.rows.matmul import Lines, product_of, tallest, turned
from lpgen.schedules.common.rows.movement import copied
from lpgen.schedules.common.rows.sums import soft_rows
from lpgen.tir import vectors as vec
from lpgen.tir.strips import Index, strips

if TYPE_CHECKING:
    from lpgen.ops.attention import Attention, Heads

QUERIES = 32
"""About so many of a block."""

NEAR = 2**16
"""Bytes of their scores at most, where these are not fewer than FEWEST rows."""

FEWEST = 8

LINE, SETS, WAYS = 16, 64, 8
"""Of the smallest L1 caches of today: numbers of a line; 32 KiB."""

PARTS = 12
"""Rows that threads can share, where there are few heads."""


def tile(op: Attention, isa: Isa, vectors: int) -> tuple[int, int]:
    """Rows of a register tile, and its vectors."""
    rows = _block(op)
    most = tallest(op.rounded, isa, vectors)
    return -(-rows // -(-rows // most)), min(vectors, -(-op.n // isa.lanes))


def _block(op: Attention) -> int:
    """Queries that are worked on together."""
    rows = max(FEWEST, min(QUERIES, NEAR // (4 * op.n)))
    return -(-op.m // max(1, round(op.m / rows)))


def attention(op: Attention, isa: Isa, vectors: int) -> Rows:
    """Heads, of each as many parts of the queries as threads may want."""
    m, n, depth, rows, height = op.m, op.n, op.depth, _block(op), tile(op, isa, vectors)[0]
    blocks, pairs = -(-m // rows), op.batch * op.heads
    parts = 1 if m % rows else min(blocks, -(-PARTS // pairs))
    each = -(-blocks // parts)

    def panels(columns: int, body: Callable[[Index, Sequence[int]], None]) -> None:
        strips(columns, isa.lanes, min(vectors, -(-columns // isa.lanes)), body)

    def head(number: Index, queries, keys, values, *others) -> None:
        *added, y = others
        pair, part = vec.bind(number // parts), vec.bind(number % parts)
        left = _lines(op, op.queries, pair, queries, m, op.k)
        turned_keys = _keys(op, pair, keys, panels)
        weighed = _values(op, isa, pair, values, panels)
        result = _lines(op, op.result, pair, y, m, depth)
        scores = vec.scratch((rows * n,), "float32")
        with tb.serial(0, tirx.min(each, blocks - part * each) if parts > 1 else blocks) as i:
            # The last block is a whole one, too, and computes some rows once more.
            first = vec.bind(tirx.min((part * each + i) * rows, m - rows))
            some = _queries(op, isa, left.moved(first), rows)

            number = vec.bind(pair * m + first)

            def scored(
                start: Index, widths: Sequence[int], some: Lines = some, number: Index = number
            ) -> None:
                def end(value: tirx.Expr, row: Index, place: Index) -> tirx.Expr:
                    return _weighed(op, value, added, number + row, start + place)

                given, to = turned_keys(start, widths), Lines(scores, start, n)
                product_of(some, given, to, rows, op.k, widths, height, op.rounded, end)

            def summed(start: Index, widths: Sequence[int], first: Index = first) -> None:
                given, to = Lines(scores, 0, n), result.moved(first, start)
                right = weighed(start, widths)
                product_of(given, right, to, rows, n, widths, height, op.rounded)

            panels(n, scored)
            _softened(op, isa, vectors, rows, scores)
            panels(depth, summed)

    return Rows(pairs * parts, head)


Panel = Callable[["Index", Sequence[int]], Lines]
"""(first column, widths of its vectors): some columns of a matrix, row after row."""


def _lines(op: Attention, heads: Heads, pair: Index, x, rows: int, columns: int) -> Lines:
    """A head of a tensor, of which `pair` is the number in all batches."""
    if heads.form == "beside":
        of = heads.of or op.heads
        line = pair // op.heads * (rows * of) + heads.first + pair % op.heads
        return Lines(x, vec.bind(line * columns), of * columns)
    return Lines(x, vec.bind(pair * (rows * columns)), columns)


def _keys(op: Attention, pair: Index, keys, panels) -> Panel:
    """Emit the transposed copy of the keys of a head, panel by panel, where they need one."""
    n, k = op.n, op.k
    lines = _lines(op, op.keys, pair, keys, n, k)
    if op.keys.form == "turned":
        return lambda start, widths: Lines(keys, lines.at + start, n)
    copy = vec.scratch((k * n,), "float32")

    def panel(start: Index, widths: Sequence[int]) -> Lines:
        return Lines(copy, start * k, sum(widths))

    panels(
        n,
        lambda start, widths: turned(lines.moved(start), sum(widths), k, panel(start, widths)),
    )
    return panel


def _values(op: Attention, isa: Isa, pair: Index, values, panels) -> Panel:
    """Emit the copy of the values of a head, panel by panel, where the cache needs one."""
    n = op.n
    lines = _lines(op, op.values, pair, values, n, op.depth)
    if _near(lines, n, op.depth):
        return lambda start, widths: lines.moved(0, start)
    copy = vec.scratch((n * op.depth,), "float32")

    def panel(start: Index, widths: Sequence[int]) -> Lines:
        return Lines(copy, start * n, sum(widths))

    def copy_panel(start: Index, widths: Sequence[int]) -> None:
        to, count = panel(start, widths), sum(widths)
        with tb.serial(0, n) as i:
            place = lines.at + i * lines.pitch + start
            copied(copy, to.at + i * count, values, place, count, isa.lanes, len(widths))

    panels(op.depth, copy_panel)
    return panel


def _near(lines: Lines, rows: int, columns: int) -> bool:
    """Whether so much of a matrix stays in an L1 cache of SETS times WAYS lines: where other heads
    are between, lines come to lie in few sets."""
    if lines.pitch == columns:
        return True
    own = -(-columns // LINE)
    apart = SETS // math.gcd(max(1, lines.pitch // LINE), SETS)  # rows with sets of their own
    return rows * own <= WAYS // 2 * min(SETS, apart * own)


def _queries(op: Attention, isa: Isa, lines: Lines, rows: int) -> Lines:
    """Emit the copy of so many queries, where the cache needs one."""
    if _near(lines, rows, op.k):
        return lines
    copy = vec.scratch((rows * op.k,), "float32")
    with tb.serial(0, rows) as i:
        copied(copy, i * op.k, lines.buffer, lines.at + i * lines.pitch, op.k, isa.lanes, 4)
    return Lines(copy, 0, op.k)


def _weighed(
    op: Attention, value: tirx.Expr, added: Sequence[tirx.Var], number: Index, column: Index
) -> tirx.Expr:
    """Sums of row `number` of all scores, times the factor, and what is added to them."""
    lanes = int(value.ty.dtype.lanes)
    if op.factor != 1:
        value = product(value, real(op.factor, lanes))
    if not added:
        return value
    own = number // (op.added * op.times) * op.added + number % op.added
    return value + vec.load(*added, [own * op.n + column], lanes)


def _softened(op: Attention, isa: Isa, vectors: int, rows: int, scores: tirx.Var) -> None:
    """Emit the softmax of so many rows of scores, to which all is added."""
    soft = replace(op.softmax, added=0, times=1)
    one, several = soft_rows(soft, isa, vectors, lambda row: row * op.n)
    whole = rows // isa.lanes * isa.lanes if isa.lanes > 1 else 0
    if whole:
        with tb.serial(0, whole // isa.lanes) as i:
            several(i * isa.lanes, scores, scores)
    if whole < rows:
        with tb.serial(0, rows - whole) as i:
            one(whole + i, scores, scores)
