"""Packed weights of the winograd algorithm.

    main[panel][p][q][r][s][k group][vector][lane][kq]      int8 or int16, `TransformedWeights`
    plane[panel][k group / fields][row][column][...]        uint8, `KernelCodes`
    start[i][j][channel]                                    int32

(p, q) are the places of a transformed tile, (r, s) the taps that are summed one by one, a panel is
`vectors` x `lanes` output channels. `start` undoes the offsets of the activations at output (i, j)
of a tile: -(A^T (offset * sum of the transformed weights) A); beside words it is what the `centre`
of the activations takes away from every output, centre * sum of the weights. What is taken off
crossed products (`winograd.crossed`) is part of `start`, of words a section `terms` before it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from tvm import IRModule, te, tirx

from lpgen.algorithms.lhs.k_split import KSplit
from lpgen.algorithms.sections import Section, Sectioned, pack_entry
from lpgen.algorithms.weights.panels import PanelWeights
from lpgen.algorithms.winograd import crossed
from lpgen.algorithms.winograd.sides import Matrix
from lpgen.algorithms.winograd.tile import Tile

if TYPE_CHECKING:
    from lpgen.algorithms.weights.panels import Lookup


@dataclass(frozen=True)
class TileWeights(Sectioned, ABC):
    """The weights for tiles `tile` in panels of `vectors` x `lanes` channels, and `start`.

    steps: k groups, the last ones perhaps empty; crossed: what reads them makes products of sums.

    A layout derives from it and says how the kernel's taps are stored: `stored`, `contents` (NumPy)
    and `te_contents` (TIR), which must give the same bytes.
    """

    tile: Tile
    steps: int
    vectors: int
    lanes: int
    crossed: bool = False

    @property
    def panel(self) -> int:
        """Channels of a panel."""
        return self.vectors * self.lanes

    @property
    def panels(self) -> int:
        """Panels of all channels."""
        return -(-self.tile.op.oc // self.panel)

    @property
    def half(self) -> int:
        """Input channels of a half."""
        return self.steps // 2 * self.tile.kq

    @property
    @abstractmethod
    def stored(self) -> list[Section]:
        """The sections of the taps."""

    @abstractmethod
    def contents(self, w: np.ndarray, transformed: np.ndarray) -> list[np.ndarray]:
        """Those sections' contents; w: op.w_shape; transformed: int64[oc][p][q][r][s][ic]."""

    @abstractmethod
    def te_contents(self, w: te.Tensor, transformed) -> list[te.Tensor]:
        """The same as tensors; transformed(channel, p, q, r, s, k) is an int32 expression."""

    @cached_property
    def sections(self) -> list[Section]:
        """Parts of the packed bytes, in order: name, shape, dtype."""
        t = self.tile
        start = (t.high.outputs, t.wide.outputs, self.panels * self.panel)
        terms = [Section("terms", start, "int32")] if t.words and self.crossed else []
        return [*self.stored, *terms, Section("start", start, "int32")]

    def pack(self, w: np.ndarray) -> np.ndarray:
        """The packed weights (uint8[nbytes]) of the weight values `w` [oc, kh, kw, ic]."""
        t, op = self.tile, self.tile.op
        (down, across), high, wide = t.direct, t.high, t.wide
        # A side has either one tap that is summed or one place of the kernel's taps.
        taps = w.astype(np.int64).reshape(op.oc, down, high.taps, across, wide.taps, op.ic)
        values = np.einsum("pa,qb,nrasbc->npqrsc", high.weight, wide.weight, taps)
        surplus = np.zeros((self.panels * self.panel, *t.offsets.shape), np.int64)
        surplus[: op.oc] = -t.offsets * values.sum((3, 4, 5))
        if self.crossed:
            empty = [(0, 0)] * 5 + [(0, self.steps * t.kq - op.ic)]
            surplus[: op.oc] -= crossed.surplus(t, np.pad(values, empty), self.half)
        start = np.einsum("ip,jq,npq->ijn", high.output, wide.output, surplus)
        if t.words:
            terms = [(start % 2**32).astype(np.uint32)] if self.crossed else []
            start = np.zeros_like(start)
            start[..., : op.oc] = t.centre * w.astype(np.int64).sum((1, 2, 3))
            return self.bytes_of([*self.contents(w, values), *terms, start])
        return self.bytes_of([*self.contents(w, values), start])

    def te_module(self) -> IRModule:
        """The packer as TIR: "main"(w, packed), see `Layout`."""
        t, op = self.tile, self.tile.op
        high, wide, (down, across) = t.high, t.wide, t.direct
        w = te.placeholder(op.w_shape, op.weight.dtype, name="w")

        def transformed(channel, p, q, r, s, k):
            total = tirx.const(0, "int32")
            for a in range(high.taps):
                for b in range(wide.taps):
                    factor = _element(high.weight, p, a) * _element(wide.weight, q, b)
                    total = total + factor * w[channel, r + a, s + b, k].astype("int32")
            return total

        r, s = te.reduce_axis((0, down), name="r"), te.reduce_axis((0, across), name="s")
        k = te.reduce_axis((0, op.ic), name="k")
        sums = te.compute(
            (op.oc, high.products, wide.products),
            lambda n, p, q: te.sum(transformed(n, p, q, r, s, k), axis=[r, s, k]),
        )

        products = self._te_crossed(transformed) if self.crossed else None
        r, s = te.reduce_axis((0, op.kernel[0]), name="r"), te.reduce_axis((0, op.kernel[1]), "s")
        k = te.reduce_axis((0, op.ic), name="k")
        plain = te.compute(
            (op.oc,), lambda n: te.sum(w[n, r, s, k].astype("int32"), axis=[r, s, k]), name="plain"
        )

        def behind(i, j, n):
            total = plain[n] * tirx.const(t.centre, "int32")
            return te.if_then_else(n < op.oc, total, tirx.const(0, "int32"))

        def start(i, j, n):
            total = tirx.const(0, "int32")
            for p in range(high.products):
                for q in range(wide.products):
                    factor = _element(high.output, i, p) * _element(wide.output, j, q)
                    offset = tirx.const(-int(t.offsets[p, q]), "int32")
                    total = total + factor * offset * sums[n, p, q]
                    if products is not None:
                        total = total - factor * products[n, p, q]
            return te.if_then_else(n < op.oc, total, tirx.const(0, "int32"))

        shape = self.sections[-1].shape
        last = [te.compute(shape, behind if t.words else start, name="start")]
        if t.words and self.crossed:
            last.insert(0, te.compute(shape, start, name="terms"))
        outputs = [*self.te_contents(w, transformed), *last]
        return pack_entry(w, outputs, self.sections, op.w_shape, op.weight.dtype)

    def _te_crossed(self, transformed) -> te.Tensor:
        """`crossed.surplus`."""
        t, op = self.tile, self.tile.op
        firsts, seconds = (
            tuple(map(tuple, side.tolist())) for side in (t.crossings.first, t.crossings.second)
        )
        r, s = (te.reduce_axis((0, taps), name=n) for n, taps in zip("rs", t.direct, strict=True))
        j = te.reduce_axis((0, self.half), name="j")

        def product(n, p, q):
            def weight(k):
                value = transformed(n, p, q, r, s, te.min(k, op.ic - 1))
                return te.if_then_else(k < op.ic, value, tirx.const(0, "int32"))

            first, second = (
                pick(p, [pick(q, [tirx.const(v, "int32") for v in row]) for row in side])
                for side in (firsts, seconds)
            )
            product = (weight(j) + second) * (weight(j + self.half) + first)
            return te.sum(product - first * second, axis=[r, s, j])

        return te.compute((op.oc, t.high.products, t.wide.products), product)


