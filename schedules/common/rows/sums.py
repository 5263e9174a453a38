"""Functions of float32, and rows of it that are summed in the order of `functions.PARTS`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tvm import tirx
from tvm.tirx.script import builder as tb

from lpgen.algorithms.functions import Vectors
from lpgen.algorithms.rows import Accumulators, Rows, chunks, real, spread
from lpgen.isa import Isa
from lpgen.ops.functions import FUNCTIONS, PARTS, exp_below
from lpgen.schedules.common.rows import totals
from lpgen.tir import vectors as vec
from lpgen.tir.strips import Index, side_by_side, strips

if TYPE_CHECKING:
    from lpgen.ops.rowwise import LayerNorm, Reduce, Softmax
    from lpgen.ops.unary import Unary

CHUNK = 4096

TOGETHER = 4
"""Registers for each vector of those of which a function is computed in turns, an instruction of
each after the other: in a vector nearly all wait for the one before, and a CPU does not look far
enough ahead to find others (Zen 4: eight vectors of AVX-512, exp in 0.72 of the time of one, gelu
in 0.80; four of AVX2, softmax in 0.7)."""


def unary(op: Unary, isa: Isa, vectors: int) -> Rows:
    """Chunks of the tensor."""
    function = FUNCTIONS[op.function][0]

    def chunk(start: Index, count: int, x, y) -> None:
        def value(m: Vectors, place: Index, width: int) -> None:
            v = m.name(vec.load(x, [start + place], width))
            result = function(m.rounding(op.rounded), v, *op.parameters)
            vec.store(y, [start + place], result, width)

        _each(count, together(isa), vectors, value)

    return chunks(op.size, CHUNK, chunk)


def together(isa: Isa) -> int:
    """Numbers in that many vectors, which compilers take apart instruction by instruction."""
    return max(1, 1 << (isa.registers // TOGETHER).bit_length() - 1) * isa.lanes


def softmax(op: Softmax, isa: Isa, vectors: int) -> Rows:
    """Rows: the largest, then the powers and their sum, then the products."""
    one, several = soft_rows(op, isa, vectors, lambda row: row * op.columns)
    size = totals.block(isa, op.rows, 4 * op.columns * (3 if op.added else 2))
    return totals.in_blocks(op.rows, size, several, one)


def soft_rows(
    op: Softmax,
    isa: Isa,
    vectors: int,
    start: Callable[[Index], Index],
) -> tuple[Callable[..., None], Callable[..., None]]:
    """(one(row, *buffers), several(first row, *buffers)) of what emits a row, or as many as a
    vector has lanes; start(row): where it begins in x and y."""
    columns, lanes = op.columns, together(isa)

    def beside(row: Index) -> Index:
        """Where what is added to a row begins."""
        return vec.bind((row // (op.added * op.times) * op.added + row % op.added) * columns)

    def given(rows: Sequence[Index], x, more) -> totals.Value:
        added = [beside(row) for row in rows] if more else []

        def value(m: Vectors, place: Index, width: int) -> tirx.Expr:
            values = _joined([vec.load(x, [start(row) + place], width) for row in rows])
            if not more:
                return m.name(values)
            return m.name(values + _joined([vec.load(*more, [i + place], width) for i in added]))

        return value

    def powers(rows: Sequence[Index], most: Sequence[tirx.Expr], x, more, y) -> totals.Value:
        value = given(rows, x, more)

        def power(m: Vectors, place: Index, width: int) -> tirx.Expr:
            largest = _joined([spread(each, width) for each in most])
            e = exp_below(m.rounding(op.rounded), m.name(value(m, place, width) - largest))
            for i, row in enumerate(rows):
                part = vec.shuffle(e, range(i * width, (i + 1) * width))
                vec.store(y, [start(row) + place], part, width)
            return e

        return power

    def scaled(row: Index, total: tirx.Expr, factor: tirx.Expr, y) -> None:
        def value(m: Vectors, place: Index, width: int) -> None:
            v = vec.load(y, [start(row) + place], width)
            vec.store(y, [start(row) + place], v * spread(factor, width), width)

        def instead(m: Vectors, place: Index, width: int) -> None:
            vec.store(y, [start(row) + place], real(op.nan, width), width)

        if op.nan is None:
            _each(columns, lanes, vectors, value)
            return
        with tb.If(total >= 0.0):  # what is no number makes all of its row none
            with tb.Then():
                _each(columns, lanes, vectors, value)
            with tb.Else():
                _each(columns, lanes, vectors, instead)

    def one(row: Index, x, *others) -> None:
        *more, y = others
        most = totals.total(columns, lanes, float("-inf"), tirx.Max, given([row], x, more))
        sums = totals.total(columns, lanes, 0, totals.plus, powers([row], [most], x, more, y))
        scaled(row, sums, vec.bind(tirx.const(1, "float32") / sums), y)

    def several(first: Index, x, *others) -> None:
        *more, y = others

        def large(rows: Sequence[Index]) -> totals.Value:
            return given([first + i for i in rows], x, more)

        def power(rows: Sequence[Index]) -> totals.Value:
            largest = [vec.bind(most[i]) for i in rows]
            return powers([first + i for i in rows], largest, x, more, y)

        most = totals.totals(columns, isa, lanes, float("-inf"), tirx.Max, large)
        sums = totals.totals(columns, isa, lanes, 0, totals.plus, power)
        factors = vec.scratch((isa.lanes,), "float32")
        vec.store(factors, [0], real(1, isa.lanes) / vec.load(sums, [0], isa.lanes), isa.lanes)
        with tb.serial(0, isa.lanes) as i:
            scaled(first + i, vec.bind(sums[i]), vec.bind(factors[i]), y)

    return one, several


def _joined(parts: Sequence[tirx.Expr]) -> tirx.Expr:
    """Vectors of rows, one behind the other."""
    lanes = sum(int(part.ty.dtype.lanes) for part in parts)
    return parts[0] if len(parts) == 1 else vec.joined(parts, range(lanes))


def layer_norm(op: LayerNorm, isa: Isa, vectors: int) -> Rows:
    """Rows: the mean, then the variance, then the values."""
    columns, lanes = op.columns, min(PARTS, together(isa))

    def each(width: int) -> tirx.Expr:
        return real(columns, width)

    def given(rows: Sequence[Index], x) -> totals.Value:
        return lambda m, place, width: _joined(
            [vec.load(x, [row * columns + place], width) for row in rows]
        )

    def centred(rows: Sequence[Index], means: Sequence[tirx.Expr], x) -> totals.Value:
        def value(m: Vectors, place: Index, width: int) -> tirx.Expr:
            mean = _joined([spread(each, width) for each in means])
            return m.name(given(rows, x)(m, place, width) - mean)

        return value

    def squares(rows: Sequence[Index], means: Sequence[tirx.Expr], x) -> totals.Value:
        def square(m: Vectors, place: Index, width: int) -> tirx.Expr:
            v = centred(rows, means, x)(m, place, width)
            return m.name(m.mul(v, v))

        return square

    def factor(squares: tirx.Expr, width: int) -> tirx.Expr:
        root = Vectors.sqrt(squares / each(width) + real(op.epsilon, width))
        return real(1, width) / root

    def values(row: Index, mean: tirx.Expr, factor: tirx.Expr, x, scale, bias, y) -> None:
        def value(m: Vectors, place: Index, width: int) -> None:
            v = m.mul(centred([row], [mean], x)(m, place, width), spread(factor, width))
            v = m.mul(v, vec.load(scale, [place], width)) + vec.load(bias, [place], width)
            vec.store(y, [row * columns + place], v, width)

        _each(columns, isa.lanes, vectors, value)

    def one(row: Index, x, *others) -> None:
        mean = vec.bind(totals.total(columns, lanes, 0, totals.plus, given([row], x)) / each(1))
        sums = totals.total(columns, lanes, 0, totals.plus, squares([row], [mean], x))
        values(row, mean, vec.bind(factor(sums, 1)), x, *others)

    def several(first: Index, x, *others) -> None:
        width = isa.lanes

        def sums_of(value: Callable[[Sequence[Index]], totals.Value]) -> tirx.Var:
            return totals.totals(columns, isa, lanes, 0, totals.plus, value)

        def square(rows: Sequence[Index]) -> totals.Value:
            return squares([first + i for i in rows], [vec.bind(means[i]) for i in rows], x)

        means = sums_of(lambda rows: given([first + i for i in rows], x))
        vec.store(means, [0], vec.load(means, [0], width) / each(width), width)
        sums = sums_of(square)
        vec.store(sums, [0], factor(vec.load(sums, [0], width), width), width)
        with tb.serial(0, width) as i:
            values(first + i, vec.bind(means[i]), vec.bind(sums[i]), x, *others)

    size = totals.block(isa, op.rows, 4 * columns)
    return totals.in_blocks(op.rows, size, several, one)


def reduce(op: Reduce, isa: Isa, vectors: int) -> Rows:
    """Each outer: along the row, or over the axis for vectors of inner ones."""
    first, combine = (float("-inf"), tirx.Max) if op.how == "max" else (0, totals.plus)

    def end(value: tirx.Expr, width: int) -> tirx.Expr:
        if op.how != "mean":
            return value
        return value / spread(tirx.const(op.axis, "float32"), width)

    def along(number: Index, x, y) -> None:
        at = number * op.axis
        total = totals.total(
            *(op.axis, isa.lanes, first, combine), lambda m, i, w: vec.load(x, [at + i], w)
        )
        tb.buffer_store(y, end(total, 1), [number])

    def across(number: Index, x, y) -> None:
        def step(start: Index, widths: Sequence[int]) -> None:
            acc = Accumulators("float32", widths, first)
            with tb.serial(0, op.axis) as i:
                at = (number * op.axis + i) * op.inner + start
                for j, (place, width) in enumerate(side_by_side(at, widths)):
                    acc[j] = combine(acc[j], vec.load(x, [place], width))
            for j, (place, width) in enumerate(side_by_side(number * op.inner + start, widths)):
                vec.store(y, [place], end(acc[j], width), width)

        strips(op.inner, isa.lanes, vectors, step)

    return Rows(op.outer, along if op.inner == 1 else across)


def _each(
    columns: int, lanes: int, vectors: int, value: Callable[[Vectors, Index, int], None]
) -> None:
    """Emit value(arithmetic, place, width) for all columns."""

    def step(start: Index, widths: Sequence[int]) -> None:
        for place, width in side_by_side(start, widths):
            value(Vectors(), place, width)

    strips(columns, lanes, vectors, step)
