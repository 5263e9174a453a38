"""Straight-line code of the grouped algorithm: a register tile, and the copy of a block's input.

A tile goes over the pixels of its input once: the windows of a pixel are made, and multiplied into
all sums that they belong to, before those of the next one are loaded.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from tvm import tirx
from tvm.s_tir import SBlockRealize
from tvm.tirx.script import builder as tb

from lpgen.algorithms.definition import Definition
from lpgen.algorithms.grouped_conv import Rows, Tiling
from lpgen.algorithms.lhs.view import rows_loop
from lpgen.algorithms.weights.lanes import Lanes
from lpgen.isa import Isa
from lpgen.schedules.common.bit_fields import Registers
from lpgen.tir import vectors
from lpgen.tir.microkernel import Site, replace_tile
from lpgen.tir.rewrite import generated, like, loads, replace_nest, uses

TILE = (
    *("image", "rt", "ct", "panel", "vector", "i", "j", "lane"),
    *("kr", "s", "r", "kt"),
)
SHUFFLED = 16
"""Bytes within which (v)pshufb moves bytes."""


@dataclass(frozen=True)
class Pieces:
    """Straight-line code takes `steps` steps of the input channels and `rows` kernel rows at a
    time; loops around it take the others."""

    steps: int
    rows: int


def use_windows(
    func: tirx.PrimFunc, isa: Isa, definition: Definition, step: str, pieces: Pieces
) -> tirx.PrimFunc:
    """`func` with the loops of the blocks "pad", but for those over images and blocks, and "tile"
    replaced."""
    body = replace_nest(func.body, "pad", lambda *nest: _copy(definition.lhs, *nest))
    sizes = definition.lhs.tiling, definition.lhs.lanes
    body = replace_nest(body, "y", lambda *nest: _whole_vectors(*nest, *sizes))
    tile = _Tile(isa, definition, step, pieces)
    return replace_tile(func.with_body(body), tile.emit, "tile", TILE, TILE[:4])


def _whole_vectors(
    loops: list[tirx.For], realize: SBlockRealize, tiling: Tiling, lanes: Lanes
) -> tirx.Stmt:
    """The loops of "y", the last ones over vectors and lanes, without what TVM adds to them: it
    asks for the results of all lanes of a tile, but those of empty ones are the next tile's."""
    if len(loops) == 1:  # what has been replaced is visited from inside again
        return loops[0]
    *around, vector, lane = loops
    within = [
        part
        for part in _conjuncts(realize.predicate)
        if not uses(part, vector.loop_var) and not uses(part, lane.loop_var)
    ]
    channels = lanes.groups * lanes.outs
    if lanes.panels(tiling.vectors) * tiling.vectors * lanes.width > channels:
        within.append(realize.iter_values[-1] < channels)
    predicate = tirx.all(*within) if within else tirx.const(True, "bool")
    body = like(lane, SBlockRealize(realize.iter_values, predicate, realize.block))
    count = min(int(vector.extent), tiling.vectors)
    body = tirx.For(
        vector.loop_var, vector.min, count, vector.kind, body, annotations=vector.annotations
    )
    for loop in reversed(around):
        body = like(loop, body)
    return body


def _conjuncts(condition: tirx.Expr) -> list[tirx.Expr]:
    if isinstance(condition, tirx.And):
        return _conjuncts(condition.a) + _conjuncts(condition.b)
    return [condition]


