"""Blocks of float activations rotated, in vectors of 16: see `lpgen.ops.hadamard`.

A step over a distance of whole vectors adds and subtracts vectors. Within a vector, lane i gets

    lane i of its neighbours' copy  +  its own, negative in lanes that have the bit of the distance

a shuffle and one instruction: a product with 1 or -1 is exact, so that a fused one changes nothing.
"""

from __future__ import annotations

from tvm import tirx
from tvm.tirx.script import builder as tb

from lpgen.tir.vectors import constants, load, scratch, shuffle, store

LANES = 16


def rotate_row(x, row: list, count: int, block: int, rotated) -> None:
    """Emit rotated[0 : count] = the blocks of x[row, 0 : count] times the matrix."""
    with tb.serial(0, count // block) as i, tb.sblock("rotate"):
        tb.reads([])
        tb.writes([])
        _rotate_block(x, [*row, i * block], block, rotated, i * block)


def _rotate_block(x, at: list, block: int, rotated, start: tirx.Expr) -> None:
    """Emit straight-line code for one block, which LLVM keeps in registers."""
    *outer, first = at
    values = scratch((block,), "float32")
    places = range(0, block, LANES)
    for place in places:
        value = load(x, [*outer, first + place], LANES)
        store(values, [place], _within(value, 1), LANES)
    for distance in (2, 4, 8):
        for place in places:
            store(values, [place], _within(load(values, [place], LANES), distance), LANES)
    distance = LANES
    while distance < block:
        last = 2 * distance == block
        for place in places:
            if place & distance:
                continue
            low, high = (tb.Bind(load(values, [p], LANES)) for p in (place, place + distance))
            to, begin = (rotated, start) if last else (values, 0)
            store(to, [begin + place], low + high, LANES)
            store(to, [begin + place + distance], low - high, LANES)
        distance *= 2
    if block == LANES:
        store(rotated, [start], load(values, [0], LANES), LANES)


def _within(value: tirx.Expr, distance: int) -> tirx.Expr:
    """A step over a distance within a vector."""
    value = tb.Bind(value)
    signs = [-1.0 if lane & distance else 1.0 for lane in range(LANES)]
    neighbours = shuffle(value, [lane ^ distance for lane in range(LANES)])
    return neighbours + value * constants(signs, "float32")
