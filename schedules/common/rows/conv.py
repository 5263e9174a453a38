"""Convolutions of float32: register tiles of pixels by panels of channels.

A row is a block of pixels and some panels of the channels of a group. What a sum reads of the image
is copied side by side first, padding and all, as many rows as the block has pixels; a kernel of one
tap reads the image itself. Where groups have one channel, a row is a line of the result.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tvm import tirx
from tvm.tirx.script import builder as tb

from lpgen.algorithms.functions import Vectors
from lpgen.algorithms.rows import Accumulators, Rows, spread, with_product
from lpgen.isa import Isa
from lpgen.ops.conv2d_f32 import PANEL
from lpgen.ops.functions import clip
from lpgen.schedules.common.rows.movement import copied, filled
from lpgen.schedules.common.rows.windows import Place, each_window, taps
from lpgen.tir import vectors as vec
from lpgen.tir.rewrite import places
from lpgen.tir.strips import Index, parts_of, side_by_side, strips

if TYPE_CHECKING:
    from lpgen.ops.conv2d_f32 import RealConv2d

PIXELS = 56
"""About so many of a block: the weights are read once for each."""

TALL = 4
"""Pixels of a tile of several panels at least."""

COPIED = 2**19
"""Bytes of the copy of a block at most, where it has more than one tile."""

PARTS = 12
"""Rows that threads can share, where there are few blocks."""


def conv2d_f32(op: RealConv2d, isa: Isa, vectors: int) -> Rows:
    """Lines of depthwise convolutions, blocks of others."""
    return _depthwise(op, isa, vectors) if op.depthwise else _Blocks.of(op, isa, vectors).rows()


def tile(op: RealConv2d, isa: Isa, vectors: int) -> tuple[int, int]:
    """Pixels of a register tile, and its vectors."""
    blocks = _Blocks.of(op, isa, vectors)
    return blocks.height, blocks.wide * PANEL // isa.lanes


def _bounded(op: RealConv2d, value: tirx.Expr, bias: tirx.Expr) -> tirx.Expr:
    """What is stored of a vector of sums."""
    value = value + bias
    if (op.low, op.high) == (-math.inf, math.inf):
        return value
    m = Vectors()
    return clip(m, m.name(value), op.low, op.high)


def _depthwise(op: RealConv2d, isa: Isa, vectors: int) -> Rows:
    n, oh, _, c = op.y_shape

    def line(row: Index, x, weights, bias, y) -> None:
        def window(at: Index, rows: list, columns: list, source: Place) -> None:
            def channels(start: Index, widths) -> None:
                acc = Accumulators("float32", widths, 0)

                def tap(r: Index, s: Index) -> None:
                    of = (r * op.kernel[1] + s) * c + start
                    for i, (place, width) in enumerate(side_by_side(0, widths)):
                        factor = vec.load(weights, [of + place], width)
                        value = vec.load(x, [source(r, s) + start + place], width)
                        acc[i] = with_product(acc[i], value, factor, op.rounded)

                taps(op, rows, columns, tap)
                for i, (place, width) in enumerate(side_by_side(0, widths)):
                    each = vec.load(bias, [start + place], width)
                    vec.store(y, [at + start + place], _bounded(op, acc[i], each), width)

            strips(c, isa.lanes, vectors, channels)

        each_window(op, row, window)

    return Rows(n * oh, line)


@dataclass(frozen=True)
class _Blocks:
    """height: pixels of a tile; wide: its panels; pixels: of a block; share: panels of a row."""

    op: RealConv2d
    lanes: int
    height: int
    wide: int
    pixels: int
    share: int

    @classmethod
    def of(cls, op: RealConv2d, isa: Isa, vectors: int) -> _Blocks:
        # Of the registers one is a number of x, one the product; the rest are sums and weights.
        beside = 2 if op.rounded == "product" else 1
        heights = {
            wide: max(1, (isa.registers - beside) // (wide * PANEL // isa.lanes) - 1)
            for wide in range(1, min(op.panels, max(1, vectors * isa.lanes // PANEL)) + 1)
        }
        wide = max(w for w, height in heights.items() if w == 1 or height >= TALL)
        height = min(op.pixels, heights[wide])
        most = PIXELS // height
        if not _direct(op):
            most = min(most, COPIED // (4 * height * op.depth))
        pixels = height * max(1, most)
        shares = -(-PARTS // (-(-op.pixels // pixels) * op.groups))
        share = -(-op.panels // shares)
        return cls(op, isa.lanes, height, wide, pixels, -(-share // wide) * wide)

    def rows(self) -> Rows:
        """Blocks, in each the groups, in each some panels."""
        op = self.op
        parts = -(-op.panels // self.share)
        blocks = -(-op.pixels // self.pixels)

        def row(number: Index, x, weights, bias, y) -> None:
            block, group, part = _places(number, (blocks, op.groups, parts))
            first = block * self.pixels
            count = vec.bind(tirx.min(op.pixels - first, self.pixels)) if blocks > 1 else op.pixels
            left, at, pitch = x, first * op.ic + group * op.depth, op.ic
            if not _direct(op):
                left, at, pitch = self._copy(first, count, group, x), 0, op.depth
            panels = tirx.min(op.panels - part * self.share, self.share)

            def columns(panel: Index, wide: int) -> None:
                start = vec.bind(group * op.panels + part * self.share + panel)

                def tile(pixel: Index, height: int) -> None:
                    sums = self._sums(left, at + pixel * pitch, pitch, weights, start, wide, height)
                    channel = (part * self.share + panel) * PANEL
                    self._store(sums, first + pixel, height, wide, group, channel, bias, y)

                _cut(count, self.height, op.pixels % self.pixels % self.height, tile)

            _cut(panels if parts > 1 else op.panels, self.wide, op.panels % self.wide, columns)

        return Rows(blocks * op.groups * parts, row)

    def _sums(
        self, left, at: Index, pitch: int, weights, start: Index, wide: int, height: int
    ) -> list[Accumulators]:
        """Emit the sums of a tile: for each pixel its vectors."""
        depth, lanes, rounded = self.op.depth, self.lanes, self.op.rounded
        each = PANEL // lanes
        acc = [Accumulators("float32", [lanes] * each * wide, 0) for _ in range(height)]
        with tb.serial(0, depth) as i:
            line = [
                vec.bind(vec.load(weights, [((start + p) * depth + i) * PANEL + v * lanes], lanes))
                for p in range(wide)
                for v in range(each)
            ]
            for pixel in range(height):
                number = vec.bind(left[at + pixel * pitch + i])
                for v, factors in enumerate(line):
                    factor = spread(number, lanes)
                    acc[pixel][v] = with_product(acc[pixel][v], factor, factors, rounded)
        return acc

    def _store(
        self,
        sums: list[Accumulators],
        first: Index,
        height: int,
        wide: int,
        group: Index,
        channel: Index,
        bias,
        y,
    ) -> None:
        """Emit what becomes of the sums; of the last panel some columns are none."""
        op, lanes = self.op, self.lanes
        own = op.oc // op.groups

        def stored(columns: int) -> None:
            for pixel in range(height):
                for v in range(wide * PANEL // lanes):
                    value, place = sums[pixel][v], 0
                    for width in parts_of(min(lanes, max(0, columns - v * lanes)), lanes):
                        part = value
                        if width < lanes:
                            part = vec.shuffle(vec.bind(value), range(place, place + width))
                        at = channel + v * lanes + place
                        each = vec.load(bias, [group * own + at], width)
                        to = (first + pixel) * op.oc + group * own + at
                        vec.store(y, [to], _bounded(op, part, each), width)
                        place += width

        rest, whole = own % PANEL, op.panels % self.wide == 0
        last = (wide - 1) * PANEL + rest
        if not rest or (wide == self.wide and not whole):
            stored(wide * PANEL)
            return
        if op.panels == wide or not whole:
            stored(last)
            return
        with tb.If(channel + wide * PANEL <= own):
            with tb.Then():
                stored(wide * PANEL)
            with tb.Else():
                stored(last)

    def _copy(self, first: Index, count: Index, group: Index, x):
        """Emit the copy [pixels, depth] of what the sums of a block read."""
        op, lanes = self.op, self.lanes
        (_, oh, ow, _), (kh, kw), own = op.y_shape, op.kernel, op.ic // op.groups
        panel = vec.scratch((self.pixels * op.depth,), "float32")
        dense = op.groups == 1 and op.dilation[1] == 1
        with tb.serial(0, count) as pixel:
            image, row, column = _places(first + pixel, (op.n, oh, ow))
            left = vec.bind(column * op.stride[1] - op.pad[1])
            with tb.serial(0, kh) as r:
                line = vec.bind(row * op.stride[0] - op.pad[0] + r * op.dilation[0])
                to = pixel * op.depth + r * kw * own
                start = ((image * op.h + line) * op.w + left) * op.ic + group * own

                def one_by_one() -> None:
                    with tb.serial(0, kw) as s:
                        at, here = left + s * op.dilation[1], to + s * own
                        with tb.If(tirx.all(at >= 0, at < op.w)):
                            with tb.Then():
                                place = start + s * op.dilation[1] * op.ic
                                copied(panel, here, x, place, own, lanes, 4)
                            with tb.Else():
                                filled(panel, here, _zero(), own, lanes, 4)

                def taken() -> None:
                    if not dense:
                        one_by_one()
                        return
                    with tb.If(tirx.all(left >= 0, left + kw <= op.w)):
                        with tb.Then():
                            copied(panel, to, x, start, kw * own, lanes, 4)
                        with tb.Else():
                            one_by_one()

                with tb.If(tirx.all(line >= 0, line < op.h)):
                    with tb.Then():
                        taken()
                    with tb.Else():
                        filled(panel, to, _zero(), kw * own, lanes, 4)
        return panel


def _direct(op: RealConv2d) -> bool:
    """Whether the rows of the left side are the pixels of x."""
    return op.kernel == op.stride == (1, 1) and not any(op.pad)


def _zero() -> tirx.Expr:
    return tirx.const(0, "float32")


def _places(number: Index, extents: tuple[int, ...]) -> list[tirx.Expr]:
    """The place on each axis."""
    number = tirx.const(number, "int32") if isinstance(number, int) else number
    return [vec.bind(place) for place in places(number, extents)]


def _cut(count: Index, step: int, rest: int, body: Callable[[Index, int], None]) -> None:
    """Emit body(start, size) for pieces of `step` of `count`, and where that leaves something, one
    of `rest`."""
    whole = count // step
    if not isinstance(count, int) or whole:
        with tb.serial(0, whole) as i:
            body(i * step, step)
    if not rest:
        return
    if isinstance(count, int):
        if count % step:
            body(whole * step, rest)
        return
    with tb.If(count % step != 0), tb.Then():
        body(whole * step, rest)
