"""Straight-line code of the depthwise algorithm: a register tile.

It replaces the loops that TVM's schedule left, whose meaning it keeps. A tile goes over the columns
of its input once: a column's windows are made, and multiplied into all sums that they belong to,
before the next column is loaded.
"""

from dataclasses import dataclass

from tvm import tirx
from tvm.ir.expr import TensorLoad
from tvm.s_tir import SBlockRealize

from lpgen.algorithms.depthwise import Pairs
from lpgen.algorithms.weights.taps import Window
from lpgen.isa import Isa
from lpgen.schedules.common.depthwise.pairs import copy_block
from lpgen.tir import vectors
from lpgen.tir.rewrite import axis_values, generated, loads, replace_nest, substitute


@dataclass(frozen=True)
class WindowStep:
    """How a tile is computed: the step ("bytes", "words" or "pairs") on a left side of `left`."""

    isa: Isa
    step: str
    left: str


def use_windows(func: tirx.PrimFunc, how: WindowStep, pairs: Pairs) -> tirx.PrimFunc:
    """`func` with the blocks "pad", "tile_init" and "tile_update" replaced.

    All loops but those over images and blocks of the block "pad" are cut out, and of the block
    "tile_update" the innermost: vector, row, column, lane and then group, s, kt.
    """
    body = replace_nest(func.body, "pad", lambda *nest: copy_block(pairs, *nest))
    body = replace_nest(body, "tile_init", lambda loops, realize: tirx.Evaluate(0))
    body = replace_nest(body, "tile_update", lambda *nest: _tile(how, pairs, *nest))
    return func.with_body(body)


def _tile(how: WindowStep, pairs: Pairs, loops: list[tirx.For], realize: SBlockRealize):
    return generated(_Tile(how, pairs, loops, realize).emit)


class _Tile:
    """Emits one tile; `loops` are vector, row, column, lane, group, s, kt."""

    def __init__(self, how: WindowStep, pairs: Pairs, loops: list, realize: SBlockRealize) -> None:
        self.how, self.isa, self.tiling = how, how.isa, pairs.tiling
        self.window: Window = pairs.window
        self.each = pairs.each
        self.loops, self.values = loops, axis_values(realize)
        store = realize.block.body
        self.tile = store.buffer[tuple(store.indices)]
        self.left, self.right = loads(store)

    def emit(self) -> None:
        w, t, lanes = self.window, self.tiling, self.isa.lanes
        narrow = self.how.step == "pairs"
        dtype = "int16" if self.how.step == "words" else self.left.source.dtype
        self.ready = vectors.scratch((t.vectors, lanes * w.kq), dtype)
        if narrow:
            self.sums = vectors.scratch((t.vectors, *w.tile, lanes * 2), "int16")
        for at in self._outputs():
            zero = vectors.splat(0, "int16" if narrow else "int32", lanes * (1 + narrow))
            self._store(at, zero, narrow)
        for used in w.columns.values():
            for group in range(w.count):
                self._make_windows(used[0], group)
                for j, s in used:
                    for i in range(w.tile[0]):
                        if w.touches(i, group):
                            self._multiply(i, j, group, s)
        for at in self._outputs() if narrow else ():
            self._store(at, self.isa.sum2(self._sum(at, True)), False)

    def _outputs(self) -> list[tuple[int, int, int]]:
        rows, columns = self.window.tile
        return [
            (vector, i, j)
            for vector in range(self.tiling.vectors)
            for i in range(rows)
            for j in range(columns)
        ]

    def _make_windows(self, where: tuple[int, int], group: int) -> None:
        """The windows of `group` in a column of the input, which output and tap `where` read."""
        j, s = where
        size = self.tiling.panel * 2
        count = min(self.window.kq // 2, self.each - group * (self.window.kq // 2))
        parts = []
        for pair in range(count):
            at = self._element(self.left, 0, 0, j, 0, group, s, 2 * pair)
            parts.append(vectors.bind(vectors.load(at.source, at.indices, size)))
        if self.how.step == "words":
            value = parts[0].astype(f"int16x{size}")
            vectors.store(self.ready, (0, 0), value, size)
            return
        parts.append(parts[0])  # without a second pair: its weights are 0
        words = [vectors.reinterpret(f"int16x{size // 2}", part) for part in parts[:2]]
        for vector in range(2):
            order = [
                which * size // 2 + piece * 8 + vector * 4 + i
                for piece in range(size // 16)
                for i in range(4)
                for which in range(2)
            ]
            value = vectors.reinterpret(f"{self.ready.dtype}x{size}", vectors.joined(words, order))
            vectors.store(self.ready, (vector, 0), value, size)

    def _multiply(self, i: int, j: int, group: int, s: int) -> None:
        size = self.isa.lanes * self.window.kq
        for vector in range(self.tiling.vectors):
            a = vectors.load(self.ready, (vector, 0), size)
            at = self._element(self.right, vector, i, j, 0, group, s, 0)
            b = vectors.load(at.source, at.indices, size)
            place = (vector, i, j)
            if self.how.step == "pairs":
                acc = self._sum(place, True)
                new = self.isa.add_pairs(acc, a, b)
                self._store(place, new, True)
                continue
            acc = self._sum(place, False)
            if self.how.step == "words":
                self._store(place, self.isa.dot2(acc, a, b), False)
            else:
                self._store(place, self.isa.dot4(acc, a, b), False)

    def _place(self, at: tuple[int, int, int], narrow: bool) -> tuple:
        """(buffer, index, elements) of the sums of an output."""
        if narrow:
            return self.sums, (*at, 0), self.isa.lanes * 2
        element = self._element(self.tile, *at, 0, 0, 0, 0)
        return element.source, element.indices, self.isa.lanes

    def _sum(self, at: tuple[int, int, int], narrow: bool):
        return vectors.load(*self._place(at, narrow))

    def _store(self, at: tuple[int, int, int], value, narrow: bool) -> None:
        buffer, index, elements = self._place(at, narrow)
        vectors.store(buffer, index, value, elements)

    def _element(self, access: TensorLoad, *places: int) -> TensorLoad:
        """`access` at these values of the loops."""
        chosen = {loop.loop_var: place for loop, place in zip(self.loops, places, strict=True)}
        indices = [substitute(substitute(i, self.values), chosen) for i in access.indices]
        return access.source[tuple(indices)]
