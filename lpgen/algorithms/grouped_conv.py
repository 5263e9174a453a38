"""The grouped algorithm: convolutions whose groups have few output channels, several in a vector.

A group of `outs` output channels fills a part of a vector only, so a vector takes neighbouring
groups (`lane_weights.Lanes`), and each lane multiplies what belongs to its own group. Of one pixel
of the input, `kq` channels of each of these groups, repeated over the lanes of its outputs, are a
*window*: in lane l

    V[l] = input(row, column, group of l, channels r * kq .. r * kq + kq - 1)

A window is used by all outputs of a register tile of `rows` x `columns` outputs that have it under
a tap, and by all vectors of the tile where a group has several. Where the vectors of a tile hold
whole groups together, and no lane is empty, each has a window of its own.

    tile[i, j, lane] = sum over (kr, s, r, kt) of input(i * stride + kr, j * stride + s, group of
                       lane, r * kq + kt) * weight[r, kr, s, lane, kt]

Groups lie side by side in the input as they do in memory: a window is one load and one permutation.
A last step r reaches into the channels of the next group where `kq` does not divide those of a
group; the weights there are 0.

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
from lpgen.algorithms.weights.lanes import Lanes, LaneWeights
from lpgen.ops import Conv2d

REACH = 64
"""Elements behind a row that a vector may read and not use."""


@dataclass(frozen=True)
class Tiling:
    """Sizes that shape the definition.

    rows, columns: outputs of a register tile; vectors: of output channels of one group in a tile;
    lanes: of a vector; kq: channels that share a lane; block: tiles below each other whose input is
    copied together.
    """

    rows: int
    columns: int
    vectors: int
    lanes: int
    kq: int
    block: int


@dataclass(frozen=True)
class Rows:
    """Padded copy of the input: rows[image, block, row, place].

    A block holds what `block` tiles below each other read. In a row lie its pixels with all their
    channels, those of outputs behind the last one included, and room for a vector behind them.
    """

    op: Conv2d
    tiling: Tiling
    lanes: Lanes
    dtype: str
    offset: int
    """What is added to every value."""

    @cached_property
    def x(self) -> te.Tensor:
        """Placeholder of the input, [image, row, column's channels]."""
        op = self.op
        dtype = read_dtype(op, self.dtype, self.offset)
        return te.placeholder((op.n, op.h, op.w * op.ic), dtype, name="x")

    @property
    def pad_value(self) -> int:
        """What adds nothing to a sum: the padding."""
        return padding(self.op, self.dtype, self.offset)

    @cached_property
    def blocks(self) -> int:
        return -(-self.op.oh // (self.tiling.rows * self.tiling.block))

    @cached_property
    def column_tiles(self) -> int:
        return -(-self.op.ow // self.tiling.columns)

    @property
    def tile_stride(self) -> int:
        """Input rows from one tile to the next."""
        return self.tiling.rows * self.op.stride[0]

    @cached_property
    def count(self) -> int:
        """Rows of a block."""
        outputs = self.tiling.rows * self.tiling.block
        return (outputs - 1) * self.op.stride[0] + self.op.reach[0]

    @cached_property
    def width(self) -> int:
        """Columns of a row."""
        outputs = self.column_tiles * self.tiling.columns
        return (outputs - 1) * self.op.stride[1] + self.op.reach[1]

    @property
    def copied(self) -> tuple[int, int]:
        """(first, number) of the columns that come from the input."""
        left = self.op.pad[1]
        return left, max(0, min(self.op.w, self.width - left))

    @cached_property
    def shape(self) -> tuple[int, ...]:
        t, lanes = self.tiling, self.lanes
        behind = lanes.behind(t.vectors) * lanes.ins + REACH
        return (self.op.n, self.blocks, self.count, self.width * self.op.ic + behind)

    def row(self, block: tirx.Expr, row: tirx.Expr) -> tirx.Expr:
        """The row of the input that is row `row` of a block; it may be outside of the input."""
        return block * (self.tiling.block * self.tile_stride) + row - self.op.pad[0]

    def tensor(self) -> te.Tensor:
        """The stage "pad"."""
        op, x, (left, count) = self.op, self.x, self.copied

        def value(image, block, number, place):
            row, at = self.row(block, number), place - left * op.ic
            inside = tirx.all(row >= 0, row < op.h, at >= 0, at < count * op.ic)
            offset, pad_value = (tirx.const(v, self.dtype) for v in (self.offset, self.pad_value))
            given = x[image, row, at].astype(self.dtype) + offset
            return te.if_then_else(inside, given, pad_value)

        return te.compute(self.shape, value, name="pad")


def lanes_of(op: Conv2d, lanes: int, kq: int, vectors: int = 1) -> Lanes:
    """How the channels fall into panels of `vectors` vectors: without empty lanes where that many
    hold whole groups, and not a part of one."""
    sizes = (op.groups, op.ic // op.groups, op.oc // op.groups, lanes, kq)
    sparse = Lanes(*sizes)
    return Lanes(*sizes, dense=sparse.width < lanes and vectors == sparse.period > 1)


def define(op: Conv2d, operands: Operands, t: Tiling) -> Definition[Rows, LaneWeights]:
    """The tensor expressions of `op`: stages pad, tile and y."""
    lanes = lanes_of(op, t.lanes, t.kq, t.vectors)
    rows = Rows(op, t, lanes, operands.left, operands.offset)
    weights = LaneWeights(op.w_shape, op.weight, lanes, t.vectors, operands.right)
    sections = placeholders(weights.sections)
    tile = _tile(rows, rows.tensor(), sections[0])
    sums = image_sums((op.n, op.oh, op.ow, op.oc), tile, lanes.width)
    return finish(op, rows, weights, sections, sums, zero=operands.offset + op.zero_act)


def _tile(rows: Rows, pad: te.Tensor, weights: te.Tensor) -> te.Tensor:
    """tile[image, row tile, column tile, panel, vector, row, column, lane]."""
    op, t, lanes = rows.op, rows.tiling, rows.lanes
    kr, s, r, kt = reduce_axes(kr=op.kernel[0], s=op.kernel[1], r=lanes.steps, kt=t.kq)
    (down, across), (below, beside) = op.stride, op.dilation

    def product(image, rt, ct, panel, vector, i, j, lane):
        row = (rt % t.block * t.rows + i) * down + kr * below
        column = (ct * t.columns + j) * across + s * beside
        channel = lanes.group(panel, vector, lane, t.vectors) * lanes.ins + r * t.kq + kt
        value = pad[image, rt // t.block, row, column * op.ic + channel].astype("int32")
        weight = weights[panel, r, kr, s, vector, lane, kt].astype("int32")
        return te.sum(value * weight, axis=[kr, s, r, kt])

    tiles = (op.n, rows.blocks * t.block, rows.column_tiles, lanes.panels(t.vectors))
    shape = (*tiles, t.vectors, t.rows, t.columns, t.lanes)
    return te.compute(shape, product, name="tile")
