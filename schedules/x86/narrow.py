"""Quantized results narrowed together: from four vectors of float32 to one of bytes.

A vector of 32-bit lanes at a time, narrowing takes two instructions and a store of a quarter of a
vector each. Here four vectors, from one row of the register tile or from several, are converted to
int32 (rounding half to even) and packed twice with saturation, which makes most of the clamps and
three of the four stores needless:

    bytes = packswb(packssdw(v0, v1) + zero, packssdw(v2, v3) + zero)

Packing works on 128-bit lanes, so that one permutation of 32-bit words puts the columns in order.
A value above int32 converts to the smallest int32: float32 values are bounded from above before.
What is no number (NaN) is not bounded, and becomes the lowest result by the same conversion.

Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2: CVTPS2DQ, PACKSSDW,
PACKSSWB/PACKUSWB.
"""

import math
from dataclasses import dataclass

from tvm import tirx
from tvm.s_tir import SBlockRealize
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as tb

from lpgen.algorithms.result.epilogue import real_value
from lpgen.ops import Operator
from lpgen.ops.epilogue import Quantize, dtype_of, find, integer_bounds
from lpgen.tir import vectors
from lpgen.tir.rewrite import axis_values, replace_nest, substitute

# By the bits of a vector: conversion, packing to int16, to int8 and to uint8.
_INSTRUCTIONS = {
    128: ("sse2.cvtps2dq", "sse2.packssdw.128", "sse2.packsswb.128", "sse2.packuswb.128"),
    256: ("avx.cvt.ps2dq.256", "avx2.packssdw", "avx2.packsswb", "avx2.packuswb"),
    512: (
        "avx512.mask.cvtps2dq.512",
        "avx512.packssdw.512",
        "avx512.packsswb.512",
        "avx512.packuswb.512",
    ),
}
TOGETHER = 4
"""Vectors of float32 that become one."""


def narrow_together(
    func: tirx.PrimFunc, op: Operator, lanes: int, unrolled: bool = True
) -> tirx.PrimFunc:
    """`func` with the innermost loops around its stage y (rows, vectors, lanes) replaced by packing
    code, where y is quantized; elsewhere, and where a tile is partly outside, they stay.

    lanes: of a vector, 32 bits each; unrolled: whether the loop over rows disappears, as registers
    ask for.
    """
    if find(op.epilogue, Quantize) is None:
        return func

    kept = []  # what was replaced, and is visited again where it stays for partial tiles

    def make(loops: list[tirx.For], realize: SBlockRealize) -> tirx.Stmt:
        nest = _Nest.of(loops, realize, op, lanes)
        if nest is None or any(realize.block.same_as(block) for block in kept):
            return loops[0]
        kept.append(realize.block)
        return nest.statement(unrolled)

    return func.with_body(replace_nest(func.body, "y", make))


