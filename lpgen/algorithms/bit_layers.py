"""Products with as many bit layers of the weights as a call says (`ops.layers`).

With groups j of neighbours in k, x without its zero point and codes of M bits,

    H_j = sum of x * (code >> (M - layers))  -  half * X_j,      X_j = sum of x

are exact int32 (half: 2^(layers - 1) for weights in two's complement, whose codes are their values
plus 2^(M - 1); else 0). The first sum is the stage "partial". That of x belongs to a row and a
group: a short loop computes it before. Then the stage "tile" adds up in float32, in ascending j,

    tile += float32(H_j) * scale_j + float32(X_j) * offset_j

Planes of signs have sums of their own, with S_ij = 2 * (sum of x * (sign is +1)) - X_j

    tile += float32(S_ij) * scale_ij          for i < layers

The left side of a convolution is copied row by row, unless it lies there as a matrix (`patches`).
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm import te, tirx
from tvm.tirx.script import builder as tb

from lpgen.algorithms import definition
from lpgen.algorithms.blockwise_dot import lhs_by_group
from lpgen.algorithms.definition import Definition, finish, matrix_sums, reduce_axes
from lpgen.algorithms.lhs import row_sums
from lpgen.algorithms.lhs.patches import patches
from lpgen.algorithms.lhs.view import Lhs, is_matrix, rows_loop
from lpgen.algorithms.prologue import Prologue
from lpgen.algorithms.ranged import layers_of, row_of_tile
from lpgen.algorithms.result.epilogue import product
from lpgen.algorithms.sections import placeholders
from lpgen.algorithms.weights.bit_layers import LayerWeights
from lpgen.ops import Conv2d, Dense
from lpgen.tir.extern import extern


@dataclass(frozen=True, kw_only=True)
class Tiling(definition.Tiling):
    """Sizes of the register tile; kq: values of k in one step; top: bits of the first plane."""

    kq: int
    top: int


def left_type(op: Dense | Conv2d) -> str:
    """The type of x without its zero point."""
    return "uint8" if op.act.max - op.zero_act > 127 else "int8"


def needs_whole_sums(op: Dense | Conv2d) -> bool:
    """Whether the sums of x are a part of those of products: of codes that stand for a sign, or
    that become signed for an x that has none. Else they are multiplied with offsets alone."""
    return bool(op.weight.min) or left_type(op) == "uint8"


def define(op: Dense | Conv2d, tiling: Tiling) -> Definition[Lhs, LayerWeights]:
    """The tensor expressions of `op`: stages pad or patches (optional), partial, tile and y."""
    t = tiling
    weights = LayerWeights(op, t.kq, t.panels, t.vectors, t.lanes, t.top)
    tensors = placeholders(weights.sections)
    sections = {tensor.op.name: tensor for tensor in tensors}
    kind, rows = left_type(op), None
    if is_matrix(op):
        lhs = lhs_by_group(op, kind, -op.zero_act, weights, t.rows)
        rows = _prologue(op, weights.count)
        sums = rows.tensor
    else:
        lhs = patches(op, weights.reach, kind)
        sums = _group_sums(op, lhs.source, weights.count, 0)
    partial = _partial(lhs, sections, weights, t)
    tile = _tile(partial, sections, sums, weights, t)
    return finish(op, lhs, weights, tensors, matrix_sums(op, tile), rows=rows)


def _row(op: Dense | Conv2d, g, mo, mi, t: Tiling) -> tirx.Expr:
    """The row of a place in a tile, of those of all groups of a convolution."""
    row = row_of_tile(op, mo, mi, t.rows)
    return row if op.matrix.groups == 1 else g * op.matrix.m + row


def _partial(lhs: Lhs, sections: dict, weights: LayerWeights, t: Tiling) -> te.Tensor:
    op, layers = lhs.op, lhs.op.bit_layers
    step, kt = reduce_axes(step=weights.steps, kt=t.kq)

    def element(g, mo, no, j, i, mi, nv, nl):
        k = j * op.group_size + step * t.kq + kt
        x = lhs.source[_row(op, g, mo, mi, t), k].astype("int32")
        code = weights.code(sections, (g * t.panels + no, j, step, nv, nl, kt), i)
        code = code if layers.of_signs else code >> (op.weight.bits - layers_of(op))
        return te.sum(x * code, axis=[step, kt])

    tiles = (op.matrix.groups, t.row_tiles, t.panels)
    shape = (*tiles, weights.count, layers.planes, t.rows, t.vectors, t.lanes)
    return te.compute(shape, element, name="partial")


def _tile(
    partial: te.Tensor, sections: dict, rows: te.Tensor, weights: LayerWeights, t: Tiling
) -> te.Tensor:
    # One tap, so that the loops are those of the other definitions.
    op, layers = weights.op, weights.op.bit_layers
    r, s, j, i = reduce_axes(r=1, s=1, j=weights.count, i=layers.planes)

    def element(g, mo, no, mi, nv, nl):
        total = partial[g, mo, no, j, i, mi, nv, nl]
        row = rows[_row(op, g, mo, mi, t), j]
        panel = g * t.panels + no
        if layers.of_signs:
            signs = (total * 2 - row).astype("float32")
            scale = weights.fit(sections, layers_of(op), i, (panel, j, nv, nl))
            inside = tirx.Select(i < layers_of(op), product(signs, scale), tirx.const(0, "float32"))
            return te.sum(inside, axis=[r, s, j, i])
        if op.weight.min:
            total = total - (row << (layers_of(op) - 1))
        scale, offset = (
            weights.fit(sections, layers_of(op), which, (panel, j, nv, nl)) for which in (0, 1)
        )
        scaled = product(total.astype("float32"), scale)
        return te.sum(scaled + product(row.astype("float32"), offset), axis=[r, s, j, i])

    return te.compute(t.shape(op.matrix.groups), element, name="tile")


def _prologue(op: Dense | Conv2d, count: int) -> Prologue:
    """Prologue of the sums of the groups of an x that is a matrix."""
    x = te.placeholder((op.matrix.m, op.matrix.k), op.act.dtype, name="x")
    sums = _group_sums(op, x, count, op.zero_act)
    tensor = te.placeholder(sums.shape, sums.dtype, name="group_sums")
    return Prologue(te.create_prim_func([x, sums]), tensor)


def _group_sums(op: Dense | Conv2d, rows: te.Tensor, count: int, zero: int) -> te.Tensor:
    """group_sums [rows, groups]: the sums of what rows [rows, k] have, less `zero` each; int32
    where they are parts of other sums, else float32."""
    height, dtype = int(rows.shape[0]), "int32" if needs_whole_sums(op) else "float32"
    size, k = op.group_size, op.matrix.k

    def group(x, sums, m, j, many: int) -> None:
        with tb.sblock("sum"):
            tb.reads([])
            tb.writes([])
            own = tb.sblock_alloc_buffer((1,), "int32")
            tb.buffer_store(own, tirx.const(-many * zero, "int32"), [0])
            row_sums.add_up(x, own, m, j * size, [0], many)
            tb.buffer_store(sums, own[0].astype(dtype), [m, j])

    def emit(x, sums) -> None:
        whole, rest = divmod(k, size)
        with rows_loop(op, height, height * k) as m:
            for first, groups, many in ((0, whole, size), (whole, 1, rest)):
                if groups and many:
                    with tb.serial(0, groups) as j:
                        group(x, sums, m, first + j, many)

    return extern("group_sums", (height, count), dtype, [rows], emit)
