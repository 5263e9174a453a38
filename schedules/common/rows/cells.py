"""Cells of recurrent layers: vectors of a state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tvm import tirx

from lpgen.algorithms.functions import Vectors
from lpgen.algorithms.rows import Rows
from lpgen.isa import Isa
from lpgen.tir import vectors as vec
from lpgen.tir.strips import Index, side_by_side, strips

if TYPE_CHECKING:
    from lpgen.ops.cell import Cell


def cell(op: Cell, isa: Isa, vectors: int) -> Rows:
    """Rows of the state, one vector at a time: their functions are long."""
    columns = op.columns

    def row(number: Index, x, r, state, y) -> None:
        def step(start: Index, widths: Sequence[int]) -> None:
            for place, width in side_by_side(start, widths):
                m = Vectors(op.rounded)
                own = number * columns + place

                def of(buffer, gates, place=place, width=width) -> Callable[[int], tirx.Expr]:
                    first = number * gates * columns + place
                    return lambda gate: vec.load(buffer, [first + gate * columns], width)

                last = m.name(vec.load(state, [own], width))
                vec.store(y, [own], op.value(m, of(x, op.GATES), of(r, op.r_gates), last), width)

        strips(columns, isa.lanes, 1, step)

    return Rows(op.rows, row)
