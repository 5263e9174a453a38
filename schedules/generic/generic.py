"""Plain loops over int32 lanes that LLVM vectorizes for any CPU: the fallback of every operator.

The definition is that of the dot algorithm with one step of k at a time; nothing in it depends on
an instruction. A depthwise convolution runs its lanes across the groups.
"""

from tvm.s_tir import Schedule

from lpgen.algorithms import dot
from lpgen.algorithms.kernel import Kernel
from lpgen.errors import refuse
from lpgen.ops import Conv2d, Dense
from lpgen.schedules.common.cuts import refuses_block, rounded
from lpgen.schedules.common.finish import finished
from lpgen.schedules.common.heights import assembled, two
from lpgen.space import Counts, Knobs, Space
from lpgen.target import Target
from lpgen.tir.threads import end_with_rows, parallel_tiles

RANGED = True


def why_not(op: Dense | Conv2d, target: Target) -> str | None:
    """None where the template serves the operator: every one with a fixed number of rows."""
    if op.range and op.outliers:
        return "its outliers are summed for one number of rows"
    return None


def space(op: Dense | Conv2d, target: Target) -> Space:
    """rows x lanes: the tile of int32 sums; n_block: panels whose weights are unpacked together, 0
    for all; expand: weights of fewer than 8 bits become bytes per panel or at each use.
    """
    columns = _columns(op)
    lanes = [lanes for lanes in (8, 16, 32) if lanes < 2 * columns] or [8]
    return Space(
        {
            "rows": tuple(rows for rows in (1, 2, 4, 8) if rows <= op.matrix.m),
            "lanes": tuple(lanes),
            "n_block": tuple(block for block in (0, 1, 4) if block * 8 < columns),
            "expand": ("panel", "use") if op.weight.bits < 8 else ("none",),
        },
        lambda knobs: _refuses(op, knobs) is None,
    )


def work(op: Dense | Conv2d, target: Target, knobs: Knobs) -> Counts:
    """What a kernel with these knobs does (`Template.work`), in steps of 8 lanes."""
    t, matrix = _tiling(op, knobs), op.matrix
    columns = t.panels * t.lanes / 8
    groups = 1 if t.across_groups else matrix.groups
    steps = groups * t.row_tiles * columns * matrix.k
    return {
        "products": steps * t.rows,
        "loads": steps,
        "unpack": steps * (knobs["expand"] == "use"),
        "stores": groups * t.row_tiles * t.rows * columns,
    }


def kernel(op: Dense | Conv2d, target: Target, knobs: Knobs) -> Kernel:
    """The scheduled kernel. Raises ScheduleRefused for knobs outside of the space."""
    refuse(_refuses(op, knobs))
    if op.range:
        plan = two(op.range, knobs["rows"])
        return assembled(op, plan, lambda kind, own: _body(own, knobs | {"rows": kind.height}))
    return _body(op, knobs)


def _body(op: Dense | Conv2d, knobs: Knobs) -> Kernel:
    operands = dot.plain_operands(op)
    definition = dot.define(op, operands, _tiling(op, knobs))
    sch = definition.schedule()
    _schedule(sch, knobs, dot.is_unpacked(definition.weights, operands), bool(op.range))
    return finished(sch.mod["main"], definition)


def _across_groups(op: Dense | Conv2d) -> bool:
    return op.matrix.groups > 1 and op.matrix.n == 1


def _columns(op: Dense | Conv2d) -> int:
    return op.matrix.groups if _across_groups(op) else op.matrix.n


def _tiling(op: Dense | Conv2d, knobs: Knobs) -> dot.Tiling:
    panels = -(-_columns(op) // knobs["lanes"])
    return dot.Tiling(
        rows=knobs["rows"],
        vectors=1,
        lanes=knobs["lanes"],
        kq=1,
        row_tiles=-(-op.matrix.m // knobs["rows"]),
        panels=rounded(panels, knobs["n_block"] or 1),
        across_groups=_across_groups(op),
    )


def _refuses(op: Dense | Conv2d, knobs: Knobs) -> str | None:
    return refuses_block("n_block", knobs["n_block"], -(-_columns(op) // knobs["lanes"]))


def _schedule(sch: Schedule, knobs: Knobs, unpacked: bool, ranged: bool) -> None:
    tile, y = sch.get_sblock("tile"), sch.get_sblock("y")
    if unpacked and knobs["expand"] == "use":
        sch.compute_inline(sch.get_sblock("unpack"))
    g, mo, no, mi, nv, nl, r, s, k4, kt = sch.get_loops(tile)
    block, no = sch.split(no, [None, knobs["n_block"] or sch.get(no).extent])
    sch.reorder(g, block, mo, no, r, s, k4, kt, mi, nv, nl)
    panels = unpacked and knobs["expand"] == "panel"
    outer = parallel_tiles(sch, (g, block, mo, no), 2 if panels or ranged else 3)
    if ranged:
        end_with_rows(sch, mo, knobs["rows"])
    if panels:
        unpack = sch.get_sblock("unpack")
        sch.compute_at(unpack, outer, preserve_unit_loops=True)
        sch.vectorize(sch.get_loops(unpack)[-2])
    sch.reverse_compute_at(y, no, preserve_unit_loops=True)
    # Before the reduction is decomposed: afterwards a lane would depend on what it reads.
    sch.unroll(mi)
    sch.vectorize(nl)
    sch.decompose_reduction(tile, r)
    *_, column = sch.get_loops(y)
    _, lane = sch.split(column, [None, knobs["lanes"]])
    sch.vectorize(lane)
