"""A result that is packed in the tile that makes it: the last step of an epilogue.

A scheduled function stores the values of a tile, one a byte, in the statements behind the sums.
They get a small buffer in place of y, and behind them stands what packs its rows (`ops.packed`):

    codes[tile]: what the stage y stored, less where the tile starts
    y[row, bytes of its columns] = codes, packed

Tiles whose edges fall between the codes of a byte (groups of a few channels) cannot do that alone:
such a function stores all its values, and a pass at the end packs them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from tvm import tirx
from tvm.ir import Range
from tvm.s_tir import SBlock, SBlockRealize
from tvm.script.ir_builder import IRBuilder
from tvm.sym import Analyzer
from tvm.tirx.script import builder as tb
from tvm_ffi import WalkOrder, structural_map, structural_walk

from lpgen.algorithms.lhs.view import rows_loop
from lpgen.algorithms.result.pack_rows import pack_columns, zero_behind
from lpgen.ops import Operator
from lpgen.tir.rewrite import axis_values, substitute, with_fields

BYTE = 8
"""Tiles start at multiples of so many columns: a whole byte in every layout."""


class PackedResult(NamedTuple):
    """func: without its last parameter, which `y` takes the place of: uint8[rows, bytes of a row];
    before, after: statements around its body."""

    func: tirx.PrimFunc
    y: tirx.Var
    before: list[tirx.Stmt]
    after: list[tirx.Stmt]


class _Tile(NamedTuple):
    """The part of y that some statements store: where it starts and how large it is."""

    start: list[tirx.Expr]
    extents: list[int]


def packed_result(func: tirx.PrimFunc, op: Operator) -> PackedResult:
    """`func`, whose last parameter is the result as values, with a packed result."""
    values = func.params[-1]
    *rows, row_bytes = op.y_shape
    y = tirx.decl_buffer((math.prod(rows), row_bytes), "uint8", name="y_packed")
    left: list[bool] = []  # parts that cannot be packed alone

    def visit(seq: tirx.SeqStmt) -> tirx.SeqStmt:
        stmts = list(seq.seq)
        for i, part in enumerate(stmts):
            if not _only_stores(part, values):
                continue
            tile = _tile_of(part, values)
            if tile is None or not _whole_bytes(tile, values.shape):
                left.append(True)
            else:
                stmts[i] = _packed_part(part, values, tile, op, y)
        return tirx.SeqStmt(stmts)

    body = structural_map(func.body, (tirx.SeqStmt, visit), order=WalkOrder.PREORDER)
    if not left and not _stores(body, values):
        return PackedResult(func.with_body(body), y, [], [])
    return _packed_at_the_end(func, values, op, y)


def _stores(stmt: tirx.Stmt, buffer: tirx.Var) -> bool:
    found: list[bool] = []
    structural_walk(
        stmt, (tirx.BufferStore, lambda store: found.append(store.buffer.same_as(buffer)))
    )
    return any(found)


def _only_stores(stmt: tirx.Stmt, buffer: tirx.Var) -> bool:
    """Whether the statement stores to `buffer`, and to nothing else that it does not allocate."""
    own: list[tirx.Var] = []
    stored: list[tirx.Var] = []
    calls: list[tirx.Evaluate] = []
    structural_walk(stmt, (SBlock, lambda block: own.extend(block.alloc_buffers)))
    structural_walk(stmt, (tirx.AllocBuffer, lambda alloc: own.append(alloc.buffer)))
    structural_walk(stmt, (tirx.BufferStore, lambda store: stored.append(store.buffer)))
    structural_walk(stmt, (tirx.Evaluate, calls.append))
    foreign = [b for b in stored if not any(b.same_as(known) for known in (*own, buffer))]
    return not foreign and not calls and any(b.same_as(buffer) for b in stored)


def _tile_of(part: tirx.Stmt, y: tirx.Var) -> _Tile | None:
    """Which part of y the statements store, in terms of the loops around them; None: no telling."""
    loops: list[tirx.For] = []
    axes: dict[tirx.Var, tirx.Expr] = {}
    stores: list[tirx.BufferStore] = []
    structural_walk(part, (tirx.For, loops.append))
    structural_walk(part, (SBlockRealize, lambda r: axes.update(axis_values(r))))
    structural_walk(part, (tirx.BufferStore, stores.append))
    analyzer = Analyzer()
    for loop in loops:
        analyzer.bind(loop.loop_var, Range.from_min_extent(loop.min, loop.extent))
    first = {loop.loop_var: loop.min for loop in loops}
    found: list[list[tuple]] = [[] for _ in y.shape]
    for store in stores:
        if not store.buffer.same_as(y):
            continue
        for places, index in zip(found, store.indices, strict=True):
            base, lanes = _base(index)
            base = substitute(substitute(base, axes), axes)
            start = analyzer.simplify(substitute(base, first))
            reach = analyzer.const_int_bound(analyzer.simplify(base - start))
            places.append((start, reach.min_value, reach.max_value + lanes))
    return _joined(found, analyzer)


def _joined(found: list[list[tuple]], analyzer: Analyzer) -> _Tile | None:
    """The smallest tile with all those parts of each dimension."""
    tile = _Tile([], [])
    for places in found:
        first = places[0][0]
        offsets = [analyzer.simplify(start - first) for start, _, _ in places]
        if not all(isinstance(offset, tirx.IntImm) for offset in offsets):
            return None
        low = min(int(o) + reach[1] for o, reach in zip(offsets, places, strict=True))
        high = max(int(o) + reach[2] for o, reach in zip(offsets, places, strict=True))
        if high - low > 2**24:
            return None
        tile.start.append(analyzer.simplify(first + low))
        tile.extents.append(high - low)
    return tile


def _base(index: tirx.Expr) -> tuple[tirx.Expr, int]:
    return (index.base, int(index.lanes)) if isinstance(index, tirx.Ramp) else (index, 1)


def _whole_bytes(tile: _Tile, shape) -> bool:
    """Whether no other tile stores into the bytes of this one's columns."""
    count, extent, start = int(shape[-1]), tile.extents[-1], tile.start[-1]
    groups = math.prod(int(n) for n in shape[1:-1]) if len(shape) == 3 else 1
    if groups > 1 and (count % BYTE or tile.extents[-2] > 1):
        return False
    if extent >= count:
        return isinstance(start, tirx.IntImm) and int(start) == 0
    return extent % BYTE == 0 and _divides(extent, start)


