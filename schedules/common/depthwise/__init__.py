"""The depthwise algorithm: one schedule for every Isa.

for image, block of rows                # parallel
  pad = the block's input with its padding, rows in pairs
  for row tile, column tile, panel      # order=cm: panel first
    tile = ...                          # straight-line, see `windows`
    y = tile (+ compensation)

| knob    | meaning                                                                             |
|---------|-------------------------------------------------------------------------------------|
| step    | the instruction, as in `dot.knobs`; pairs: whole sums in int16                      |
| rows    | rows of outputs in the register tile                                                |
| columns | columns of outputs in the register tile                                             |
| block   | row tiles whose input is copied together; 0: all                                    |
| order   | of the tiles in a block: mc (channels vary fastest) or cm                           |
"""

import math

from tvm.s_tir import Schedule

from lpgen.algorithms import depthwise
from lpgen.algorithms.depthwise import Pairs, Tiling, View
from lpgen.algorithms.kernel import Kernel
from lpgen.algorithms.weights.taps import Window
from lpgen.errors import refuse
from lpgen.isa import Isa
from lpgen.ops import Conv2d, Dense
from lpgen.ops.reach import INT16_MAX
from lpgen.schedules.common import blocks
from lpgen.schedules.common.cuts import cuts, refuses_block
from lpgen.schedules.common.depthwise.tile import WindowStep, use_windows
from lpgen.schedules.common.dot.steps import operands_of
from lpgen.schedules.common.finish import finished
from lpgen.space import Counts, Knobs, Space
from lpgen.tir.threads import parallel_tiles

ROWS = (1, 2, 3, 4, 6, 8)
COLUMNS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14)
BLOCKS = (0, 1, 2, 4, 8, 16)
MOST_STEPS = 512
"""Multiplications of a tile in straight-line code, and so the size of the code."""


def why_not(op: Dense | Conv2d, isa: Isa) -> str | None:
    """Why the algorithm does not serve the operator."""
    if isinstance(op, Dense) or op.groups != op.ic or op.groups == 1:
        return "the groups have more than one input channel each, or there is one group alone"
    if min(_window(op, step, 1, 1).steps for step in steps(op, isa)) > MOST_STEPS // 2:
        kernel = "x".join(map(str, op.kernel))
        return f"kernel={kernel} has too many taps for straight-line code of {MOST_STEPS} steps"
    return None


def _window(op: Conv2d, step: str, rows: int, columns: int) -> Window:
    return View.of(op).window(rows, columns, _kq(step))


def _kq(step: str) -> int:
    return 2 if step == "words" else 4


def steps(op: Conv2d, isa: Isa) -> tuple[str, ...]:
    """The steps that are exact for the operator's formats (see `dot.steps`).

    Without vpdpbusd, whole sums in int16 need every lane's products to fit.
    """
    if isa.has_dot4:
        return ("bytes",)
    operands = operands_of(op, isa, "bytes")
    product = operands.left_max * operands.right_max
    if 2 * product > INT16_MAX:
        return ("words",)
    most = max(_window(op, "pairs", rows, 1).lane_products for rows in ROWS)
    return ("pairs", "bytes", "words") if most * product <= INT16_MAX else ("bytes", "words")


def space(op: Conv2d, isa: Isa) -> Space:
    """All knobs with their choices for `op`."""
    height, width = View.of(op).result
    return Space(
        {
            "step": steps(op, isa),
            "rows": tuple(rows for rows in ROWS if rows <= height),
            "columns": tuple(cuts(width, COLUMNS)),
            "block": tuple(block for block in BLOCKS if block < height),
            "order": ("mc", "cm"),
        },
        lambda knobs: refuses(op, isa, knobs) is None,
    )


