"""Loops over neighbouring elements in vectors, for generated straight-line code."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from tvm import tirx
from tvm.tirx.script import builder as tb

Index = int | tirx.Expr


def strips(
    columns: int, lanes: int, vectors: int, body: Callable[[Index, Sequence[int]], None]
) -> None:
    """Emit body(start, widths) until all columns are done.

    widths: of the vectors of a step that lie side by side from `start` on: `vectors` of `lanes`;
    what is left in the end are fewer vectors and then halves, their halves, and so on.
    """
    step = lanes * vectors
    whole, rest = divmod(columns, step)
    if whole == 1:
        body(0, [lanes] * vectors)
    elif whole:
        with tb.serial(0, whole) as i:
            body(i * step, [lanes] * vectors)
    if rest:
        body(whole * step, parts_of(rest, lanes))


def parts_of(columns: int, lanes: int) -> list[int]:
    """Widths of the fewest vectors of `lanes`, lanes / 2, ... that make up so many columns."""
    widths = [lanes] * (columns // lanes)
    rest = columns % lanes
    return widths + [1 << bit for bit in reversed(range(rest.bit_length())) if rest >> bit & 1]


def side_by_side(start: Index, widths: Sequence[int]) -> Iterator[tuple[Index, int]]:
    """(where it starts, lanes) of each vector."""
    for lanes in widths:
        yield start, lanes
        start = start + lanes
