"""Places of a transformed tile that several products share: loops over those of each.

The definition sums all products for each place, in a loop that is bounded to those of the place.
"""

from collections.abc import Sequence

from tvm import tirx
from tvm.s_tir import Schedule
from tvm_ffi import structural_map

from lpgen.algorithms.winograd.sides import Side
from lpgen.algorithms.winograd.weights import pick
from lpgen.tir.ranges import bounded

_PLACE, _PRODUCT = "lpgen.place", "lpgen.product"
"""Marks of loops; their value is the number of the side."""


def mark(sch: Schedule, sides: Sequence[Side], places: Sequence, products: Sequence) -> None:
    """Mark the loops over the places of both sides and over the products of each, where places have
    several."""
    for number, (side, place, product) in enumerate(zip(sides, places, products, strict=True)):
        if side.places < side.products:
            sch.annotate(place, _PLACE, number)
            sch.annotate(product, _PRODUCT, number)


def bound(func: tirx.PrimFunc, sides: Sequence[Side]) -> tirx.PrimFunc:
    """`func` with the marked loops over products bounded to those of their place."""
    for number, side in enumerate(sides):
        if side.places < side.products:
            func = func.with_body(_bounded(func.body, number, side))
    return func


def _bounded(body: tirx.Stmt, number: int, side: Side) -> tirx.Stmt:
    starts, counts = (
        [tirx.const(value, "int32") for value in values] for values in (side.starts, side.counts)
    )

    def visit(place: tirx.For) -> tirx.Stmt:
        if place.annotations.get(_PLACE) != number:
            return place

        def products(loop: tirx.For) -> tirx.Stmt:
            if loop.annotations.get(_PRODUCT) != number:
                return loop
            return bounded(_plain(loop, loop.body), first, count)

        first, count = pick(place.loop_var, starts), pick(place.loop_var, counts)
        return _plain(place, structural_map(place.body, (tirx.For, products)))

    return structural_map(body, (tirx.For, visit))


def _plain(loop: tirx.For, body: tirx.Stmt) -> tirx.For:
    """The loop with another body and without marks."""
    return tirx.For(loop.loop_var, loop.min, loop.extent, loop.kind, body)
