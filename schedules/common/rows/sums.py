"""Functions of float32, and rows of it that are summed in the order of `functions.PARTS`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tvm import tirx
from tvm.tirx.script import builder as tb

from lpgen.algorithms.functions import Vectors
from lpgen.algorithms.rows import Accumulators, Rows, chunks, spread
from lpgen.isa import Isa
from lpgen.ops.functions import FUNCTIONS, PARTS, exp
from lpgen.tir import vectors as vec
from lpgen.tir.strips import Index, parts_of, side_by_side, strips

if TYPE_CHECKING:
    from lpgen.ops.rowwise import LayerNorm, Reduce, Softmax
    from lpgen.ops.unary import Unary

CHUNK = 4096

TOGETHER = 4
"""Vectors of which a function is computed in turns, an instruction of each after the other: in a
vector nearly all wait for the one before (Zen 4: gelu, softmax in 0.7 of the time with AVX2 and
SSE, 0.9 with AVX-512, where it is two)."""


def unary(op: Unary, isa: Isa, vectors: int) -> Rows:
    """Chunks of the tensor."""
    function = FUNCTIONS[op.function][0]

    def chunk(start: Index, count: int, x, y) -> None:
        def value(m: Vectors, place: Index, width: int) -> None:
            v = m.name(vec.load(x, [start + place], width))
            vec.store(y, [start + place], function(m, v, *op.parameters), width)

        _each(count, _wide(isa), vectors, value)

    return chunks(op.size, CHUNK, chunk)


def _wide(isa: Isa) -> int:
    """Numbers in that many vectors, which compilers take apart instruction by instruction."""
    return min(PARTS, TOGETHER * isa.lanes)


def softmax(op: Softmax, isa: Isa, vectors: int) -> Rows:
    """Rows: the largest, then the powers and their sum, then the products."""
    columns, lanes = op.columns, _wide(isa)

    def row(number: Index, x, *others) -> None:
        *more, y = others
        at = number * columns
        if more:
            own = number // (op.added * op.times) * op.added + number % op.added
            beside = vec.bind(own * columns)

        def given(m: Vectors, place: Index, width: int) -> tirx.Expr:
            value = vec.load(x, [at + place], width)
            return m.name(value + vec.load(more[0], [beside + place], width)) if more else value

        largest = _total(columns, lanes, float("-inf"), tirx.Max, given)

        def power(m: Vectors, place: Index, width: int) -> tirx.Expr:
            v = m.name(given(m, place, width) - spread(largest, width))
            e = exp(m, v)
            vec.store(y, [at + place], e, width)
            return e

        total = _total(columns, lanes, 0, _plus, power)
        factor = vec.bind(tirx.const(1, "float32") / total)

        def scaled(m: Vectors, place: Index, width: int) -> None:
            value = m.name(vec.load(y, [at + place], width) * spread(factor, width))
            if op.nan is not None:
                value = FUNCTIONS["replace_nan"][0](m, value, op.nan)
            vec.store(y, [at + place], value, width)

        _each(columns, lanes, vectors, scaled)

    return Rows(op.rows, row)


def layer_norm(op: LayerNorm, isa: Isa, vectors: int) -> Rows:
    """Rows: the mean, then the variance, then the values."""
    columns, lanes = op.columns, isa.lanes
    count = tirx.const(columns, "float32")

    def row(number: Index, x, scale, bias, y) -> None:
        at = number * columns
        mean = vec.bind(
            _total(columns, lanes, 0, _plus, lambda m, i, w: vec.load(x, [at + i], w)) / count
        )

        def centred(m: Vectors, place: Index, width: int) -> tirx.Expr:
            return m.name(vec.load(x, [at + place], width) - spread(mean, width))

        def square(m: Vectors, place: Index, width: int) -> tirx.Expr:
            v = centred(m, place, width)
            return m.mul(v, v)

        variance = _total(columns, lanes, 0, _plus, square) / count
        root = Vectors.sqrt(variance + tirx.const(op.epsilon, "float32"))
        factor = vec.bind(tirx.const(1, "float32") / root)

        def value(m: Vectors, place: Index, width: int) -> None:
            v = m.mul(centred(m, place, width), spread(factor, width))
            v = m.mul(v, vec.load(scale, [place], width)) + vec.load(bias, [place], width)
            vec.store(y, [at + place], v, width)

        _each(columns, lanes, vectors, value)

    return Rows(op.rows, row)


def reduce(op: Reduce, isa: Isa, vectors: int) -> Rows:
    """Each outer: along the row, or over the axis for vectors of inner ones."""
    first, combine = (float("-inf"), tirx.Max) if op.how == "max" else (0, _plus)

    def end(value: tirx.Expr, width: int) -> tirx.Expr:
        if op.how != "mean":
            return value
        return value / spread(tirx.const(op.axis, "float32"), width)

    def along(number: Index, x, y) -> None:
        at = number * op.axis
        total = _total(op.axis, isa.lanes, first, combine, lambda m, i, w: vec.load(x, [at + i], w))
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


def _plus(a: tirx.Expr, b: tirx.Expr) -> tirx.Expr:
    return a + b


def _each(
    columns: int, lanes: int, vectors: int, value: Callable[[Vectors, Index, int], None]
) -> None:
    """Emit value(arithmetic, place, width) for all columns."""

    def step(start: Index, widths: Sequence[int]) -> None:
        for place, width in side_by_side(start, widths):
            value(Vectors(), place, width)

    strips(columns, lanes, vectors, step)


def _total(
    columns: int,
    lanes: int,
    first: float,
    combine: Callable[[tirx.Expr, tirx.Expr], tirx.Expr],
    value: Callable[[Vectors, Index, int], tirx.Expr],
) -> tirx.Expr:
    """Emit the combination of value(arithmetic, place, width) of all columns, in the order of
    PARTS; a scalar."""
    acc = Accumulators("float32", [lanes] * (PARTS // lanes), first)

    def combined(place: Index, part: int, width: int) -> None:
        own = vec.load(acc.memory, [part], width)
        vec.store(acc.memory, [part], combine(own, value(Vectors(), place, width)), width)

    whole, rest = divmod(columns, PARTS)
    if whole:
        with tb.serial(0, whole) as i:
            for part in range(0, PARTS, lanes):
                combined(i * PARTS + part, part, lanes)
    part = 0
    for width in parts_of(rest, lanes):
        combined(whole * PARTS + part, part, width)
        part += width
    half = PARTS // 2
    while half:
        for part, width in side_by_side(0, parts_of(half, lanes)):
            low = vec.load(acc.memory, [part], width)
            high = vec.load(acc.memory, [part + half], width)
            vec.store(acc.memory, [part], combine(low, high), width)
        half //= 2
    return vec.bind(acc.memory[0])
