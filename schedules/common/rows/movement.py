"""Operators that move elements: copies of runs, and transposed blocks where there are none."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from tvm import tirx
from tvm.tirx.script import builder as tb

from lpgen.algorithms.elementwise import divided, quantized
from lpgen.algorithms.rows import Rows, spread
from lpgen.ops.movement import merged, strides_of
from lpgen.tir import vectors as vec
from lpgen.tir.quotient import divides
from lpgen.tir.rewrite import places
from lpgen.tir.strips import Index, parts_of, side_by_side, strips
from lpgen.tir.transpose import transposed_block

if TYPE_CHECKING:
    from lpgen.isa import Isa
    from lpgen.ops.movement import Concat, Gather, Movement, Pad, Slice, Transpose

LINE = 64
"""Bytes of a cache line."""

BLOCK = 16
"""Rows and columns of a block that is transposed in registers."""

FEW = 4
"""Up to so many elements lie between neighbours that are read or written with them."""


def lanes_of(op: Movement, isa: Isa) -> int:
    """Elements of a vector."""
    return isa.bits // 8 // np.dtype(op.dtype).itemsize


def copied(target, to: Index, source, start: Index, count: int, lanes: int, vectors: int) -> None:
    """Emit a copy of `count` neighbours."""

    def step(at: Index, widths: Sequence[int]) -> None:
        for place, width in side_by_side(at, widths):
            vec.store(target, [to + place], vec.load(source, [start + place], width), width)

    strips(count, lanes, vectors, step)


def filled(target, to: Index, value: tirx.Expr, count: int, lanes: int, vectors: int) -> None:
    """Emit `count` neighbours of the same value."""

    def step(at: Index, widths: Sequence[int]) -> None:
        for place, width in side_by_side(at, widths):
            vec.store(target, [to + place], spread(value, width), width)

    strips(count, lanes, vectors, step)


def concat(op: Concat, isa: Isa, vectors: int) -> Rows:
    """Rows of y."""
    lanes, total = lanes_of(op, isa), sum(op.sizes)

    def row(number: Index, *buffers) -> None:
        *inputs, y = buffers
        start = 0
        for x, size in zip(inputs, op.sizes, strict=True):
            copied(y, number * total + start, x, number * size, size, lanes, vectors)
            start += size

    return Rows(op.outer, row)


def gather(op: Gather, isa: Isa, vectors: int) -> Rows:
    """Rows of y."""
    lanes = lanes_of(op, isa)

    def row(number: Index, x, index, y) -> None:
        at = vec.bind(tirx.min(tirx.max(index[number], 0), op.rows - 1))
        copied(y, number * op.columns, x, at * op.columns, op.columns, lanes, vectors)

    return Rows(op.count, row)


def slice_(op: Slice, isa: Isa, vectors: int) -> Rows:
    """Runs of neighbours in x, or single elements that are strided."""
    strides = strides_of(op.shape)
    first = sum(at * stride for at, stride in zip(op.start, strides, strict=True))
    steps = [step * stride for step, stride in zip(op.step, strides, strict=True)]
    *outer, (run, stride) = merged(op.size, tuple(steps))
    lanes = lanes_of(op, isa)

    def row(number: Index, x, y) -> None:
        start = first + _offset(number, outer)
        if stride == 1 or run == 1:
            copied(y, number * run, x, start, run, lanes, vectors)
            return
        with tb.serial(0, run) as i:
            tb.buffer_store(y, x[start + i * stride], [number * run + i])

    return Rows(math.prod(extent for extent, _ in outer), row)


def pad(op: Pad, isa: Isa, vectors: int) -> Rows:
    """Runs of the last axis that is padded, with all behind it."""
    padded = [axis for axis in range(len(op.shape)) if op.before[axis] or op.after[axis]]
    last = padded[-1] if padded else 0
    behind = math.prod(op.shape[last + 1 :])
    left, run, right = (n[last] * behind for n in (op.before, op.shape, op.after))
    lanes, outer = lanes_of(op, isa), op.y_shape[:last]
    width = left + run + right

    def row(number: Index, x, value, y) -> None:
        at, start = number * width, 0
        inside = []
        for axis, place in enumerate(places(_expression(number), outer)):
            own = place - op.before[axis]
            inside += [own >= 0, own < op.shape[axis]] if axis in padded else []
            start = start * op.shape[axis] + own

        def line() -> None:
            filled(y, at, value[0], left, lanes, vectors)
            copied(y, at + left, x, start * run, run, lanes, vectors)
            filled(y, at + left + run, value[0], right, lanes, vectors)

        if not inside:
            line()
            return
        with tb.If(tirx.all(*inside)):
            with tb.Then():
                line()
            with tb.Else():
                filled(y, at, value[0], width, lanes, vectors)

    return Rows(math.prod(outer), row)


def transpose(op: Transpose, isa: Isa, vectors: int) -> Rows:
    """Runs where the last axis stays, else blocks of x's last axis and that of y."""
    strides = strides_of(op.shape)
    order = [axis for axis in op.axes if op.shape[axis] > 1]
    axes = merged(
        tuple(op.shape[axis] for axis in order) or (1,),
        tuple(strides[axis] for axis in order) or (1,),
    )
    *outer, (rows, stride) = axes
    if stride == 1:
        return _converted(op, isa, lambda made: _runs(op, isa, vectors, outer, rows, made))
    steps = strides_of(tuple(extent for extent, _ in axes))  # of the axes of y
    (which,) = (i for i, (_, own) in enumerate(outer) if own == 1)
    columns, step = outer[which][0], steps[which]
    around = [(*axis, steps[i]) for i, axis in enumerate(outer) if i != which]
    sides = (rows, stride), (columns, step)
    return _converted(op, isa, lambda made: _blocks(op, around, *sides, made))


