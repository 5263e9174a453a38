"""The bitserial algorithm: bit planes, AND and population counts.

Both sides are codes c >= 0 (`codes`), split into planes of bits; 32 values of k are one word:

    sum over k of x * c = sum over planes p, q of 2^(p + q) * popcount(x_p & c_q)

so that the cost grows with the product of the bit widths (Cowan et al., "Automatic Generation of
High-Performance Quantized Machine Learning Kernels", CGO 2020).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm import te, tirx

from lpgen.algorithms.codes import CodeWeights
from lpgen.algorithms.encoded import Encoding, encode_at_source, encode_in_tiles
from lpgen.algorithms.entry import Section
from lpgen.algorithms.epilogue import Epilogue
from lpgen.algorithms.kernel import Layout
from lpgen.algorithms.left import Left, left_side
from lpgen.algorithms.reduction import Reduction, cut
from lpgen.algorithms.row_sums import placeholder
from lpgen.ops import Conv2d, Dense

WORD = 32
"""Values of k in a word: a lane of a vector holds the bits of one column."""


@dataclass(frozen=True)
class Tiling:
    """Sizes that shape the definition.

    rows x vectors x lanes: the register tile; row_tiles, panels: tiles down and across;
    left: "direct" (words are made at the source), "copied" (in tile order) or "folded" (in tile
    order, of the folded source).
    """

    rows: int
    vectors: int
    lanes: int
    row_tiles: int
    panels: int
    left: str = "direct"


@dataclass(frozen=True)
class PlaneWeights(CodeWeights):
    """words[group][panel][word][plane][vector][lane], uint32: bit i is that of value i."""

    lanes: int = 16

    def code_sections(self) -> list[Section]:
        planes, vectors = self.format.bits, self.panel // self.lanes
        shape = (self.groups, self.panels, self.cut.groups, planes, vectors, self.lanes)
        return [Section("words", shape, "uint32")]

    def arrange(self, codes: np.ndarray) -> list[np.ndarray]:
        planes = np.arange(self.format.bits, dtype=np.uint8)
        bits = codes[..., None, :] >> planes[:, None] & 1
        words = np.packbits(bits, axis=-1, bitorder="little").view("<u4")[..., 0]
        words = words.reshape(self.groups, self.panels, -1, self.cut.groups, planes.size)
        words = words.transpose(0, 1, 3, 4, 2)
        return [words.reshape(self.code_sections()[0].shape)]

    def te_arrange(self, code) -> list[te.Tensor]:
        t = te.reduce_axis((0, WORD), name="t")

        def word(group, panel, kg, plane, vector, lane):
            column = panel * self.panel + vector * self.lanes + lane
            bit = code(group, column, kg, t) >> plane.astype("uint8") & tirx.const(1, "uint8")
            return te.sum(bit.astype("uint32") << t.astype("uint32"), axis=[t])

        return [te.compute(self.code_sections()[0].shape, word, name="words")]


@dataclass(frozen=True)
class Definition:
    """Tensors of the computation; `args` are the parameters, in order."""

    cut: Reduction
    weights: PlaneWeights
    layout: Layout
    """`weights` with the parameters of the epilogue behind them."""
    args: list[te.Tensor]
    left: Left
    act_planes: int
    prologue: tirx.PrimFunc | None
    """What has to run before (`entry.kernel_entry`)."""


def planes_of_left(op: Dense | Conv2d) -> tuple[int, int]:
    """(how many bit planes the left side has, the first of them): values plus their offset.

    Bipolar values are odd: without padding, which is 0, the lowest plane is empty.
    """
    low = int(op.act.step == 2 and not any(getattr(op, "pad", ())))
    return (op.act.max - op.act.min).bit_length() - low, low


def reduction_of(op: Dense | Conv2d, left: str) -> Reduction:
    """The k axis in words."""
    return cut(op, WORD, folded=left == "folded", empty=True, split=left == "direct")


def define(op: Dense | Conv2d, tiling: Tiling) -> Definition:
    """The tensor expressions of `op`: stages pad (optional), encode, row_sums (unless the weights
    are their codes), tile and y."""
    matrix, t = op.matrix, tiling
    c, offset = reduction_of(op, t.left), -op.act.min
    weights = PlaneWeights(
        shape=op.w_shape,
        format=op.weight,
        cut=c,
        groups=matrix.groups,
        columns=matrix.n,
        panels=t.panels,
        panel=t.vectors * t.lanes,
        offset=offset + op.zero_act,
        lanes=t.lanes,
    )
    sections = [te.placeholder(s.shape, s.dtype, name=s.name) for s in weights.sections]
    left = left_side(op, c, "uint8", offset)
    planes, low = planes_of_left(op)

    def bit(x, i, plane):
        plane = (plane + low).astype("uint8")
        return (x >> plane & tirx.const(1, "uint8")).astype("uint32") << i.astype("uint32")

    encoding = Encoding((planes,), "uint32", bit)
    if t.left == "direct":
        left_at = encode_at_source(left, encoding)
    else:
        left_at = encode_in_tiles(left, encoding, matrix.groups, t.row_tiles, t.rows)
    tile = _tile(op, left_at, sections[0], c, t, (planes, low))
    sums = placeholder(op) if op.weight.min else None
    epilogue = Epilogue(op, 0, matrix.groups, matrix.n, sums)
    panel = t.vectors * t.lanes

    def result(m, g, n):
        value = tile[g, m // t.rows, n // panel, m % t.rows, n % panel // t.lanes, n % t.lanes]
        return epilogue(weights.value(value, (m, g, n), sections, sums), m, g, n)

    y = te.compute((matrix.m, matrix.groups, matrix.n), result, name="y")
    args = [left.x, *sections, *epilogue.inputs, y]
    return Definition(c, weights, epilogue.layout(weights), args, left, planes, epilogue.prologue)


def _tile(op, left_at, words, c: Reduction, t: Tiling, planes: tuple[int, int]) -> te.Tensor:
    r, s, kg, p, q = (
        te.reduce_axis((0, extent), name=name)
        for name, extent in (
            ("r", c.r), ("s", c.s), ("kg", c.kg), ("p", planes[0]), ("q", op.weight.bits),
        )
    )  # fmt: skip
    last = op.matrix.m - 1

    def element(g, mo, no, mi, nv, nl):
        m = te.min(mo * t.rows + mi, last)
        left = left_at(g, mo, mi, m, r, s, kg, p)
        both = left & words[g, no, (r * c.s + s) * c.kg + kg, q, nv, nl]
        count = tirx.popcount(both).astype("int32")
        return te.sum(count << (p + q + planes[1]), axis=[r, s, kg, p, q])

    shape = (op.matrix.groups, t.row_tiles, t.panels, t.rows, t.vectors, t.lanes)
    return te.compute(shape, element, name="tile")
