"""Straight-line code of the depthwise algorithm: the copy of a block's input, and a register tile.

Both replace the loops that TVM's schedule left, whose meaning they keep:

* the copy interleaves two rows, a vector of channels at a time;
* a tile goes over the columns of its input once. A column's windows are made, and multiplied into
  all sums that they belong to, before the next column is loaded.
"""

from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx
from tvm.ir.expr import TensorLoad
from tvm.s_tir import SBlockRealize
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as tb
from tvm_ffi import structural_walk

from lpgen.algorithms.depthwise import Pairs
from lpgen.algorithms.taps import Window
from lpgen.schedules.x86 import intrinsics, vectors
from lpgen.schedules.x86.isa import Isa
from lpgen.schedules.x86.rewrite import axis_values, replace_nest, substitute


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
    body = replace_nest(func.body, "pad", lambda loops, realize: _copy(pairs, loops, realize))
    body = replace_nest(body, "tile_init", lambda loops, realize: tirx.Evaluate(0))
    body = replace_nest(body, "tile_update", lambda *nest: _tile(how, pairs, *nest))
    return func.with_body(body)


def _generated(emit: Callable[[], None]) -> tirx.Stmt:
    with IRBuilder() as builder:
        with tb.sblock("generated"):
            tb.reads([])
            tb.writes([])
            emit()
    return builder.get()


def _loads(store: tirx.BufferStore) -> list[TensorLoad]:
    loads: list[TensorLoad] = []
    structural_walk(store.value, (TensorLoad, loads.append))
    return [load for load in loads if not load.source.same_as(store.buffer)]


# ---- the copy


def _copy(pairs: Pairs, loops: list[tirx.For], realize: SBlockRealize) -> tirx.Stmt:
    *around, _, _, panels, _ = loops
    block, (x,) = realize.block.body, (load.source for load in _loads(realize.block.body))
    at = dict(zip(("image", "block"), realize.iter_values, strict=False))
    first = substitute(realize.iter_values[4], {panels.loop_var: 0})
    copy = _Copy(pairs, x, block.buffer, **at, panels=(first, int(panels.extent)))
    body = _generated(copy.emit)
    for loop in reversed(around):
        body = tirx.For(loop.loop_var, loop.min, loop.extent, loop.kind, body)
    return body


