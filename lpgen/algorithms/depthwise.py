"""The depthwise algorithm: one input channel for each output channel, lanes across the channels.

A convolution with as many groups as input channels has no sum over channels that a dot-product
instruction could take: it sums over taps. So the values of `kq` taps, one below the other in the
input, are interleaved channel by channel into the lanes of a vector, a *window*:

    window[lane][kt] = input(row t + kt, column, channel of lane)       kt < kq

A window is used by all outputs of a register tile of `rows` x `columns` outputs that touch it: by
the columns whose kernel covers its column, and by the rows whose kernel covers some of its taps,
with 0 as the weight of the others. Three rows below each other and a fourth for the next row of
outputs fill a window of four:

    tile[i, j, lane] = sum over (group, s, kt) of
                       input(group * kq + kt, j * stride + s, lane) * weight(i)[group, s, lane, kt]

Half of the interleaving is done once, while the input is copied with its padding: two rows that
are neighbours in a window become a *pair* of rows with their bytes side by side. Two pairs make a
window of four bytes by one more interleaving, of words, in registers (`Pairs` tells the order of
channels that this takes); windows of int16 are a pair each, widened.

A kernel of one row would fill a fourth of a window: its input is seen as if it were upright.

Which side is unsigned is as in the dot algorithm.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from tvm import te, tirx

from lpgen.algorithms.definition import Definition, finish, image_sums, reduce_axes
from lpgen.algorithms.dot import Operands
from lpgen.algorithms.lhs.view import padding, read_dtype
from lpgen.algorithms.sections import placeholders
from lpgen.algorithms.weights.taps import TapWeights, Window
from lpgen.ops import Conv2d, Operator


def one_channel_each(op: Operator) -> str | None:
    """Why lanes across the output channels of a group do not serve `op`; None if they may."""
    if op.matrix.n == 1 and op.matrix.groups > 1:
        return f"groups={op.matrix.groups} leave one output channel each: a depthwise kernel fits"
    return None


@dataclass(frozen=True)
class Tiling:
    """Sizes that shape the definition.

    rows, columns: outputs of a register tile; lanes: output channels of a vector; kq: taps that
    share a lane; block: tiles below each other whose input is copied together.
    """

    rows: int
    columns: int
    lanes: int
    kq: int
    block: int

    @property
    def vectors(self) -> int:
        """Vectors of channels in a tile: as many as two pairs of rows make windows."""
        return self.kq // 2

    @property
    def panel(self) -> int:
        """Output channels of a tile."""
        return self.vectors * self.lanes


@dataclass(frozen=True)
class View:
    """View of a depthwise convolution as the algorithm takes it: that of `op`, or its rows made
    images and its columns rows where the kernel is flat. Either way all tensors lie in memory
    as they do.
    """

    images: int
    size: tuple[int, int]
    result: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    before: tuple[int, int]
    """Padding above and left."""
    channels: int
    repeats: int
    """Output channels of an input channel."""

    @classmethod
    def of(cls, op: Conv2d) -> View:
        """The view of `op`."""
        size, result, before = (op.h, op.w), (op.oh, op.ow), op.pad[:2]
        pairs = [op.kernel, op.stride, op.dilation]
        images = op.n
        whole = op.stride[0] == 1 and not op.pad[0] and not op.pad[2]
        if op.kernel[0] == 1 and op.kernel[1] > 1 and whole:
            images, size, result, before = op.n * op.h, (op.w, 1), (op.ow, 1), (before[1], 0)
            pairs = [(pair[1], 1) for pair in pairs]
        return cls(images, size, result, *pairs, before, op.oc, op.oc // op.ic)

    def window(self, rows: int, columns: int, kq: int) -> Window:
        """How the kernel falls into windows for tiles of rows x columns outputs."""
        return Window(self.kernel, self.stride, self.dilation, (rows, columns), kq)


@dataclass(frozen=True)
class Pairs:
    """Padded copy of the input: pairs [image, block, pair, column, panel, 2 * channels].

    A block is what `block` tiles below each other read. A pair is two rows, `dilation` apart. The
    last axis is (piece, vector, channel < 4, row < 2): each piece holds four channels of each
    vector of the panel, 16 bytes where there are two, so that interleaving the words of two pairs,
    which instructions do within 16 bytes, gives vector after vector in the order of their channels.
    """

    op: Conv2d
    view: View
    tiling: Tiling
    window: Window
    dtype: str
    offset: int
    """What is added to every value."""

    @cached_property
    def x(self) -> te.Tensor:
        """Placeholder of the input, [image, row, column's channels]."""
        shape = (self.view.images, self.view.size[0], self.view.size[1] * self.op.ic)
        return te.placeholder(shape, read_dtype(self.op, self.dtype, self.offset), name="x")

    @property
    def pad_value(self) -> int:
        """What adds nothing to a sum: the padding."""
        return padding(self.op, self.dtype, self.offset)

    @cached_property
    def blocks(self) -> int:
        return -(-self.view.result[0] // (self.tiling.rows * self.tiling.block))

    @cached_property
    def column_tiles(self) -> int:
        return -(-self.view.result[1] // self.tiling.columns)

    @cached_property
    def panels(self) -> int:
        return -(-self.view.channels // self.tiling.panel)

    @property
    def tile_stride(self) -> int:
        """Input rows from one tile to the next."""
        return self.tiling.rows * self.view.stride[0]

    @cached_property
    def step(self) -> int:
        """Pairs from one tile to the next: where they can, neighbours share them."""
        if self.view.dilation[0] == 1 and self.tile_stride % 2 == 0:
            return self.tile_stride // 2
        return self.each

    @property
    def each(self) -> int:
        """Pairs that a tile reads."""
        return -(-self.window.span // 2)

    @cached_property
    def count(self) -> int:
        """Pairs of a block."""
        return (self.tiling.block - 1) * self.step + self.each

    @cached_property
    def width(self) -> int:
        """Columns of a pair, those of outputs behind the last one included."""
        outputs = self.column_tiles * self.tiling.columns
        reach = (self.view.kernel[1] - 1) * self.view.dilation[1] + 1
        return (outputs - 1) * self.view.stride[1] + reach

    @property
    def copied(self) -> tuple[int, int]:
        """(first, number) of the columns that come from the input."""
        left = self.view.before[1]
        return left, max(0, min(self.view.size[1], self.width - left))

    @property
    def shape(self) -> tuple[int, ...]:
        t = self.tiling
        outer = (self.view.images, self.blocks, self.count, self.width, self.panels)
        return (*outer, t.panel * 2)

    def place(self, vector, lane, which):
        """Where in the last axis row `which` of a channel is."""
        return (lane // 4 * self.tiling.vectors + vector) * 8 + lane % 4 * 2 + which

    def row(self, block, pair, which):
        """The row of the input that is row `which` of a pair; it may be outside of the input."""
        first = pair // self.step * self.tile_stride + pair % self.step * 2 * self.view.dilation[0]
        inside = first + which * self.view.dilation[0]
        return block * self.tiling.block * self.tile_stride + inside - self.view.before[0]

    def tensor(self) -> te.Tensor:
        """The stage "pad"."""
        t, x, (left, count) = self.tiling, self.x, self.copied
        height, channels = self.view.size[0], self.view.channels

        def value(image, block, pair, column, panel, place):
            row = self.row(block, pair, place % 2)
            lane = place // (8 * t.vectors) * 4 + place // 2 % 4
            channel = panel * t.panel + place // 8 % t.vectors * t.lanes + lane
            inside = tirx.all(row >= 0, row < height, column >= left, column < left + count)
            at = ((column - left) * channels + channel) // self.view.repeats
            offset, pad_value = (tirx.const(v, self.dtype) for v in (self.offset, self.pad_value))
            inside = tirx.all(inside, channel < channels)
            given = x[image, row, at].astype(self.dtype) + offset
            return te.if_then_else(inside, given, pad_value)

        return te.compute(self.shape, value, name="pad")


def define(op: Conv2d, operands: Operands, t: Tiling) -> Definition[Pairs, TapWeights]:
    """The tensor expressions of `op`: stages pad, tile and y."""
    view = View.of(op)
    window = view.window(t.rows, t.columns, t.kq)
    # Words are widened when they are loaded.
    dtype = op.act.dtype if operands.left == "int16" else operands.left
    pairs = Pairs(op, view, t, window, dtype, operands.offset)
    weights = TapWeights(
        shape=op.w_shape,
        format=op.weight,
        window=window,
        vectors=t.vectors,
        lanes=t.lanes,
        dtype=operands.right,
    )
    sections = placeholders(weights.sections)
    tile = _tile(pairs, pairs.tensor(), sections[0])
    sums = image_sums((view.images, *view.result, op.oc), tile, t.lanes)
    return finish(op, pairs, weights, sections, sums, zero=operands.offset + op.zero_act)


def _tile(pairs: Pairs, pad: te.Tensor, weights: te.Tensor) -> te.Tensor:
    """tile[image, row tile, column tile, panel, vector, row, column, lane]."""
    t, view, window = pairs.tiling, pairs.view, pairs.window
    group, s, kt = reduce_axes(group=window.count, s=window.taps[1], kt=t.kq)

    def product(image, rt, ct, panel, vector, i, j, lane):
        # A window's last taps may be none of the tile's: their weights are 0, so any will do.
        pair = rt % t.block * pairs.step + te.min(group * (t.kq // 2) + kt // 2, pairs.each - 1)
        column = (ct * t.columns + j) * view.stride[1] + s * view.dilation[1]
        place = pairs.place(vector, lane, kt % 2)
        at = (image, rt // t.block, pair, column, panel, place)
        weight = weights[panel, i, group, s, vector, lane, kt].astype("int32")
        return te.sum(pad[at].astype("int32") * weight, axis=[group, s, kt])

    tiles = (view.images, pairs.blocks * t.block, pairs.column_tiles, pairs.panels)
    shape = (*tiles, t.vectors, t.rows, t.columns, t.lanes)
    return te.compute(shape, product, name="tile")
