"""Products with as many bit layers of the weights as a call says (`ops.layers`).

With groups j of neighbours in k, x without its zero point and codes of M bits,

    H_j = sum of x * (code >> (M - layers))  -  half * X_j,      X_j = sum of x

are exact int32 (half: 2^(layers - 1) for weights in two's complement, whose codes are their values
plus 2^(M - 1); else 0). The first sum is the stage "partial". That of x belongs to a row and a
group: a short loop computes it before the kernel. Then the stage "tile" adds up in float32, in
ascending j,

    tile += float32(H_j) * scale_j + float32(X_j) * offset_j
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm import te, tirx
from tvm.tirx.script import builder as tb

from lpgen.algorithms import definition
from lpgen.algorithms.blockwise_dot import lhs_by_group
from lpgen.algorithms.definition import Definition, finish, matrix_sums, reduce_axes
from lpgen.algorithms.lhs import row_sums
from lpgen.algorithms.lhs.view import Lhs, rows_loop
from lpgen.algorithms.prologue import Prologue
from lpgen.algorithms.ranged import layers_of, row_of_tile
from lpgen.algorithms.result.epilogue import product
from lpgen.algorithms.sections import placeholders
from lpgen.algorithms.weights.bit_layers import LayerWeights
from lpgen.ops import Dense
from lpgen.tir.extern import extern


@dataclass(frozen=True, kw_only=True)
class Tiling(definition.Tiling):
    """Sizes of the register tile; kq: values of k in one step; top: bits of the first plane."""

    kq: int
    top: int


def define(op: Dense, tiling: Tiling) -> Definition[Lhs, LayerWeights]:
    """The tensor expressions of `op`: stages pad (optional), partial, tile and y."""
    t = tiling
    weights = LayerWeights(op, t.kq, t.panels, t.vectors, t.lanes, t.top)
    tensors = placeholders(weights.sections)
    sections = {tensor.op.name: tensor for tensor in tensors}
    lhs = lhs_by_group(op, "int8", -op.zero_act, weights)
    rows = _group_sums(op, weights.count)
    partial = _partial(lhs, sections, weights, t)
    tile = _tile(partial, sections, rows.tensor, weights, t)
    return finish(op, lhs, weights, tensors, matrix_sums(op, tile), rows=rows)


def _partial(lhs: Lhs, sections: dict, weights: LayerWeights, t: Tiling) -> te.Tensor:
    op = lhs.op
    step, kt = reduce_axes(step=weights.steps, kt=t.kq)

    def element(mo, no, j, mi, nv, nl):
        m = row_of_tile(op, mo, mi, t.rows)
        x = lhs.source[m, j * op.group_size + step * t.kq + kt].astype("int32")
        code = weights.code(sections, (no, j, step, nv, nl, kt))
        return te.sum(x * (code >> (op.weight.bits - layers_of(op))), axis=[step, kt])

    shape = (t.row_tiles, t.panels, weights.count, t.rows, t.vectors, t.lanes)
    return te.compute(shape, element, name="partial")


def _tile(
    partial: te.Tensor, sections: dict, rows: te.Tensor, weights: LayerWeights, t: Tiling
) -> te.Tensor:
    # One tap, so that the loops are those of the other definitions.
    op = weights.op
    r, s, j = reduce_axes(r=1, s=1, j=weights.count)

    def element(g, mo, no, mi, nv, nl):
        total = partial[mo, no, j, mi, nv, nl]
        row = rows[row_of_tile(op, mo, mi, t.rows), j]
        if op.weight.min:
            total = total - (row << (layers_of(op) - 1))
        scale, offset = (
            weights.fit(sections, layers_of(op), which, (no, j, nv, nl)) for which in (0, 1)
        )
        scaled = product(total.astype("float32"), scale)
        return te.sum(scaled + product(row.astype("float32"), offset), axis=[r, s, j])

    return te.compute(t.shape(1), element, name="tile")


def _group_sums(op: Dense, count: int) -> Prologue:
    """Prologue of group_sums, int32[m, groups]: the sums of x - zero_act."""
    x = te.placeholder((op.matrix.m, op.k), op.act.dtype, name="x")

    def emit(x, sums) -> None:
        whole, rest = divmod(op.k, op.group_size)
        with rows_loop(op, op.matrix.m, op.matrix.m * op.k) as m:
            for first, many, size in ((0, whole, op.group_size), (whole, 1, rest)):
                if many and size:
                    with tb.serial(0, many) as i:
                        to, start = [m, first + i], (first + i) * op.group_size
                        tb.buffer_store(sums, tirx.const(-size * op.zero_act, "int32"), to)
                        row_sums.add_up(x, sums, m, start, to, size)

    sums = extern("group_sums", (op.matrix.m, count), "int32", [x], emit)
    tensor = te.placeholder(sums.shape, "int32", name="group_sums")
    return Prologue(te.create_prim_func([x, sums]), tensor)