class _Copy:
    """Emits the copy of one block. Both rows of a pair, one of them or none is in the input."""

    def __init__(self, pairs: Pairs, x, pad, image, block, panels: tuple) -> None:
        self.first_panel, self.panels = panels
        self.pairs, self.x, self.pad, self.image, self.block = pairs, x, pad, image, block
        self.channels, self.panel = pairs.view.channels, pairs.tiling.panel
        self.height, self.columns = pairs.view.size

    def emit(self) -> None:
        with tb.serial(0, self.pairs.count) as pair:
            rows = [vectors.bind(self.pairs.row(self.block, pair, which)) for which in range(2)]
            inside = [tirx.all(row >= 0, row < self.height) for row in rows]
            with tb.If(inside[0]):
                with tb.Then():
                    self._either(inside[1], pair, rows, [rows[0], None])
                with tb.Else():
                    self._either(inside[1], pair, [None, rows[1]], [None, None])

    def _either(self, condition, pair, then: list, otherwise: list) -> None:
        with tb.If(condition):
            with tb.Then():
                self._pair(pair, then)
            with tb.Else():
                self._pair(pair, otherwise)

    def _pair(self, pair, rows: list) -> None:
        """Fill a pair from these rows of the input; None is a row outside."""
        first, count = self.pairs.copied
        if rows == [None, None]:
            self._fill(pair, 0, self.pairs.width)
            return
        self._fill(pair, 0, first)
        sources = [None if row is None else self._source(row) for row in rows]
        length, whole = self.columns * self.channels, self.pairs.panels * self.panel
        # Columns whose vectors all end inside of the row; what follows takes the row's end with
        # room behind it.
        safe = max(0, min(count, (length - whole) // self.channels + 1 if length >= whole else 0))
        with tb.serial(0, safe) as column:
            self._column(pair, first, column, sources)
        if safe < count:
            ends = [source and self._end(source, safe * self.channels) for source in sources]
            for column in range(safe, count):
                self._column(pair, first, column, ends)
        self._fill(pair, first + count, self.pairs.width)

    def _source(self, row) -> Callable:
        """source(i): the buffer and index of value i of the row, as often as it has outputs."""
        repeats = self.pairs.view.repeats
        if repeats == 1:
            return lambda i: (self.x, (self.image, row, i))
        spread = vectors.scratch((self.columns * self.channels,), self.x.dtype)
        with tb.serial(0, self.columns * self.channels // repeats) as i:
            with tb.unroll(0, repeats) as j:
                tb.buffer_store(spread, self.x[self.image, row, i], [i * repeats + j])
        return lambda i: (spread, (i,))

    def _end(self, source: Callable, start: int) -> Callable:
        """`source` from value `start` on, copied to where a vector can reach past its end."""
        size = self.columns * self.channels - start
        end = vectors.scratch((size + self.panel,), self.x.dtype)
        with tb.serial(0, size) as i:
            buffer, index = source(start + i)
            tb.buffer_store(end, buffer[index], [i])
        with tb.serial(0, self.panel) as i:
            tb.buffer_store(end, tirx.const(0, self.x.dtype), [size + i])
        return lambda i: (end, (i - start,))

    def _column(self, pair, first: int, column, sources: list) -> None:
        with tb.serial(0, self.panels) as panel:
            self._vector(pair, first, column, self.first_panel + panel, sources)

    def _vector(self, pair, first: int, column, panel, sources: list) -> None:
        pairs = self.pairs
        nothing, offset = (
            vectors.splat(value, pairs.dtype, self.panel) for value in (pairs.nothing, pairs.offset)
        )
        rows = []
        for source in sources:
            if source is None:
                rows.append(nothing)
                continue
            place = source(column * self.channels + panel * self.panel)
            value = vectors.load(*place, self.panel).astype(nothing.ty.dtype)
            rows.append(value + offset if pairs.offset else value)
        at = (self.image, self.block, pair, first + column, panel, 0)
        vectors.store(self.pad, at, self._interleaved(*rows), self.panel * 2)

    def _interleaved(self, upper, lower):
        """The bytes of two rows side by side, in the order of `Pairs`."""
        t = self.pairs.tiling
        return interleaved([upper, lower], t.lanes, t.vectors)

    def _fill(self, pair, begin: int, end: int) -> None:
        if begin == end:
            return
        pairs, size = self.pairs, self.panel * 2
        fill = vectors.splat(pairs.nothing, pairs.dtype, size)
        with tb.serial(begin, end) as column, tb.serial(0, self.panels) as panel:
            at = (self.image, self.block, pair, column, self.first_panel + panel, 0)
            vectors.store(self.pad, at, fill, size)


def interleaved(rows: list, lanes: int, count: int):
    """Two vectors of `count` x `lanes` bytes, side by side in the order of `Pairs`.

    In two steps, words of four bytes and then bytes, each one instruction: of a single step LLVM
    makes several.
    """
    if count == 1:
        order = [row * lanes + lane for lane in range(lanes) for row in range(2)]
        return _shuffle(rows, order)
    width = lanes * count
    together = _shuffle(rows, list(range(2 * width)))
    words = vectors.reinterpret(f"int32x{width // 2}", together)
    order = [
        row * width // 4 + vector * lanes // 4 + piece
        for piece in range(lanes // 4)
        for row in range(2)
        for vector in range(count)
    ]
    words = vectors.bind(vectors.shuffle(words, order))
    moved = vectors.reinterpret(f"uint8x{2 * width}", words)
    order = [
        16 * piece + 8 * row + i for piece in range(lanes // 4) for i in range(8) for row in (0, 1)
    ]
    return vectors.reinterpret(str(together.ty.dtype), vectors.shuffle(moved, order))


def _shuffle(parts: list, order: list[int]):
    return tirx.Shuffle(parts, [vectors.const(i) for i in order])


# ---- the tile


def _tile(how: WindowStep, pairs: Pairs, loops: list[tirx.For], realize: SBlockRealize):
    return _generated(_Tile(how, pairs, loops, realize).emit)


class _Tile:
    """Emits one tile; `loops` are vector, row, column, lane, group, s, kt."""

    def __init__(self, how: WindowStep, pairs: Pairs, loops: list, realize: SBlockRealize) -> None:
        self.how, self.isa, self.tiling = how, how.isa, pairs.tiling
        self.window: Window = pairs.window
        self.each = pairs.each
        self.loops, self.values = loops, axis_values(realize)
        store = realize.block.body
        self.tile = store.buffer[tuple(store.indices)]
        self.left, self.right = _loads(store)

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
            for group in range(w.groups):
                self._make_windows(used[0], group)
                for j, s in used:
                    for i in range(w.tile[0]):
                        if w.touches(i, group):
                            self._multiply(i, j, group, s)
        for at in self._outputs() if narrow else ():
            self._store(at, intrinsics.widened(self.isa, self._sum(at, True)), False)

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
            value = vectors.reinterpret(f"{self.ready.dtype}x{size}", _shuffle(words, order))
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
                new = intrinsics.add_pairs(self.isa, acc, a, b, self.how.left)
                self._store(place, new, True)
                continue
            acc = self._sum(place, False)
            if self.how.step == "words":
                self._store(place, intrinsics.add_words(self.isa, acc, a, b), False)
            else:
                self._store(place, intrinsics.add_bytes(self.isa, acc, a, b, self.how.left), False)

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
