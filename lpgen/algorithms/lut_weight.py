"""The lut_weight algorithm: activations of one bit look up sums of weights.

It is the mirror of lut_sum. A table holds the sums of all subsets of four codes of a column, made
when the weights are packed; four activations of one bit are an index into it:

    sum over k of bit * code = sum over k steps of table[bits]

so that the cost does not grow with the bits of the weights. Entries are bytes; codes of more than
six bits are two digits with a table each. The packed weights are large: 16 bytes for four weights
and digit.

The bytes of a vector are rows: the sums of a tile come out transposed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm import te, tirx

from lpgen.algorithms import definition
from lpgen.algorithms.definition import Definition, finish, matrix_sums, reduce_axes
from lpgen.algorithms.lhs.encode import Encoding, encode_in_tiles
from lpgen.algorithms.lhs.k_split import KSplit, cut
from lpgen.algorithms.lhs.view import Lhs, lhs_of
from lpgen.algorithms.lut_sum import Tables
from lpgen.algorithms.sections import Section, placeholders
from lpgen.algorithms.weights.codes import CodeWeights
from lpgen.ops import Conv2d, Dense

INPUTS = 4
"""Activations of an index: as many weights does a table sum."""

ENTRIES = 2**INPUTS


@dataclass(frozen=True, kw_only=True)
class Tiling(definition.Tiling):
    """Sizes that shape the definition, beside those of the register tile: one vector whose lanes
    are the columns of a panel; its `rows` are bytes.

    columns: in registers at a time; digits: of a code; folded: whether the kernel rows are folded
    into one run (`k_split`).
    """

    vectors: int = 1
    columns: int
    digits: int
    folded: bool

    @property
    def parts(self) -> int:
        """Parts of a panel whose columns are in registers one after the other."""
        return self.lanes // self.columns


@dataclass(frozen=True)
class TableWeights(CodeWeights):
    """tables[group][panel][part][k step][column][digit][entry], uint8: sums of subsets of the
    codes of a k step; bit t of the entry's number says whether code t is among them.

    parts: of a panel, so that a sweep over k reads on and on.
    """

    tables: Tables | None = None
    parts: int = 1

    def code_sections(self) -> list[Section]:
        columns = self.panel // self.parts
        inner = (self.parts, self.cut.steps, columns, self.tables.digits, ENTRIES)
        shape = (self.groups, self.panels, *inner)
        return [Section("tables", shape, "uint8")]

    def arrange(self, codes: np.ndarray) -> list[np.ndarray]:
        outer = (self.groups, self.panels, self.parts, self.panel // self.parts)
        codes = codes.reshape(*outer, self.cut.steps, 1, INPUTS)
        if self.tables.digits > 1:
            low = codes & (1 << self.tables.shift) - 1
            codes = np.concatenate([low, codes >> self.tables.shift], axis=-2)
        subsets = np.arange(ENTRIES)[:, None] >> np.arange(INPUTS) & 1
        sums = (codes[..., None, :] * subsets.astype(np.uint8)).sum(axis=-1, dtype=np.uint8)
        return [sums.transpose(0, 1, 2, 4, 3, 5, 6)]

    def te_arrange(self, code) -> list[te.Tensor]:
        t = te.reduce_axis((0, INPUTS), name="t")

        def entry(group, panel, part, kg, column, digit, subset):
            first = panel * self.panel + part * (self.panel // self.parts)
            value = code(group, first + column, kg, t)
            value = self.tables.digit(value, digit)
            return te.sum(_if_bit(subset, t, value), axis=[t])

        return [te.compute(self.code_sections()[0].shape, entry, name="tables")]


def _if_bit(number: tirx.Expr, bit: tirx.Expr, value: tirx.Expr) -> tirx.Expr:
    return tirx.Select((number >> bit & 1) == 1, value, tirx.const(0, "uint8"))


def why_not(op: Dense | Conv2d) -> str | None:
    """Why the algorithm cannot serve the operator; None if it can."""
    if op.act.encoding not in ("u", "b") or op.act.bits > 1:
        return f"act={op.act}: indices are activations of one bit"
    if op.act.encoding == "b" and any(getattr(op, "pad", ())):
        return "padding is a third value of bipolar activations"
    if op.weight.book:
        return "tables hold sums of codes, which for a code book are no values"
    return None


def tables_of(op: Dense | Conv2d, digits: int) -> Tables:
    """The tables of `op`: sums of codes, each counted once."""
    return Tables(INPUTS, digits, op.weight.levels - 1, 1)


def bit_of(op: Dense | Conv2d) -> int:
    """The bit of an activation, its offset included, that is not always 0."""
    return op.act.step - 1


def define(op: Dense | Conv2d, tiling: Tiling) -> Definition[Lhs, TableWeights]:
    """The tensor expressions of `op` (`why_not` is None): stages pad (optional), encode, row_sums
    (unless the weights are their codes), tile and y."""
    matrix, t = op.matrix, tiling
    c, offset = cut(op, INPUTS, folded=t.folded, empty=True), -op.act.min
    tables, bit = tables_of(op, t.digits), bit_of(op)
    layout = TableWeights.of(op, c, t, offset + op.zero_act, tables=tables, parts=t.parts)
    sections = placeholders(layout.sections)
    lhs = lhs_of(op, c, "uint8", offset)
    one = tirx.const(1, "uint8")
    encoding = Encoding((), "uint8", lambda x, i: (x >> bit & one) << i.astype("uint8"))
    lhs_at = encode_in_tiles(lhs, encoding, matrix.groups, t.row_tiles, t.rows)
    tile = _tile(op, lhs_at, sections[0], c, t, tables)
    return finish(
        op,
        lhs,
        layout,
        sections,
        matrix_sums(op, tile),
        codes=True,
        value=lambda total: total << bit if bit else total,
    )


def _tile(op, lhs_at, packed: te.Tensor, c: KSplit, t: Tiling, tables: Tables):
    r, s, kg, d = reduce_axes(r=c.r, s=c.s, kg=c.kg, d=t.digits)
    last = op.matrix.m - 1

    def element(g, mo, no, mi, nv, nl):
        m = te.min(mo * t.rows + mi, last)
        index = lhs_at(g, mo, mi, m, r, s, kg).astype("int32")
        column = (nl // t.columns, (r * c.s + s) * c.kg + kg, nl % t.columns)
        found = packed[(g, no, *column, d, index)].astype("int32")
        return te.sum(found << (d * tables.shift), axis=[r, s, kg, d])

    return te.compute(t.shape(op.matrix.groups), element, name="tile")