@dataclass(frozen=True)
class TransformedWeights(TileWeights):
    """Transformed weights, one byte each, or two."""

    @property
    def stored(self) -> list[Section]:
        t = self.tile
        inner = (*t.direct, self.steps, self.vectors, self.lanes, t.kq)
        shape = (self.panels, t.high.products, t.wide.products, *inner)
        return [Section("main", shape, "int16" if t.words else "int8")]

    def contents(self, w: np.ndarray, transformed: np.ndarray) -> list[np.ndarray]:
        op, inner, kq = self.tile.op, transformed.shape[1:-1], self.tile.kq
        full = np.zeros((self.panels * self.panel, *inner, self.steps * kq), np.int64)
        full[: op.oc, ..., : op.ic] = transformed
        full = full.reshape(self.panels, self.vectors, self.lanes, *inner, self.steps, kq)
        return [full.transpose(0, 3, 4, 5, 6, 7, 1, 2, 8)]

    def te_contents(self, w: te.Tensor, transformed) -> list[te.Tensor]:
        op, kq, (section,) = self.tile.op, self.tile.kq, self.stored

        def main(panel, p, q, r, s, kg, vector, lane, kt):
            channel, k = panel * self.panel + vector * self.lanes + lane, kg * kq + kt
            inside, zero = tirx.all(channel < op.oc, k < op.ic), tirx.const(0, "int32")
            value = te.if_then_else(inside, transformed(channel, p, q, r, s, k), zero)
            return value.astype(section.dtype)

        return [te.compute(section.shape, main, name="main")]


