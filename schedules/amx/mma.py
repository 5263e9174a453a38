"""Matrix multiply-accumulate on AMX tile registers: many vector instructions in one.

The definition is that of the dot algorithm with bytes of any signedness. A register tile is `down`
x `across` accumulators of `rows` rows and 16 columns. The rows of one left tile lie a constant
distance apart, so that reading them in place needs tiles that do not cross from one line of output
pixels to the next; where `rows` does not divide a line, the left side is copied (im2col).

| knob    | meaning                                                                                |
|---------|----------------------------------------------------------------------------------------|
| rows    | rows of a tile                                                                         |
| down    | left tiles side by side                                                                |
| across  | right tiles side by side                                                               |
| step    | k steps of 4 bytes in one multiplication: a short run of k fills 8 better than 16; a  |
|         | number that divides the run leaves nothing to fill, and nothing to copy                |
| m_block, n_block, outer, inner, left: see `dot.knobs`; weights of fewer than 8 bits
are unpacked per block of panels.
"""

from dataclasses import replace

from tvm.s_tir import Schedule

from lpgen.algorithms import dot
from lpgen.algorithms.definition import Definition
from lpgen.algorithms.kernel import Kernel
from lpgen.algorithms.lhs.k_split import cut, foldable
from lpgen.algorithms.lhs.view import line
from lpgen.errors import refuse
from lpgen.ops import Conv2d, Dense
from lpgen.schedules.amx import tiles
from lpgen.schedules.amx.pipeline import overlap_results
from lpgen.schedules.common import blocks
from lpgen.schedules.common.finish import finished
from lpgen.schedules.x86.isa import isa_of
from lpgen.space import Counts, Knobs, Space
from lpgen.target import Target

LANES, BYTES = 16, 4
TASKS = 4
"""Fewest blocks of an operator that is worth several threads."""
LARGE = 2**22
"""Multiplications from which an operator is worth several threads."""
ROWS = (16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4)


def why_not(op: Dense | Conv2d, target: Target) -> str | None:
    """Why the template does not serve `op`; None if it does."""
    if op.matrix.m < 2:
        return f"m={op.matrix.m}: a tile register needs several rows to pay"
    if op.matrix.n < 4 and op.matrix.groups > 1:
        return f"groups={op.matrix.groups} leave {op.matrix.n} output channels each"
    return None


def space(op: Dense | Conv2d, target: Target) -> Space:
    """The knobs above."""
    m, n = op.matrix.m, op.matrix.n
    rows = {max((r for r in ROWS if line(op) % r == 0), default=16), min(16, m)}
    return Space(
        {
            "rows": tuple(sorted(rows)),
            "down": (1, 2, 3),
            "across": tuple(a for a in (1, 2, 3, 4, 6) if a == 1 or (a - 1) * LANES < n),
            "step": _steps(op),
            **blocks.knobs(m, n, LANES),
            "left": blocks.left_choices(op),
        },
        lambda knobs: _refuses(op, knobs) is None,
    )


def _steps(op: Dense | Conv2d) -> tuple[int, ...]:
    runs = [cut(op, BYTES, 1, folded).kg for folded in {False, foldable(op)}]
    fitting = {max(s for s in range(1, 17) if kg % s == 0) for kg in runs}
    return tuple(sorted({8, 16, *(s for s in fitting if s > 8 or s in runs)}))


def work(op: Dense | Conv2d, target: Target, knobs: Knobs) -> Counts:
    """What a kernel with these knobs does (`Template.work`)."""
    t, matrix = _tiling(op, knobs), op.matrix
    c = cut(op, BYTES, t.multiple, t.folded)
    tiles = matrix.groups * t.row_tiles * t.panels
    steps = tiles * c.steps / knobs["step"]
    down, across, rows = knobs["down"], knobs["across"], knobs["rows"]
    unpacked = op.weight.bits < 8
    sweeps = t.row_tiles / (knobs["m_block"] or t.row_tiles) if knobs["outer"] == "mn" else 1
    panel = across * LANES * c.steps * BYTES
    places = matrix.groups * t.panels * panel / 64
    return {
        # A multiplication takes a cycle for each row, and no fewer than 16 without overlap.
        "products": steps * down * across * rows,
        "loads": steps * (down * rows + across * knobs["step"]),
        "stall": steps * max(0, 4 - down * across) * 16,
        "expand": places * sweeps * unpacked,
        "copy": matrix.groups * t.row_tiles * t.rows * c.steps * BYTES * t.copied,
        "fold": matrix.m * matrix.k * t.folded,
        "tiles": tiles,
        "stores": tiles * t.rows * across,
        **blocks.traffic(op, knobs, t.row_tiles, t.panels, t.rows * matrix.k, panel, target),
    }


