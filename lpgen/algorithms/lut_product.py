"""The lut_product algorithm: tables of products, looked up by the codes of the weights.

In the manner of DeepGEMM (Ganji et al., arXiv 2304.09049), which keeps one table of all products of
a 2-bit weight and a 2-bit activation. Here a table has the sums of several products: the 4 bits
that address one of its 16 bytes are the codes of `kq` weights, and there is one table for each
combination of `kq` activations, so that one lookup sums `kq` products, whatever the values are:

    table[a0, a1][w0 | w1 << 2] = act(a0) * weight(w0) + act(a1) * weight(w1)

All tables are known when the weights are packed. The stage "encode" turns every `kq` activations
into the place of their table. Padding and other empty places are an activation of value 0, which
needs no code of its own where 0 is a value of the format.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm import te, tirx

from lpgen.algorithms import definition
from lpgen.algorithms.definition import Definition, finish, matrix_sums, reduce_axes
from lpgen.algorithms.lhs.encode import Encoding, encode_at_source
from lpgen.algorithms.lhs.k_split import cut
from lpgen.algorithms.lhs.view import Lhs, lhs_of
from lpgen.algorithms.sections import Section, placeholders
from lpgen.algorithms.weights.codes import CodeWeights
from lpgen.algorithms.weights.panels import select
from lpgen.algorithms.weights.tables import ENTRIES, Tables
from lpgen.ops import Conv2d, Dense


@dataclass(frozen=True, kw_only=True)
class Tiling(definition.Tiling):
    """Sizes of the register tile, of byte lanes; packed: whether two k steps share a byte of the
    weights, one nibble each."""

    packed: bool


@dataclass(frozen=True)
class LookupWeights(CodeWeights):
    """nibbles[group][panel][run][k step or two][vector][lane], then the tables.

    The even lanes of a vector are the first half of its columns, the odd ones the second: when
    bytes are widened to 16 bits, each half is together.
    """

    tables: Tables
    lanes: int
    packed: bool

    def code_sections(self) -> list[Section]:
        """Nibbles and tables."""
        per_byte = 1 + self.packed
        shape = (
            self.groups,
            self.panels,
            self.cut.r * self.cut.s,
            -(-self.cut.kg // per_byte),
            self.panel // self.lanes,
            self.lanes,
        )
        return [
            Section("nibbles", shape, "uint8"),
            Section("tables", (self.tables.nbytes,), "uint8"),
        ]

    def arrange(self, codes: np.ndarray) -> list[np.ndarray]:
        """The sections' contents; codes: uint8[groups, columns, runs, kg, kq]."""
        shifts = np.arange(self.cut.kq, dtype=np.uint8) * self.format.bits
        nibbles = np.bitwise_or.reduce(codes << shifts, axis=-1)
        lanes = np.arange(self.lanes)
        vectors = nibbles.reshape(self.groups, self.panels, -1, self.lanes, *nibbles.shape[2:])
        vectors = vectors[:, :, :, self.column(lanes)].transpose(0, 1, 4, 5, 2, 3)
        if self.packed:
            spare = [(0, 0)] * 6
            spare[3] = (0, self.cut.kg % 2)
            pairs = np.pad(vectors, spare)
            vectors = pairs[:, :, :, ::2] | pairs[:, :, :, 1::2] << 4
        return [vectors, self.tables.contents().ravel()]

    def column(self, lane):
        """The column of a vector's lane: a number, an array or an expression."""
        return lane // 2 + lane % 2 * (self.lanes // 2)

    def lane(self, column):
        """The lane of a vector's column."""
        half = self.lanes // 2
        return column % half * 2 + column // half

    def te_arrange(self, code) -> list[te.Tensor]:
        """The same as tensors."""

        def nibble(group, column, run, kg):
            parts = [
                code(group, column, run * self.cut.kg + kg, t)
                << tirx.const(t * self.format.bits, "uint8")
                for t in range(self.cut.kq)
            ]
            total = parts[0]
            for part in parts[1:]:
                total = total | part
            return te.if_then_else(kg < self.cut.kg, total, tirx.const(0, "uint8"))

        def byte(group, panel, run, kg, vector, lane):
            column = panel * self.panel + vector * self.lanes + self.column(lane)
            if not self.packed:
                return nibble(group, column, run, kg)
            high = nibble(group, column, run, kg * 2 + 1) << tirx.const(4, "uint8")
            return nibble(group, column, run, kg * 2) | high

        nibbles, tables = self.code_sections()
        return [te.compute(nibbles.shape, byte, name="nibbles"), self._te_tables(tables.shape)]

    def _te_tables(self, shape: tuple[int, ...]) -> te.Tensor:
        t, bits = self.tables, self.format.bits
        base, parts = len(t.digits), len(t.shifts)
        book = t.weight.values().tolist()
        book += [0] * ((1 << bits) - len(book))

        def entry(i):
            number, part, place = i // t.stride, i // ENTRIES % parts, i % ENTRIES
            total = tirx.const(-t.least, "int32")
            for k in range(t.kq):
                digit = number // base**k % base
                code = place >> k * bits & (1 << bits) - 1
                total = total + select(t.digits, digit, "int32") * select(book, code, "int32")
            shift = select(t.shifts, part, "int32")
            return (total >> shift & select(t.masks, part, "int32")).astype("uint8")

        return te.compute(shape, entry, name="tables")


def define(op: Dense | Conv2d, tiling: Tiling) -> Definition[Lhs, LookupWeights]:
    """The tensor expressions of `op`: stages pad (optional), encode, tile and y."""
    t = tiling
    tables = Tables(op.act, op.weight)
    c = cut(op, tables.kq, split=True)
    weights = LookupWeights.of(op, c, t, 0, tables=tables, lanes=t.lanes, packed=t.packed)
    sections = placeholders(weights.sections)
    lhs = lhs_of(op, c, "uint8", 0)
    base = len(tables.digits)

    def place(x, i):
        distance = tables.stride * select([base**t for t in range(c.kq)], i, "uint16")
        return tables.digit(x, "uint16") * distance

    lhs_at = encode_at_source(lhs, Encoding((), "uint16", place))
    tile = _tile(op, lhs_at, sections, weights, t)
    return finish(op, lhs, weights, sections, matrix_sums(op, tile), zero=op.zero_act)


def _tile(op, lhs_at, sections, layout: LookupWeights, t: Tiling) -> te.Tensor:
    c, tables = layout.cut, layout.tables
    r, s, kg, part = reduce_axes(r=c.r, s=c.s, kg=c.kg, part=len(tables.shifts))
    nibbles, contents = sections
    last = op.matrix.m - 1

    def element(g, mo, no, mi, nv, nl):
        m = te.min(mo * t.rows + mi, last)
        place = lhs_at(g, mo, mi, m, r, s, kg).astype("int32")
        byte = nibbles[g, no, r * c.s + s, kg // (1 + t.packed), nv, layout.lane(nl)]
        shift = (kg % 2 * 4).astype("uint8") if t.packed else tirx.const(0, "uint8")
        nibble = (byte >> shift & tirx.const(15, "uint8")).astype("int32")
        entry = contents[place + part * ENTRIES + nibble].astype("int32")
        least = tirx.Select(part == 0, tirx.const(tables.least), tirx.const(0))
        return te.sum(
            (entry << select(tables.shifts, part, "int32")) + least, axis=[r, s, kg, part]
        )

    return te.compute(t.shape(op.matrix.groups), element, name="tile")