@dataclass(frozen=True)
class KernelCodes(TileWeights):
    """The codes of the kernel's taps, exactly as many bits as the format has; what reads them
    transforms them. All taps of as many k groups as share a byte lie side by side."""

    @cached_property
    def codes(self) -> PanelWeights:
        """The layout of the planes: one run, [k group / fields][tap][field][kq]."""
        op = self.tile.op
        steps = op.kernel[0] * op.kernel[1] * self.steps
        return PanelWeights(
            shape=op.w_shape,
            format=op.weight,
            cut=KSplit(1, 1, run=steps * self.tile.kq, kg=steps, kq=self.tile.kq),
            groups=1,
            columns=op.oc,
            panels=self.panels,
            vectors=self.vectors,
            lanes=self.lanes,
        )

    @property
    def stored(self) -> list[Section]:
        return self.codes.sections

    def contents(self, w: np.ndarray, transformed: np.ndarray) -> list[np.ndarray]:
        op, near = self.tile.op, self.codes.fields * self.tile.kq
        taps = op.kernel[0] * op.kernel[1]
        full = np.zeros((op.oc, taps, self.steps * self.tile.kq), w.dtype)
        full[..., : op.ic] = w.reshape(op.oc, taps, op.ic)
        return self.codes.contents(full.reshape(op.oc, taps, -1, near).transpose(0, 2, 1, 3))

    def te_contents(self, w: te.Tensor, transformed) -> list[te.Tensor]:
        op, near = self.tile.op, self.codes.fields * self.tile.kq
        high, wide = op.kernel

        def weight(group, column, k):
            tap, channel = k // near % (high * wide), k // (near * high * wide) * near + k % near
            zero = tirx.const(0, op.weight.dtype)
            value = w[column, tap // wide, tap % wide, channel]
            return te.if_then_else(channel < op.ic, value, zero)

        return self.codes.te_sections(weight)

    def value(
        self, tensors: list[te.Tensor], panel, row, column, place: tuple, lookup: Lookup | None
    ) -> tirx.Expr:
        """The weight of a tap modulo 256; place: (k group, vector, lane, kq)."""
        (high, wide), fields = self.tile.op.kernel, self.codes.fields
        step, *inner = place
        byte = step // fields * (high * wide) + row * wide + column
        index = (0, panel, byte * fields + step % fields, *inner)
        return self.codes.value(tensors, "uint8", index, lookup)


def pick(index: tirx.Expr, values: list[tirx.Expr]) -> tirx.Expr:
    """values[index]."""
    *first, result = values
    for i, value in reversed(list(enumerate(first))):
        result = tirx.Select(index == i, value, result)
    return result


def _element(matrix: Matrix, row: tirx.Expr, column: int) -> tirx.Expr:
    """matrix[row][column], int32."""
    return pick(row, [tirx.const(values[column], "int32") for values in matrix])
