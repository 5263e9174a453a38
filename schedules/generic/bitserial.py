"""The bitserial algorithm as plain loops over int32 lanes: LLVM's own population count for any CPU.

Worth its while where that count is an instruction and the bits are few; otherwise a model for the
schedules with instructions of their own.
"""

from tvm.s_tir import Schedule

from lpgen.algorithms import bitserial
from lpgen.algorithms.kernel import Kernel
from lpgen.ops import Conv2d, Dense
from lpgen.schedules.common.finish import finished
from lpgen.space import Counts, Knobs, Space
from lpgen.target import Target
from lpgen.tir.threads import parallel_tiles

WORD = 32

COUNTING = 32
"""Instructions for the AND of eight words, their population counts and the sum, where a vector has
four words and no instruction counts bits."""


def why_not(op: Dense | Conv2d, target: Target) -> str | None:
    """Why the algorithm does not serve the operator, None if it does."""
    return bitserial.why_not(op)


def space(op: Dense | Conv2d, target: Target) -> Space:
    """rows x lanes: the tile of int32 sums; left: planes packed as the input lies, or by tile."""
    lanes = tuple(lanes for lanes in (8, 16) if lanes < 2 * op.matrix.n) or (8,)
    rows = tuple(rows for rows in (1, 2, 4) if rows <= op.matrix.m)
    return Space({"rows": rows, "lanes": lanes, "left": ("direct", "copied")})


def work(op: Dense | Conv2d, target: Target, knobs: Knobs) -> Counts:
    """What a kernel with these knobs does (`Template.work`), in steps of 8 lanes."""
    rows, lanes, matrix = knobs["rows"], knobs["lanes"], op.matrix
    planes = bitserial.planes_of_left(op)[0] * op.weight.bits
    words = bitserial.k_split_of(op, WORD, knobs["left"]).steps
    tiles = matrix.groups * -(-matrix.m // rows) * -(-matrix.n // lanes) * lanes / 8
    return {
        "products": tiles * words * rows * planes * COUNTING,
        "loads": tiles * words * op.weight.bits,
        "stores": tiles * rows,
        "copy": matrix.m * matrix.k * (knobs["left"] == "copied"),
    }


def kernel(op: Dense | Conv2d, target: Target, knobs: Knobs) -> Kernel:
    """The scheduled kernel."""
    rows, lanes = knobs["rows"], knobs["lanes"]
    tiling = bitserial.Tiling(
        rows=rows,
        vectors=1,
        lanes=lanes,
        row_tiles=-(-op.matrix.m // rows),
        panels=-(-op.matrix.n // lanes),
        word=WORD,
        left=knobs["left"],
    )
    definition = bitserial.define(op, tiling)
    sch = definition.schedule()
    _schedule(sch, knobs)
    return finished(sch.mod["main"], definition)


def _schedule(sch: Schedule, knobs: Knobs) -> None:
    tile, y = sch.get_sblock("tile"), sch.get_sblock("y")
    g, mo, no, mi, nv, nl, *k = sch.get_loops(tile)
    sch.reorder(g, mo, no, *k, mi, nv, nl)
    outer = parallel_tiles(sch, (g, mo, no), 2)
    if knobs["left"] == "copied":
        sch.compute_at(sch.get_sblock("encode"), outer, preserve_unit_loops=True)
    sch.reverse_compute_at(y, no, preserve_unit_loops=True)
    # Before the reduction is decomposed: afterwards a lane would depend on what it reads.
    sch.unroll(mi)
    sch.vectorize(nl)
    sch.decompose_reduction(tile, k[0])
    *_, column = sch.get_loops(y)
    _, lane = sch.split(column, [None, knobs["lanes"]])
    sch.vectorize(lane)
