"""Products of the activations with the sparse part of the weights, int32[m][channel].

They are computed before the kernel, whose epilogue adds them to the sums of the dense part. Two
stages, whose vectors are neighbouring rows m of the matrix product:

* "planes": the input, transposed into the planes of `outliers.Geometry`.
* "outlier_sums": for a block of rows and a channel, the sum of value * (vector of activations) over
  the channel's entries, in registers; 16 channels of 16 rows are then transposed.

A single row has no neighbours: numbers take the place of vectors.
"""

from __future__ import annotations

from tvm import te, tirx
from tvm.tirx.script import builder as tb

from lpgen.algorithms.lhs.view import PARALLEL_BYTES, is_matrix
from lpgen.algorithms.prologue import Prologue
from lpgen.algorithms.sections import placeholders
from lpgen.algorithms.weights.sparse import LANES, Geometry, padded_channels
from lpgen.ops import Conv2d, Dense
from lpgen.tir.extern import extern
from lpgen.tir.vectors import ramp, splat, vector

_ENOUGH_TASKS = 8
"""Blocks of rows that are worth being shared out, rather than channels."""


def prologue(op: Dense | Conv2d) -> Prologue:
    """Prologue of outlier_sums, int32[m, channels], out of x and the three sections; x as rows of
    pixels, in op's own 8-bit type."""
    geometry = Geometry(op)
    images, height, width, channels = geometry.pixels
    shape = (width, channels) if is_matrix(op) else (images * height, width * channels)
    x = te.placeholder(shape, op.act.dtype, name="x")
    entries = placeholders(geometry.sections())
    planes = extern("planes", (geometry.size,), op.act.dtype, [x], _Planes(geometry).emit)
    sums = _Sums(geometry, op.zero_act)
    shape = (op.matrix.m, padded_channels(op))
    result = extern("outlier_sums", shape, "int32", [planes, *entries], sums.emit)
    function = te.create_prim_func([x, *entries, result])
    return Prologue(function, te.placeholder(shape, "int32", name="outlier_sums"))


