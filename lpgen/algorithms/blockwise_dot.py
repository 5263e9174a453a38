"""Products with a scale for each group of neighbours in k: of weights (which may have zero points,
too), of the activations of each row, or of both.

With groups j of g neighbours, x without its zero point, and operands X = x + left offset and
C = w - base that fit the instructions,

    S_j = sum of x * (w - zero_j)
        = sum of X * C  -  (zero_j - base) * (sum of x)  -  (left offset) * (sum of C)

are exact int32, each over one group. The first sum is the stage "partial". The sum of x belongs to
a row and a group: a short loop computes it before the kernel, if any zero_j differs from base. The
sum of C is known when the weights are packed. Then the stage "tile" adds up in float32, in
ascending j (`lpgen.ops.epilogue`),

    tile += float32(S_j) * scale_j * step_j

with those of the two scales that there are.

What a group needs lies together, in sections [panel][group]...: packed weights, scales, zero points
and compensations stream by once, in the order in which they are read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tvm import te, tirx
from tvm.tirx.script import builder as tb

from lpgen.algorithms import definition
from lpgen.algorithms.definition import Definition, finish, matrix_sums, reduce_axes
from lpgen.algorithms.lhs.k_split import KSplit
from lpgen.algorithms.lhs.quantize import step_tensor
from lpgen.algorithms.lhs.view import Lhs, lhs_of, rows_loop
from lpgen.algorithms.prologue import Prologue
from lpgen.algorithms.ranged import row_of_tile
from lpgen.algorithms.result.epilogue import product
from lpgen.algorithms.sections import placeholders
from lpgen.algorithms.weights.blockwise import BlockwiseWeights, Operand
from lpgen.algorithms.weights.groups import GroupedWeights
from lpgen.ops import Conv2d, Dense
from lpgen.tir.extern import extern


@dataclass(frozen=True)
class Operands:
    """Operands of a multiplication: what the two sides become before it.

    left: dtype of X; offset: X - (x as it is given); pad_value: X of an x without its zero point
    that is 0; right: of C; left_max: the largest absolute value of X.
    """

    left: str
    offset: int
    pad_value: int
    right: Operand
    left_max: int


def byte_operands(op: Dense, mixed: bool = True) -> Operands:
    """Operands for an instruction that multiplies an unsigned with a signed byte: codes as they
    are stored are unsigned, and take no addition. mixed: False where it takes two signed ones.

    Activations that fit int8 without their zero point are the signed side, and codes are the
    unsigned one. Otherwise activations are unsigned, or have 128 subtracted, and weights are
    signed.
    """
    act, weight, zero = op.act, op.weight, op.zero_act
    low, high = act.min - zero, act.max - zero
    as_codes = mixed or weight.max - weight.min <= 127
    codes = Operand("uint8" if mixed else "int8", weight.min)
    fixed = op.zero_weight if isinstance(op.zero_weight, int) else 0
    fits = weight.min - fixed >= -128 and weight.max - fixed <= 127
    signed = Operand("int8", fixed if fits else weight.max - 127)
    if -128 <= low and high <= 127:
        return Operands("int8", -zero, 0, codes if as_codes else signed, max(-low, high))
    if mixed:
        offset = max(0, -act.min)
        return Operands("uint8", offset, offset + zero, signed, act.max + offset)
    offset = -128 if act.max > 127 else 0
    largest = max(abs(act.min + offset), act.max + offset)
    return Operands("int8", offset, offset + zero, codes if as_codes else signed, largest)


def plain_operands(op: Dense) -> Operands:
    """Operands for multiplication in int32: every value as it is, in its own type."""
    return Operands(op.act.dtype, 0, op.zero_act, Operand(op.weight.dtype, 0), op.act.largest)


@dataclass(frozen=True, kw_only=True)
class Tiling(definition.Tiling):
    """Sizes of the register tile, and kq: values of k in one step."""

    kq: int


def define(
    op: Dense, operands: Operands, tiling: Tiling, start: int = 0
) -> Definition[Lhs, BlockwiseWeights]:
    """The tensor expressions of `op`: stages pad (optional), partial, tile and y.

    start: a number that is added to what the row of a group adds to its sums, where it adds the
    same in every column, and taken off again.
    """
    t = tiling
    weights = BlockwiseWeights(
        op, t.kq, t.panels, t.vectors, t.lanes, operands.right, operands.pad_value
    )
    tensors = placeholders(weights.sections)
    sections = {tensor.op.name: tensor for tensor in tensors}
    lhs = lhs_by_group(op, operands.left, operands.offset, weights, t.rows)
    rows = _group_terms(op, weights, start) if weights.zeros else None
    partial = _partial(lhs, sections, weights, t)
    steps = step_tensor(op) if op.lhs.group else None
    terms = rows and rows.tensor
    tile = _tile(partial, sections, terms, steps, weights, t, start)
    return finish(op, lhs, weights, tensors, matrix_sums(op, tile), rows=rows, steps=steps)


PERIOD, WAYS = 4096, 8
"""Bytes after which addresses fall into the same places of an L1 cache, and how many of these are
kept there."""


def lhs_by_group(
    op: Dense | Conv2d, dtype: str, offset: int, weights: GroupedWeights, rows: int
) -> Lhs:
    """The left side in `dtype`, every value plus `offset`; the steps of the last group may reach
    past the row. rows: of a tile; where they would drive each other out of the L1 cache, they are
    copied to another distance."""
    kq, k = weights.kq, op.matrix.k
    places = PERIOD // math.gcd(weights.reach, PERIOD)
    apart = 64 if op.range is None and rows > places * (WAYS // 2) else 0
    return lhs_of(op, KSplit(1, 1, k, (weights.reach + apart) // kq, kq), dtype, offset)


def _partial(lhs: Lhs, sections: dict, weights: BlockwiseWeights, t: Tiling) -> te.Tensor:
    group = lhs.op.sum_group
    step, kt = reduce_axes(step=weights.steps, kt=t.kq)

    def element(g, mo, no, j, mi, nv, nl):
        m = row_of_tile(lhs.op, mo, mi, t.rows)
        x = lhs.source[m, j * group + step * t.kq + kt].astype("int32")
        return te.sum(
            x * weights.operand(sections, (no, j, step, nv, nl, kt)).astype("int32"),
            axis=[step, kt],
        )

    shape = (1, t.row_tiles, t.panels, weights.count, t.rows, t.vectors, t.lanes)
    return te.compute(shape, element, name="partial")


def _tile(
    partial: te.Tensor,
    sections: dict[str, te.Tensor],
    rows: te.Tensor | None,
    steps: te.Tensor | None,
    weights: BlockwiseWeights,
    t: Tiling,
    start: int,
) -> te.Tensor:
    # One tap, so that the loops are those of the other definitions.
    r, s, j = reduce_axes(r=1, s=1, j=weights.count)

    def element(g, mo, no, mi, nv, nl):
        column, row = (no, j, nv, nl), row_of_tile(weights.op, mo, mi, t.rows)
        total = partial[g, mo, no, j, mi, nv, nl]
        if rows is not None:
            term = rows[row, j]
            if "zero" in sections:
                term = term * sections["zero"][column].astype("int32")
            total = total + term
            total = total - tirx.const(start, "int32") if start else total
        if "compensation" in sections:
            total = total + sections["compensation"][column]
        total = total.astype("float32")
        if "scale" in sections:
            total = product(total, weights.scale(sections, column))
        total = total if steps is None else product(total, steps[row, j])
        return te.sum(total, axis=[r, s, j])

    return te.compute(t.shape(1), element, name="tile")


def _group_terms(op: Dense, weights: BlockwiseWeights, start: int) -> Prologue:
    """Prologue of row_terms, int32[m, groups]: the sums of x - zero_act in every row and group,
    times base - zero where that is one number for all columns, else times -1."""
    count, factor = weights.count, -1
    if isinstance(op.zero_weight, int):
        factor = weights.operand_of.base - op.zero_weight
    x = te.placeholder((op.matrix.m, op.k), op.act.dtype, name="x")

    def emit(x, terms) -> None:
        def groups(first: int, many: int, size: int) -> None:
            with tb.serial(0, many) as i:
                to = [m, first + i]
                tb.buffer_store(terms, tirx.const(-size * op.zero_act, "int32"), to)
                with tb.serial(0, size) as k:
                    value = x[m, (first + i) * op.sum_group + k].astype("int32")
                    tb.buffer_store(terms, terms[tuple(to)] + value, to)
                term = terms[tuple(to)] * tirx.const(factor, "int32")
                tb.buffer_store(terms, term + tirx.const(start, "int32"), to)

        whole, rest = divmod(op.k, op.sum_group)
        with rows_loop(op, op.matrix.m, 0) as m:
            for first, many, size in ((0, whole, op.sum_group), (whole, 1, rest)):
                if many and size:
                    groups(first, many, size)

    sums = extern("row_terms", (op.matrix.m, count), "int32", [x], emit)
    terms = te.placeholder(sums.shape, "int32", name="row_terms")
    return Prologue(te.create_prim_func([x, sums]), terms)
