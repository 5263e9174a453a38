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

which needs no sums of rows and no correction of columns (Rastegari et al., "XNOR-Net", ECCV 2016).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm import te, tirx

from lpgen.algorithms.kernel import Layout
from lpgen.algorithms.lhs.encode import Encoding, encode_at_source, encode_in_tiles
from lpgen.algorithms.lhs.k_split import Reduction, cut
from lpgen.algorithms.lhs.planes import given_words, reads_planes
from lpgen.algorithms.lhs.row_sums import placeholder, prologue
from lpgen.algorithms.lhs.view import Left, left_side
from lpgen.algorithms.result.epilogue import Epilogue
from lpgen.algorithms.sections import Section
from lpgen.algorithms.weights.codes import CodeWeights
from lpgen.ops import Conv2d, Dense

ELEMENT = 32
"""Bits of an element of the left side: a word, repeated as often as it fits."""


@dataclass(frozen=True)
class Tiling:
    """Sizes that shape the definition.

    rows x vectors x lanes: the register tile; row_tiles, panels: tiles down and across;
    word: values of k in a word, 8, 16 or 32. A vector of words has ELEMENT / word times `lanes`
    columns, and `vectors` is a multiple of that;
    left: "direct" (words are made at the source), "copied" (in tile order) or "folded" (in tile
    order, of the folded source).
    """

    rows: int
    vectors: int
    lanes: int
    row_tiles: int
    panels: int
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
        shape = (self.groups, self.panels, self.cut.groups, self.format.bits, vectors, width)
        return [Section("words", shape, f"uint{self.cut.kq}")]

    def arrange(self, codes: np.ndarray) -> list[np.ndarray]:
        planes = np.arange(self.format.bits, dtype=np.uint8)
        bits = codes[..., None, :] >> planes[:, None] & 1
        words = np.packbits(bits, axis=-1, bitorder="little").view(f"<u{self.cut.kq // 8}")[..., 0]
        columns = (-1, self.repeat, self.lanes)
        words = words.reshape(self.groups, self.panels, *columns, self.cut.groups, planes.size)
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


@dataclass(frozen=True)
class Definition:
    """Tensors of the computation; `args` are the parameters, in order."""

    cut: Reduction
    layout: Layout
    """The packed weights with the parameters of the epilogue behind them."""
    args: list[te.Tensor]
    prologue: list[tirx.PrimFunc]
    """What has to run before (`entry.kernel_entry`)."""


def why_not(op: Dense | Conv2d) -> str | None:
    """Why the algorithm does not serve the operator."""
    if op.weight.book:
        return "weights of a code book are no sums of bits"
    if op.matrix.n == 1 and op.matrix.groups > 1:
        return f"groups={op.matrix.groups} leave one output channel each: a depthwise kernel fits"
    return None


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


def reduction_of(op: Dense | Conv2d, word: int, left: str) -> Reduction:
    """The k axis in words. XOR counts what stands in empty places, AND does not."""
    empty, direct = not is_xor(op), left == "direct"
    return cut(op, word, folded=left == "folded", empty=empty, split=direct)


def define(op: Dense | Conv2d, tiling: Tiling) -> Definition:
    """The tensor expressions of `op`: stages pad (optional), encode, tile and y; row_sums is a
    parameter (`row_sums`), unless the weights are their codes or XOR combines the planes."""
    matrix, t, xor = op.matrix, tiling, is_xor(op)
    c, offset = reduction_of(op, t.word, t.left), offset_of(op)
    panel = t.vectors * t.lanes
    weights = PlaneWeights(
        shape=op.w_shape,
        format=op.weight,
        cut=c,
        groups=matrix.groups,
        columns=matrix.n,
        panels=t.panels,
        panel=panel,
        offset=0 if xor else offset + op.zero_act,
        lanes=t.lanes,
    )
    sections = [te.placeholder(s.shape, s.dtype, name=s.name) for s in weights.sections]
    left = left_side(op, c, "uint8", offset)
    planes = planes_of_left(op)
    given = reads_planes(op, t.word, t.left)
    if given:
        x, left_at = given_words(op, left, planes[0], offset + op.zero_act)
    else:
        x, left_at = left.x, _encoded(op, left, t, planes)
    tile = _tile(op, left_at, sections[0], c, t, planes)
    sums = placeholder(op) if op.weight.min and not xor else None
    epilogue = Epilogue(op, 0, matrix.groups, matrix.n, sums)

    def result(m, g, n):
        value = tile[g, m // t.rows, n // panel, m % t.rows, n % panel // t.lanes, n % t.lanes]
        if xor:
            value = tirx.const(matrix.k * op.act.max * op.weight.max, "int32") - value
        else:
            value = weights.value(value, (m, g, n), sections, sums)
        return epilogue(value, m, g, n)

    y = te.compute((matrix.m, matrix.groups, matrix.n), result, name="y")
    args = [x, *sections, *epilogue.inputs, y]
    first = epilogue.prologue
    first = [prologue(op, planes=True)] if given and first else first
    return Definition(c, epilogue.layout(weights), args, first)


def _encoded(op, left: Left, t: Tiling, planes: tuple[int, int]):
    """The words of the left side, repeated through an element."""
    count, low = planes
    ones = sum(1 << t.word * i for i in range(t.repeat))

    def bit(x, i, plane):
        plane = (plane + low).astype("uint8")
        one = (x >> plane & tirx.const(1, "uint8")).astype("uint32")
        return one * (tirx.const(ones, "uint32") << i.astype("uint32"))

    encoding = Encoding((count,), "uint32", bit)
    if t.left == "direct":
        return encode_at_source(left, encoding)
    return encode_in_tiles(left, encoding, op.matrix.groups, t.row_tiles, t.rows, rows_outside=True)


def _tile(op, left_at, words, c: Reduction, t: Tiling, planes: tuple[int, int]) -> te.Tensor:
    r, s, kg, p, q = (
        te.reduce_axis((0, extent), name=name)
        for name, extent in (
            ("r", c.r), ("s", c.s), ("kg", c.kg), ("p", planes[0]), ("q", op.weight.bits),
        )
    )  # fmt: skip
    last, xor = op.matrix.m - 1, is_xor(op)

    def element(g, mo, no, mi, nv, nl):
        m = te.min(mo * t.rows + mi, last)
        left = left_at(g, mo, mi, m, r, s, kg, p).astype(words.dtype)
        lane = nl * t.repeat + nv % t.repeat
        word = words[g, no, (r * c.s + s) * c.kg + kg, q, nv // t.repeat, lane]
        count = tirx.popcount(left ^ word if xor else left & word).astype("int32")
        return te.sum(count << (p + q + planes[1]), axis=[r, s, kg, p, q])

    shape = (op.matrix.groups, t.row_tiles, t.panels, t.rows, t.vectors, t.lanes)
    return te.compute(shape, element, name="tile")