def _runs(
    op: Transpose, isa: Isa, vectors: int, outer: Sequence, run: int, converted: Converted
) -> Rows:
    lanes = isa.bits // 32 if op.out else lanes_of(op, isa)

    def row(number: Index, x, *others) -> None:
        *given, y = others
        start = _offset(number, outer)

        def step(at: Index, widths: Sequence[int]) -> None:
            for place, width in side_by_side(at, widths):
                value = converted(vec.load(x, [start + place], width), given)
                vec.store(y, [number * run + place], value, width)

        strips(run, lanes, vectors, step)

    if outer:
        return Rows(math.prod(extent for extent, _ in outer), row)
    return Rows(1, row)


def _blocks(
    op: Transpose,
    around: list,
    down: tuple[int, int],
    across: tuple[int, int],
    converted: Converted,
) -> Rows:
    """Rows of a cache line of x each: `across` is (extent, stride in y) of the axis along which x
    is dense, `down` (extent, stride in x) of the one along which y is."""
    (rows, stride), (columns, step) = down, across
    line = max(BLOCK, LINE // np.dtype(op.dtype).itemsize)
    if rows <= FEW and step == rows:
        line = 4 * BLOCK  # of few rows each
    outer = math.prod(extent for extent, _, _ in around)

    def strip(number: Index, start: Index, count: int, x, y, given) -> None:
        from_x = _offset(number, [(extent, own) for extent, own, _ in around]) + start
        to_y = _offset(number, [(extent, own) for extent, _, own in around]) + start * step

        def block(at: Index, heights: Sequence[int]) -> None:
            for row, height in side_by_side(at, heights):
                for column, width in side_by_side(0, parts_of(count, BLOCK)):
                    _block(row, height, column, width)

        def _block(row: Index, height: int, column: int, width: int) -> None:
            name = vec.Names()
            lines = [
                name(converted(vec.load(x, [from_x + (row + i) * stride + column], width), given))
                for i in range(height)
            ]
            if height == step == rows and height <= FEW:
                order = [lane + i * width for lane in range(width) for i in range(height)]
                for first in range(0, len(order), width):
                    value = vec.joined(lines, order[first : first + width])
                    place = to_y + column * step + first
                    vec.store(y, [place], value, width)
                return
            for i, value in enumerate(transposed_block(lines, name)):
                vec.store(y, [to_y + (column + i) * step + row], value, height)

        if rows <= FEW and step == rows:
            block(0, [rows])
        else:
            strips(rows, BLOCK, 1, block)

    return _lines_of(columns, line, outer, strip)


def _lines_of(columns: int, line: int, outer: int, strip: Callable[..., None]) -> Rows:
    """Rows strip(outer number, start, count, x, y, given): `line` columns, or those left."""
    each = -(-columns // line)

    def row(number: Index, x, *others) -> None:
        *given, y = others
        if each == 1:
            strip(number, 0, columns, x, y, given)
            return
        start = number % each * line
        if columns % line == 0:
            strip(number // each, start, line, x, y, given)
            return
        with tb.If(start + line <= columns):
            with tb.Then():
                strip(number // each, start, line, x, y, given)
            with tb.Else():
                strip(number // each, start, columns % line, x, y, given)

    return Rows(outer * each, row)


Converted = Callable[[tirx.Expr, Sequence], tirx.Expr]
"""What is stored of what was loaded, from the scales and zero points that are given."""


def _converted(op: Transpose, isa: Isa, rows: Callable[[Converted], Rows]) -> Rows:
    """Rows with what is done to the elements."""
    if op.out is None:
        return rows(lambda value, given: value)

    def plain(value: tirx.Expr, given: Sequence) -> tirx.Expr:
        scales, zeros = given
        lanes = int(value.ty.dtype.lanes)
        return quantized(value / spread(scales[0], lanes), zeros[0], op.out)

    def fast(value: tirx.Expr, given: Sequence) -> tirx.Expr:
        scales, zeros = given
        return divided(value, scales[0], zeros[0], op.out)

    if not isa.target.has_fma:
        return rows(plain)
    slow, quick = rows(plain), rows(fast)

    def row(number: Index, *arguments) -> None:
        with tb.If(divides(arguments[1][0])):
            with tb.Then():
                quick.emit(number, *arguments)
            with tb.Else():
                slow.emit(number, *arguments)

    return Rows(slow.count, row)


def _offset(number: Index, axes: Sequence[tuple[int, int]]) -> tirx.Expr:
    """Where element `number` of (extent, stride) axes is."""
    found = places(_expression(number), [extent for extent, _ in axes])
    total = tirx.const(0, "int32")
    for place, (_, stride) in zip(found, axes, strict=True):
        total = total + place * stride
    return total


def _expression(number: Index) -> tirx.Expr:
    return tirx.const(number, "int32") if isinstance(number, int) else number
