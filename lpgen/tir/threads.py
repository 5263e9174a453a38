"""Sharing a kernel's tiles among threads, whose number is known when the kernel is called.

A schedule numbers its tiles: each loop around them has a *stride*, and the number of a tile is the
sum of index * stride over those loops. Thread t of T computes the tiles

    first <= number < last,    first, last = the t-th of T contiguous ranges, equal up to one tile,

in the order of the loops, whatever cache blocks these make: in every loop only the iterations run
that lead to such a tile. With `rest` the largest sum that the loops further inside can add,

    ceil((first - number so far - rest) / stride) <= index < ceil((last - number so far) / stride).

A stage that is computed inside of the loops, for all tiles of a block (packing of rows, expansion
of panels), is for several threads' tiles then, and each computes what its own may need: the stage's
loop over row tiles or panels is bounded by the same formula.

The annotations of the schedule survive TVM's lowering; `share_tiles` rewrites what comes out of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from tvm import tirx
from tvm.s_tir import Schedule
from tvm_ffi import WalkOrder, structural_map, structural_walk

from lpgen.tir.ranges import part_of
from lpgen.tir.rewrite import like

_TILES = "lpgen.tiles"
"""Loop over tiles: [extent, stride] of each index that is fused in it, outermost first."""

ROWS = "lpgen.rows"
"""Loop over rows, or over tiles of so many of them, that ends with the rows of the call."""

_STAGE = "lpgen.stage"
"""Loop of a stage inside of those over tiles, over the same index as the one of this stride."""


def number_tiles(sch: Schedule, loop, *indices: tuple[int, int]) -> None:
    """State the (extent, stride) of each index that is fused in `loop`, outermost first."""
    sch.annotate(loop, _TILES, [number for index in indices for number in index])


def parallel_tiles(sch: Schedule, loops: Sequence, fused: int):
    """The first `fused` of the nested loops over tiles as one parallel loop, which is returned; all
    tiles are numbered in the order of the loops."""
    extents = [int(sch.get(loop).extent) for loop in loops]
    numbers = [(e, math.prod(extents[i + 1 :])) for i, e in enumerate(extents)]
    outer = sch.fuse(*loops[:fused])
    number_tiles(sch, outer, *numbers[:fused])
    for loop, number in zip(loops[fused:], numbers[fused:], strict=True):
        number_tiles(sch, loop, number)
    sch.parallel(outer)
    return outer


def bound_stage(sch: Schedule, loop, stride: int) -> None:
    """Bound the loop of a stage like the loop over tiles that has this stride."""
    sch.annotate(loop, _STAGE, [stride])


def end_with_rows(sch: Schedule, loop, height: int) -> None:
    """End a loop over tiles of so many rows where the rows of the call end; one index alone."""
    sch.annotate(loop, ROWS, height)


def share_tiles(
    func: tirx.PrimFunc, threads: tirx.Var, rows: tirx.Var | None = None
) -> tuple[tirx.PrimFunc, int]:
    """`func`, lowered, with each parallel loop over numbered tiles shared among `threads` threads.

    Also how many tiles there are: into so many pieces the work can be shared. Where no loop has
    numbers, these are the iterations of the longest parallel loop (1 without any).
    rows: the rows of a call, where marked loops end; with all of them there are so many tiles.
    """
    tiles: list[int] = []
    iterations = [1]

    def share(loop: tirx.For) -> tirx.Stmt:
        if loop.kind != tirx.ForKind.PARALLEL:
            return loop
        if _TILES not in loop.annotations:
            iterations.append(int(loop.extent))
            return loop
        shared = _SharedTiles(loop, threads, rows)
        tiles.append(shared.tiles)
        return shared.loop()

    shared = func.with_body(structural_map(func.body, (tirx.For, share)))
    if rows is not None:
        shared = shared.with_body(structural_map(shared.body, (tirx.For, _ending(rows))))
    return shared, max(tiles or iterations)


def _ending(rows: tirx.Var) -> Callable[[tirx.For], tirx.For]:
    """What ends a marked loop where the rows end."""

    def end(loop: tirx.For) -> tirx.For:
        if ROWS not in loop.annotations:
            return loop
        count = tirx.Min(loop.extent, _ceil_div(rows, int(loop.annotations[ROWS])))
        return tirx.For(loop.loop_var, loop.min, count, loop.kind, loop.body)

    return end


class _RowTiles:
    """The tiles over rows, of which a call has as many as its rows fill.

    The number of a tile is (outside * most + row tile) * stride + inside. Those of a call, counted
    without a gap, are (outside * count + row tile) * stride + inside.
    """

    def __init__(self, body: tirx.Stmt, rows: tirx.Var) -> None:
        found = _loops(body, ROWS)
        ((height, self.stride, self.most),) = {
            (int(loop.annotations[ROWS]), tiles.digits[0][1], tiles.digits[0][0])
            for loop, tiles in ((loop, _Tiles(loop)) for loop in found)
        }
        self.count = tirx.Var("row_tiles", "int32")
        self.counted = tirx.Bind(self.count, _ceil_div(rows, height))

    def of_call(self, numbers: int) -> tirx.Expr:
        """How many of so many tiles there are in a call."""
        return self.count * (numbers // self.most)

    def number(self, place: tirx.Expr) -> tirx.Expr:
        """The number of the tile at a place among those of the call."""
        each = self.count * self.stride
        outside = tirx.truncdiv(place, each) * (self.most * self.stride)
        return outside + tirx.truncmod(place, each)


class _Tiles:
    """A loop over tiles: the digits of its variable, each with an extent and a stride."""

    def __init__(self, loop: tirx.For) -> None:
        numbers = [int(number) for number in loop.annotations[_TILES]]
        self.var = loop.loop_var
        digits = list(zip(numbers[::2], numbers[1::2], strict=True))
        self.digits = [digits[0]]
        for extent, stride in digits[1:]:
            outer, step = self.digits[-1]
            # Digits that count on without a gap are one.
            if step == extent * stride:
                self.digits[-1] = outer * extent, stride
            else:
                self.digits.append((extent, stride))
        self.span = sum((extent - 1) * stride for extent, stride in self.digits)
        """The largest that the loop adds to a tile's number."""

    def number(self) -> tirx.Expr:
        """What the loop adds to a tile's number."""
        if len(self.digits) == 1:
            return self.var * self.digits[0][1]
        total, inside = _int(0), math.prod(extent for extent, _ in self.digits)
        for extent, stride in self.digits:
            inside //= extent
            digit = tirx.truncmod(tirx.truncdiv(self.var, _int(inside)), _int(extent))
            total = total + digit * stride
        return total


