"""Sums of the activations of every row of the left side: what an offset of the weights multiplies.

Weights that are kept as codes differ from their values by an offset, and so do those with a zero
point. With w = step * code + offset,

    sum of x * w = step * (sum of x * code) + offset * (sum of x)

and the second sum belongs to a row alone. Rows of a convolution overlap: every pixel is added up
once, and a row adds up the pixels of its window. Padding adds nothing, and a value x adds
x - zero_act.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tvm import te, tirx
from tvm.s_tir import Schedule
from tvm.tirx.script import builder as tb

from lpgen.algorithms.lhs.view import PARALLEL_BYTES, is_matrix, rows_loop
from lpgen.algorithms.prologue import Prologue
from lpgen.ops import Conv2d, Dense
from lpgen.ops.packed import WORD
from lpgen.tir.extern import extern
from lpgen.tir.vectors import ramp, splat

LANES = 32
_FEW = 8
"""Bytes that are added in one expression."""

_LONGEST = (2**16 - 1) // (2 * 255)
"""Pairs of bytes whose sum fits a 16-bit lane."""


def prologue(op: Dense | Conv2d, planes: bool = False) -> Prologue:
    """Prologue of row_sums, int32[groups, m]; x as rows of pixels, in op's own 8-bit type, or as
    words of bit planes (`lpgen.ops.packed`; a group has whole ones)."""
    if is_matrix(op):
        pixels = _Pixels(op.matrix.m, 1, 1, op.matrix.k)
    else:
        pixels = _Pixels(op.n * op.h, op.w, op.groups, op.ic // op.groups)
    across = pixels.width * pixels.groups
    if planes:
        shape = (pixels.rows, across * -(-pixels.count // WORD) * op.act.bits)
        x = te.placeholder(shape, "uint32", name="x")
    else:
        x = te.placeholder((pixels.rows, across * pixels.count), op.act.dtype, name="x")
    y = _copied(op, pixels, x) if is_matrix(op) else _windows(op, pixels, x)
    sch = Schedule(te.create_prim_func([x, y]))
    if not is_matrix(op):
        _schedule_windows(sch, op)
    sums = te.placeholder((op.matrix.groups, op.matrix.m), "int32", name="row_sums")
    return Prologue(sch.mod["main"], sums)


@dataclass(frozen=True)
class _Pixels:
    """The input as `rows` of `width` pixels of `groups` times `count` channels."""

    rows: int
    width: int
    groups: int
    count: int


def _copied(op, pixels: _Pixels, x: te.Tensor) -> te.Tensor:
    sums = _pixel_sums(op, pixels, x, 1, (0, 0, 0, 0))
    return te.compute((1, op.matrix.m), lambda g, m: sums[g, m, 0], name="row_sums")


def _windows(op: Conv2d, pixels: _Pixels, x: te.Tensor) -> te.Tensor:
    """The sums of windows: of their columns first, which several windows share."""
    sums = _pixel_sums(op, pixels, x, op.n, op.pad)
    height, width = op.padded
    r, s = (
        te.reduce_axis((0, taps), name=name) for taps, name in zip(op.kernel, "rs", strict=True)
    )

    def column(g, line, w):
        row = line // op.oh * height + line % op.oh * op.stride[0] + r * op.dilation[0]
        return te.sum(sums[g, row, w], axis=[r])

    columns = te.compute((op.groups, op.n * op.oh, width), column, name="columns")

    def window(g, m):
        first = m % op.ow * op.stride[1]
        return te.sum(columns[g, m // op.ow, first + s * op.dilation[1]], axis=[s])

    return te.compute((op.groups, op.matrix.m), window, name="row_sums")


def _schedule_windows(sch: Schedule, op: Conv2d) -> None:
    """Loops over neighbouring columns innermost, where LLVM makes vectors of them."""
    for name in ("columns", "row_sums"):
        block = sch.get_sblock(name)
        if name == "columns":
            g, line, w, tap = sch.get_loops(block)
        else:
            g, m, tap = sch.get_loops(block)
            line, w = sch.split(m, [None, op.ow])
        sch.reorder(g, line, tap, w)
        line = sch.fuse(g, line)
        if math.prod(op.x_extents) >= PARALLEL_BYTES:
            sch.parallel(line)
        sch.decompose_reduction(block, tap)


def _pixel_sums(
    op: Dense | Conv2d, pixels: _Pixels, x: te.Tensor, images: int, pad: tuple[int, int, int, int]
) -> te.Tensor:
    """int32[group, row, pixel]: the sum of x - zero_act over channels, 0 in the padding."""
    top, left, bottom, right = pad
    height = pixels.rows // images
    shape = (pixels.groups, images * (height + top + bottom), pixels.width + left + right)
    nbytes = math.prod(int(extent) for extent in x.shape)

    def line_of_pixels(x, sums, line, row) -> None:
        with tb.serial(0, pixels.width) as w, tb.serial(0, pixels.groups) as g:
            pixel, to = w * pixels.groups + g, [g, line, w + left]
            if str(x.dtype) == "uint32":
                _sum_planes(op, x, sums, row, pixel, to, pixels.count)
            else:
                tb.buffer_store(sums, tirx.const(-pixels.count * op.zero_act, "int32"), to)
                add_up(x, sums, row, pixel * pixels.count, to, pixels.count)

    def line_of_zeros(sums, line) -> None:
        with tb.serial(0, pixels.groups) as g, tb.serial(0, shape[2]) as w:
            tb.buffer_store(sums, tirx.const(0, "int32"), [g, line, w])

    def emit(x, sums) -> None:
        with rows_loop(op, shape[1], nbytes) as line:
            padded = height + top + bottom
            row = line % padded - top
            if left or right or padded > height:
                line_of_zeros(sums, line)
            with tb.If(tirx.all(row >= 0, row < height)), tb.Then():
                line_of_pixels(x, sums, line, line // padded * height + row)

    return extern("pixel_sums", shape, "int32", [x], emit)


def add_up(x, sums, row, start, to: list, count: int) -> None:
    """Emit sums[to] += the sum of x[row, start : start + count]."""
    vectors = count // (2 * LANES)
    for first in range(0, vectors, _LONGEST):
        run = min(_LONGEST, vectors - first)
        _add_vectors(x, sums, row, start + first * 2 * LANES, to, run)
    rest = count % (2 * LANES)
    if rest <= _FEW:
        values = [x[row, start + vectors * 2 * LANES + i].astype("int32") for i in range(rest)]
        tb.buffer_store(sums, sum(values, sums[tuple(to)]), to)
    else:
        with tb.serial(0, count % (2 * LANES)) as i:
            value = x[row, start + vectors * 2 * LANES + i].astype("int32")
            tb.buffer_store(sums, sums[tuple(to)] + value, to)


def _sum_planes(op: Dense | Conv2d, x, sums, row, pixel, to: list, count: int) -> None:
    """Emit sums[to] = the sum of the pixel's values less zero_act: of step * code + min."""
    words, bits = -(-count // WORD), op.act.bits
    least = count * (op.act.min - op.zero_act)
    tb.buffer_store(sums, tirx.const(least, "int32"), to)
    with tb.serial(0, words) as i:
        total = sums[tuple(to)]
        for p in range(bits):
            ones = tirx.popcount(x[row, (pixel * words + i) * bits + p]).astype("int32")
            total = total + ones * tirx.const(op.act.step << p, "int32")
        tb.buffer_store(sums, total, to)


def _add_vectors(x, sums, row, start, to: list, count: int) -> None:
    """Add `count` vectors of bytes: the two bytes of 16-bit lanes first, then the lanes.

    Signed bytes have their top bits flipped, which adds 128 to each.
    """
    lanes = ramp(0, LANES)
    signed = str(x.dtype) == "int8"
    with tb.sblock("vectors"):
        tb.reads([])
        tb.writes([])
        acc = tb.sblock_alloc_buffer((LANES,), "uint16")
        tb.buffer_store(acc, splat(0, "uint16", LANES), [lanes])
        with tb.serial(0, count) as i:
            at = ramp(start + i * 2 * LANES, 2 * LANES)
            pairs = tirx.reinterpret(f"uint16x{LANES}", x[row, at])
            pairs = tb.Bind(pairs ^ splat(0x8080, "uint16", LANES) if signed else pairs)
            both = (pairs & splat(0xFF, "uint16", LANES)) + (pairs >> splat(8, "uint16", LANES))
            tb.buffer_store(acc, acc[(lanes,)] + both, [lanes])
        wide = acc[(lanes,)].astype(f"int32x{LANES}")
        total = tirx.call_llvm_intrin("int32", f"llvm.vector.reduce.add.v{LANES}i32", wide)
        less = 128 * 2 * LANES * count if signed else 0
        tb.buffer_store(sums, sums[tuple(to)] + total - tirx.const(less, "int32"), to)