def refuses(op: Conv2d, isa: Isa, knobs: Knobs) -> str | None:
    """Why the combination is not in the space."""
    rows, columns = knobs["rows"], knobs["columns"]
    window = _window(op, knobs["step"], rows, columns)
    height = View.of(op).result[0]
    vectors = _kq(knobs["step"]) // 2
    if vectors * (rows * columns + 1) + 2 > isa.registers:
        return f"a tile of {rows} x {columns} x {vectors} vectors exceeds {isa.registers} registers"
    if rows > 1 and window.stride[0] % window.dilation[0]:
        return f"stride={window.stride[0]} is no multiple of dilation={window.dilation[0]}"
    if window.steps * vectors > MOST_STEPS:
        return f"a tile of {window.steps * vectors} steps is more than {MOST_STEPS}"
    return refuses_block("block", knobs["block"], -(-height // rows))


def work(op: Conv2d, isa: Isa, knobs: Knobs) -> Counts:
    """What a kernel with these knobs does (`Template.work`)."""
    view, t = View.of(op), _tiling(op, isa, knobs)
    window = view.window(t.rows, t.columns, t.kq)
    pairs = Pairs(op, view, t, window, "uint8", 0)
    each = {"bytes": 1 if isa.has_dot4 else 3, "pairs": 2, "words": 2}[knobs["step"]]
    outputs = t.rows * t.columns * t.vectors
    size = pairs.count * pairs.width * pairs.panels * t.panel * 2
    copied = pairs.blocks * pairs.count * pairs.width * pairs.panels * t.panel * 2
    tiles = pairs.blocks * t.block * pairs.column_tiles * pairs.panels
    weights = window.count * op.kernel[1] * t.vectors
    # With channels outside, what a tile reads has been there since the last panel, and its weights
    # stay in registers (where products need none of their own), but each time all lines of the
    # result are visited, far apart.
    span, written = size, 0
    if knobs["order"] == "cm" and isa.has_dot4 and outputs + weights + 2 <= isa.registers:
        weights = 0
    if knobs["order"] == "cm" and pairs.panels > 1:
        span = size / pairs.panels
        result = 4 * math.prod(op.y_extents)
        written = result if result > isa.target.l2 * blocks.NEAR else 0
    return {
        "products": tiles * window.steps * each * t.vectors,
        "multiplied": tiles * window.steps * t.vectors * isa.halves,
        "loads": tiles * len(window.columns) * window.count * t.vectors,
        "weights": tiles * weights,
        "spilled": tiles * max(0, outputs - isa.registers * 3 // 4),
        "copy": copied / isa.bits * 8,
        "rows": pairs.blocks * pairs.count * pairs.panels,
        "tiles": tiles,
        "stores": tiles * outputs,
        "l2": copied * (size > isa.target.l1d),
        "l3": copied * (size > isa.target.l2),
        "far": copied * (span > isa.target.l1d),
        "written": written,
    }


def _tiling(op: Conv2d, isa: Isa, knobs: Knobs) -> Tiling:
    height = View.of(op).result[0]
    return Tiling(
        rows=knobs["rows"],
        columns=knobs["columns"],
        lanes=isa.lanes,
        kq=_kq(knobs["step"]),
        block=knobs["block"] or -(-height // knobs["rows"]),
    )


def kernel(op: Conv2d, isa: Isa, knobs: Knobs) -> Kernel:
    """The scheduled kernel. Raises ScheduleRefused for knobs outside of the space."""
    refuse(refuses(op, isa, knobs))
    operands = operands_of(op, isa, knobs["step"])
    tiling = _tiling(op, isa, knobs)
    definition = depthwise.define(op, operands, tiling)
    sch = definition.schedule()
    _schedule(sch, knobs, tiling.block, isa.lanes)
    how = WindowStep(isa, knobs["step"], operands.left)
    func = use_windows(sch.mod["main"], how, definition.lhs)
    return finished(func, definition, isa=isa)


def _schedule(sch: Schedule, knobs: Knobs, tiles_in_block: int, lanes: int) -> None:
    tile, y = sch.get_sblock("tile"), sch.get_sblock("y")
    image, rt, ct, panel, vector, *inner = sch.get_loops(tile)
    block, rt = sch.split(rt, [None, tiles_in_block])
    tiles = (rt, ct, panel) if knobs["order"] == "mc" else (panel, rt, ct)
    sch.reorder(image, block, *tiles, vector, *inner)
    # Tiles are small here: the innermost loop over them is done by one thread.
    outer = parallel_tiles(sch, (image, block, *tiles[:-1]), 3 if knobs["order"] == "cm" else 2)
    sch.compute_at(sch.get_sblock("pad"), outer, preserve_unit_loops=True)
    sch.reverse_compute_at(y, tiles[-1], preserve_unit_loops=True)
    sch.decompose_reduction(tile, vector)
    *_, row, column, channel = sch.get_loops(y)
    vector, lane = sch.split(channel, [None, lanes])
    for loop in (row, column, vector):
        sch.unroll(loop)
    sch.vectorize(lane)
