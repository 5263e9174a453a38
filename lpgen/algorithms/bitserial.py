"""The bitserial algorithm: bit planes, AND or XOR, and population counts.

Both sides are codes c >= 0 (`codes`), split into planes of bits; some values of k are one word:

    sum over k of x * c = sum over planes p, q of 2^(p + q) * popcount(x_p & c_q)

so that the cost grows with the product of the bit widths (Cowan et al., "Automatic Generation of
High-Performance Quantized Machine Learning Kernels", CGO 2020).

Signed weights are codes with an offset, which the sum of a row's activations repairs once. A
negative top plane would need no such sum, but counters of its own beside those of the other planes:
about as much again in registers and at the end of every tile.

Where both sides are bipolar and nothing is padded, a plane stands for +-1 and a product of two
planes is +1 where their bits are equal:

    sum over k of x * w = sum over p, q of 2^(p + q) * (K - 2 * popcount(x_p ^ w_q))

which needs no sums of rows and no compensation of columns (Rastegari et al., "XNOR-Net", ECCV
2016).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm import te, tirx

from lpgen.algorithms import definition
from lpgen.algorithms.definition import Definition, finish, matrix_sums, reduce_axes
from lpgen.algorithms.depthwise import one_channel_each
from lpgen.algorithms.lhs.encode import AT_SOURCE, Encoding, encode_at_source, encode_in_tiles
from lpgen.algorithms.lhs.k_split import KSplit, cut
from lpgen.algorithms.lhs.planes import given_words, reads_planes
from lpgen.algorithms.lhs.view import Lhs, lhs_of
from lpgen.algorithms.sections import Section, placeholders
from lpgen.algorithms.weights.codes import CodeWeights
from lpgen.ops import Conv2d, Dense

ELEMENT = 32
"""Bits of an element of the left side: a word, repeated as often as it fits."""


@dataclass(frozen=True, kw_only=True)
class Tiling(definition.Tiling):
    """Sizes that shape the definition, beside those of the register tile.

    word: values of k in a word, 8, 16 or 32. A vector of words has ELEMENT / word times `lanes`
    columns, and `vectors` is a multiple of that;
    left: "direct" or "inside" (words are made at the source; taps in the padding may be left out),
    "copied" (in tile order) or "folded" (in tile order, of the folded source).
    """

    word: int
    left: str = "direct"

    @property
    def repeat(self) -> int:
        """Words in a 32-bit lane, each of another column."""
        return ELEMENT // self.word


@dataclass(frozen=True)
class PlaneWeights(CodeWeights):
    """words[group][panel][word][plane][vector][lane * repeat]: bit i is that of value i.

    lanes: of 32 bits. Word number b of lane l belongs to column b * lanes + l of the vector, so
    that taking the b-th counts of all lanes gives neighbouring columns.
    """

    lanes: int = 16

    @property
    def repeat(self) -> int:
        return ELEMENT // self.cut.kq

    def code_sections(self) -> list[Section]:
        width = self.lanes * self.repeat
        vectors = self.panel // width
        shape = (self.groups, self.panels, self.cut.steps, self.format.bits, vectors, width)
        return [Section("words", shape, f"uint{self.cut.kq}")]

    def arrange(self, codes: np.ndarray) -> list[np.ndarray]:
        planes = np.arange(self.format.bits, dtype=np.uint8)
        bits = codes[..., None, :] >> planes[:, None] & 1
        words = np.packbits(bits, axis=-1, bitorder="little").view(f"<u{self.cut.kq // 8}")[..., 0]
        columns = (-1, self.repeat, self.lanes)
        words = words.reshape(self.groups, self.panels, *columns, self.cut.steps, planes.size)
        words = words.transpose(0, 1, 5, 6, 2, 4, 3)
        return [words.reshape(self.code_sections()[0].shape)]

    def te_arrange(self, code) -> list[te.Tensor]:
        t = te.reduce_axis((0, self.cut.kq), name="t")
        section = self.code_sections()[0]

        def word(group, panel, kg, plane, vector, i):
            column = (vector * self.repeat + i % self.repeat) * self.lanes + i // self.repeat
            value = code(group, panel * self.panel + column, kg, t)
            bit = value >> plane.astype("uint8") & tirx.const(1, "uint8")
            return te.sum(bit.astype(section.dtype) << t.astype(section.dtype), axis=[t])

        return [te.compute(section.shape, word, name="words")]


def why_not(op: Dense | Conv2d) -> str | None:
    """Why the algorithm does not serve the operator."""
    if op.weight.book:
        return "weights of a code book are no sums of bits"
    return one_channel_each(op)


def is_xor(op: Dense | Conv2d) -> bool:
    """Whether planes are combined by XOR: both sides are +-1 in every plane."""
    return op.act.step == op.weight.step == 2 and not any(getattr(op, "pad", ()))


def offset_of(op: Dense | Conv2d) -> int:
    """What is added to activations so that they, and the 0 of the padding, are not negative."""
    return max(0, -op.act.min)


def planes_of_left(op: Dense | Conv2d) -> tuple[int, int]:
    """(how many bit planes the left side has, the first of them): values plus their offset.

    Bipolar values are odd: without padding, which is 0, the lowest plane is empty.
    """
    low = int(op.act.step == 2 and not any(getattr(op, "pad", ())))
    return (max(0, op.act.max) + offset_of(op)).bit_length() - low, low


def k_split_of(op: Dense | Conv2d, word: int, left: str) -> KSplit:
    """The k axis in words. XOR counts what stands in empty places, AND does not."""
    places = {"folded": left == "folded", "split": left in AT_SOURCE, "taps": left == "inside"}
    return cut(op, word, empty=not is_xor(op), **places)


def define(op: Dense | Conv2d, tiling: Tiling) -> Definition[Lhs, PlaneWeights]:
    """The tensor expressions of `op`: stages pad (optional), encode, tile and y; row_sums is a
    parameter (`row_sums`), unless the weights are their codes or XOR combines the planes."""
    matrix, t, xor = op.matrix, tiling, is_xor(op)
    c, offset = k_split_of(op, t.word, t.left), offset_of(op)
    weights = PlaneWeights.of(op, c, t, 0 if xor else offset + op.zero_act, lanes=t.lanes)
    sections = placeholders(weights.sections)
    lhs = lhs_of(op, c, "uint8", offset)
    planes = planes_of_left(op)
    if reads_planes(op, t.word, t.left):
        lhs, lhs_at = given_words(op, lhs, planes[0], offset + op.zero_act)
    else:
        lhs_at = _encoded(op, lhs, t, planes)
    tile = _tile(op, lhs_at, sections[0], c, t, planes)
    most = matrix.k * op.act.max * op.weight.max
    return finish(
        op,
        lhs,
        weights,
        sections,
        matrix_sums(op, tile),
        codes=not xor,
        value=lambda total: most - total if xor else total,
    )


def _encoded(op, lhs: Lhs, t: Tiling, planes: tuple[int, int]):
    """The words of the left side, repeated through an element."""
    count, low = planes
    ones = sum(1 << t.word * i for i in range(t.repeat))

    def bit(x, i, plane):
        plane = (plane + low).astype("uint8")
        one = (x >> plane & tirx.const(1, "uint8")).astype("uint32")
        return one * (tirx.const(ones, "uint32") << i.astype("uint32"))

    encoding = Encoding((count,), "uint32", bit)
    if t.left in AT_SOURCE:
        return encode_at_source(lhs, encoding)
    return encode_in_tiles(lhs, encoding, op.matrix.groups, t.row_tiles, t.rows, rows_outside=True)


def _tile(op, lhs_at, words, c: KSplit, t: Tiling, planes: tuple[int, int]) -> te.Tensor:
    r, s, kg, p, q = reduce_axes(r=c.r, s=c.s, kg=c.kg, p=planes[0], q=op.weight.bits)
    last, xor = op.matrix.m - 1, is_xor(op)

    def element(g, mo, no, mi, nv, nl):
        m = te.min(mo * t.rows + mi, last)
        bits = lhs_at(g, mo, mi, m, r, s, kg, p).astype(words.dtype)
        lane = nl * t.repeat + nv % t.repeat
        word = words[g, no, (r * c.s + s) * c.kg + kg, q, nv // t.repeat, lane]
        count = tirx.popcount(bits ^ word if xor else bits & word).astype("int32")
        return te.sum(count << (p + q + planes[1]), axis=[r, s, kg, p, q])

    return te.compute(t.shape(op.matrix.groups), element, name="tile")
