"""The lut_sum algorithm: sums of activations, looked up by the bits of the weights.

A table holds the sums of all subsets of `inputs` activations. One bit of as many weights is an
index into it, so that a lookup replaces `inputs` multiplications by a bit; a weight of more bits is
a sum of planes:

    sum over k of x * c = sum over planes q of 2^q * (sum over k steps of table[index_q])

The tables are made at run time, of x + offset >= 0. Their entries are bytes: where the sum of the
largest activations would not fit, every activation is two *digits* with a table each,

    x = low + 2^bits * high

Nothing is lost (cf. Wei et al., "T-MAC: CPU Renaissance via Table Lookup for Low-Bit LLM Deployment
on Edge", EuroSys 2025, whose tables are quantized).

Activations of one or two bits have sums below 16. Where a CPU shifts bytes, *two rows* may share a
table, the second one's sums in the upper halves of the bytes: the tables are made of x of one row +
16 * x of the next.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm import te, tirx

from lpgen.algorithms import definition
from lpgen.algorithms.definition import Definition, finish, matrix_sums, reduce_axes
from lpgen.algorithms.lhs.encode import AT_SOURCE, Encoding, encode_at_source, encode_in_tiles
from lpgen.algorithms.lhs.k_split import KSplit, cut
from lpgen.algorithms.lhs.view import Lhs, lhs_of
from lpgen.algorithms.sections import Section, placeholders
from lpgen.algorithms.weights.codes import CodeWeights
from lpgen.ops import Conv2d, Dense


@dataclass(frozen=True)
class Tables:
    """Tables of an operator: what they hold, and how long their sums fit narrow accumulators.

    inputs: activations a table sums; digits: how many an activation is split into (1 or 2);
    largest: the largest activation, offset included; codes: the largest code of the weights;
    rows: that share a table, 1 or 2.
    """

    inputs: int
    digits: int
    largest: int
    codes: int
    rows: int = 1

    @property
    def entries(self) -> int:
        """Entries (bytes) of a table: the subsets of its inputs."""
        return 2**self.inputs

    @property
    def shift(self) -> int:
        """Bits of the low digit."""
        return -(-self.largest.bit_length() // 2) if self.digits > 1 else 8

    def most(self, digit: int) -> int:
        """The largest entry of a table of this digit."""
        low = min(self.largest, 2**self.shift - 1)
        return self.inputs * (self.largest >> self.shift if digit else low)

    @property
    def lookups(self) -> int:
        """Lookups that a byte holds the sum of: each adds `most` at worst."""
        return (2**8 - 1) // self.most(0)

    @property
    def together(self) -> int:
        """Lookups that half a byte holds the sum of."""
        return (2**4 - 1) // self.most(0)

    @property
    def longest(self) -> int:
        """k steps whose lookups in all planes 16 bits hold the sum of: a weight counts as
        its code. It is never 0: 255 * 255 fits."""
        return (2**16 - 1) // (self.most(0) * self.codes)

    def digit(self, x: tirx.Expr, digit: tirx.Expr) -> tirx.Expr:
        """This digit of x (uint8)."""
        if self.digits == 1:
            return x
        return x >> (digit * self.shift).astype("uint8") & _byte(2**self.shift - 1)


def offset_of(op: Dense | Conv2d) -> int:
    """What is added to activations so that they, and the 0 of the padding, are not negative."""
    return max(0, -op.act.min)


def tables_of(op: Dense | Conv2d, inputs: int, digits: int, rows: int = 1) -> Tables:
    """The tables of `op`."""
    return Tables(inputs, digits, max(0, op.act.max) + offset_of(op), op.weight.levels - 1, rows)


@dataclass(frozen=True, kw_only=True)
class Tiling(definition.Tiling):
    """Sizes that shape the definition, beside those of the register tile (`lanes` bytes a vector).

    inputs, digits: see `Tables`; left: "direct" or "inside" (tables are made at the source; taps in
    the padding may be left out), "copied" (in tile order) or "folded" (in tile order, of the folded
    source); unpacked: whether a stage "unpack"
    unpacks the indices of a panel; multiple: what the k steps of a run must be a multiple of;
    table_rows: rows that share a table.
    """

    inputs: int
    digits: int
    left: str
    unpacked: bool
    multiple: int
    table_rows: int = 1


PACK = {4: (2, 1), 6: (4, 3)}
"""For each number of inputs: successive k steps that share bytes, and how many bytes they share.

