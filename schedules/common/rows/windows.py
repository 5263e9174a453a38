"""Operators on windows of an image [n, h, w, c]: each line of the result is a row."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from tvm import tirx
from tvm.tirx.script import builder as tb

from lpgen.algorithms.elementwise import quantized
from lpgen.algorithms.functions import Vectors
from lpgen.algorithms.rows import Accumulators, Rows, cast, spread
from lpgen.formats import REAL
from lpgen.isa import Isa
from lpgen.schedules.common.rows.movement import copied
from lpgen.tir import vectors as vec
from lpgen.tir.strips import Index, side_by_side, strips

if TYPE_CHECKING:
    from lpgen.ops.conv2d_f32 import RealConv2d
    from lpgen.ops.pool import Pool
    from lpgen.ops.resize import Fold, Resize

Place = Callable[[Index, Index], Index]
"""Where the channels of a tap (row, column) begin."""

STRAIGHT = 16
"""Taps of a kernel up to which code has no loop over them: such loops take longer than a tap."""


def pool(op: Pool, isa: Isa, vectors: int) -> Rows:
    """Lines of y: `vectors` vectors of channels at a time, over the taps inside of the image."""
    n, oh, _, c = op.y_shape
    lanes = isa.bits // (8 if op.how == "max" and op.act != REAL else 32)

    def line(row: Index, x, *others) -> None:
        *given, y = others

        def window(at: Index, rows: list, columns: list, source: Place) -> None:
            def channels(start: Index, widths) -> None:
                acc = _begin(op, widths)

                def tap(r: Index, s: Index) -> None:
                    at_tap = source(r, s) + start
                    for i, (place, width) in enumerate(side_by_side(at_tap, widths)):
                        _step(op, acc, i, vec.load(x, [place], width))

                taps(op, rows, columns, tap)
                count = (rows[1] - rows[0]) * (columns[1] - columns[0])
                for i, (place, width) in enumerate(side_by_side(at + start, widths)):
                    vec.store(y, [place], _end(op, acc[i], count, given), width)

            strips(c, lanes, vectors, channels)

        each_window(op, row, window)

    return Rows(n * oh, line)


def each_window(
    op: Pool | RealConv2d, row: Index, window: Callable[[Index, list, list, Place], None]
) -> None:
    """Emit window(at, rows, columns, source) for every window of a line of y.

    at: where its channels begin in y; rows, columns: its taps inside of the image; source(r, s):
    where the channels of a tap begin in x.
    """
    (_, oh, ow, c), (_, h, w, _) = op.y_shape, op.x_shape
    top = row % oh * op.stride[0] - op.pad[0]
    image = row // oh * h
    rows = [vec.bind(v) for v in inside(op, 0, top, h)]
    with tb.serial(0, ow) as column:
        left = column * op.stride[1] - op.pad[1]
        columns = [vec.bind(v) for v in inside(op, 1, left, w)]

        def source(r: Index, s: Index) -> Index:
            line = (image + top + r * op.dilation[0]) * w + left
            return (line + s * op.dilation[1]) * c

        window((row * ow + column) * c, rows, columns, source)


def taps(
    op: Pool | RealConv2d, rows: list, columns: list, tap: Callable[[Index, Index], None]
) -> None:
    """Emit tap(r, s) for all taps from the first of `rows` and `columns` up to the last; where that
    is the whole of a small kernel, without loops."""

    def loops() -> None:
        with tb.serial(rows[0], rows[1]) as r, tb.serial(columns[0], columns[1]) as s:
            tap(r, s)

    if op.kernel[0] * op.kernel[1] > STRAIGHT:
        loops()
        return
    lengths = zip(op.kernel, (rows, columns), strict=True)
    with tb.If(tirx.all(*(tirx.EQ(last - first, size) for size, (first, last) in lengths))):
        with tb.Then():
            for r, s in np.ndindex(op.kernel):
                tap(r, s)
        with tb.Else():
            loops()


def inside(
    op: Pool | RealConv2d, axis: int, start: Index, size: int
) -> tuple[tirx.Expr, tirx.Expr]:
    """The first tap on an axis that is inside of the image, and the one behind the last, of the
    window that starts at `start`."""
    dilation, taps = op.dilation[axis], op.kernel[axis]

    def taps_up_to(distance: tirx.Expr) -> tirx.Expr:
        rounded = distance + (dilation - 1)
        return tirx.min(tirx.max(rounded, 0) // dilation, taps)

    first = taps_up_to(-start)
    return first, tirx.max(taps_up_to(size - start), first)


def _begin(op: Pool, widths) -> Accumulators:
    if op.how == "average":
        return Accumulators("float32" if op.act == REAL else "int32", widths, 0)
    return Accumulators(op.act.dtype, widths, float("-inf") if op.act == REAL else op.act.min)


def _step(op: Pool, acc: Accumulators, number: int, value: tirx.Expr) -> None:
    if op.how == "max":
        acc[number] = tirx.Max(acc[number], value)
    else:
        acc[number] = acc[number] + (value if op.act == REAL else cast("int32", value))


def _end(op: Pool, value: tirx.Expr, count: tirx.Expr, given) -> tirx.Expr:
    if op.how == "max":
        return value
    lanes = int(value.ty.dtype.lanes)
    divisor = tirx.max(count, 1) if op.count == "valid" else tirx.const(int(np.prod(op.kernel)))
    divisor = divisor.astype("float32")
    if op.act == REAL:
        return value / spread(divisor, lanes)
    scales, zeros = given
    factor = scales[0] / (scales[1] * divisor)
    total = cast("float32", value - spread(zeros[0] * count, lanes))
    return quantized(total * spread(factor, lanes), zeros[1], op.out)


def resize(op: Resize, isa: Isa, vectors: int) -> Rows:
    """Lines of y."""
    lanes = isa.bits // 8 if op.mode == "nearest" and op.act != REAL else isa.lanes

    def place(table, number: Index, size: int) -> tirx.Expr:
        return vec.bind(tirx.min(tirx.max(table[number], 0), size - 1))

    def nearest(row: Index, x, rows, columns, y) -> None:
        line = vec.bind((row // op.oh * op.h + place(rows, row % op.oh, op.h)) * op.w)
        with tb.serial(0, op.ow) as column:
            start = vec.bind((line + place(columns, column, op.w)) * op.c)
            copied(y, (row * op.ow + column) * op.c, x, start, op.c, lanes, vectors)

    def linear(row: Index, x, rows, row_weights, columns, column_weights, y) -> None:
        image, first = row // op.oh * op.h, place(rows, row % op.oh, op.h)
        lines = [vec.bind((image + at) * op.w) for at in (first, tirx.min(first + 1, op.h - 1))]
        down = vec.bind(row_weights[row % op.oh])
        with tb.serial(0, op.ow) as column:
            left = place(columns, column, op.w)
            right = vec.bind(tirx.min(left + 1, op.w - 1))
            across = vec.bind(column_weights[column])

            def step(start: Index, widths) -> None:
                for at, width in side_by_side(start, widths):
                    value = between(at, width)
                    vec.store(y, [(row * op.ow + column) * op.c + at], value, width)

            def between(at: Index, width: int) -> tirx.Expr:
                m = Vectors()

                def mixed(a: tirx.Expr, b: tirx.Expr, weight: tirx.Expr) -> tirx.Expr:
                    return m.name(a + m.mul(b - a, spread(weight, width)))

                corners = [
                    [
                        m.name(cast("float32", vec.load(x, [(line + side) * op.c + at], width)))
                        for side in (left, right)
                    ]
                    for line in lines
                ]
                value = mixed(*(mixed(*pair, across) for pair in corners), down)
                zero = tirx.const(0, "int32")
                return value if op.act == REAL else quantized(value, zero, op.act)

            strips(op.c, lanes, vectors, step)

    return Rows(op.n * op.oh, nearest if op.mode == "nearest" else linear)


def fold(op: Fold, isa: Isa, vectors: int) -> Rows:
    """Lines of y: the sums of the patches that reach there, in the order of the taps."""
    (_, oh, ow, c), taps = op.y_shape, op.kernel

    def source(axis: int, at: Index, tap: Index, size: int) -> tuple[tirx.Expr, tirx.Expr]:
        """Which patch lays its tap there, and whether there is one."""
        distance = at + op.pad[axis] - tap * op.dilation[axis]
        patch = tirx.floordiv(distance, op.stride[axis])
        there = [tirx.EQ(patch * op.stride[axis], distance), patch >= 0, patch < size]
        return patch, tirx.all(*there)

    def line(row: Index, x, y) -> None:
        image, down = row // oh * op.h, row % oh
        with tb.serial(0, ow) as column:

            def channels(start: Index, widths) -> None:
                acc = Accumulators(op.dtype, widths, 0)
                with tb.serial(0, taps[0]) as r:
                    patch_row, there = source(0, down, r, op.h)
                    with tb.If(there), tb.Then(), tb.serial(0, taps[1]) as s:
                        patch, inside = source(1, column, s, op.w)
                        with tb.If(inside), tb.Then():
                            number = (image + patch_row) * op.w + patch
                            at = ((number * taps[0] + r) * taps[1] + s) * c + start
                            for i, (place, width) in enumerate(side_by_side(at, widths)):
                                acc[i] = acc[i] + vec.load(x, [place], width)
                at = (row * ow + column) * c + start
                for i, (place, width) in enumerate(side_by_side(at, widths)):
                    vec.store(y, [place], acc[i], width)

            strips(c, isa.lanes, vectors, channels)

    return Rows(op.n * oh, line)
