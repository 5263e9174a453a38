"""The dot algorithm: operands of 8 (or 16) bits into the dot-product instruction of the ISA.

The definition computes register tiles of `rows` rows x `vectors` vectors of `lanes` columns:

    tile[g, mo, no, mi, nv, nl] = sum over (r, s, k4, kt) of left(m, k) * right(k, n)

and copies them out. A step of the instruction takes `kq` values of k for every lane. Where it
takes an unsigned and a signed byte alone, which side is unsigned follows from the formats:

* weights that fit int8 are the signed side, and activations with negative values get `-min` added;
* u8 weights are the unsigned side, and activations that do not fit int8 get 128 subtracted.

Where it takes bytes of the same signedness alone, activations become as the weights are, likewise.

The epilogue undoes either offset. int32 sums wrap modulo 2^32 in all instructions used, so only the
final sum has to fit (operators see to that).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tvm import te, tirx

from lpgen.algorithms import crossed, definition
from lpgen.algorithms.definition import (
    Definition,
    Sums,
    finish,
    matrix_sums,
    read_once,
    reduce_axes,
)
from lpgen.algorithms.lhs.inside import Inside
from lpgen.algorithms.lhs.k_split import KSplit, cut
from lpgen.algorithms.lhs.view import Lhs, lhs_of
from lpgen.algorithms.ranged import first_row
from lpgen.algorithms.sections import placeholders
from lpgen.algorithms.weights.crossed import CrossedWeights
from lpgen.algorithms.weights.panels import PanelWeights
from lpgen.ops import Conv2d, Dense
from lpgen.ops.reach import INT32_MAX

if TYPE_CHECKING:
    from lpgen.algorithms.weights.panels import Lookup


@dataclass(frozen=True)
class Operands:
    """Operands of a multiplication: what the two sides become before it.

    left, right: dtypes ("uint8", "int8" or "int16"); offset: what is added to every activation;
    left_max, right_max: the largest absolute values, from which accumulator bounds follow.
    """

    left: str
    right: str
    offset: int
    left_max: int
    right_max: int


def byte_operands(op: Dense | Conv2d, signs: Sequence[tuple[str, str]]) -> Operands:
    """Operands for an instruction that multiplies bytes of these dtypes (left, right), among them
    both of mixed signedness or both of one: no offset where it takes the values as they are."""
    act, weight = op.act, op.weight
    right = "int8" if weight.max <= 127 else "uint8"
    if (act.dtype, right) in signs:
        return Operands(act.dtype, right, 0, act.largest, weight.largest)
    if ("uint8", right) in signs:
        # Code books may have values of one sign only; the 0 of the padding is there, too.
        offset = max(0, -act.min)
        return Operands("uint8", right, offset, max(0, act.max) + offset, weight.largest)
    offset = -128 if act.max > 127 else 0
    largest = max(abs(act.min + offset), act.max + offset)
    return Operands("int8", right, offset, largest, weight.largest)


def word_operands(op: Dense | Conv2d) -> Operands:
    """Operands for an instruction that multiplies int16: every value as it is."""
    return Operands("int16", "int16", 0, op.act.largest, op.weight.largest)


def plain_operands(op: Dense | Conv2d) -> Operands:
    """Operands for multiplication in int32: every value as it is, in its own type."""
    act, weight = op.act, op.weight
    return Operands(act.dtype, weight.dtype, 0, act.largest, weight.largest)


@dataclass(frozen=True, kw_only=True)
class Tiling(definition.Tiling):
    """Sizes that shape the definition, beside those of the register tile.

    kq: values of k in one step;
    copied: whether the left side is copied into tile order (im2col) or read in place;
    folded: whether the kernel rows are folded into one run (`k_split`);
    inside: whether taps in the padding are left out (`lhs.inside`), which the schedule sees to;
    chunk: k steps summed in int16 before they are widened to int32, 0 for int32 throughout;
    multiple: what the number of k steps in a run must be a multiple of;
    together: rows that are read as one piece, a constant distance apart: past the last row of the
        matrix a whole piece is repeated, not its rows one by one;
    pack_steps: k steps of a row that stay neighbours when the left side is copied;
    crossed: what adds products of bytes up where they are products of sums (`crossed`), whose runs
        have an even number of steps (`multiple`);
    top: unpack signed weights into the top bits of their bytes (`weights`), where sums of as many
        8-bit products fit int32;
    interleaves: whether 64 bytes out of two vectors are one instruction (folded);
    across_groups: the columns are the groups of a depthwise convolution, so that the left side
        differs from lane to lane;
    lookup: what looks up the codes of code-book weights (`weights`), if the CPU has an instruction;
    stored: (vectors of a stored panel, how many), if they are not those of the tiles.
    """

    kq: int
    copied: bool = False
    folded: bool = False
    interleaves: bool = False
    inside: bool = False
    chunk: int = 0
    multiple: int = 1
    together: int = 1
    pack_steps: int = 1
    crossed: crossed.Dot | None = None
    top: bool = False
    across_groups: bool = False
    lookup: Lookup | None = None
    stored: tuple[int, int] | None = None


def define(op: Dense | Conv2d, operands: Operands, tiling: Tiling) -> Definition[Lhs, PanelWeights]:
    """The tensor expressions of `op`: stages pad (optional), pack (if copied), unpack (unless the
    weights are stored as operands), partial (if chunked), tile and y.
    """
    matrix, t = op.matrix, tiling
    groups, columns = (1, matrix.groups) if t.across_groups else (matrix.groups, matrix.n)
    k_split = cut(op, t.kq, t.multiple, t.folded, taps=t.inside)
    vectors, panels = t.stored or (t.vectors, t.panels)
    sizes = {"groups": groups, "columns": columns, "panels": panels}
    sizes |= {"vectors": vectors, "lanes": t.lanes, "top": t.top}
    form = {"shape": op.w_shape, "format": op.weight, "cut": k_split}
    crossing = crossing_of(op, operands) if t.crossed else None
    weights = PanelWeights(**form, **sizes)
    if crossing:
        weights = CrossedWeights(**form, **sizes, crossing=crossing)
    sections = placeholders(weights.sections)
    left = operands.left, operands.offset
    how = {"padded": not t.inside, "alone": read_once(op), "interleaves": t.interleaves}
    lhs = lhs_of(op, k_split, *left, **how)
    lhs_at = lhs_tiles(lhs, k_split, t, matrix.groups)
    if t.across_groups:
        lhs_at = _lhs_across_groups(lhs, k_split, t)
    right_at = _right(weights, sections, operands, t)
    tile = _tile(lhs_at, right_at, k_split, t, groups)
    sums = matrix_sums(op, tile)
    if crossing:
        sums = _uncrossed(
            sums, crossed.rows(lhs, k_split, crossing, t.crossed, t.lanes), sections[-1]
        )
    return finish(
        op,
        lhs,
        weights,
        sections,
        sums,
        zero=operands.offset + op.zero_act,
        inside=Inside.of(op) if t.inside else None,
        value=lambda total: total >> weights.shift if weights.shift else total,
    )


def lhs_tiles(lhs: Lhs, c: KSplit, t: Tiling, groups: int):
    """lhs_at(g, mo, mi, r, s, k4, kt, column): the left side, in place or copied in tile order."""
    last = lhs.op.matrix.m - t.together

    def direct(g, mo, mi, r, s, k4, kt, column=None):
        piece, row = mi // t.together * t.together, mi % t.together
        m = te.min(mo * t.rows + piece, last) + row
        if lhs.op.range:
            m = first_row(lhs.op, mo, t.rows) + mi
        return lhs.at(g, m, r, s, k4 * c.kq + kt)

    if not t.copied:
        return direct
    near = t.pack_steps
    packed = te.compute(
        (groups, t.row_tiles, c.r, c.s, c.kg // near, t.rows, near, c.kq),
        lambda g, mo, r, s, ko, mi, ki, kt: direct(g, mo, mi, r, s, ko * near + ki, kt),
        name="pack",
    )
    return lambda g, mo, mi, r, s, k4, kt, column: packed[
        g, mo, r, s, k4 // near, mi, k4 % near, kt
    ]


def _lhs_across_groups(lhs: Lhs, c: KSplit, t: Tiling):
    last, rows = lhs.op.matrix.groups - 1, lhs.op.matrix.m
    whole = last + 1 == t.panels * t.vectors * t.lanes

    def at(g, mo, mi, r, s, k4, kt, column):
        group = column if whole else te.min(column, last)
        return lhs.at(group, te.min(mo * t.rows + mi, rows - 1), r, s, k4 * c.kq + kt)

    return at


def is_unpacked(weights: PanelWeights, operands: Operands) -> bool:
    """Whether a stage "unpack" makes operands of the stored weights."""
    return bool(weights.planes) or weights.sections[0].dtype != operands.right


def _right(
    layout: PanelWeights,
    sections: list[te.Tensor],
    operands: Operands,
    t: Tiling,
):
    """right_at(g, no, r, s, k4, nv, nl, kt): the operand, from "unpack" or as it is stored."""
    c = layout.cut

    def stored(g, no, kg, nv, nl, kt):
        vector = no * t.vectors + nv
        if layout.vectors == t.vectors:
            return g, no, kg, nv, nl, kt
        return g, vector // layout.vectors, kg, vector % layout.vectors, nl, kt

    if is_unpacked(layout, operands):
        half = c.kg // 2

        def unpacked(g, no, kg, *at):
            index = stored(g, no, kg, *at)
            if not t.crossed:
                return layout.value(sections, operands.right, index, t.lookup)
            first, second = (tirx.const(more % 256, "uint8") for more in layout.crossing.added)
            value = layout.value(sections, "uint8", index, t.lookup)
            return value + tirx.Select(kg % c.kg < half, second, first)

        kgs = sections[0].shape[2] * (8 // layout.planes[0] if layout.planes else 1)
        source = te.compute(
            (layout.groups, t.panels, kgs, t.vectors, layout.lanes, c.kq), unpacked, name="unpack"
        )
        return lambda g, no, r, s, k4, *at: source[(g, no, (r * c.s + s) * c.kg + k4, *at)]
    source = sections[0]
    return lambda g, no, r, s, k4, *at: source[stored(g, no, (r * c.s + s) * c.kg + k4, *at)]


def crossing_of(op: Dense | Conv2d, operands: Operands) -> crossed.Crossing | None:
    """How the operands are crossed, None where their sums do not fit bytes, or int32."""
    if (operands.left, operands.right) != ("uint8", "int8"):
        return None
    found = crossed.Crossing.of((0, operands.left_max), (op.weight.min, op.weight.max))
    fits = found and 2 * op.matrix.k * found.largest <= INT32_MAX
    return found if fits else None


def _uncrossed(sums: Sums, rows: te.Tensor, columns: te.Tensor) -> Sums:
    """The sums, and what makes them those of products: a number for each row and each column."""

    def at(m, g, n):
        # Stages stand in the order of this expression: the rows before the tile, in whose loops
        # y will be.
        return rows[g, m] + columns[g, n] + sums.at(m, g, n)

    return sums._replace(at=at)


def _tile(lhs_at, right_at, c: KSplit, t: Tiling, groups: int) -> te.Tensor:
    r, s = reduce_axes(r=c.r, s=c.s)
    if t.crossed:
        half = c.kg // 2
        shape = (groups, t.row_tiles, t.panels, c.r, c.s, half, t.rows, t.vectors, t.lanes, c.kq)
        sides = crossed.added(lhs_at, right_at, shape, half)
        k4, kt = reduce_axes(k4=half, kt=c.kq)

        def product_of_sums(g, mo, no, *lane):
            first, second = (side[(g, mo, no, r, s, k4, *lane, kt)] for side in sides)
            product = first.astype("int32") * second.astype("int32")
            return te.sum(product, axis=[r, s, k4, kt])

        return te.compute(t.shape(groups), product_of_sums, name="tile")
    if not t.chunk:
        k4, kt = reduce_axes(k4=c.kg, kt=c.kq)

        def product(g, mo, no, mi, nv, nl):
            column = (no * t.vectors + nv) * t.lanes + nl
            lhs = lhs_at(g, mo, mi, r, s, k4, kt, column).astype("int32")
            right = right_at(g, no, r, s, k4, nv, nl, kt).astype("int32")
            return te.sum(lhs * right, axis=[r, s, k4, kt])

        return te.compute(t.shape(groups), product, name="tile")

    # Two products of neighbours in k share an int16 lane, (`Isa.add_pairs`), or each has its own.
    near, pairs = max(1, c.kq // 2), min(2, c.kq)
    ki, *kt = reduce_axes(ki=t.chunk, **({"kt": near} if near > 1 else {}))

    def partial(g, mo, no, rr, ss, ko, mi, nv, nl, *pair):
        k4, byte = ko * t.chunk + ki, sum(kt, sum(pair) * near)
        lhs = lhs_at(g, mo, mi, rr, ss, k4, byte, None).astype("int16")
        right = right_at(g, no, rr, ss, k4, nv, nl, byte).astype("int16")
        return te.sum(lhs * right, axis=[ki, *kt])

    chunks, apart = c.kg // t.chunk, (pairs,) if pairs > 1 else ()
    shape = (groups, t.row_tiles, t.panels, c.r, c.s, chunks, t.rows, t.vectors, t.lanes, *apart)
    partials = te.compute(shape, partial, name="partial")
    ko, *pair = reduce_axes(ko=chunks, **({"pair": pairs} if apart else {}))
    return te.compute(
        t.shape(groups),
        lambda g, mo, no, mi, nv, nl: te.sum(
            partials[(g, mo, no, r, s, ko, mi, nv, nl, *pair)].astype("int32"),
            axis=[r, s, ko, *pair],
        ),
        name="tile",
    )
