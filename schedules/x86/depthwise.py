"""The depthwise algorithm on x86: one schedule for SSE4, AVX2, AVX-512BW and AVX-512VNNI.

for image, block of rows                # parallel
  pad = the block's input with its padding
  for row tile, column tile, panel      # order=cm: panel first
    tile = ...                          # straight-line, see `windows`
    y = tile (+ correction)

| knob    | meaning                                                                             |
|---------|-------------------------------------------------------------------------------------|
| step    | the instruction, as in `dot_space`; pairs: whole sums in int16                      |
| along   | the axis of the taps that share a lane: rows or columns                             |
| rows    | rows of outputs in the register tile                                                |
| columns | columns of outputs in the register tile                                             |
| block   | row tiles whose input is copied together; 0: all                                    |
| order   | of the tiles in a block: mc (channels vary fastest) or cm                           |
"""

from tvm import IRModule, te
from tvm.s_tir import Schedule

from lpgen.algorithms import depthwise
from lpgen.algorithms.depthwise import Tiling, Window
from lpgen.algorithms.entry import kernel_entry
from lpgen.algorithms.kernel import Kernel
from lpgen.algorithms.tails import peel_partial_vectors
from lpgen.errors import ScheduleRefused
from lpgen.ops import Conv2d, Dense
from lpgen.schedules.x86.dot_space import INT16_MAX, operands_of
from lpgen.schedules.x86.dot_template import DotTemplate
from lpgen.schedules.x86.isa import Isa
from lpgen.schedules.x86.windows import WindowStep, use_windows
from lpgen.space import Knobs, Space

ROWS = (1, 2, 3, 4)
COLUMNS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16)
BLOCKS = (0, 1, 2, 4, 8, 16)
MOST_STEPS = 512
"""Multiplications of a tile in straight-line code, and so the size of the code."""

TASKS = 4
LARGE = 2**22  # multiplications from which an operator is worth several threads


def unfit(op: Dense | Conv2d, isa: Isa) -> str | None:
    """Why the algorithm does not serve the operator."""
    if isinstance(op, Dense) or op.groups != op.ic or op.groups == 1:
        return "the groups have more than one input channel each, or there is one group alone"
    if min(_window(op, step, along, 1, 1).steps for step in steps(op, isa) for along in AXES) > (
        MOST_STEPS
    ):
        kernel = "x".join(map(str, op.kernel))
        return f"kernel={kernel} has too many taps for straight-line code of {MOST_STEPS} steps"
    return None


AXES = ("rows", "columns")


def _window(op: Conv2d, step: str, along: str, rows: int, columns: int) -> Window:
    return Window.of(op, rows, columns, 2 if step == "words" else 4, along)


def steps(op: Conv2d, isa: Isa) -> tuple[str, ...]:
    """The steps that are exact for the operator's formats (see `dot_space.steps`).

    Without vpdpbusd, whole sums in int16 need every lane's products to fit.
    """
    if isa.dot:
        return ("bytes",)
    operands = operands_of(op, "bytes")
    product = operands.left_max * operands.right_max
    if 2 * product > INT16_MAX:
        return ("words",)
    most = max(_window(op, "pairs", along, 4, 1).lane_products for along in AXES)
    return ("pairs", "bytes", "words") if most * product <= INT16_MAX else ("bytes", "words")


def space(op: Conv2d, isa: Isa) -> Space:
    """All knobs with their choices for `op`."""
    return Space(
        {
            "step": steps(op, isa),
            "along": AXES,
            "rows": tuple(rows for rows in ROWS if rows <= op.oh),
            "columns": tuple(_cuts(op.ow)),
            "block": tuple(block for block in BLOCKS if block < op.oh),
            "order": ("mc", "cm"),
        },
        lambda knobs: refusal(op, isa, knobs) is None,
    )


