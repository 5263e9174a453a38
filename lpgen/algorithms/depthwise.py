"""The depthwise algorithm: one input channel for each output channel, lanes across the channels.

A convolution with as many groups as input channels has no sum over channels that a dot-product
instruction could take: it sums over taps. So the values of `kq` taps, one below the other in the
input, are interleaved channel by channel into the lanes of one vector, a *window*:

    window[lane][kt] = input(row t + kt, column, channel lane)       kt < kq

Windows are made in registers from one load for each tap, and each is used by all outputs of a
register tile of `rows` x `columns` outputs that touch it: by the columns whose kernel covers its
column, and by the rows whose kernel covers some of its taps, with 0 as the weight of the others.
Three rows below each other and a fourth for the next row of outputs fill a window of four:

    tile[i, j, lane] = sum over (group, s, kt) of
                       input(group * kq + kt, j * stride + s, lane) * weight(i)[group, s, lane, kt]

The taps that share a lane may lie beside each other instead (`along`), which is better for flat
kernels. Which side is unsigned is as in the dot algorithm.

The layout, with interleaved taps in four byte lanes, is that of "q8 depthwise" kernels for such
instructions (Intel's VNNI white papers); that one window serves two rows of outputs is ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from tvm import te, tirx

from lpgen.algorithms.dot import Operands
from lpgen.algorithms.epilogue import Epilogue
from lpgen.algorithms.kernel import Layout
from lpgen.algorithms.taps import TapWeights
from lpgen.ops import Conv2d


@dataclass(frozen=True)
class Tiling:
    """Sizes that shape the definition.

    rows, columns: outputs of a register tile; lanes: output channels; kq: taps that share a lane;
    along: the axis on which those taps lie, "rows" or "columns"; block: tiles below each other
    whose input is copied together, with its padding.
    """

    rows: int
    columns: int
    lanes: int
    kq: int
    along: str
    block: int


@dataclass(frozen=True)
class Window:
    """How the taps of an operator's kernel fall into windows; a is the axis of taps in a lane.

    taps_a, taps_b: the kernel; stride_a, ..: strides and dilations; tile_a, tile_b: the outputs of
    a tile; kq: taps that share a lane.
    """

    taps_a: int
    taps_b: int
    stride_a: int
    stride_b: int
    dilation_a: int
    dilation_b: int
    tile_a: int
    tile_b: int
    kq: int

    @classmethod
    def of(cls, op: Conv2d, rows: int, columns: int, kq: int, along: str) -> Window:
        """The window for tiles of rows x columns outputs."""
        pairs = (op.kernel, op.stride, op.dilation, (rows, columns))
        ordered = (pair if along == "rows" else pair[::-1] for pair in pairs)
        return cls(*(value for pair in ordered for value in pair), kq)

    @property
    def shift(self) -> int:
        """Taps by which the kernel of an output lies behind that of the output before it.

        One output alone needs none; else the stride must be a multiple of the dilation."""
        return self.stride_a // self.dilation_a

    @property
    def span(self) -> int:
        """Taps that the tile's outputs touch along a."""
        return (self.tile_a - 1) * self.shift + self.taps_a

    @property
    def groups(self) -> int:
        """Windows along a."""
        return -(-self.span // self.kq)

    def touches(self, output: int, group: int) -> bool:
        """Whether the kernel of `output` (along a) has a tap in window `group`."""
        first = output * self.shift
        return first < (group + 1) * self.kq and first + self.taps_a > group * self.kq

    @property
    def steps(self) -> int:
        """Multiplications of a window with weights in a tile."""
        pairs = [(i, g) for i in range(self.tile_a) for g in range(self.groups)]
        return sum(self.touches(*pair) for pair in pairs) * self.taps_b * self.tile_b

    @property
    def lane_products(self) -> int:
        """Most products that a pair of neighbours in a lane takes part in, over a whole sum: what
        an int16 lane has to hold after vpmaddubsw."""
        most = 0
        for output in range(self.tile_a):
            first = output * self.shift
            halves = [0] * (self.kq // 2)
            for tap in range(first, first + self.taps_a):
                halves[tap % self.kq // 2] += 1
            most = max(most, *halves)
        return most * self.taps_b


@dataclass(frozen=True)
class Definition:
    """Tensors of the computation; `args` are the parameters, in order."""

    window: Window
    layout: Layout
    args: list[te.Tensor]
    source: Source
    prologue: tirx.PrimFunc | None
    """What has to run before (`entry.kernel_entry`)."""


@dataclass(frozen=True)
class Source:
    """The padded copy [image, block, row, pitch] of the input, a block being what `block` tiles
    below each other read; a row holds pixels of oc channels, each input channel repeated as often
    as it has outputs.
    """

    op: Conv2d
    tiling: Tiling
    dtype: str
    offset: int

    @cached_property
    def blocks(self) -> int:
        return -(-self.op.oh // (self.tiling.rows * self.tiling.block))

    @cached_property
    def column_tiles(self) -> int:
        return -(-self.op.ow // self.tiling.columns)

    @cached_property
    def panels(self) -> int:
        return -(-self.op.oc // self.tiling.lanes)

    @cached_property
    def block_stride(self) -> int:
        """Input rows from one block to the next."""
        return self.tiling.block * self.tiling.rows * self.op.stride[0]

    @cached_property
    def height(self) -> int:
        """Rows of a block."""
        outputs = self.tiling.block * self.tiling.rows
        return (outputs - 1) * self.op.stride[0] + self.op.reach[0]

    @cached_property
    def width(self) -> int:
        """Pixels of a row, those of outputs behind the last column included."""
        outputs = self.column_tiles * self.tiling.columns
        return (outputs - 1) * self.op.stride[1] + self.op.reach[1]

    @property
    def copied(self) -> tuple[int, int]:
        """(first, number) of the pixels of a row that come from the input."""
        left = self.op.pad[1]
        return left, max(0, min(self.op.w, self.width - left))

    @cached_property
    def pitch(self) -> int:
        """Values of a row. The last vector of channels may reach past the last pixel."""
        return self.width * self.op.oc + self.panels * self.tiling.lanes - self.op.oc

    @property
    def nothing(self) -> int:
        """What adds nothing to a sum: the padding."""
        return self.offset + self.op.zero_act

    @property
    def repeats(self) -> int:
        """Output channels of an input channel."""
        return self.op.oc // self.op.ic

    def tensor(self, x: te.Tensor) -> te.Tensor:
        """The stage "pad"."""
        op, (first, count) = self.op, self.copied
        top = op.pad[0]

        def value(image, block, t, p):
            row = block * self.block_stride + t - top
            at = p - first * op.oc
            inside = tirx.all(row >= 0, row < op.h, at >= 0, at < count * op.oc)
            if self.repeats > 1:
                at = at // op.oc * op.ic + at % op.oc // self.repeats
            offset = tirx.const(self.offset, self.dtype)
            nothing = tirx.const(self.nothing, self.dtype)
            return te.if_then_else(inside, x[image, row, at].astype(self.dtype) + offset, nothing)

        return te.compute((op.n, self.blocks, self.height, self.pitch), value, name="pad")


def define(op: Conv2d, operands: Operands, t: Tiling) -> Definition:
    """The tensor expressions of `op`: stages pad, tile and y."""
    window = Window.of(op, t.rows, t.columns, t.kq, t.along)
    # Words are widened when they are loaded.
    words = operands.left == "int16"
    source = Source(op, t, op.act.dtype if words else operands.left, operands.offset)
    weights = TapWeights(
        shape=op.w_shape,
        format=op.weight,
        window=window,
        along=t.along,
        lanes=t.lanes,
        dtype=operands.right,
    )
    # With offset 0 the two 8-bit types have the same bits, see `left_side`.
    view = op.act.dtype if operands.offset else source.dtype
    x = te.placeholder((op.n, op.h, op.w * op.ic), view, name="x")
    sections = [te.placeholder(s.shape, s.dtype, name=s.name) for s in weights.sections]
    tile = _tile(op, t, window, source, source.tensor(x), sections[0])

    epilogue = Epilogue(op, operands.offset + op.zero_act, 1, op.oc)

    def result(image, oh, ow, channel):
        rt, ct, cb = oh // t.rows, ow // t.columns, channel // t.lanes
        place = (oh % t.rows, ow % t.columns)
        ordered = place if t.along == "rows" else place[::-1]
        at = (image, rt, ct, cb, *ordered, channel % t.lanes)
        return epilogue(tile[at], (image * op.oh + oh) * op.ow + ow, 0, channel)

    y = te.compute(op.y_shape, result, name="y")
    args = [x, *sections, *epilogue.inputs, y]
    return Definition(window, epilogue.layout(weights), args, source, epilogue.prologue)


def _tile(op: Conv2d, t: Tiling, window: Window, source: Source, pad, weights) -> te.Tensor:
    group = te.reduce_axis((0, window.groups), name="group")
    s = te.reduce_axis((0, window.taps_b), name="s")
    kt = te.reduce_axis((0, t.kq), name="kt")

    def product(image, rt, ct, cb, ia, ib, nl):
        # A window's last taps may be none of the tile's: their weights are 0, so any will do.
        a = te.min(group * t.kq + kt, window.span - 1) * window.dilation_a
        b = ib * window.stride_b + s * window.dilation_b
        row, column = (a, b) if t.along == "rows" else (b, a)
        row += rt % t.block * t.rows * op.stride[0]
        column += ct * t.columns * op.stride[1]
        channel = cb * t.lanes + nl
        value = pad[image, rt // t.block, row, column * op.oc + channel].astype("int32")
        weight = weights[cb, ia, group, s, nl, kt].astype("int32")
        return te.sum(value * weight, axis=[group, s, kt])

    tiles = (op.n, source.blocks * t.block, source.column_tiles, source.panels)
    return te.compute((*tiles, window.tile_a, window.tile_b, t.lanes), product, name="tile")
