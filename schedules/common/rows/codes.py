"""Rows of float32 made codes for products: a function, the largest of a row, its codes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tvm import tirx
from tvm.tirx.script import builder as tb

from lpgen.algorithms.functions import Vectors
from lpgen.algorithms.lhs.narrow import LANES, Narrow, same
from lpgen.algorithms.lhs.quantize import MAGNITUDE, largest_lane, steps_of, zeroed
from lpgen.algorithms.rows import Rows
from lpgen.isa import Isa
from lpgen.ops.coded import PLAIN
from lpgen.ops.functions import FUNCTIONS
from lpgen.ops.lhs import steps_at
from lpgen.schedules.common.rows.sums import together
from lpgen.tir import vectors as vec
from lpgen.tir.strips import Index, side_by_side, strips

if TYPE_CHECKING:
    from lpgen.ops.coded import QuantizeRows


def quantize_rows(op: QuantizeRows, isa: Isa, vectors: int) -> Rows:
    """Rows: with a function in front, of a copy that the L1 cache holds."""
    columns, behind = op.columns, steps_at(op.rows, op.columns)
    narrow = Narrow(op, isa, op.act.dtype, op.zero)

    def row(number: Index, x, y) -> None:
        values, at = x, number * columns
        if op.function != PLAIN:
            values, at = vec.scratch((columns,), "float32"), 0
        largest = zeroed("largest")

        def step(start: Index, widths: Sequence[int]) -> None:
            for place, width in side_by_side(start, widths):
                m = Vectors()
                value = m.name(vec.load(x, [number * columns + place], width))
                if op.function != PLAIN:
                    value = FUNCTIONS[op.function][0](m.rounding(op.rounded), value)
                    vec.store(values, [at + place], value, width)
                _take(largest, m.bits(value), width)

        strips(columns, together(isa), 1, step)
        top = vec.reinterpret("float32", vec.bind(largest_lane(largest)))
        size, inverse = steps_of(op, vec.bind(top), 1)
        vec.store(y, [behind + 4 * number], vec.reinterpret("uint8x4", size), 4)
        _between(number, op.rows * columns, behind, y)
        narrow.all(values, [at], y, [number * columns], columns, same(vec.bind(inverse)))

    return Rows(op.rows, row)


def _between(number: Index, start: int, stop: int, y: tirx.Var) -> None:
    """Emit zeros between the codes and the steps, by the first row."""
    if start == stop:
        return
    with tb.If(tirx.EQ(number, 0)), tb.Then(), tb.serial(0, stop - start) as i:
        tb.buffer_store(y, tirx.const(0, "uint8"), [start + i])


def _take(largest: tirx.Var, bits: tirx.Expr, width: int) -> None:
    """Emit: the magnitudes of a vector are taken into the largest ones, in its lanes."""
    sizes = vec.bind(bits & vec.splat(MAGNITUDE, "int32", width))
    for start in range(0, width, LANES):
        lanes = min(LANES, width)
        some = sizes if lanes == width else vec.shuffle(sizes, range(start, start + lanes))
        known = vec.load(largest, [0], lanes)
        vec.store(largest, [0], tirx.Max(known, some), lanes)
