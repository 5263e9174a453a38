"""The left side of the implicit matrix product: element (m, k) of a dense or conv2d input.

Nothing is copied that need not be: where the input has no padding, its values fit the instruction
as they are and its runs fill their k steps, the *source* is the input itself. Otherwise one pass
writes a padded source, in which the values are already what the instruction wants and every index
that `at` can form is inside.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm import te, tirx
from tvm.tirx.script import builder as tb

from lpgen.algorithms.lhs.k_split import KSplit
from lpgen.algorithms.ranged import marks
from lpgen.ops import Conv2d, Dense, Operator
from lpgen.tir import vectors as vec
from lpgen.tir.extern import extern

VECTOR, PART = 64, 16
"""Bytes of a vector, and of a part of one, where rows of the kernel are interleaved by vectors."""

PARALLEL_BYTES = 2**15
"""From this size on, several threads copy a padded source: it takes about two microseconds."""


@dataclass(frozen=True)
class Lhs:
    """Left side of the product. x: the input as the kernel sees it (flat rows); source: what `at`
    reads."""

    op: Dense | Conv2d
    cut: KSplit
    x: te.Tensor
    source: te.Tensor
    pixel: int
    """Distance of neighbouring pixels in the source's last axis (of rows, if x is the matrix)."""
    channels: int
    """Distance of neighbouring groups in the source's last axis."""
    padded: bool = True
    """Whether the source has the padding, if there is any."""
    added: int = 0
    """What x is above the values when it is quantized from floats."""

    @property
    def row_distance(self) -> int:
        """Elements from one row of the matrix to the next, both in one `line`."""
        return self.pixel if is_matrix(self.op) else self.op.stride[1] * self.pixel

    def at(self, g: tirx.Expr, m: tirx.Expr, r: tirx.Expr, s: tirx.Expr, j: tirx.Expr):
        """Value `j` of run (r, s) of row `m` in group `g`, in the source's dtype."""
        *rows, start = self.place(g, m, r, s)
        return self.source[(*rows, start + j)]

    def place(self, g: tirx.Expr, m: tirx.Expr, r: tirx.Expr, s: tirx.Expr, unit: int = 1) -> tuple:
        """Indices of the source's element where run (r, s) of row `m` in group `g` starts, the last
        one in units of `unit` elements (which divides the distances of pixels and groups)."""
        if is_matrix(self.op):
            return m, tirx.const(0, "int32")
        op = self.op
        image, oh, ow = m // (op.oh * op.ow), m // op.ow % op.oh, m % op.ow
        row = oh if self.cut.fold else oh * op.stride[0] + r * op.dilation[0]
        column = ow * op.stride[1] + s * op.dilation[1]
        if not self.padded:
            row, column = row - op.pad[0], column - op.pad[1]
        return image, row, column * (self.pixel // unit) + g * (self.channels // unit)


def line(op: Dense | Conv2d) -> int:
    """How many rows of the left side lie a constant distance apart: a line of output pixels, or all
    of them where the input is the matrix itself."""
    return op.matrix.m if is_matrix(op) else op.ow


def lhs_of(
    op: Dense | Conv2d,
    cut: KSplit,
    dtype: str,
    offset: int,
    padded: bool = True,
    alone: bool = False,
    interleaves: bool = False,
) -> Lhs:
    """The left side in `dtype`, every value plus `offset` (so that a signed value fits uint8).

    padded: whether the padding is there; without it the caller reads what is inside (`inside`);
    alone: nothing else reads x, so that floats may be quantized to values with the offset;
    interleaves: a vector of 64 bytes out of two is one instruction.

    A uint8 input is read as int8, and an int8 one as uint8, without a copy where that changes no
    value: with offset 0 the caller vouches for it.
    """
    view = read_dtype(op, dtype, offset)
    if is_matrix(op):
        if alone and offset and op.lhs.real and cut.exact:
            x = te.placeholder((op.matrix.m, op.matrix.k), dtype, name="x")
            return Lhs(op, cut, x, x, op.matrix.k, 0, added=offset)
        return _matrix(op, cut, view, dtype, offset)
    if cut.fold:
        return _folded(op, cut, view, dtype, offset, interleaves)
    return _conv(op, cut, view, dtype, offset, padded)


def read_dtype(op: Dense | Conv2d, dtype: str, offset: int) -> str:
    """Dtype in which the input is read for a left side in `dtype` of every value plus `offset`:
    with offset 0 the two 8-bit types have the same bits."""
    return dtype if offset == 0 and np.dtype(dtype).itemsize == 1 else op.act.dtype


def padding(op: Dense | Conv2d, dtype: str, offset: int) -> int:
    """What adds nothing to a sum, as a left side in `dtype` of every value plus `offset` has it."""
    value = offset + op.zero_act
    return value % 256 if dtype == "uint8" else value  # perhaps int8 values, as they are


def is_matrix(op: Dense | Conv2d) -> bool:
    """Whether the input is the left side as it lies in memory, row after row."""
    if isinstance(op, Dense):
        return True
    return op.kernel == op.stride == (1, 1) and not any(op.pad) and op.groups == 1


def _matrix(op: Dense | Conv2d, cut: KSplit, view: str, dtype: str, offset: int) -> Lhs:
    rows, run = op.matrix.m, op.matrix.k
    x = te.placeholder((rows, run), view, name="x")
    if view == dtype and not offset and cut.exact:
        return Lhs(op, cut, x, x, run, 0)
    width = cut.kg * cut.kq

    def body(source_in, source_out):
        with rows_loop(op, rows, rows * width) as m:
            with tb.serial(0, run) as k:
                tb.buffer_store(source_out, _convert(source_in[m, k], dtype, offset), [m, k])
            _fill(source_out, [m], run, width, 0, dtype)

    return Lhs(op, cut, x, extern("pad", (rows, width), dtype, [x], body), width, 0)


def _conv(op: Conv2d, cut: KSplit, view: str, dtype: str, offset: int, padded: bool = True) -> Lhs:
    row_bytes = op.w * op.ic
    x = te.placeholder((op.n, op.h, row_bytes), view, name="x")
    top, left, bottom, right = op.pad if padded else (0, 0, 0, 0)
    if view == dtype and not offset and not any((top, left, bottom, right)) and cut.exact:
        return Lhs(op, cut, x, x, op.ic, op.ic // op.groups, padded)
    channels = op.ic // op.groups
    # Zeros wanted behind every run: each group's channels get their own.
    spread = cut.kg * cut.kq if cut.clean else channels
    pixel = spread * op.groups
    height, width = op.h + top + bottom, op.w + left + right
    pad_value = padding(op, dtype, offset)
    # The last run of a row may reach past it by the empty places of its groups.
    pitch = width * pixel + cut.kg * cut.kq - cut.run if spread == channels else width * pixel

    def row_of_pixels(source_in, source_out, image, row):
        """Pixel after pixel, each group's channels followed by zeros."""
        with tb.serial(0, width) as w, tb.serial(0, op.groups) as g, tb.serial(0, spread) as c:
            inside = tirx.all(row >= top, row < top + op.h, w >= left, w < left + op.w)
            x_at = (image, row - top, (w - left) * op.ic + g * channels + c)
            value = _convert(source_in[x_at], dtype, offset)
            value = tirx.if_then_else(inside, value, tirx.const(pad_value, dtype))
            value = tirx.if_then_else(c < channels, value, tirx.const(0, dtype))
            tb.buffer_store(source_out, value, [image, row, w * pixel + g * spread + c])

    def row_as_a_whole(source_in, source_out, image, row):
        with tb.If(tirx.all(row >= top, row < top + op.h)):
            with tb.Then():
                _fill(source_out, [image, row], 0, left * pixel, pad_value, dtype)
                with tb.serial(0, row_bytes) as i:
                    value = _convert(source_in[image, row - top, i], dtype, offset)
                    tb.buffer_store(source_out, value, [image, row, left * pixel + i])
                _fill(source_out, [image, row], (left + op.w) * pixel, pitch, pad_value, dtype)
            with tb.Else():
                _fill(source_out, [image, row], 0, pitch, pad_value, dtype)

    def body(source_in, source_out):
        with tb.serial(0, op.n) as image, rows_loop(op, height, op.n * height * pitch) as row:
            copy_row = row_as_a_whole if spread == channels else row_of_pixels
            copy_row(source_in, source_out, image, row)

    source = extern("pad", (op.n, height, pitch), dtype, [x], body)
    return Lhs(op, cut, x, source, pixel, spread, padded)


def _folded(op: Conv2d, cut: KSplit, view: str, dtype: str, offset: int, interleaves: bool) -> Lhs:
    """A copy [n, oh, kernel column's pixels] in which the kernel's rows are neighbours."""
    kh, kw = op.kernel
    width, pixel = op.padded[1], kh * op.ic
    # Columns of a piece of one vector, out of a part of a vector of each row.
    columns = min(VECTOR // pixel, PART // op.ic) if interleaves and kh * PART <= 2 * VECTOR else 0
    lanes = PART if columns > 1 else 4 if op.ic <= 4 else 8
    columns = max(1, columns)
    pieces = -(-width // columns)
    # Padded rows first, with so much behind them that whole vectors can be read.
    behind = (pieces * columns - width) * op.ic + lanes
    room = KSplit(kh, 1, kw * op.ic, -(-(kw * op.ic + behind) // cut.kq), cut.kq)
    rows = _conv(op, room, view, dtype, offset)
    written = (pieces - 1) * columns * pixel + VECTOR if lanes == PART else width * pixel + lanes
    pitch = max(written, width * pixel + cut.kg * cut.kq - cut.run)

    def vector(start):
        return tirx.Ramp(start, tirx.const(1, "int32"), lanes)

    def one_by_one(source_in, source_out, image, oh) -> None:
        with tb.serial(0, width) as w, tb.unroll(0, kh) as r:
            row = oh * op.stride[0] + r * op.dilation[0]
            # A vector may reach past its channels: the next one is written over that.
            pixels = source_in[image, row, vector(w * op.ic)]
            tb.buffer_store(source_out, pixels, [image, oh, vector(w * pixel + r * op.ic)])

    def interleaved(source_in, source_out, image, oh) -> None:
        with tb.serial(0, pieces) as piece:
            parts = []
            for r in range(kh):
                row = oh * op.stride[0] + r * op.dilation[0]
                part = source_in[image, row, vector(piece * (columns * op.ic))]
                parts.append(vec.bind(part))
            parts += [parts[-1]] * (-kh % (VECTOR // PART))
            firsts = range(0, len(parts), VECTOR // PART)
            whole = [
                vec.bind(vec.joined(parts[i : i + VECTOR // PART], range(VECTOR))) for i in firsts
            ]
            places = [
                i % pixel // op.ic * PART + i // pixel * op.ic + i % op.ic
                for i in range(columns * pixel)
            ]
            places += [0] * (VECTOR - len(places))
            to = (image, oh, piece * (columns * pixel))
            vec.store(source_out, to, vec.joined(whole, places), VECTOR)

    def body(source_in, source_out):
        with tb.serial(0, op.n) as image, rows_loop(op, op.oh, op.n * op.oh * pitch) as oh:
            (interleaved if lanes == PART else one_by_one)(source_in, source_out, image, oh)
            _fill(source_out, [image, oh], width * pixel, pitch, 0, dtype)

    source = extern("fold", (op.n, op.oh, pitch), dtype, [rows.source], body)
    return Lhs(op, cut, rows.x, source, pixel, 0)


def _convert(value: tirx.Expr, dtype: str, offset: int) -> tirx.Expr:
    """`value + offset` in `dtype`; between the 8-bit types it wraps to the same bits."""
    converted = value.astype(dtype)
    return converted + tirx.const(offset, dtype) if offset else converted


def rows_loop(op: Operator, count: int, nbytes: int):
    """The loop over rows: parallel where what is done for them is worth several threads."""
    return (tb.parallel if nbytes >= PARALLEL_BYTES else tb.serial)(0, count, annotations=marks(op))


def _fill(buffer, row: list, start: int, stop: int, value: int, dtype: str) -> None:
    """Emit a loop that sets places start..stop of the row to `value`."""
    if start < stop:
        with tb.serial(0, stop - start) as i:
            tb.buffer_store(buffer, tirx.const(value, dtype), [*row, start + i])