@dataclass(frozen=True)
class _Nest:
    """The loops around y: any over rows, then vectors of columns and lanes."""

    op: Operator
    lanes: int
    loops: list[tirx.For]
    realize: SBlockRealize
    real: tirx.Expr

    @classmethod
    def of(cls, loops: list[tirx.For], realize: SBlockRealize, op: Operator, lanes: int):
        """The nest, or None where the loops have another form."""
        real = real_value(realize.block.body.value)
        vectorized = loops[-1].kind == tirx.ForKind.VECTORIZED
        if real is None or len(loops) < 2 or not vectorized or int(loops[-1].extent) != lanes:
            return None
        return cls(op, lanes, loops, realize, real)

    def statement(self, unrolled: bool) -> tirx.Stmt:
        """What takes the place of the loops."""
        *outer, vector, _ = (int(loop.extent) for loop in self.loops)
        rows, across = math.prod(outer), vector
        wide = next(width for width in (4, 2, 1) if across % width == 0)
        high = TOGETHER // wide
        looped = 0 if unrolled else rows // high * high
        with IRBuilder() as builder, tb.sblock("narrow"):
            tb.reads([])
            tb.writes([])
            if looped:
                with tb.serial(0, looped // high) as group:
                    self._rows([group * high + i for i in range(high)], wide, across)
            for first in range(looped, rows, high):
                self._rows(list(range(first, min(first + high, rows))), wide, across)
        fast = builder.get()
        inside = self._inside(rows - 1, across - 1)
        if isinstance(inside, tirx.IntImm) and int(inside):
            return fast
        return tirx.IfThenElse(inside, fast, self.loops[0])

    def _at(self, expression, row, vector, lane):
        *outer, of_vector, of_lane = self.loops
        places = {of_vector.loop_var: vector, of_lane.loop_var: lane}
        for loop in reversed(outer):
            extent = int(loop.extent)
            places[loop.loop_var], row = row % extent, row // extent
        return substitute(substitute(expression, axis_values(self.realize)), places)

    def _inside(self, row: int, vector: int) -> tirx.Expr:
        return self._at(self.realize.predicate, row, vector, self.lanes - 1)

    def _rows(self, rows: list, wide: int, across: int) -> None:
        """Emit the results of some rows, `wide` vectors of each at a time."""
        for first in range(0, across, wide):
            pieces = [(row, first + i) for row in rows for i in range(wide)]
            narrow = self._narrowed(pieces)
            for number, row in enumerate(rows):
                self._store(narrow, number, row, first, wide)

    def _narrowed(self, pieces: list[tuple]) -> tirx.Expr:
        """A vector of 4 * lanes bytes: the results of up to four vectors."""
        lanes = self.lanes
        real = vectors.scratch((len(pieces) * lanes,), "float32")
        for number, (row, vector) in enumerate(pieces):
            with tb.vectorized(0, lanes) as lane:
                value = self._at(self.real, row, vector, lane)
                tb.buffer_store(real, value, [number * lanes + lane])
        words = [self._integers(real, number) for number in range(len(pieces))]
        words += [words[-1]] * (TOGETHER - len(words))
        return self._packed(words)

    def _integers(self, real, number: int) -> tirx.Expr:
        lanes = self.lanes
        _, high = integer_bounds(self.op.epilogue)
        bound = tirx.Broadcast(tirx.const(high, "float32"), lanes)
        value = tirx.Min(bound, vectors.load(real, [number * lanes], lanes))
        convert, *_ = _INSTRUCTIONS[32 * lanes]
        if lanes < 16:
            return vectors.bind(_call(f"int32x{lanes}", convert, value))
        everywhere, as_set = tirx.const(-1, "int16"), tirx.const(4, "int32")
        zero = vectors.splat(0, "int32", lanes)
        return vectors.bind(_call(f"int32x{lanes}", convert, value, zero, everywhere, as_set))

    def _packed(self, words: list[tirx.Expr]) -> tirx.Expr:
        lanes, dtype = self.lanes, dtype_of(self.op.epilogue)
        _, to_words, to_signed, to_unsigned = _INSTRUCTIONS[32 * lanes]
        zero = find(self.op.epilogue, Quantize).zero
        late = self._zero_is_added_to_bytes
        halves = []
        for low, high in (words[:2], words[2:]):
            half = _call(f"int16x{2 * lanes}", to_words, low, high)
            if zero and not late:
                half = _added(half, zero, "int16", 2 * lanes)
            halves.append(vectors.bind(half))
        count = 4 * lanes
        packed = _call(f"int8x{count}", to_signed if dtype == "int8" else to_unsigned, *halves)
        if lanes > 4:
            order = [4 * part + j for j in range(4) for part in range(lanes // 4)]
            in_order = vectors.reinterpret(f"int32x{lanes}", vectors.bind(packed))
            packed = vectors.shuffle(in_order, order)
        packed = vectors.reinterpret(f"{dtype}x{count}", packed)
        if zero and late:
            packed = _added(packed, zero, dtype, count)
        return vectors.bind(self._clamped(packed))

    @property
    def _zero_is_added_to_bytes(self) -> bool:
        """Whether saturation cuts off at 0 what is to be cut off there before zero is added."""
        low, _ = integer_bounds(self.op.epilogue)
        return low >= 0 and dtype_of(self.op.epilogue) == "uint8"

    def _clamped(self, value: tirx.Expr) -> tirx.Expr:
        """Bounds that saturation does not give."""
        dtype, count = dtype_of(self.op.epilogue), 4 * self.lanes
        zero = find(self.op.epilogue, Quantize).zero
        low, high = (bound + zero for bound in integer_bounds(self.op.epilogue))
        lowest = -128 if dtype == "int8" else zero if self._zero_is_added_to_bytes else 0
        if low > lowest:
            value = tirx.Max(value, vectors.splat(low, dtype, count))
        if high < (127 if dtype == "int8" else 255):
            value = tirx.Min(value, vectors.splat(high, dtype, count))
        return value

    def _store(self, narrow: tirx.Expr, number: int, row, vector: int, wide: int) -> None:
        count = wide * self.lanes
        if count < 4 * self.lanes:
            narrow = vectors.shuffle(narrow, range(number * count, (number + 1) * count))
        store = self.realize.block.body
        indices = [self._at(index, row, vector, 0) for index in store.indices]
        vectors.store(store.buffer, indices, narrow, count)


def _call(dtype: str, name: str, *arguments: tirx.Expr) -> tirx.Expr:
    return vectors.intrinsic(dtype, f"llvm.x86.{name}", *arguments)


def _added(value: tirx.Expr, number: int, dtype: str, lanes: int) -> tirx.Expr:
    """value + number, saturated."""
    name = {"int16": "llvm.sadd.sat", "uint8": "llvm.uadd.sat"}[dtype]
    return vectors.intrinsic(f"{dtype}x{lanes}", name, value, vectors.splat(number, dtype, lanes))
