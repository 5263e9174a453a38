"""Quantized results narrowed together: from four vectors of float32 to one of bytes.

A vector of 32-bit lanes at a time, narrowing takes two instructions and a store of a quarter of a
vector each. Here four vectors, from one row of the register tile or from several, are narrowed by
`Isa.narrow4`, which makes most of the clamps and three of the four stores needless.
"""

import math
from dataclasses import dataclass

from tvm import tirx
from tvm.s_tir import SBlockRealize
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as tb

from lpgen.algorithms.result.epilogue import real_value
from lpgen.isa import Isa
from lpgen.ops import Operator
from lpgen.ops.epilogue import Quantize, dtype_of, find, integer_bounds
from lpgen.tir import vectors
from lpgen.tir.rewrite import axis_values, replace_nest, substitute

TOGETHER = 4
"""Vectors of float32 that become one."""


def narrow_together(
    func: tirx.PrimFunc, op: Operator, isa: Isa, unrolled: bool = True
) -> tirx.PrimFunc:
    """`func` with the innermost loops around its stage y (rows, vectors, lanes) replaced by packing
    code, where y is quantized; elsewhere, and where a tile is partly outside, they stay.

    unrolled: whether the loop over rows disappears, as registers ask for.
    """
    if find(op.epilogue, Quantize) is None:
        return func

    kept = []  # what was replaced, and is visited again where it stays for partial tiles

    def make(loops: list[tirx.For], realize: SBlockRealize) -> tirx.Stmt:
        nest = _Nest.of(loops, realize, op, isa)
        if nest is None or any(realize.block.same_as(block) for block in kept):
            return loops[0]
        kept.append(realize.block)
        return nest.statement(unrolled)

    return func.with_body(replace_nest(func.body, "y", make))


@dataclass(frozen=True)
class _Nest:
    """The loops around y: any over rows, then vectors of columns and lanes."""

    op: Operator
    isa: Isa
    loops: list[tirx.For]
    realize: SBlockRealize
    real: tirx.Expr

    @classmethod
    def of(cls, loops: list[tirx.For], realize: SBlockRealize, op: Operator, isa: Isa):
        """The nest, or None where the loops have another form."""
        vectorized = loops[-1].kind == tirx.ForKind.VECTORIZED
        if len(loops) < 2 or not vectorized or int(loops[-1].extent) != isa.lanes:
            return None
        real = real_value(realize.block.body.value, find(op.epilogue, Quantize))
        return cls(op, isa, loops, realize, real)

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
        return self._at(self.realize.predicate, row, vector, self.isa.lanes - 1)

    def _rows(self, rows: list, wide: int, across: int) -> None:
        """Emit the results of some rows, `wide` vectors of each at a time."""
        for first in range(0, across, wide):
            pieces = [(row, first + i) for row in rows for i in range(wide)]
            narrow = self._narrowed(pieces)
            for number, row in enumerate(rows):
                self._store(narrow, number, row, first, wide)

    def _narrowed(self, pieces: list[tuple]) -> tirx.Expr:
        """A vector of 4 * lanes bytes: the results of up to four vectors."""
        lanes = self.isa.lanes
        real = vectors.scratch((len(pieces) * lanes,), "float32")
        for number, (row, vector) in enumerate(pieces):
            with tb.vectorized(0, lanes) as lane:
                value = self._at(self.real, row, vector, lane)
                tb.buffer_store(real, value, [number * lanes + lane])
        values = [vectors.load(real, [n * lanes], lanes) for n in range(len(pieces))]
        bounds, zero = integer_bounds(self.op.epilogue), find(self.op.epilogue, Quantize).zero
        return self.isa.narrow4(values, *bounds, zero, dtype_of(self.op.epilogue))

    def _store(self, narrow: tirx.Expr, number: int, row, vector: int, wide: int) -> None:
        count = wide * self.isa.lanes
        if count < 4 * self.isa.lanes:
            narrow = vectors.shuffle(narrow, range(number * count, (number + 1) * count))
        store = self.realize.block.body
        indices = [self._at(index, row, vector, 0) for index in store.indices]
        vectors.store(store.buffer, indices, narrow, count)
