"""Products of the winograd algorithm: for each place of a transformed tile a matrix product."""

from __future__ import annotations

from tvm import te, tirx

from lpgen.algorithms.crossed import SIDES
from lpgen.algorithms.definition import reduce_axes
from lpgen.algorithms.winograd.geometry import Geometry
from lpgen.algorithms.winograd.sides import Side


def products(geometry: Geometry, patch: te.Tensor, weights: te.Tensor) -> te.Tensor:
    """tile[image, row tile, column tile, panel, p, q, row, column, vector, lane], int32 sums.

    The axes r and s are taps. Where products share places they are all products of a side, and a
    schedule has to bound their loops to those of the place (`Side.starts`, `Side.counts`).
    """
    tile, t = geometry.tile, geometry.tiling
    outer = (tile.op.n, *geometry.tiles, int(weights.shape[0]), tile.high.places, tile.wide.places)
    shape, (down, across) = (*outer, t.rows, t.columns, t.vectors, t.lanes), geometry.added
    high, wide = geometry.advance

    def operands(index, r, s, steps, kt) -> tuple[tirx.Expr, tirx.Expr]:
        """An activation and a weight; steps: of both."""
        image, ro, co, panel, p, q, row, column, nv, nl = index
        (p, r, down), (q, s, across) = _factor(tile.high, p, r), _factor(tile.wide, q, s)
        pixel = (row * high + down, column * wide + across)
        left, right = steps
        value = patch[(image, ro, co, p, q, *pixel, left * tile.kq + kt)]
        return value, weights[panel, p, q, r, s, right, nv, nl, kt]

    def product(dtype, index, r, s, k4, kt):
        value, weight = operands(index, r, s, (k4, k4), kt)
        return value.astype(dtype) * weight.astype(dtype)

    if t.crossed:
        half = geometry.steps // 2

        def side(near: int, far: int, name: str) -> te.Tensor:
            def value(*at):
                *index, r, s, k4, row, column, nv, nl, kt = at
                index = (*index, row, column, nv, nl)
                left, right = operands(index, r, s, (k4 + near, k4 + far), kt)
                if tile.words:
                    return left + right
                return (left + right.astype("uint8")).astype(SIDES[name])

            inner = (down, across, half, t.rows, t.columns, t.vectors, t.lanes, tile.kq)
            return te.compute((*outer, *inner), value, name=name)

        sides = side(0, half, "first"), side(half, 0, "second")
        taps = r, s, k4, kt = reduce_axes(r=down, s=across, k4=half, kt=tile.kq)

        def product_of_sums(*index):
            at = (*index[:6], r, s, k4, *index[6:], kt)
            first, second = (side[at].astype("int32") for side in sides)
            return te.sum(first * second, axis=list(taps))

        return te.compute(shape, product_of_sums, name="tile")

    if not t.chunk:
        taps = reduce_axes(r=down, s=across, k4=geometry.steps, kt=tile.kq)

        def element(*index):
            return te.sum(product("int32", index, *taps), axis=taps)

        return te.compute(shape, element, name="tile")

    ki, kt = reduce_axes(ki=t.chunk, kt=2)
    chunks = geometry.steps // t.chunk

    def partial(image, ro, co, panel, p, q, r, s, ko, row, column, nv, nl, pair):
        index = (image, ro, co, panel, p, q, row, column, nv, nl)
        value = product("int16", index, r, s, ko * t.chunk + ki, pair * 2 + kt)
        return te.sum(value, axis=[ki, kt])

    inner = (t.rows, t.columns, t.vectors, t.lanes, 2)
    partials = te.compute((*outer, down, across, chunks, *inner), partial, name="partial")
    axes = reduce_axes(r=down, s=across, ko=chunks, pair=2)
    r, s, ko, pair = axes

    def widened(*index):
        value = partials[(*index[:6], r, s, ko, *index[6:], pair)]
        return te.sum(value.astype("int32"), axis=axes)

    return te.compute(shape, widened, name="tile")


def _factor(side: Side, place: tirx.Expr, number: tirx.Expr) -> tuple:
    """(the product, the tap that is summed, the patch from that of the tile on) of sum `number` of
    a place."""
    if side.outputs == 1:
        return place, number, number
    return (place, number, 0) if side.places == side.products else (number, 0, 0)
