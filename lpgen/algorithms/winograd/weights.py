"""Packed weights of the winograd algorithm: transformed, one byte each.

    main[panel][p][q][r][s][k group][vector][lane][kq]      int8
    start[i][j][channel]                                    int32

(p, q) are the places of a transformed tile, (r, s) the taps that are summed one by one, a panel is
`vectors` x `lanes` output channels. `start` undoes the offsets of the activations at output (i, j)
of a tile: -(A^T (offset * sum of the transformed weights) A).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from tvm import IRModule, te, tirx

from lpgen.algorithms.sections import Section, Sectioned, pack_entry
from lpgen.algorithms.winograd.sides import Matrix
from lpgen.algorithms.winograd.tile import Tile

KQ = 4
"""Input channels of a step."""


@dataclass(frozen=True)
class TransformedWeights(Sectioned):
    """The layout above for tiles `tile`, in panels of `vectors` x `lanes` channels.

    steps: k groups, the last ones perhaps empty.
    """

    tile: Tile
    steps: int
    vectors: int
    lanes: int

    @property
    def panel(self) -> int:
        """Channels of a panel."""
        return self.vectors * self.lanes

    @property
    def panels(self) -> int:
        """Panels of all channels."""
        return -(-self.tile.op.oc // self.panel)

    @cached_property
    def sections(self) -> list[Section]:
        """Parts of the packed bytes, in order: name, shape, dtype."""
        t = self.tile
        inner = (*t.direct, self.steps, self.vectors, self.lanes, KQ)
        main = (self.panels, t.high.products, t.wide.products, *inner)
        start = (t.high.outputs, t.wide.outputs, self.panels * self.panel)
        return [Section("main", main, "int8"), Section("start", start, "int32")]

    def pack(self, w: np.ndarray) -> np.ndarray:
        """The packed weights (uint8[nbytes]) of the weight values `w` [oc, kh, kw, ic]."""
        t, op = self.tile, self.tile.op
        (down, across), high, wide = t.direct, t.high, t.wide
        # A side has either one tap that is summed or one place of the kernel's taps.
        taps = w.astype(np.int64).reshape(op.oc, down, high.taps, across, wide.taps, op.ic)
        values = np.einsum("pa,qb,nrasbc->npqrsc", high.weight, wide.weight, taps)
        full = np.zeros((self.panels * self.panel, *values.shape[1:-1], self.steps * KQ), np.int64)
        full[: op.oc, ..., : op.ic] = values
        surplus = -t.offsets * full.sum((3, 4, 5))
        start = np.einsum("ip,jq,npq->ijn", high.output, wide.output, surplus)
        main = full.reshape(
            self.panels, self.vectors, self.lanes, *full.shape[1:-1], self.steps, KQ
        ).transpose(0, 3, 4, 5, 6, 7, 1, 2, 8)
        return self.bytes_of([main, start])

    def te_module(self) -> IRModule:
        """The packer as TIR: "main"(w, packed), see `Layout`."""
        t, op = self.tile, self.tile.op
        high, wide, (down, across) = t.high, t.wide, t.direct
        w = te.placeholder(op.w_shape, op.weight.dtype, name="w")

        def value(channel, p, q, r, s, k):
            total = tirx.const(0, "int32")
            for a in range(high.taps):
                for b in range(wide.taps):
                    factor = _element(high.weight, p, a) * _element(wide.weight, q, b)
                    total = total + factor * w[channel, r + a, s + b, k].astype("int32")
            return total

        def main(panel, p, q, r, s, kg, vector, lane, kt):
            channel, k = panel * self.panel + vector * self.lanes + lane, kg * KQ + kt
            inside = tirx.all(channel < op.oc, k < op.ic)
            zero = tirx.const(0, "int32")
            return te.if_then_else(inside, value(channel, p, q, r, s, k), zero).astype("int8")

        r, s = te.reduce_axis((0, down), name="r"), te.reduce_axis((0, across), name="s")
        k = te.reduce_axis((0, op.ic), name="k")
        sums = te.compute(
            (op.oc, high.products, wide.products),
            lambda n, p, q: te.sum(value(n, p, q, r, s, k), axis=[r, s, k]),
        )

        def start(i, j, n):
            total = tirx.const(0, "int32")
            for p in range(high.products):
                for q in range(wide.products):
                    factor = _element(high.output, i, p) * _element(wide.output, j, q)
                    offset = tirx.const(-int(t.offsets[p, q]), "int32")
                    total = total + factor * offset * sums[n, p, q]
            return te.if_then_else(n < op.oc, total, tirx.const(0, "int32"))

        functions = zip(self.sections, (main, start), strict=True)
        outputs = [te.compute(section.shape, f, name=section.name) for section, f in functions]
        return pack_entry(w, outputs, self.sections, op.w_shape, op.weight.dtype)


def pick(index: tirx.Expr, values: list[tirx.Expr]) -> tirx.Expr:
    """values[index]."""
    *first, result = values
    for i, value in reversed(list(enumerate(first))):
        result = tirx.Select(index == i, value, result)
    return result


def _element(matrix: Matrix, row: tirx.Expr, column: int) -> tirx.Expr:
    """matrix[row][column], int32."""
    return pick(row, [tirx.const(values[column], "int32") for values in matrix])
