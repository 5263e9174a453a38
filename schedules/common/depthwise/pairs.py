"""Straight-line code of the depthwise algorithm: the copy of a block's input, rows in pairs.

It replaces the loops that TVM's schedule left, whose meaning it keeps, and interleaves two rows, a
vector of channels at a time.
"""

from collections.abc import Callable

from tvm import tirx
from tvm.s_tir import SBlockRealize
from tvm.tirx.script import builder as tb

from lpgen.algorithms.depthwise import Pairs
from lpgen.tir import vectors
from lpgen.tir.rewrite import generated, like, loads, substitute


def copy_block(pairs: Pairs, loops: list[tirx.For], realize: SBlockRealize) -> tirx.Stmt:
    """The copy in place of the block "pad", whose innermost loops are pairs, columns, panels and
    places of a panel.
    """
    *around, _, _, panels, _ = loops
    block, (x,) = realize.block.body, (load.source for load in loads(realize.block.body))
    at = dict(zip(("image", "block"), realize.iter_values, strict=False))
    first = substitute(realize.iter_values[4], {panels.loop_var: 0})
    copy = _Copy(pairs, x, block.buffer, **at, panels=(first, int(panels.extent)))
    body = generated(copy.emit)
    for loop in reversed(around):
        body = like(loop, body)
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
        pad_value, offset = (
            vectors.splat(value, pairs.dtype, self.panel)
            for value in (pairs.pad_value, pairs.offset)
        )
        rows = []
        for source in sources:
            if source is None:
                rows.append(pad_value)
                continue
            place = source(column * self.channels + panel * self.panel)
            value = vectors.load(*place, self.panel).astype(pad_value.ty.dtype)
            rows.append(vectors.fenced(value + offset, self.panel) if pairs.offset else value)
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
        fill = vectors.splat(pairs.pad_value, pairs.dtype, size)
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
        return vectors.joined(rows, order)
    width = lanes * count
    together = vectors.joined(rows, list(range(2 * width)))
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
