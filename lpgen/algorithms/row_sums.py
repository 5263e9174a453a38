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

from tvm import te, tirx
from tvm.s_tir import Schedule
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as tb

from lpgen.algorithms.left import PARALLEL_BYTES, is_matrix
from lpgen.ops import Conv2d, Dense

LANES = 32
_LONGEST = (2**16 - 1) // (2 * 255)
"""Pairs of bytes whose sum fits a 16-bit lane."""


def placeholder(op: Dense | Conv2d) -> te.Tensor:
    """The parameter row_sums, int32[groups, m], of a function that `prologue` goes before."""
    return te.placeholder((op.matrix.groups, op.matrix.m), "int32", name="row_sums")


def prologue(op: Dense | Conv2d) -> tirx.PrimFunc:
    """The function (x, row_sums); x as rows of pixels, in op's own 8-bit type."""
    matrix = is_matrix(op)
    pixels = (op.matrix.m, 1, 1) if matrix else (op.n * op.h, op.w, op.groups)
    count = op.matrix.k if matrix else op.ic // op.groups
    x = te.placeholder((pixels[0], pixels[1] * pixels[2] * count), op.act.dtype, name="x")
    sums = _pixel_sums(x, pixels, count, count * op.zero_act)
    y = _copied(op, sums) if matrix else _windows(op, sums)
    sch = Schedule(te.create_prim_func([x, y]))
    if math.prod(op.x_shape) >= PARALLEL_BYTES:
        g, m = sch.get_loops(sch.get_sblock("row_sums"))[:2]
        sch.parallel(sch.fuse(g, m))
    return sch.mod["main"]


def _copied(op, sums: te.Tensor) -> te.Tensor:
    return te.compute((1, op.matrix.m), lambda g, m: sums[m, 0, 0], name="row_sums")


def _windows(op: Conv2d, sums: te.Tensor) -> te.Tensor:
    top, left, _, _ = op.pad
    r, s = (
        te.reduce_axis((0, taps), name=name) for taps, name in zip(op.kernel, "rs", strict=True)
    )

    def window(g, m):
        image, oh, ow = m // (op.oh * op.ow), m // op.ow % op.oh, m % op.ow
        row = oh * op.stride[0] + r * op.dilation[0] - top
        column = ow * op.stride[1] + s * op.dilation[1] - left
        inside = tirx.all(row >= 0, row < op.h, column >= 0, column < op.w)
        value = sums[image * op.h + row, column, g]
        return te.sum(te.if_then_else(inside, value, tirx.const(0, "int32")), axis=[r, s])

    return te.compute((op.groups, op.matrix.m), window, name="row_sums")


def _pixel_sums(x: te.Tensor, shape: tuple[int, int, int], count: int, less: int) -> te.Tensor:
    """int32[row, pixel, group]: the sums of `count` neighbours each, minus `less`."""
    read = tirx.decl_buffer(x.shape, x.dtype, name="x")
    written = tirx.decl_buffer(shape, "int32", name="pixel_sums")
    parallel = math.prod(shape) * count >= PARALLEL_BYTES

    def emit(inputs, outputs):
        with IRBuilder() as builder:
            with (tb.parallel if parallel else tb.serial)(0, shape[0]) as row:
                with tb.serial(0, shape[1]) as pixel, tb.serial(0, shape[2]) as g:
                    start = (pixel * shape[2] + g) * count
                    to = [row, pixel, g]
                    tb.buffer_store(outputs[0], tirx.const(-less, "int32"), to)
                    _sum(inputs[0], outputs[0], row, start, to, count)
        return builder.get()

    return te.extern(
        [shape], [x], emit, name="pixel_sums", dtype=["int32"],
        in_buffers=[read], out_buffers=[written],
    )  # fmt: skip


def _sum(x, sums, row, start, to: list, count: int) -> None:
    """Emit sums[to] += the sum of x[row, start : start + count]."""
    vectors = count // (2 * LANES)
    for first in range(0, vectors, _LONGEST):
        run = min(_LONGEST, vectors - first)
        _add_vectors(x, sums, row, start + first * 2 * LANES, to, run)
    if count % (2 * LANES):
        with tb.serial(0, count % (2 * LANES)) as i:
            value = x[row, start + vectors * 2 * LANES + i].astype("int32")
            tb.buffer_store(sums, sums[tuple(to)] + value, to)


def _add_vectors(x, sums, row, start, to: list, count: int) -> None:
    """Add `count` vectors of bytes: the two bytes of 16-bit lanes first, then the lanes.

    Signed bytes have their top bits flipped, which adds 128 to each.
    """
    lanes = tirx.Ramp(tirx.const(0, "int32"), tirx.const(1, "int32"), LANES)
    signed = str(x.dtype) == "int8"
    with tb.sblock("vectors"):
        tb.reads([])
        tb.writes([])
        acc = tb.sblock_alloc_buffer((LANES,), "uint16")
        tb.buffer_store(acc, _splat(0), [lanes])
        with tb.serial(0, count) as i:
            at = tirx.Ramp(start + i * 2 * LANES, tirx.const(1, "int32"), 2 * LANES)
            pairs = tirx.reinterpret(f"uint16x{LANES}", x[row, at])
            pairs = tb.Bind(pairs ^ _splat(0x8080) if signed else pairs)
            both = (pairs & _splat(0xFF)) + (pairs >> _splat(8))
            tb.buffer_store(acc, acc[(lanes,)] + both, [lanes])
        with tb.serial(0, LANES) as lane:
            tb.buffer_store(sums, sums[tuple(to)] + acc[lane].astype("int32"), to)
        if signed:
            less = tirx.const(128 * 2 * LANES * count, "int32")
            tb.buffer_store(sums, sums[tuple(to)] - less, to)


def _splat(value: int) -> tirx.Expr:
    return tirx.Broadcast(tirx.const(value, "uint16"), LANES)