class _Tile:
    """Emits one tile. step: "bytes", "words" or "pairs"."""

    def __init__(self, isa: Isa, definition: Definition, step: str, pieces: Pieces) -> None:
        self.isa, self.step, self.pieces = isa, step, pieces
        self.op, self.tiling = definition.lhs.op, definition.lhs.tiling
        self.lanes = definition.lhs.lanes
        self.left = definition.lhs.dtype
        self.size = 4 // self.tiling.kq  # bytes of a value

    def emit(self, site: Site) -> None:
        """The sums of a tile from zero on."""
        t = self.tiling
        self.pad, self.main = site.sources["pad"], site.sources["main"]
        count = t.rows * t.columns * t.vectors
        self.sums = Registers(count, "int32", self.isa.lanes)
        narrow = self.step == "pairs"
        self.narrow = Registers(count, "int16", 2 * self.isa.lanes) if narrow else None
        self.sums.zero()
        with (
            _loop(self.lanes.steps, self.pieces.steps) as step,
            _loop(self.op.kernel[0], self.pieces.rows) as row,
        ):
            self._piece(step, row)
        for i, j in self._outputs():
            for vector in range(t.vectors):
                at = site.target.at(vector=vector, i=i, j=j)
                value = self.sums[self._number(vector, i, j)]
                vectors.store(site.target.buffer, at, value, self.isa.lanes)

    def _outputs(self) -> Iterator[tuple[int, int]]:
        return itertools.product(range(self.tiling.rows), range(self.tiling.columns))

    def _number(self, vector: int, i: int, j: int) -> int:
        return (vector * self.tiling.rows + i) * self.tiling.columns + j

    def _piece(self, step, row) -> None:
        """Steps from `step` on and kernel rows from `row` on, in straight-line code."""
        if self.narrow:
            self.narrow.zero()
        # One step after the other: so the weights of a step alone are in registers.
        for r, (pixel, outputs) in itertools.product(
            range(self.pieces.steps), sorted(self._users().items())
        ):
            windows = self._windows(pixel, step + r, row)
            for i, j, kr, s in outputs:
                for vector in range(self.tiling.vectors):
                    at = self.main.at(vector=vector, r=step + r, kr=row + kr, s=s)
                    weights = vectors.load(self.main.buffer, at, self.isa.lanes * self.tiling.kq)
                    self._multiply(self._number(vector, i, j), windows[vector], weights)
        if self.narrow:
            for i in range(self.narrow.count):
                self.sums[i] = self.sums[i] + self.isa.sum2(self.narrow[i])

    def _users(self) -> dict[tuple[int, int], list[tuple[int, int, int, int]]]:
        """Pixel, counted from the tile's first one -> the outputs and taps that it is under."""
        (down, across), (below, beside) = self.op.stride, self.op.dilation
        users: dict[tuple[int, int], list] = {}
        for i, j in self._outputs():
            for kr in range(self.pieces.rows):
                for s in range(self.op.kernel[1]):
                    pixel = (i * down + kr * below, j * across + s * beside)
                    users.setdefault(pixel, []).append((i, j, kr, s))
        return users

    def _multiply(self, i: int, a, b) -> None:
        if self.narrow:
            self.narrow[i] = self.isa.add_pairs(self.narrow[i], a, b)
        elif self.step == "words":
            self.sums[i] = self.isa.dot2(self.sums[i], a, b)
        else:
            self.sums[i] = self.isa.dot4(self.sums[i], a, b)

    # ---- windows

    def _windows(self, pixel: tuple[int, int], step, row) -> list[tirx.Expr]:
        """The window of each vector of step `step` at a pixel, counted from the tile's first one in
        kernel row `row`."""
        *outer, line, first = self.pad.at(kr=row, r=step)
        index = [*outer, line + pixel[0], first + pixel[1] * self.op.ic]
        if self.lanes.dense:
            return [self._window(index, vector) for vector in range(self.tiling.vectors)]
        return [self._window(index, 0)] * self.tiling.vectors

    def _window(self, index: list, vector: int) -> tirx.Expr:
        """What the lanes of a vector read; index: of the channels of the panel's first group."""
        lanes, kq = self.lanes, self.tiling.kq
        groups = lanes.groups_of(vector)
        first, span = groups[0], groups[-1] - groups[0]
        places = [group - first for group in groups]
        index = [*index[:-1], index[-1] + first * lanes.ins]
        if span == 0:
            value = tirx.Broadcast(self._unit(index), self.isa.lanes)
        elif (span * lanes.ins + kq) * self.size <= SHUFFLED:
            value = self._shuffled(index, places)
        elif span == 1:
            value = self._joined(index, places)
        else:
            value = self._picked(index, places)
        number = f"{self.left}x{self.isa.lanes * kq}"
        return vectors.bind(vectors.reinterpret(number, value))

    def _unit(self, index: list) -> tirx.Var:
        """The channels of one group in a step as an int32."""
        four = vectors.load(self.pad.buffer, index, self.tiling.kq)
        return vectors.bind(vectors.reinterpret("int32", four))

    def _joined(self, index: list, places: list[int]) -> tirx.Expr:
        """The channels of two groups, each in its lanes."""
        lanes = self.isa.lanes
        second = [*index[:-1], index[-1] + self.lanes.ins]
        both = [vectors.bind(tirx.Broadcast(self._unit(at), lanes)) for at in (index, second)]
        return vectors.joined(both, [place * lanes + lane for lane, place in enumerate(places)])

    def _shuffled(self, index: list, places: list[int]) -> tirx.Expr:
        """Sixteen bytes, repeated, and of each lane's copy the bytes of its group."""
        lanes = self.isa.lanes
        piece = vectors.load(self.pad.buffer, index, SHUFFLED // self.size)
        piece = vectors.bind(vectors.reinterpret(f"int8x{SHUFFLED}", piece))
        table = vectors.bind(vectors.repeat(piece, SHUFFLED, lanes // 4))
        indices = vectors.constants(self._order(1, places), "int8")
        return self.isa.lookup16(table, indices)

    def _picked(self, index: list, places: list[int]) -> tirx.Expr:
        """A vector of the input, and of it the bytes of each lane's group."""
        lanes = self.isa.lanes
        unit = next(unit for unit in (4, 2, 1) if self.lanes.ins * self.size % unit == 0)
        piece = vectors.load(self.pad.buffer, index, lanes * self.tiling.kq)
        number = f"int{8 * unit}x{4 * lanes // unit}"
        piece = vectors.bind(vectors.reinterpret(number, piece))
        return vectors.shuffle(piece, self._order(unit, places))

    def _order(self, unit: int, places: list[int]) -> list[int]:
        """Where the values of each lane begin behind those of the first group, in units of so many
        bytes."""
        apart = self.lanes.ins * self.size // unit
        return [place * apart + i for place in places for i in range(4 // unit)]


@contextlib.contextmanager
def _loop(count: int, each: int):
    """A loop over count // each pieces, as the first place of each; none if there is one."""
    if count == each:
        yield 0
        return
    with tb.serial(0, count // each) as i:
        yield i * each


def _copy(rows: Rows, loops: list[tirx.For], realize: SBlockRealize) -> tirx.Stmt:
    """The copy in place of the block "pad", whose innermost loops are rows and places."""
    *around, _, _ = loops
    block, (x,) = realize.block.body, {load.source for load in loads(realize.block.body)}
    image, number = realize.iter_values[:2]
    body = generated(lambda: _copy_rows(rows, x, block.buffer, image, number))
    for loop in reversed(around):
        body = like(loop, body)
    return body


def _copy_rows(rows: Rows, x, pad, image, block) -> None:
    """Rows of the input with their padding, and rows of padding."""
    channels, length = rows.op.ic, rows.shape[-1]
    first, count = (columns * channels for columns in rows.copied)
    # A block of all rows is copied before, by as many threads as it is worth.
    alone = rows.blocks == 1
    nbytes = rows.count * length if alone else 0
    with rows_loop(rows.op, rows.count, nbytes) as i:
        row = vectors.bind(rows.row(block, i))
        at = [image, block, i]
        with tb.If(tirx.all(row >= 0, row < rows.op.h)):
            with tb.Then():
                _fill(rows, pad, at, 0, first)
                with tb.serial(0, count) as place:
                    value = x[image, row, place].astype(rows.dtype)
                    value = value + tirx.const(rows.offset, rows.dtype) if rows.offset else value
                    tb.buffer_store(pad, value, [*at, first + place])
                _fill(rows, pad, at, first + count, length)
            with tb.Else():
                _fill(rows, pad, at, 0, length)


def _fill(rows: Rows, pad, at: list, start: int, stop: int) -> None:
    if start < stop:
        with tb.serial(start, stop) as place:
            tb.buffer_store(pad, tirx.const(rows.pad_value, rows.dtype), [*at, place])