class _Planes:
    """The input, transposed in blocks of 16 pixels x 16 channels."""

    def __init__(self, geometry: Geometry) -> None:
        self.geometry = geometry

    def emit(self, x, planes) -> None:
        g = self.geometry
        images, height, _, channels = g.pixels
        shared = height > 1 and height * g.pixels[2] * channels >= PARALLEL_BYTES
        with tb.serial(0, images) as image:
            if isinstance(g.op, Conv2d) and any(g.op.pad):
                zero = tirx.const(g.op.zero_act, g.op.act.dtype)
                with tb.serial(0, g.image) as i:
                    tb.buffer_store(planes, zero, [image * g.image + i])
            with (tb.parallel if shared else tb.serial)(0, height) as h:
                for phase in range(g.phases[1]):
                    self._row(x, planes, image, h, phase)

    def _row(self, x, planes, image, h, phase: int) -> None:
        """The pixels of a row in that phase of columns."""
        g = self.geometry
        (_, height, width, channels), (above, left) = g.pixels, g.pad
        first, stride = (phase - left) % g.phases[1], g.phases[1]
        count = -(-(width - first) // stride)
        row = h + above
        start = image * g.image + (row % g.phases[0] * stride + phase) * g.pitch
        start = start + row // g.phases[0] * g.plane[1] + (first + left) // stride
        distance = g.phases[0] * stride * g.pitch  # from channel to channel

        def pixel(i):
            return first + i * stride

        def place(w, c) -> tuple:
            return (w, c) if is_matrix(g.op) else (image * height + h, w * channels + c)

        if channels < LANES or count < 4:
            with tb.serial(0, max(count, 0)) as i, tb.serial(0, channels) as c:
                value = x[place(pixel(i), c)]
                tb.buffer_store(planes, value, [start + c * distance + i])
            return

        def block(i, pixels: int) -> None:
            with tb.serial(0, -(-channels // LANES)) as number:
                c = te.min(number * LANES, channels - LANES)
                rows = [place(pixel(i + min(p, pixels - 1)), c) for p in range(LANES)]
                places = [start + (c + lane) * distance + i for lane in range(LANES)]
                _transpose(x, rows, planes, places, pixels)

        whole = count // LANES
        if whole:
            shared = height == 1 and width * channels >= PARALLEL_BYTES
            with (tb.parallel if shared else tb.serial)(0, whole) as number:
                block(number * LANES, LANES)
        if count % LANES:
            block(tirx.const(whole * LANES, "int32"), count % LANES)


class _Sums:
    """Sums of the entries of every channel."""

    def __init__(self, geometry: Geometry, zero: int) -> None:
        self.geometry, self.zero = geometry, zero

    def emit(self, planes, data, distances, starts, sums) -> None:
        g = self.geometry
        lines, rows = g.lines
        across = padded_channels(g.op) // LANES
        blocks = -(-rows // g.block)
        tasks = g.pixels[0] * lines * blocks
        work = g.op.outliers * g.op.matrix.m >= PARALLEL_BYTES
        by_rows = tasks >= _ENOUGH_TASKS
        with (tb.parallel if work and by_rows else tb.serial)(0, tasks) as task:
            image, line, block = task // (lines * blocks), task // blocks % lines, task % blocks
            start = image * g.image + line * g.plane[1] + block * g.block
            row = (image * lines + line) * rows + block * g.block
            left = rows - block * g.block
            with (tb.parallel if work and not by_rows else tb.serial)(0, across) as panel:
                with tb.sblock("panel"):
                    tb.reads([])
                    tb.writes([])
                    tile = tb.sblock_alloc_buffer((LANES, g.block), "int32")
                    with tb.serial(0, LANES) as lane:
                        channel = panel * LANES + lane
                        # Channels that fill up the last vector count to the last group.
                        last = tirx.const(g.op.matrix.groups - 1, "int32")
                        at = start + te.min(channel // g.op.matrix.n, last) * g.group
                        self._channel(planes, data, distances, starts, channel, at, tile, lane)
                    self._copy_out(tile, sums, row, panel * LANES, left)

    def _channel(self, planes, data, distances, starts, channel, at, tile, lane) -> None:
        """tile[lane] = the sums of a block of rows."""
        width = min(LANES, self.geometry.block)
        count = self.geometry.block // width
        zeros = splat(0, "int32", width)
        with tb.sblock("channel"):
            tb.reads([])
            tb.writes([])
            acc = tb.sblock_alloc_buffer((self.geometry.block,), "int32")
            values = tb.sblock_alloc_buffer((1,), "int32")
            tb.buffer_store(values, tirx.const(0, "int32"), [0])
            for v in range(count):
                tb.buffer_store(acc, zeros, [ramp(v * width, width)])
            # Bounded, so that damaged weights do not lead out of any buffer.
            zero, entries = tirx.const(0, "int32"), self.geometry.op.outliers
            begin = tb.Bind(_within(starts[channel], zero, entries))
            end = _within(starts[channel + 1], begin, entries)
            with tb.serial(0, end - begin) as i:
                value = tb.Bind(data[begin + i].astype("int32"))
                distance = distances[begin + i].astype("int32")
                first = tb.Bind(at + _within(distance, zero, self.geometry.furthest))
                for v in range(count):
                    place = ramp(v * width, width)
                    x = planes[(ramp(first + v * width, width),)]
                    wide = x.astype(vector("int32", width))
                    product = wide * splat(value, "int32", width)
                    tb.buffer_store(acc, acc[(place,)] + product, [place])
                if self.zero:
                    tb.buffer_store(values, values[0] + value, [0])
            for v in range(count):
                place = ramp(v * width, width)
                total = acc[(place,)]
                if self.zero:
                    less = values[0] * tirx.const(self.zero, "int32")
                    total = total - splat(less, "int32", width)
                tb.buffer_store(tile, total, [lane, place])

    def _copy_out(self, tile, sums, row, channel, left) -> None:
        """Rows of the tile, transposed; left: how many rows there are."""
        g = self.geometry
        partial = g.lines[1] % g.block
        if not g.vectors:
            with tb.serial(0, LANES) as lane:
                tb.buffer_store(sums, tile[lane, 0], [row, channel + lane])
            return
        for v in range(g.vectors):
            rows = [(lane, v * LANES) for lane in range(LANES)]
            for i, values in enumerate(_transposed(tile, rows)):
                to = [row + v * LANES + i, ramp(channel, LANES)]
                if not partial:
                    tb.buffer_store(sums, values, to)
                    continue
                with tb.If(left > v * LANES + i), tb.Then():
                    tb.buffer_store(sums, values, to)


def _transpose(x, rows: list, planes, places: list, pixels: int) -> None:
    """Emit: 16 rows of 16 channels become 16 rows of `pixels` pixels."""
    with tb.sblock("transpose"):
        tb.reads([])
        tb.writes([])
        for row, place in zip(_transposed(x, rows), places, strict=True):
            done, piece = 0, LANES
            while done < pixels:
                if done + piece <= pixels:
                    lanes = [tirx.const(done + i, "int32") for i in range(piece)]
                    part = row if piece == LANES else tirx.Shuffle([row], lanes)
                    tb.buffer_store(planes, part, [ramp(place + done, piece)])
                    done += piece
                piece //= 2


def _transposed(source, rows: list) -> list[tirx.Expr]:
    """Emit the transposition of 16 vectors of 16 elements, which start at `rows` of a buffer.

    Four times, vectors i and i + 8 are interleaved and become vectors 2i and 2i + 1: that moves the
    top bit of a vector's number to the bottom of the numbers of its elements.
    """
    half, kind = LANES // 2, str(source.dtype)
    low = [tirx.const(i // 2 + i % 2 * LANES, "int32") for i in range(LANES)]
    high = [lane + half for lane in low]
    vectors = [source[(*row[:-1], ramp(row[-1], LANES))] for row in rows]
    for _ in range(4):
        pairs = [vectors[i : i + half + 1 : half] for i in range(half)]
        # Through memory, which becomes registers: TVM would expand names within names.
        memory = tb.sblock_alloc_buffer((LANES, LANES), kind)
        for i, pair in enumerate(pairs):
            for part, lanes in enumerate((low, high)):
                to = [2 * i + part, ramp(0, LANES)]
                tb.buffer_store(memory, tirx.Shuffle(list(pair), lanes), to)
        vectors = [memory[i, ramp(0, LANES)] for i in range(LANES)]
    return vectors


def _within(value: tirx.Expr, low: tirx.Expr, high: int) -> tirx.Expr:
    """The number of low..high that is nearest to `value`."""
    return te.max(te.min(value, tirx.const(high, "int32")), low)
