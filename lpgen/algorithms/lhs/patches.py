"""The left side of a convolution as a matrix in memory (im2row): each output position's window.

    patches[group * m + position][kernel row, kernel column, channel of the group]

where neighbours in k have to be neighbours in memory, whatever taps they belong to. Padding is 0,
and every value is x less its zero point.
"""

from __future__ import annotations

from tvm import te, tirx
from tvm.tirx.script import builder as tb

from lpgen.algorithms.lhs.k_split import KSplit
from lpgen.algorithms.lhs.view import Lhs, rows_loop
from lpgen.ops import Conv2d
from lpgen.tir.extern import extern


def patches(op: Conv2d, width: int, dtype: str) -> Lhs:
    """The left side, copied into rows of `width` >= k places, 0 behind those of k."""
    groups, m, _, k = op.matrix
    channels, (kh, kw) = op.ic // groups, op.kernel
    zero, nothing = tirx.const(-op.zero_act, dtype), tirx.const(0, dtype)
    x = te.placeholder((op.n, op.h, op.w * op.ic), op.act.dtype, name="x")

    def tap(read, written, row, window, at, r, s) -> None:
        """Emit the channels of a tap of a window (image, row, column, group), or zeros."""
        image, oh, ow, g = window
        ih = oh * op.stride[0] + r * op.dilation[0] - op.pad[0]
        iw = ow * op.stride[1] + s * op.dilation[1] - op.pad[1]
        inside = tirx.all(ih >= 0, ih < op.h, iw >= 0, iw < op.w)
        first = iw * op.ic + g * channels
        with tb.If(inside):
            with tb.Then(), tb.serial(0, channels) as c:
                value = read[image, ih, first + c].astype(dtype)
                value = value + zero if op.zero_act else value
                tb.buffer_store(written, value, [row, at + c])
            with tb.Else(), tb.serial(0, channels) as c:
                tb.buffer_store(written, nothing, [row, at + c])

    def body(read, written) -> None:
        with rows_loop(op, groups * m, groups * m * width) as row:
            place = row % m
            window = place // (op.oh * op.ow), place // op.ow % op.oh, place % op.ow, row // m
            with tb.serial(0, kh) as r, tb.serial(0, kw) as s:
                tap(read, written, row, window, (r * kw + s) * channels, r, s)
            if width > k:
                with tb.serial(0, width - k) as i:
                    tb.buffer_store(written, nothing, [row, k + i])

    source = extern("patches", (groups * m, width), dtype, [x], body)
    return Lhs(op, KSplit(1, 1, k, width // 4, 4), x, source, width, 0)
