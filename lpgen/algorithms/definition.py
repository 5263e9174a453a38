"""Definition of a kernel: tensor expressions, from the sums of an algorithm to its arguments.

An algorithm says what its packed weights are (`weights`), how it reads the left side (`lhs`) and
what a register tile sums up, in the stage "tile". Everything behind the sums is the same for all:
`finish` adds the epilogue, with the parameters it needs behind the weights and the functions that
have to run before, and so the stage "y". What is to be beside the weights belongs there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from tvm import IRModule, te, tirx
from tvm.s_tir import Schedule

from lpgen.algorithms.kernel import Layout
from lpgen.algorithms.lhs import row_sums
from lpgen.algorithms.lhs.inside import Inside
from lpgen.algorithms.lhs.quantize import step_tensor
from lpgen.algorithms.lhs.view import Lhs
from lpgen.algorithms.prologue import Prologue
from lpgen.algorithms.ranged import layers_of, row_at, rows_of
from lpgen.algorithms.result.epilogue import Epilogue
from lpgen.ops import Operator

LhsT = TypeVar("LhsT")
WeightsT = TypeVar("WeightsT")


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """Register tile of rows x vectors x lanes; row_tiles, panels: how many tiles down and across
    (the last ones may be partly or wholly empty)."""

    rows: int
    vectors: int
    lanes: int
    row_tiles: int
    panels: int

    @property
    def panel(self) -> int:
        """Columns of a tile."""
        return self.vectors * self.lanes

    def shape(self, groups: int) -> tuple[int, ...]:
        """Shape of the stage "tile": [group, row tile, panel, row, vector, lane]."""
        return (groups, self.row_tiles, self.panels, self.rows, self.vectors, self.lanes)


@dataclass(frozen=True)
class Definition(Generic[LhsT, WeightsT]):
    """Kernel in tensor expressions, ready to be scheduled."""

    op: Operator
    lhs: LhsT
    """View of the input that the stage "tile" reads."""
    weights: WeightsT
    """Packed-weight layout without parameters."""
    layout: Layout
    """`weights` with the parameters of the epilogue behind them: what the kernel takes."""
    args: list[te.Tensor]
    """Parameters of the function: x, the sections of `layout`, what the prologue fills, the steps
    of a dynamic scale, the residual, the numbers of rows and layers of a call, y."""
    prologue: list[tirx.PrimFunc]
    """Functions that have to run before (`entry.kernel_entry`)."""
    height: int = 0
    """Rows of a tile, where the number of rows is given at each call."""

    @property
    def added(self) -> int:
        """What is added to float activations when they are quantized."""
        return self.lhs.added if isinstance(self.lhs, Lhs) else 0

    def schedule(self) -> Schedule:
        """Schedule of the function, its loops as the expressions have them."""
        return Schedule(IRModule({"main": te.create_prim_func(self.args)}))


class Sums(NamedTuple):
    """Sums of an algorithm in the axes of the result.

    shape: of y; at(*index): the sum of that element; place(*index): its (m, group, column), of
    which there are `groups` x `columns`; height: rows of a tile of a matrix.
    """

    shape: tuple[int, ...]
    groups: int
    columns: int
    at: Callable[..., tirx.Expr]
    place: Callable[..., tuple]
    height: int = 0


def matrix_sums(op: Operator, tile: te.Tensor) -> Sums:
    """Sums y[m, group, column] out of tile[group, row tile, panel, row, vector, lane]. One group
    has the columns of all, where the lanes go across the groups."""
    groups, _, _, rows, vectors, lanes = (int(extent) for extent in tile.shape)
    panel, columns = vectors * lanes, op.matrix.groups * op.matrix.n // groups

    def at(m, g, n):
        return tile[g, m // rows, n // panel, m % rows, n % panel // lanes, n % lanes]

    def place(m, g, n):
        return row_at(op, m, rows), g, n

    return Sums((op.matrix.m, groups, columns), groups, columns, at, place, rows)


def image_sums(shape: tuple[int, int, int, int], tile: te.Tensor, width: int) -> Sums:
    """Sums y[image, row, column, channel] of `shape` out of tile[image, row tile, column tile,
    panel, vector, row, column, lane]; width: channels of a vector."""
    *_, vectors, rows, columns, _ = (int(extent) for extent in tile.shape)

    def at(image, row, column, channel):
        panel, vector = channel // (vectors * width), channel // width % vectors
        within = (vector, row % rows, column % columns, channel % width)
        return tile[(image, row // rows, column // columns, panel, *within)]

    def place(image, row, column, channel):
        return (image * shape[1] + row) * shape[2] + column, 0, channel

    return Sums(shape, 1, shape[3], at, place)


def finish(
    op: Operator,
    lhs: Any,
    weights: Layout,
    sections: Sequence[te.Tensor],
    sums: Sums,
    *,
    zero: int = 0,
    inside: Inside | None = None,
    codes: bool = False,
    value: Callable[[tirx.Expr], tirx.Expr] | None = None,
    rows: Prologue | None = None,
    steps: te.Tensor | None = None,
) -> Definition:
    """Definition of the kernel whose sums over k are `sums`.

    lhs: has the placeholder of the input as `x`; sections: placeholders of those of `weights`.
    zero: what the left side holds for nothing, where `weights` do not compensate for it;
    inside: what the sums are of, if not of all taps;
    codes: the sums are of products with codes, of which `weights` make those with values;
    value: what a sum stands for, if not for itself;
    rows: what the algorithm has to know of each row beforehand, if not the sum of its values;
    steps: those of dynamic scales of x, if `sums` are multiplied with them already.
    """
    by_row = codes and bool(op.weight.min)
    if by_row or (rows is None and Epilogue.needs_row_sums(op)):
        rows = row_sums.prologue(op, planes=str(lhs.x.dtype) == "uint32")
    steps = step_tensor(op) if steps is None else steps
    inside = inside if zero else None
    epilogue = Epilogue(op, zero, sums.groups, sums.columns, rows, inside, steps)

    def element(*index):
        place, total = sums.place(*index), sums.at(*index)
        total = value(total) if value else total
        if codes:
            total = weights.value(total, place, sections, rows.tensor if by_row else None)
        return epilogue(total, *place)

    y = te.compute(sums.shape, element, name="y")
    numbers = [number for number in (rows_of(op), layers_of(op)) if number is not None]
    args = [lhs.x, *sections, *epilogue.inputs, *numbers, y]
    layout = epilogue.layout(weights)
    return Definition(op, lhs, weights, layout, args, epilogue.prologue, sums.height)


def read_once(op: Operator) -> bool:
    """Whether nothing but the product of values reads the left side."""
    return not op.outliers and not Epilogue.needs_row_sums(op)


def reduce_axes(**extents: int) -> list[tirx.IterVar]:
    """Reduction axes by their names."""
    return [te.reduce_axis((0, extent), name=name) for name, extent in extents.items()]
