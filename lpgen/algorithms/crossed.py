"""Products of sums: half as many multiplications for an inner product (Winograd, A New Algorithm
for Inner Product, IEEE Transactions on Computers C-17, 1968).

    x1 w1 + x2 w2 = (x1 + w2) (x2 + w1) - x1 x2 - w1 w2

A sum over k is cut into two halves, and a value of one half meets its partner in the other. What
is subtracted belongs to a row alone, or to a column alone: x1 x2 is summed up once for each row of
the left side, w1 w2 when the weights are packed. Two additions take the place of a multiplication,
which pays where they start beside it (`Isa.crosses`).

Sums are bytes: x1 + w2 one without sign and x2 + w1 a signed one, as products of bytes ask for.
The weights of each half get what makes them so (`Crossing`), as bytes modulo 256.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm import te, tirx
from tvm.tirx.script import builder as tb

from lpgen.algorithms.lhs.k_split import KSplit
from lpgen.algorithms.lhs.view import Lhs, is_matrix, rows_loop
from lpgen.tir import vectors as vec
from lpgen.tir.extern import extern

Dot = Callable[[tirx.Expr, tirx.Expr, tirx.Expr], tirx.Expr]
"""dot(acc, a, b): int32 lanes plus products of an unsigned and a signed byte, four to a lane."""

SIDES = {"first": "uint8", "second": "int8"}
"""Stages of sums, and their dtypes; of words they are int16."""

BYTES = 256
INT8_MIN, INT8_MAX = -128, 127


@dataclass(frozen=True)
class Crossing:
    """Sums x1 + w2 + `first`, 0 to 255, and x2 + w1 + `second`, -128 to 127.

    largest: the greatest absolute product of two.
    """

    first: int
    second: int
    largest: int

    @property
    def added(self) -> tuple[int, int]:
        """What is added to the weights of the second half, and to those of the first."""
        return self.first, self.second

    @classmethod
    def of(cls, left: tuple[int, int], right: tuple[int, int]) -> Crossing | None:
        """The crossing of values left[0]..left[1] with right[0]..right[1] and 0, None if the sums
        do not fit bytes."""
        least, most = left[0] + min(0, right[0]), left[1] + max(0, right[1])
        if most - least >= BYTES:
            return None
        second = 0 if INT8_MIN <= least and most <= INT8_MAX else INT8_MIN - least
        largest = (most - least) * max(-(least + second), most + second)
        return cls(-least, second, largest)

    def surplus(self, steps: int) -> int:
        """What `first` and `second` alone add to the sum of as many products."""
        return self.first * self.second * steps


def added(lhs_at: Callable, right_at: Callable, shape: tuple[int, ...], half: int) -> tuple:
    """The stages `SIDES` of sums [group, row tile, panel, r, s, step, row, vector, lane, kt]: those
    of a step of the first half of a run and its partner, `half` steps behind it."""

    def stage(near: int, far: int, name: str) -> te.Tensor:
        def value(g, mo, no, r, s, k, mi, nv, nl, kt):
            left = lhs_at(g, mo, mi, r, s, k + near, kt, None)
            return (left + right_at(g, no, r, s, k + far, nv, nl, kt)).astype(SIDES[name])

        return te.compute(shape, value, name=name)

    return stage(0, half, "first"), stage(half, 0, "second")


def rows(lhs: Lhs, cut: KSplit, crossing: Crossing, dot: Dot, lanes: int) -> te.Tensor:
    """Stage "row_terms" int32[group, row]: less the sums of (x1 + first)(x2 + second); dot works on
    vectors of `lanes` int32."""
    op, matrix = lhs.op, lhs.op.matrix
    half = cut.kg // 2 * cut.kq

    def piece(source, place, count: int, more: int) -> tirx.Expr:
        *outer, start = place
        value = vec.load(source, (*outer, start), count)
        value = value + vec.splat(more % BYTES, "uint8", count) if more else value
        if count < 4 * lanes:
            zeros = vec.splat(0, "uint8", 4 * lanes - count)
            value = vec.joined([vec.bind(value), zeros], range(4 * lanes))
        return vec.bind(value)

    def add(acc, source, place, count: int) -> None:
        *outer, start = place
        first = piece(source, place, count, crossing.first)
        second = piece(source, (*outer, start + half), count, crossing.second)
        second = vec.reinterpret(f"int8x{4 * lanes}", second)
        vec.store(acc, [0], dot(vec.load(acc, [0], lanes), first, second), lanes)

    def row(source, sums, g, m) -> None:
        with tb.sblock("vectors"):
            tb.reads([])
            tb.writes([])
            acc = vec.scratch((lanes,), "int32")
            vec.store(acc, [0], vec.splat(0, "int32", lanes), lanes)
            with tb.serial(0, cut.r) as r, tb.serial(0, cut.s) as s:
                *outer, start = lhs.place(g, m, r, s)
                whole, done = half // (4 * lanes), 0
                if whole:
                    with tb.serial(0, whole) as i:
                        add(acc, source, (*outer, start + i * (4 * lanes)), 4 * lanes)
                    done = whole * 4 * lanes
                for count in (1 << bit for bit in reversed(range(half.bit_length()))):
                    if (half - done) & count and count < 4 * lanes:
                        add(acc, source, (*outer, start + done), count)
                        done += count
            name = f"llvm.vector.reduce.add.v{lanes}i32"
            total = tirx.call_llvm_intrin("int32", name, vec.load(acc, [0], lanes))
            tb.buffer_store(sums, vec.const(0) - total, [g, m])

    def emit(source, sums) -> None:
        each = 1 if is_matrix(op) else op.ow  # neighbours, whose places are no divisions
        with rows_loop(op, matrix.m // each, matrix.m * matrix.k) as line:
            with tb.serial(0, each) as i, tb.serial(0, matrix.groups) as g:
                row(source, sums, g, line * each + i)

    return extern("row_terms", (matrix.groups, matrix.m), "int32", [lhs.source], emit)