def _cuts(size: int):
    """Tile widths that waste little of the last tile, among them the even cuts of a short row."""
    even = {-(-size // tiles) for tiles in range(1, 5)}
    for columns in sorted({*COLUMNS, *(cut for cut in even if cut <= COLUMNS[-1])}):
        if columns in even or (
            columns < size and -(-size // columns) * columns - size <= size // 8
        ):
            yield columns


def refusal(op: Conv2d, isa: Isa, knobs: Knobs) -> str | None:
    """Why the combination is not in the space."""
    rows, columns = knobs["rows"], knobs["columns"]
    window = _window(op, knobs["step"], knobs["along"], rows, columns)
    if rows * columns + 3 > isa.registers:
        return f"a tile of {rows} x {columns} vectors exceeds {isa.registers} registers"
    if window.tile_a > 1 and window.stride_a % window.dilation_a:
        return f"stride={window.stride_a} is no multiple of dilation={window.dilation_a}"
    if window.steps > MOST_STEPS:
        return f"a tile of {window.steps} steps is more than {MOST_STEPS}"
    tiles = -(-op.oh // rows)
    block = knobs["block"]
    if block and (block >= tiles or -(-tiles // block) * block - tiles > tiles // 8):
        return f"block={block} does not divide {tiles} row tiles well"
    tasks = op.n * (-(-tiles // block) if block else 1)
    if tasks < TASKS <= tiles // 2 and op.macs >= LARGE:
        return f"{tasks} blocks are too few to share among threads"
    return None


def default(op: Conv2d, isa: Isa) -> Knobs:
    """A good first guess: the fewest instructions for an output, a block in half of a small L1."""
    points = list(space(op, isa).enumerate())
    return min(points, key=lambda point: _cost(op, isa, point))


def _cost(op: Conv2d, isa: Isa, knobs: Knobs) -> tuple:
    rows, columns = knobs["rows"], knobs["columns"]
    window = _window(op, knobs["step"], knobs["along"], rows, columns)
    made = len(_places(window)) * window.groups
    each = {"bytes": 1 if isa.dot else 3, "pairs": 2, "words": 2}[knobs["step"]]
    work = made * 5 + window.steps * each + rows * columns * 2
    tiles = -(-op.oh // rows) * -(-op.ow // columns)
    block = knobs["block"] or -(-op.oh // rows)
    source = depthwise.Source(op, _tiling(op, isa, knobs), "uint8", 0)
    size = source.height * source.pitch
    again = source.height * source.blocks / (op.padded[0] + 1)
    return (round(work * tiles * (1 + again / 8), -1), size > 2**15, -block, knobs["order"])


def _places(window: Window) -> set[int]:
    """Places along b that a tile reads."""
    return {
        output * window.stride_b + tap * window.dilation_b
        for output in range(window.tile_b)
        for tap in range(window.taps_b)
    }


def _tiling(op: Conv2d, isa: Isa, knobs: Knobs) -> Tiling:
    return Tiling(
        rows=knobs["rows"],
        columns=knobs["columns"],
        lanes=isa.lanes,
        kq=2 if knobs["step"] == "words" else 4,
        along=knobs["along"],
        block=knobs["block"] or -(-op.oh // knobs["rows"]),
    )


def kernel(op: Conv2d, isa: Isa, knobs: Knobs) -> Kernel:
    """The scheduled kernel. Raises ScheduleRefused for knobs outside of the space."""
    reason = refusal(op, isa, knobs)
    if reason:
        raise ScheduleRefused(reason)
    operands = operands_of(op, knobs["step"])
    tiling = _tiling(op, isa, knobs)
    definition = depthwise.define(op, operands, tiling)
    sch = Schedule(IRModule({"main": te.create_prim_func(definition.args)}))
    _schedule(sch, knobs, tiling.block, isa.lanes)
    how = WindowStep(isa, definition.window, knobs["step"], operands.left)
    func = use_windows(sch.mod["main"], how, definition.source)
    func = peel_partial_vectors(func)
    sections, prologue = definition.layout.sections, definition.prologue
    return Kernel(op, kernel_entry(func, op, sections, prologue), definition.layout)


def _schedule(sch: Schedule, knobs: Knobs, tiles_in_block: int, lanes: int) -> None:
    tile, y = sch.get_sblock("tile"), sch.get_sblock("y")
    image, rt, ct, cb, ia, ib, nl, group, s, kt = sch.get_loops(tile)
    block, rt = sch.split(rt, [None, tiles_in_block])
    tiles = (rt, ct, cb) if knobs["order"] == "mc" else (cb, rt, ct)
    sch.reorder(image, block, *tiles, ia, ib, nl, group, s, kt)
    outer = sch.fuse(image, block)
    sch.parallel(outer)
    sch.compute_at(sch.get_sblock("pad"), outer, preserve_unit_loops=True)
    sch.reverse_compute_at(y, tiles[-1], preserve_unit_loops=True)
    sch.decompose_reduction(tile, ia)
    *_, row, column, channel = sch.get_loops(y)
    _, lane = sch.split(channel, [None, lanes])
    sch.unroll(row)
    sch.unroll(column)
    sch.vectorize(lane)


def depthwise_template(isa: Isa) -> DotTemplate:
    """The template on `isa`: the content of `<family>/depthwise.py`."""
    return DotTemplate(
        applies=lambda op, target: unfit(op, isa),
        space=lambda op, target: space(op, isa),
        default=lambda op, target: default(op, isa),
        kernel=lambda op, target, knobs: kernel(op, isa, knobs),
    )
