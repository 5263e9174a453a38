"""Products with scales of groups of k as plain loops that LLVM vectorizes for any CPU."""

from tvm.s_tir import Schedule

from lpgen.algorithms import blockwise_dot
from lpgen.algorithms.kernel import Kernel
from lpgen.ops import Conv2d, Dense
from lpgen.schedules.common.finish import finished
from lpgen.schedules.common.heights import assembled, two
from lpgen.space import Counts, Knobs, Space
from lpgen.target import Target
from lpgen.tir.threads import end_with_rows, parallel_tiles

RANGED = True
SERVES = ("dense", "scale=groupN", "input=f32:groupN")


def why_not(op: Dense | Conv2d, target: Target) -> str | None:
    """None for every operator with such scales."""
    if op.sum_group:
        return None
    return "no scale=groupN or input=f32:groupN: the sums over all of k are wanted"


def space(op: Dense, target: Target) -> Space:
    """rows x lanes: the tile of sums."""
    lanes = [lanes for lanes in (8, 16, 32) if lanes < 2 * op.n] or [8]
    rows = tuple(rows for rows in (1, 2, 4, 8) if rows <= op.matrix.m)
    return Space({"rows": rows, "lanes": tuple(lanes)})


def work(op: Dense, target: Target, knobs: Knobs) -> Counts:
    """What a kernel with these knobs does (`Template.work`), in steps of 8 lanes."""
    rows, lanes = knobs["rows"], knobs["lanes"]
    tiles = -(-op.matrix.m // rows) * -(-op.n // lanes) * lanes / 8
    return {"products": tiles * rows * op.k, "loads": tiles * op.k, "stores": tiles * rows}


def kernel(op: Dense, target: Target, knobs: Knobs) -> Kernel:
    """The scheduled kernel."""
    rows, lanes = knobs["rows"], knobs["lanes"]
    if op.range:
        plan = two(op.range, rows)
        return assembled(op, plan, lambda kind, own: _body(own, kind.height, lanes))
    return _body(op, rows, lanes)


def _body(op: Dense, rows: int, lanes: int) -> Kernel:
    tiling = blockwise_dot.Tiling(
        rows=rows,
        vectors=1,
        lanes=lanes,
        kq=1,
        row_tiles=-(-op.matrix.m // rows),
        panels=-(-op.n // lanes),
    )
    definition = blockwise_dot.define(op, blockwise_dot.plain_operands(op), tiling)
    sch = definition.schedule()
    _schedule(sch, lanes, bool(op.range))
    return finished(sch.mod["main"], definition)


def _schedule(sch: Schedule, lanes: int, ranged: bool) -> None:
    tile, partial, y = (sch.get_sblock(name) for name in ("tile", "partial", "y"))
    g, mo, no, mi, nv, nl, r, s, j = sch.get_loops(tile)
    sch.reorder(g, no, mo, r, s, j, mi, nv, nl)
    parallel_tiles(sch, (g, no, mo), 2)
    if ranged:
        end_with_rows(sch, mo, int(sch.get(mi).extent))
    sch.compute_at(partial, j, preserve_unit_loops=True)
    *_, row, vector, lane, step, kt = sch.get_loops(partial)
    sch.reorder(step, kt, row, vector, lane)
    sch.unroll(row)
    sch.vectorize(lane)
    sch.decompose_reduction(partial, step)
    sch.reverse_compute_at(y, mo, preserve_unit_loops=True)
    sch.unroll(mi)
    sch.vectorize(nl)
    sch.decompose_reduction(tile, r)
    *_, column = sch.get_loops(y)
    _, lane = sch.split(column, [None, lanes])
    sch.vectorize(lane)