class _SharedTiles:
    """The parallel loop over all tiles, and what becomes of the loops inside of it."""

    def __init__(self, parallel: tirx.For, threads: tirx.Var, rows: tirx.Var | None = None) -> None:
        self.parallel, self.threads = parallel, threads
        self.first, self.last = tirx.Var("first", "int32"), tirx.Var("last", "int32")
        loops = [_Tiles(parallel), *_tiles_in(parallel.body)]
        self.numbers = 1 + sum(tiles.span for tiles in loops)
        self.tiles = math.prod(extent for tiles in loops for extent, _ in tiles.digits)
        """How many tiles: fewer than numbers where a schedule has merged the innermost loops."""
        self.rows = None if rows is None else _RowTiles(parallel.body, rows)

    def loop(self) -> tirx.Stmt:
        """One iteration for each thread that is needed."""
        thread = tirx.Var("thread", "int32")
        # The fewest threads with that largest share: of 80 tiles 27 threads get 3, as 32 would.
        tiles, numbers, before = _int(self.tiles), _int(self.numbers), []
        if self.rows:
            tiles, numbers = map(self.rows.of_call, (self.tiles, self.numbers))
            before = [self.rows.counted]
        largest = tirx.truncdiv(self.threads + (tiles - 1), self.threads)
        count = tirx.Var("count", "int32")
        counted = tirx.Bind(count, tirx.truncdiv(largest + (tiles - 1), largest))
        each, more = tirx.truncdiv(numbers, count), tirx.truncmod(numbers, count)
        place = self.rows.number if self.rows else lambda place: place
        first = tirx.Bind(self.first, place(thread * each + tirx.Min(thread, more)))
        last = tirx.Bind(self.last, place((thread + 1) * each + tirx.Min(thread + 1, more)))
        # Outside of the loop over blocks, so that the buffers of one block serve the next as well.
        buffers, body = _allocations_first(self.parallel.body)
        outer = tirx.For(self.parallel.loop_var, 0, self.parallel.extent, tirx.ForKind.SERIAL, body)
        outer = self._bounded(outer, _Tiles(self.parallel), [])
        statements = tirx.SeqStmt([*buffers, first, last, outer])
        shared = tirx.For(thread, 0, count, tirx.ForKind.PARALLEL, statements)
        return tirx.SeqStmt([*before, counted, shared])

    def _bounded(self, loop: tirx.For, tiles: _Tiles, outside: list[_Tiles]) -> tirx.For:
        """The loop over tiles with only the iterations that this thread needs."""
        inside = _tiles_in(loop.body)
        reach = sum(t.span for t in inside)
        (extent, stride), *more = tiles.digits
        most = self.rows.count if ROWS in loop.annotations else _int(extent)
        start, count = self._bounds(
            outside, stride, reach + sum((e - 1) * s for e, s in more), most
        )
        within = math.prod(e for e, _ in more)
        body = self._inside(loop.body, [*outside, tiles], inside)
        if more:  # not bounded by their digits: skip what has none of the thread's tiles
            number = _number([*outside, tiles])
            needed = tirx.all(number < self.last, number + reach >= self.first)
            body = tirx.IfThenElse(needed, body, None)
        return part_of(like(loop, body), start * within, count * within)

    def _inside(self, body: tirx.Stmt, outside: list[_Tiles], inside: list[_Tiles]) -> tirx.Stmt:
        """What a loop over tiles contains: the next such loop, and stages that are bounded."""

        def visit(loop: tirx.For) -> tirx.Stmt:
            if _TILES in loop.annotations:
                return self._bounded(loop, _Tiles(loop), outside)
            if _STAGE not in loop.annotations:
                return loop
            (stride,) = (int(number) for number in loop.annotations[_STAGE])
            others = [t for t in inside if t.digits[-1][1] != stride]
            if len(others) == len(inside):
                return loop  # the loops inside were merged: they use all of the stage
            reach = sum(t.span for t in others)
            start, count = self._bounds(outside, stride, reach, _int(int(loop.extent)))
            return part_of(loop, start, count)

        # The bounded loops have lost their annotations: nothing is visited twice.
        return structural_map(body, (tirx.For, visit), order=WalkOrder.PREORDER)

    def _bounds(self, outside: list[_Tiles], stride: int, reach: int, extent: tirx.Expr) -> tuple:
        """(first, how many) of the indices that lead to the thread's tiles."""
        number = _number(outside)
        start = tirx.Max(_ceil_div(self.first - number - reach, stride), _int(0))
        stop = tirx.Min(_ceil_div(self.last - number, stride), extent)
        return start, tirx.Max(stop - start, _int(0))


