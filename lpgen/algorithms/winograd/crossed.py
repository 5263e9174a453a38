"""Products of sums (`lpgen.algorithms.crossed`) at the places of a transformed tile.

The channels are cut into two halves. A transformed activation gets, beside the offset of its place,
what makes the sums of its half bytes, and so what has to be subtracted from the products of a place
is

    terms   the sum over the channels of the first half times the second, for each tile: it goes
            back through A^T and A as the products do, in vectors of which each lane has some of the
            channels, and is added up behind that
    start   of the weights, of which it is known beforehand
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from tvm import te, tirx

from lpgen.algorithms.crossed import SIDES, Crossing
from lpgen.algorithms.definition import reduce_axes
from lpgen.ops.reach import INT16_MAX, INT32_MAX

if TYPE_CHECKING:
    from lpgen.algorithms.winograd.geometry import Geometry
    from lpgen.algorithms.winograd.tile import Tile


@dataclass(frozen=True)
class Crossings:
    """How activations and weights of a tile are crossed at each place, all as int64[p][q]: what is
    added to activations of the first and of the second half, and the largest product."""

    first: np.ndarray
    second: np.ndarray
    largest: np.ndarray

    @classmethod
    def of(cls, tile: Tile) -> Crossings | None:
        """Those of a tile, None where their sums do not fit bytes, or words, or their products, of
        bytes, int32."""
        if tile.words:  # signed on both sides, and right modulo 2^32
            reach = sum(np.maximum(-low, high) for low, high in (tile.inputs, tile.weights))
            none = np.zeros(reach.shape, np.int64)
            return cls(none, none, none) if reach.max() <= INT16_MAX else None
        most, (low, high) = tile.inputs[1] + tile.offsets, tile.weights
        found = [
            Crossing.of((0, int(most[place])), (int(low[place]), int(high[place])))
            for place in np.ndindex(most.shape)
        ]
        if not all(found):
            return None
        fields = ((c.first, c.second, c.largest) for c in found)
        crossings = cls(*np.array(list(fields), np.int64).T.reshape(3, *most.shape))
        return crossings if tile.reach(3 * crossings.largest) <= INT32_MAX else None


def surplus(tile: Tile, taps: np.ndarray, half: int) -> np.ndarray:
    """What the weights alone add at each place, int64[oc][p][q], and `first` and `second` alone.

    taps: transformed weights, int64[oc][p][q][r][s][2 * half channels].
    """
    c = tile.crossings
    first, second = (side[..., None, None, None] for side in (c.first, c.second))
    products = (taps[..., :half] + second) * (taps[..., half:] + first)
    return (products - first * second).sum((3, 4, 5))


@dataclass(frozen=True)
class Terms:
    """The stages of `terms`, of patches in a geometry. lanes: int32 of a vector, at most."""

    geometry: Geometry
    patch: te.Tensor

    @property
    def half(self) -> int:
        """Steps of half of the channels."""
        return self.geometry.steps // 2

    @cached_property
    def lanes(self) -> int:
        """int32 of a vector: a power of two that divides the half."""
        return min(self.half & -self.half, self.geometry.tiling.lanes)

    def sides(self) -> tuple[te.Tensor, ...]:
        """Stages "near" and "far": [image, row tile, column tile, p, q, row, column, step, lane,
        kt], activations of the first half, uint8, and of the second, int8; or words, int16."""
        *outer, _ = (int(extent) for extent in self.patch.shape)
        tile = self.geometry.tile
        dtypes = ("int16", "int16") if tile.words else SIDES.values()
        shape = (*outer, self.half // self.lanes, self.lanes, tile.kq)

        def side(start: int, dtype: str):
            def value(*index):
                *place, step, lane, kt = index
                k = start + (step * self.lanes + lane) * tile.kq + kt
                return self.patch[(*place, k)].astype(dtype)

            return value

        starts = zip(("near", "far"), (0, self.half * tile.kq), dtypes, strict=True)
        return tuple(te.compute(shape, side(at, dtype), name=name) for name, at, dtype in starts)

    def define(self) -> te.Tensor:
        """Stage "terms" int32[image, row tile, column tile, i, j, row, column], less than 0, out of
        "crossed", "terms_up" and "terms_back", which have lanes."""
        from lpgen.algorithms.winograd import transformed

        near, far = self.sides()
        geometry = self.geometry
        high, wide = geometry.tile.high, geometry.tile.wide
        *outer, rows, columns, steps, lanes, _ = (int(extent) for extent in near.shape)
        tiles, inner = outer[:3], (rows, columns, lanes)

        def crossed(*index):
            *place, lane = index
            at = (*place, step, lane, kt)
            return te.sum(near[at].astype("int32") * far[at].astype("int32"), axis=[step, kt])

        step, kt = reduce_axes(step=steps, kt=geometry.tile.kq)
        sums = te.compute((*outer, *inner), crossed, name="crossed")

        def line(image, ro, co, i, q, *place):
            return transformed(
                high.output, i, lambda p: sums[(image, ro, co, p, q, *place)], "int32"
            )

        up = te.compute((*tiles, high.outputs, wide.products, *inner), line, name="terms_up")

        def value(image, ro, co, i, j, *place):
            lines = (image, ro, co, i)
            return transformed(wide.output, j, lambda q: up[(*lines, q, *place)], "int32")

        back = te.compute((*tiles, high.outputs, wide.outputs, *inner), value, name="terms_back")

        def total(image, ro, co, i, j, row, column):
            place = (image, ro, co, i, j, row * down + r, column * across + s, lane)
            return te.sum(tirx.const(0, "int32") - back[place], axis=[r, s, lane])

        (down, across), (tall, broad) = geometry.advance, geometry.tile.direct
        r, s, lane = reduce_axes(r=tall, s=broad, lane=lanes)
        t = geometry.tiling
        shape = (*tiles, high.outputs, wide.outputs, t.rows, t.columns)
        return te.compute(shape, total, name="terms")