def kernel(op: Dense | Conv2d, target: Target, knobs: Knobs) -> Kernel:
    """The scheduled kernel. Raises ScheduleRefused for knobs outside of the space."""
    refuse(_refuses(op, knobs))
    isa = isa_of(target)
    tiling = replace(_tiling(op, knobs), lookup=isa.lookup_in_loop(LANES * BYTES))
    operands = dot.plain_operands(op)
    definition = dot.define(op, operands, tiling)
    sch = definition.schedule()
    _schedule(sch, knobs, definition, dot.is_unpacked(definition.weights, operands))
    step = tiles.TileStep(
        down=knobs["down"],
        across=knobs["across"],
        rows=knobs["rows"],
        groups=knobs["step"],
        left_stride=_left_stride(definition, knobs),
        right_stride=knobs["across"] * LANES * BYTES,
        signs=(operands.left, operands.right),
    )
    func = tiles.use_tiles(sch.mod["main"], step)
    if op.epilogue:
        func = overlap_results(func)
    return finished(func, definition, isa=isa, unrolled=False)


def _left_stride(definition: Definition, knobs: Knobs) -> int:
    if knobs["left"] == "copied":
        return knobs["step"] * BYTES
    return definition.lhs.row_distance


def _tiling(op: Dense | Conv2d, knobs: Knobs) -> dot.Tiling:
    rows = knobs["rows"] * knobs["down"]
    return dot.Tiling(
        rows=rows,
        vectors=knobs["across"],
        lanes=LANES,
        kq=BYTES,
        **blocks.counts(op, rows, knobs["across"] * LANES, knobs),
        copied=knobs["left"] == "copied",
        folded=knobs["left"] == "folded",
        multiple=knobs["step"],
        together=knobs["rows"] if knobs["left"] != "copied" else 1,
        pack_steps=knobs["step"],
    )


def _refuses(op: Dense | Conv2d, knobs: Knobs) -> str | None:
    down, across, rows = knobs["down"], knobs["across"], knobs["rows"]
    if down * across + down + 1 > tiles.TILES:
        return f"{down} x {across} accumulators exceed {tiles.TILES} tile registers"
    if knobs["left"] != "copied" and line(op) % rows:
        return f"rows={rows} does not divide a line of {line(op)} output pixels"
    if down > 1 and (down - 1) * rows >= op.matrix.m:
        return f"down={down}: there are only {op.matrix.m} rows"
    if across > 1 and (across - 1) * LANES >= op.matrix.n:
        return f"across={across}: there are only {op.matrix.n} columns"
    k_split = cut(op, BYTES, 1, knobs["left"] == "folded")
    step = knobs["step"]
    if step == 8 and k_split.kg % 16 in (0, *range(9, 16)):
        return f"step=8 saves nothing for {k_split.kg} k steps"
    if step not in (8, 16) and k_split.kg % step:
        return f"step={step} does not divide {k_split.kg} k steps"
    return blocks.refuses(op, rows * down, across * LANES, knobs) or _too_few_blocks(op, knobs)


def _too_few_blocks(op: Dense | Conv2d, knobs: Knobs) -> str | None:
    """Tiles in a pipeline (`overlap`) are shared among threads by whole blocks."""
    sizes = _tiling(op, knobs)
    tiles = sizes.row_tiles * sizes.panels
    block = (knobs["m_block"] or sizes.row_tiles) * (knobs["n_block"] or sizes.panels)
    tasks = op.matrix.groups * tiles // block
    if tasks < TASKS <= tiles // 2 and op.macs >= LARGE:
        return f"{tasks} blocks are too few to share among threads"
    return None


def _schedule(sch: Schedule, knobs: Knobs, definition: Definition, unpacked: bool) -> None:
    tile = sch.get_sblock("tile")
    copied = knobs["left"] == "copied"
    order = blocks.order_blocks(sch, tile, knobs, copied=copied, panels=unpacked)
    r, s, k4, kt = order.reduction
    down, row = sch.split(order.row, [knobs["down"], None])
    k_step, group = sch.split(k4, [None, knobs["step"]])
    sch.reorder(r, s, k_step, down, order.vector, row, order.lane, group, kt)
    if copied:
        blocks.place_copy(sch, order)
    if unpacked:
        blocks.unpack_panel(sch, order, definition.weights.fields)
    sch.reverse_compute_at(sch.get_sblock("y"), order.tile, preserve_unit_loops=True)
    sch.decompose_reduction(tile, r)
    blocks.copy_out(sch, order, LANES, unroll_rows=False)
