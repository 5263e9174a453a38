"""Loops over the taps of a convolution that leave out those in the padding.

The rows of a register tile are neighbours in one line of the output, and tiles cut each line the
same way. So which of them a column of the kernel reaches is known for each place in the line when
the kernel is made, and which rows of the kernel lie inside depends on the line alone:

    for r in rows of the kernel inside of the line            # bounds computed for each tile
      for s in 0..kw                                          # straight-line, for each place
        for k4, for mi in those that s reaches: tile[mi] += products
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby

from tvm import tirx
from tvm.s_tir import SBlock, SBlockRealize, Schedule, renew_defs
from tvm.tirx.script import builder as tb
from tvm_ffi import structural_map, structural_walk

from lpgen.algorithms.lhs.inside import Inside
from lpgen.ops import Conv2d, Dense
from lpgen.tir.ranges import bounded, serial
from lpgen.tir.rewrite import substitute

_ROW, _COLUMN, _PIXEL = (f"lpgen.{name}" for name in ("kernel_row", "kernel_column", "pixel"))
NESTS = 16
"""Copies of the loops over k that a kernel may have."""


def serves(op: Dense | Conv2d) -> bool:
    """Whether `op` has padding."""
    return isinstance(op, Conv2d) and any(op.pad)


def tile_rows(op: Dense | Conv2d, most: int) -> tuple[int, ...]:
    """Tile heights that cut a line into few equal parts."""
    if not serves(op):
        return ()
    return tuple(sorted({op.ow // n for n in range(1, 5) if op.ow % n == 0 and op.ow // n <= most}))


@lru_cache(maxsize=256)
def shares(op: Conv2d) -> tuple[float, float]:
    """The part of the kernel's rows, and of its columns, that lies inside."""
    axes = Inside.of(op)
    return axes.rows.share, axes.columns.share


@lru_cache(maxsize=256)
def refuses(op: Conv2d, rows: int) -> str | None:
    """Why tiles of `rows` rows cannot leave out the padding; None if they can."""
    if op.ow % rows:
        return f"rows={rows} does not divide a line of {op.ow}"
    nests = sum(len(runs) for _, runs in _places(op, rows))
    return f"{nests} copies of the loops over k are more than {NESTS}" if nests > NESTS else None


def misplaced(
    op: Dense | Conv2d, left: str, rows: int, heights: Sequence[int], lines: Sequence[int]
) -> str | None:
    """Why tiles of `rows` rows do not go with the knob `left`; heights: of tiles anywhere, lines:
    of those that leave out the padding."""
    if left != "inside":
        whole = rows in heights
        return None if whole else f"rows={rows} is for parts of a line, without the padding"
    return refuses(op, rows) if rows in lines else f"{rows} rows are no part of a line"


def mark(sch: Schedule, row, column, pixels: Sequence) -> None:
    """Mark the loops over the rows and columns of the kernel, and those over all rows of a tile."""
    sch.annotate(row, _ROW, int(sch.get(pixels[0]).extent))
    sch.annotate(column, _COLUMN, 1)
    for loop in pixels:
        sch.annotate(loop, _PIXEL, 1)


def skip_padding(func: tirx.PrimFunc, op: Dense | Conv2d) -> tirx.PrimFunc:
    """`func` with the marked loops over taps and pixels, if there are any, bounded to those
    inside."""

    def visit(loop: tirx.For) -> tirx.Stmt:
        rows = loop.annotations.get(_ROW)
        return loop if rows is None else _bounded(loop, op, int(rows))

    return func.with_body(structural_map(func.body, (tirx.For, visit)))


