"""Tiles in a pipeline: results of one are made between the multiplications of the next.

Results read the sums of a tile from memory, where the tile registers were stored, and so wait for
the last multiplication; as many as there are of them fill the reorder buffer meanwhile, and the
multiplications of the next tile cannot start. With the sums of two tiles in memory,

    for t in tiles                                    # both loops over tiles as one
      for step in k                                   # steps of multiplications
        sums[t % 2] += products of the step
        if t > 0: results of some rows of sums[(t - 1) % 2]
    results of the last tile

both kinds of instructions are always at hand. It is for results that take some computing: what is
stored as it is costs less than the additional branches.
"""

import math

from tvm import tirx
from tvm.ir.expr import TensorLoad
from tvm.s_tir import SBlock
from tvm_ffi import structural_map, structural_walk

from lpgen.schedules.common.narrow import TOGETHER
from lpgen.tir.rewrite import substitute, with_fields


def overlap_results(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """`func` with its two loops over register tiles, whose body writes the buffer "tile" in steps
    and reads it, at the end, in the nest of the stage "y", as such a pipeline. It stays as it is
    where there is one tile."""
    root = func.body.block
    (tile,) = (buffer for buffer in root.alloc_buffers if buffer.name == "tile")
    body = structural_map(func.body, (tirx.For, lambda loop: _pipeline(loop, tile)))
    if _reads(body, tile):
        return func
    return func.with_body(structural_map(body, (SBlock, lambda block: _without(block, tile))))


def _pipeline(outer: tirx.For, tile: tirx.Var) -> tirx.Stmt:
    inner = outer.body
    if not isinstance(inner, tirx.For) or not isinstance(inner.body, tirx.SeqStmt):
        return outer
    *compute, results = inner.body.seq
    across = int(inner.extent)
    tiles = int(outer.extent) * across
    if tiles == 1 or not _reads(results, tile):
        return outer
    sums = tirx.decl_buffer((2, *tile.shape[-3:]), tile.dtype, name="sums")
    steps = next(i for i, stmt in enumerate(compute) if isinstance(stmt, tirx.For))
    rows = _rows(results, compute[steps], tile)
    parts = int(results.extent) // rows

    def of_tile(number: tirx.Expr, stmt: tirx.Stmt) -> tirx.Stmt:
        def load(access: TensorLoad) -> tirx.Expr:
            if not access.source.same_as(tile):
                return access
            return sums[(number % 2, *access.indices[-3:])]

        place = {outer.loop_var: number // across, inner.loop_var: number % across}
        return structural_map(substitute(stmt, place), (TensorLoad, load))

    def part(number: tirx.Expr, place: tirx.Expr) -> tirx.Stmt:
        row = tirx.Var("row", "int32")
        body = substitute(results.body, {results.loop_var: place * rows + row})
        return tirx.For(row, 0, rows, results.kind, of_tile(number, body))

    t, last = tirx.Var("t", "int32"), tirx.Var("part", "int32")

    def step_and_part(step: tirx.Stmt, number: tirx.Expr) -> tirx.Stmt:
        before = part(tirx.Max(t - 1, 0), number)
        return tirx.SeqStmt([step, tirx.IfThenElse(tirx.all(t > 0, number < parts), before, None)])

    compute[steps] = _with_steps(compute[steps], step_and_part)
    body = of_tile(t, tirx.SeqStmt(compute))
    return tirx.SeqStmt([
        tirx.AllocBuffer(sums),
        tirx.For(t, 0, tiles, tirx.ForKind.SERIAL, body),
        tirx.For(last, 0, parts, tirx.ForKind.SERIAL, part(tirx.const(tiles - 1, "int32"), last)),
    ])  # fmt: skip


def _rows(results: tirx.For, steps: tirx.For, tile: tirx.Var) -> int:
    """Rows whose results follow a step: as few as will do, but so many that vectors of them are
    narrowed together."""
    total, vectors = int(results.extent), int(tile.shape[-2])
    least = -(-total // math.prod(int(loop.extent) for loop in _loops(steps)))
    unit = TOGETHER // math.gcd(TOGETHER, vectors)
    fitting = (r for r in range(least, total) if total % r == 0 == r % unit)
    return next(fitting, total)


def _loops(stmt: tirx.Stmt) -> list[tirx.For]:
    loops = []
    while isinstance(stmt, tirx.For):
        loops.append(stmt)
        stmt = stmt.body
    return loops


def _with_steps(stmt: tirx.For, make) -> tirx.Stmt:
    """The nest `stmt` with make(its body, the number of the iteration) for its body."""
    loops = _loops(stmt)
    number = tirx.const(0, "int32")
    for loop in loops:
        number = number * int(loop.extent) + loop.loop_var
    body = make(loops[-1].body, number)
    for loop in reversed(loops):
        body = tirx.For(loop.loop_var, 0, loop.extent, loop.kind, body)
    return body


def _reads(stmt: tirx.Stmt, buffer: tirx.Var) -> bool:
    found: list[tirx.Var] = []
    structural_walk(stmt, (TensorLoad, lambda access: found.append(access.source)))
    return any(source.same_as(buffer) for source in found)


def _without(block: SBlock, buffer: tirx.Var) -> SBlock:
    """The block without the buffer among those that it allocates, and among those that it reads."""
    reads = [region for region in block.reads if not region.source.same_as(buffer)]
    rest = [b for b in block.alloc_buffers if not b.same_as(buffer)]
    return with_fields(block, reads=reads, alloc_buffers=rest)