Two indices of 4 bits are the halves of a byte. Of four indices of 6 bits three are the low bits of
bytes, whose top two bits are the fourth.
"""


@dataclass(frozen=True)
class IndexWeights(CodeWeights):
    """indices[group][panel][plane][k steps / shared][byte][vector][lane], uint8 (see `PACK`).

    A byte of a vector belongs to the column that `column_of` says.
    """

    lanes: int = 64

    def code_sections(self) -> list[Section]:
        shared, count = PACK[self.cut.kq]
        kgs = -(-self.cut.steps // shared)
        inner = (count, self.panel // self.lanes, self.lanes)
        shape = (self.groups, self.panels, self.format.bits, kgs, *inner)
        return [Section("indices", shape, "uint8")]

    def arrange(self, codes: np.ndarray) -> list[np.ndarray]:
        section = self.code_sections()[0]
        shared, _ = PACK[self.cut.kq]
        planes = np.arange(self.format.bits, dtype=np.uint8)
        groups, columns = codes.shape[:2]
        codes = codes.reshape(groups, columns, self.cut.steps, self.cut.kq)
        bits = codes[:, :, None] >> planes[:, None, None] & 1
        index = np.packbits(bits, axis=-1, bitorder="little")[..., 0]
        spare = section.shape[3] * shared - self.cut.steps
        index = np.pad(index, [*[(0, 0)] * 3, (0, spare)])
        vectors = self.panel // self.lanes
        index = index.reshape(groups, self.panels, vectors, self.lanes, planes.size, -1, shared)
        order = column_of(np.arange(self.lanes), self.lanes)
        index = index[:, :, :, order].transpose(0, 1, 4, 5, 6, 2, 3)
        if self.cut.kq == 4:
            packed = index[:, :, :, :, :1] | index[:, :, :, :, 1:] << 4
        else:
            place = np.arange(3, dtype=np.uint8)[:, None, None] * 2
            packed = index[:, :, :, :, :3] | (index[:, :, :, :, 3:] >> place & 3) << 6
        return [packed.reshape(section.shape)]

    def te_arrange(self, code) -> list[te.Tensor]:
        section = self.code_sections()[0]
        shared, _ = PACK[self.cut.kq]

        def index(group, column, plane, kg):
            bits = [
                (code(group, column, kg, t) >> plane & _byte(1)) << _byte(t)
                for t in range(self.cut.kq)
            ]
            return _union(bits)

        def byte(group, panel, plane, kgs, part, vector, lane):
            column = panel * self.panel + vector * self.lanes + column_of(lane, self.lanes)
            at = (group, column, plane.astype("uint8"))
            own = index(*at, kgs * shared + part)
            last = index(*at, kgs * shared + shared - 1)
            if self.cut.kq == 4:
                return own | last << _byte(4)
            return own | (last >> (part * 2).astype("uint8") & _byte(3)) << _byte(6)

        return [te.compute(section.shape, byte, name=section.name)]

    def index(self, indices: te.Tensor, at: tuple) -> tirx.Expr:
        """The index of (group, panel, plane, k step, vector, byte) out of the section."""
        group, panel, plane, kg, *place = at
        shared, count = PACK[self.cut.kq]
        outer, field = (group, panel, plane, kg // shared), kg % shared
        if self.cut.kq == 4:
            byte = indices[(*outer, 0, *place)]
            return byte >> (field * 4).astype("uint8") & _byte(15)
        own = indices[(*outer, te.min(field, count - 1), *place)] & _byte(63)
        parts = [
            indices[(*outer, part, *place)] >> _byte(6) << _byte(2 * part) for part in (0, 1, 2)
        ]
        return tirx.Select(field == shared - 1, _union(parts), own)


def column_of(byte, lanes: int):
    """The column of a byte of a vector, numbers or expressions: the even bytes are its first half,
    and so `lookup_sums.Sums.halves` has neighbours side by side."""
    return byte % 2 * (lanes // 2) + byte // 2


def byte_of(column, lanes: int):
    """The byte of a column of a vector."""
    return column % (lanes // 2) * 2 + column // (lanes // 2)


def _byte(value: int) -> tirx.Expr:
    return tirx.const(value, "uint8")


def _union(parts: list[tirx.Expr]) -> tirx.Expr:
    result = parts[0]
    for part in parts[1:]:
        result = result | part
    return result


def k_split_of(op: Dense | Conv2d, left: str, inputs: int, multiple: int = 1) -> KSplit:
    """The k axis in groups of `inputs`."""
    places = {"folded": left == "folded", "split": left in AT_SOURCE, "taps": left == "inside"}
    return cut(op, inputs, multiple, empty=True, **places)


def define(op: Dense | Conv2d, tiling: Tiling) -> Definition[Lhs, IndexWeights]:
    """The tensor expressions of `op`: stages pad (optional), encode, unpack (if `unpacked`),
    row_sums (unless the weights are their codes), tile and y."""
    matrix, t = op.matrix, tiling
    c, offset = k_split_of(op, t.left, t.inputs, t.multiple), offset_of(op)
    tables = tables_of(op, t.inputs, t.digits, t.table_rows)
    layout = IndexWeights.of(op, c, t, offset + op.zero_act, lanes=t.lanes)
    sections = placeholders(layout.sections)
    lhs = lhs_of(op, c, "uint8", offset)

    def term(x, i, digit, entry):
        return tirx.Select((entry >> i & 1) == 1, tables.digit(x, digit), _byte(0))

    encoding = Encoding((t.digits, tables.entries), "uint8", term, rows=t.table_rows)
    if t.left in AT_SOURCE:
        lhs_at = encode_at_source(lhs, encoding)
    else:
        lhs_at = encode_in_tiles(lhs, encoding, matrix.groups, t.row_tiles, t.rows)
    tile = _tile(op, lhs_at, _indices(layout, sections[0], t), c, t, tables)
    return finish(op, lhs, layout, sections, matrix_sums(op, tile), codes=True)


def _indices(layout: IndexWeights, indices: te.Tensor, t: Tiling):
    """at(group, panel, plane, k step, vector, byte): an index as uint8."""
    if not t.unpacked:
        return lambda *at: layout.index(indices, at)
    groups, panels, planes, *_, vectors, lanes = indices.shape
    shape = (groups, panels, planes, layout.cut.steps, vectors, lanes)
    unpack = te.compute(shape, lambda *at: layout.index(indices, at), name="unpack")
    return lambda *at: unpack[at]


def _tile(op, lhs_at, index_at, c: KSplit, t: Tiling, tables: Tables) -> te.Tensor:
    r, s, kg, q, d = reduce_axes(r=c.r, s=c.s, kg=c.kg, q=op.weight.bits, d=t.digits)
    last = op.matrix.m - 1

    def element(g, mo, no, mi, nv, nl):
        m = te.min(mo * t.rows + mi, last)
        index = index_at(g, no, q, (r * c.s + s) * c.kg + kg, nv, byte_of(nl, t.lanes))
        found = lhs_at(g, mo, mi, m, r, s, kg, d, index.astype("int32"))
        if t.table_rows > 1:
            found = found >> (mi % 2 * 4).astype("uint8") & _byte(15)
        return te.sum(found.astype("int32") << (q + d * tables.shift), axis=[r, s, kg, q, d])

    return te.compute(t.shape(op.matrix.groups), element, name="tile")