def _places(op: Conv2d, rows: int) -> list[tuple[int, list]]:
    """(first, runs) of neighbouring tiles of a line with the same columns inside: runs [(columns of
    the kernel, (first, stop) of the tile's rows)], without those that reach nothing."""
    columns = Inside.of(op).columns

    def reached(place: int) -> tuple:
        return tuple(columns.reached(s, place * rows, rows) for s in range(columns.taps))

    found = []
    for pixels, places in groupby(range(op.ow // rows), reached):
        runs = [(list(s), span) for span, s in groupby(range(columns.taps), pixels.__getitem__)]
        found.append((next(places), [run for run in runs if run[1] != (0, 0)]))
    return found


def _bounded(loop: tirx.For, op: Conv2d, rows: int) -> tirx.Stmt:
    per_line = op.ow // rows
    # Tiles beyond the last read it again.
    tile = tirx.Min(_tile_number(loop), op.matrix.m // rows - 1)
    first, count = Inside.of(op).rows.inside_at(tile // per_line % op.oh)
    place = tile % per_line
    stmt, end = None, per_line
    for start, runs in reversed(_places(op, rows)):
        row = tirx.Var(loop.loop_var.name, "int32")
        body = substitute(loop.body, {loop.loop_var: row})
        nest = tirx.For(row, 0, op.kernel[0], tirx.ForKind.SERIAL, _columns(body, runs))
        nest = bounded(nest, first, count)
        stmt = nest if stmt is None else tirx.IfThenElse(place < end, nest, stmt)
        end = start
    return stmt


@dataclass(frozen=True)
class Taps:
    """The taps that a tile reaches: of the kernel's rows (`taps`) first <= r < first + count, as
    expressions; columns: {column of the kernel: (first, stop) of the tile's rows}."""

    taps: int
    first: tirx.Expr
    count: tirx.Expr
    columns: dict[int, tuple[int, int]]

    def rows(self):
        """The loop over the rows of the kernel: `with taps.rows() as r`."""
        return serial(self.taps, self.first, self.count)


def for_places(op: Conv2d, rows: int, tile: tirx.Expr, emit: Callable[[Taps], None]) -> None:
    """Emit the code of tile number `tile`, which is straight-line and not loops to be bounded, for
    each place in a line that other columns of the kernel reach."""
    per_line = op.ow // rows
    # Tiles beyond the last compute it again.
    tile = tirx.Min(tile, op.matrix.m // rows - 1)
    first, count = Inside.of(op).rows.inside_at(tile // per_line % op.oh)
    places = _places(op, rows)
    ends = [start for start, _ in places[1:]]

    def place(number: int) -> None:
        columns = {s: span for run, span in places[number][1] for s in run}
        emit(Taps(op.kernel[0], first, count, columns))

    def from_place(number: int) -> None:
        if number == len(ends):
            return place(number)
        with tb.If(tile % per_line < ends[number]):
            with tb.Then():
                place(number)
            with tb.Else():
                from_place(number + 1)

    from_place(0)


def _tile_number(loop: tirx.For) -> tirx.Expr:
    """The number of the row tile, in terms of the loops around."""
    found: list[tirx.Expr] = []

    def visit(realize: SBlockRealize) -> None:
        if realize.block.name_hint.startswith("tile_update"):
            found.append(realize.iter_values[1])

    structural_walk(loop.body, (SBlockRealize, visit))
    return found[0]


def _columns(body: tirx.Stmt, runs: list) -> tirx.Stmt:
    """`body`, which has the loop over columns of the kernel, with a loop for each run of them."""

    def visit(loop: tirx.For) -> tirx.Stmt:
        if _COLUMN not in loop.annotations:
            return loop
        nests = []
        for columns, span in runs:
            column = tirx.Var(loop.loop_var.name, "int32")
            inner = _pixels(substitute(loop.body, {loop.loop_var: column}), *span)
            nest = tirx.For(column, columns[0], len(columns), loop.kind, inner)
            nests.append(_copy(nest))
        if len(nests) < 2:
            return nests[0] if nests else tirx.Evaluate(0)
        return tirx.SeqStmt(nests)

    return structural_map(body, (tirx.For, visit))


def _pixels(body: tirx.Stmt, first: int, stop: int) -> tirx.Stmt:
    """`body` for rows first <= mi < stop of the tile."""

    def visit(loop: tirx.For) -> tirx.Stmt:
        if _PIXEL not in loop.annotations:
            return loop
        pixel = tirx.Var(loop.loop_var.name, "int32")
        inner = substitute(loop.body, {loop.loop_var: pixel})
        return tirx.For(pixel, first, stop - first, loop.kind, inner)

    return structural_map(body, (tirx.For, visit))


def _copy(stmt: tirx.Stmt) -> tirx.Stmt:
    """`stmt` with loops, blocks and views of its own, on the same buffers."""
    buffers: dict[str, tirx.Var] = {}

    def note(block: SBlock) -> None:
        for region in (*block.reads, *block.writes):
            buffers.setdefault(region.source.name, region.source)

    structural_walk(stmt, (SBlock, note))
    copy = renew_defs(tirx.PrimFunc(list(buffers.values()), stmt))
    back = dict(zip(copy.params, buffers.values(), strict=True))
    return structural_map(copy.body, (tirx.Var, lambda var: back.get(var, var)))
