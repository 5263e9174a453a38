"""Operators on windows of an image [n, h, w, c]: each line of the result is a row."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from tvm import tirx
from tvm.tirx.script import builder as tb

from lpgen.algorithms.elementwise import quantized
from lpgen.algorithms.rows import Accumulators, Rows, cast, spread
from lpgen.formats import REAL
from lpgen.isa import Isa
from lpgen.tir import vectors as vec
from lpgen.tir.strips import Index, side_by_side, strips

if TYPE_CHECKING:
    from lpgen.ops.pool import Pool

STRAIGHT = 16
"""Taps of a kernel up to which code has no loop over them: such loops take longer than a tap."""


def pool(op: Pool, isa: Isa, vectors: int) -> Rows:
    """Lines of y: `vectors` vectors of channels at a time, over the taps inside of the image."""
    (n, oh, ow, c), (_, h, w, _) = op.y_shape, op.x_shape
    lanes = isa.bits // (8 if op.how == "max" and op.act != REAL else 32)

    def line(row: Index, x, *others) -> None:
        *given, y = others
        top = row % oh * op.stride[0] - op.pad[0]
        image = row // oh * h
        rows = [vec.bind(v) for v in _inside(op, 0, top, h)]
        with tb.serial(0, ow) as column:
            left = column * op.stride[1] - op.pad[1]
            columns = [vec.bind(v) for v in _inside(op, 1, left, w)]

            def channels(start: Index, widths) -> None:
                acc = _begin(op, widths)

                def tap(r: Index, s: Index) -> None:
                    line_at = (image + top + r * op.dilation[0]) * w + left
                    at = (line_at + s * op.dilation[1]) * c + start
                    for i, (place, width) in enumerate(side_by_side(at, widths)):
                        _step(op, acc, i, vec.load(x, [place], width))

                _taps(op, rows, columns, tap)
                count = (rows[1] - rows[0]) * (columns[1] - columns[0])
                at = (row * ow + column) * c + start
                for i, (place, width) in enumerate(side_by_side(at, widths)):
                    vec.store(y, [place], _end(op, acc[i], count, given), width)

            strips(c, lanes, vectors, channels)

    return Rows(n * oh, line)


def _taps(op: Pool, rows: list, columns: list, tap: Callable[[Index, Index], None]) -> None:
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


def _inside(op: Pool, axis: int, start: Index, size: int) -> tuple[tirx.Expr, tirx.Expr]:
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