def _divides(number: int, value: tirx.Expr | int) -> bool:
    rest = Analyzer().simplify(tirx.floormod(value, tirx.const(number, "int32")))
    return isinstance(rest, tirx.IntImm) and int(rest) == 0


def _retargeted(part: tirx.Stmt, y: tirx.Var, new: tirx.Var, place: Callable) -> tirx.Stmt:
    """`part` with what it stores to y at `indices` stored to `new` at place(indices)."""

    def store(node: tirx.BufferStore) -> tirx.BufferStore:
        if not node.buffer.same_as(y):
            return node
        *outer, last = node.indices
        base, lanes = _base(last)
        indices = place([*outer, base])
        if lanes > 1:
            indices[-1] = tirx.Ramp(indices[-1], tirx.const(1, "int32"), lanes)
        return tirx.BufferStore(new, node.value, indices)

    def block(node: SBlock) -> SBlock:
        if not any(region.source.same_as(y) for region in node.writes):
            return node
        return with_fields(node, writes=[])

    part = structural_map(part, (tirx.BufferStore, store))
    return structural_map(part, (SBlock, block))


def _packed_part(
    part: tirx.Stmt, values: tirx.Var, tile: _Tile, op: Operator, y: tirx.Var
) -> tirx.Stmt:
    codes = tirx.decl_buffer(tile.extents, values.dtype, name="codes")
    start = tile.start

    def place(indices: list) -> list:
        return [index - first for index, first in zip(indices, start, strict=True)]

    part = _retargeted(part, values, codes, place)
    shape = [int(extent) for extent in values.shape]
    outer = len(shape) - (2 if len(shape) == 3 else 1)
    with IRBuilder() as builder, tb.sblock("pack"):
        tb.reads([])
        tb.writes([])
        _pack_tile(op, codes, y, tile, shape, outer, [])
    body = tirx.SeqStmt([part, builder.get()])
    block = SBlock([], [], [], "packed", body, None, [codes], [], {})
    return SBlockRealize([], tirx.const(True, "bool"), block)


def _pack_tile(op, codes, y, tile: _Tile, shape: list[int], outer: int, at: list) -> None:
    """Emit the loops over the tile's rows, behind those at `at`, and what packs one of them."""
    axis = len(at)
    if axis < outer:
        with tb.serial(0, tile.extents[axis]) as i:
            inside = Analyzer().simplify(tile.start[axis] + i < shape[axis])
            with tb.If(inside), tb.Then():
                _pack_tile(op, codes, y, tile, shape, outer, [*at, i])
        return
    row = tirx.const(0, "int32")
    for i, place in enumerate(at):
        row = row * shape[i] + tile.start[i] + place
    first, columns, extent = tile.start[-1], shape[-1], min(tile.extents[-1], shape[-1])
    group = tile.start[-2] if len(shape) == 3 else tirx.const(0, "int32")
    channel = Analyzer().simplify(group * columns + first)
    inner = [*at, *[tirx.const(0, "int32")] * (len(shape) - outer - 1)]

    def columns_of(count: int) -> None:
        pack_columns(op, codes, inner, y, row, channel, count)
        with tb.If(channel + count == op.y_extents[-1]), tb.Then():
            zero_behind(op, y, row)

    with tb.If(first + extent <= columns), tb.Then():
        columns_of(extent)
    if columns % extent:
        with tb.If(tirx.all(first < columns, first + extent > columns)), tb.Then():
            columns_of(columns % extent)


def _packed_at_the_end(
    func: tirx.PrimFunc, values: tirx.Var, op: Operator, y: tirx.Var
) -> PackedResult:
    """All values in memory, and a pass behind the function."""
    shape = [int(extent) for extent in values.shape]
    channels = op.y_extents[-1]
    rows = math.prod(op.y_extents[:-1])
    codes = tirx.decl_buffer((rows, channels), values.dtype, name="codes")
    outer = len(shape) - (2 if len(shape) == 3 else 1)

    def place(indices: list) -> list:
        row, channel = tirx.const(0, "int32"), tirx.const(0, "int32")
        for index, extent in zip(indices[:outer], shape[:outer], strict=True):
            row = row * extent + index
        for index, extent in zip(indices[outer:], shape[outer:], strict=True):
            channel = channel * extent + index
        return [row, channel]

    body = _retargeted(func.body, values, codes, place)
    with IRBuilder() as builder, tb.sblock("pack"):
        tb.reads([])
        tb.writes([])
        with rows_loop(op, rows, rows * channels) as row:
            pack_columns(op, codes, [row], y, row, tirx.const(0, "int32"), channels)
            zero_behind(op, y, row)
    return PackedResult(func.with_body(body), y, [tirx.AllocBuffer(codes)], [builder.get()])