def _tiles_in(body: tirx.Stmt) -> list[_Tiles]:
    """The loops over tiles in `body`, one of each stride."""
    found: dict[tuple, _Tiles] = {}

    def visit(loop: tirx.For) -> None:
        if _TILES in loop.annotations:
            tiles = _Tiles(loop)
            found.setdefault(tuple(tiles.digits), tiles)

    structural_walk(body, (tirx.For, visit))
    return list(found.values())


def _loops(body: tirx.Stmt, mark: str) -> list[tirx.For]:
    """The loops in `body` that have an annotation."""
    found: list[tirx.For] = []
    structural_walk(body, (tirx.For, found.append))
    return [loop for loop in found if mark in loop.annotations]


def _allocations_first(body: tirx.Stmt) -> tuple[list[tirx.Stmt], tirx.Stmt]:
    """The allocations among the statements of `body`, and the others."""
    if not isinstance(body, tirx.SeqStmt):
        return [], body
    statements = list(body.seq)
    buffers = [s for s in statements if isinstance(s, tirx.AllocBuffer)]
    rest = [s for s in statements if not isinstance(s, tirx.AllocBuffer)]
    return buffers, tirx.SeqStmt(rest) if len(rest) > 1 else rest[0]


def _number(outside: list[_Tiles]) -> tirx.Expr:
    total = _int(0)
    for tiles in outside:
        total = total + tiles.number()
    return total


def _ceil_div(value: tirx.Expr, divisor: int) -> tirx.Expr:
    """The quotient, rounded up; negative ones may be too large, but not above 0."""
    return tirx.truncdiv(value + (divisor - 1), _int(divisor)) if divisor > 1 else value


def _int(value: int) -> tirx.IntImm:
    return tirx.IntImm("int32", value)
