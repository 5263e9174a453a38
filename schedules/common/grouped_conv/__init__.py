"""The grouped algorithm: one schedule for every Isa.

for image, block of row tiles           # parallel
  pad = the block's input with its padding
  for row tile, column tile, panel      # order=cm: panel first
    tile = ...                          # straight-line, see `grouped_tile`
    y = tile (+ compensation)

| knob    | meaning                                                                             |
|---------|-------------------------------------------------------------------------------------|
| step    | the instruction, as in `dot.knobs`; pairs: sums of a piece of the code in int16     |
| rows    | rows of outputs in the register tile                                                |
| columns | columns of outputs in the register tile                                             |
| vectors | vectors of output channels in the register tile: of a group with several, or as     |
|         | many as hold whole groups without empty lanes                                       |
| block   | row tiles whose input is copied together; 0: all, and copied before                 |
| order   | of the tiles in a block: mc (channels vary fastest) or cm                           |
"""

from __future__ import annotations

from tvm.s_tir import Schedule

from lpgen.algorithms import grouped_conv
from lpgen.algorithms.grouped_conv import Tiling
from lpgen.algorithms.kernel import Kernel
from lpgen.algorithms.weights.lanes import Lanes
from lpgen.errors import refuse
from lpgen.isa import Isa
from lpgen.ops import Conv2d, Dense
from lpgen.ops.reach import INT16_MAX
from lpgen.schedules.common.cuts import cuts, refuses_block
from lpgen.schedules.common.dot.steps import operands_of
from lpgen.schedules.common.finish import finished
from lpgen.schedules.common.grouped_conv.tile import Pieces, use_windows
from lpgen.space import Counts, Knobs, Space
from lpgen.tir.threads import parallel_tiles

ROWS = (1, 2, 3, 4, 5, 6, 7, 8)
COLUMNS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 28)
VECTORS = (1, 2, 3, 4)
BLOCKS = (0, 1, 2, 4, 8, 16)
MOST_OUTS = 128
"""Output channels of a group beyond which tiles of several vectors serve as well."""

MOST_DENSE = 3
"""Vectors without empty lanes, at most, in a tile of groups smaller than one: each has a window of
its own, which takes a permutation. Those of larger groups are broadcasts."""

STRAIGHT = 384
"""Multiplications up to which a tile is straight-line code; loops take what is beyond."""


def why_not(op: Dense | Conv2d, isa: Isa) -> str | None:
    """Why the algorithm does not serve the operator."""
    if isinstance(op, Dense) or op.groups == 1:
        return "there is one group alone"
    if op.groups == op.ic:
        return "the groups have one input channel each: a depthwise kernel fits"
    lanes = _lanes(op, isa, "bytes")
    if lanes.outs > MOST_OUTS:
        return f"{lanes.outs} output channels of a group fill vectors by themselves"
    full = -(-lanes.outs // isa.lanes)
    if lanes.outs > isa.lanes and lanes.width * full < lanes.outs:
        empty = f"{isa.lanes - lanes.width} of {isa.lanes} lanes empty"
        return f"{lanes.outs} output channels of a group leave {empty}, more than dot does"
    if any(_lanes(op, isa, step).width == 1 for step in steps(op, isa)):
        return f"{lanes.ins} input channels of a group with one output channel are too far apart"
    if op.kernel[1] > STRAIGHT // 2:
        return f"kernel={'x'.join(map(str, op.kernel))} is too wide for straight-line code"
    return None


def _lanes(op: Conv2d, isa: Isa, step: str, vectors: int = 1) -> Lanes:
    return grouped_conv.lanes_of(op, isa.lanes, _kq(step), vectors)


def _dense(op: Conv2d, isa: Isa) -> tuple[int, ...]:
    """The vectors of a tile without empty lanes; none where it has no fewer of them in all."""
    lanes = _lanes(op, isa, "bytes")
    each = [_lanes(op, isa, step, lanes.period) for step in steps(op, isa)]
    many = lanes.period > (MOST_DENSE if lanes.outs < isa.lanes else max(ROWS))
    if many or not all(dense.dense and dense.near for dense in each):
        return ()
    fewer = each[0].panels(lanes.period) * lanes.period < lanes.panels(1)
    return (lanes.period,) if fewer else ()


def _kq(step: str) -> int:
    return 2 if step == "words" else 4


def pieces(op: Conv2d, isa: Isa, knobs: Knobs) -> Pieces | None:
    """The pieces of straight-line code that a tile consists of, as long as they may be; None where
    even the shortest are too long, or sum too much in int16."""
    steps = -(-(op.ic // op.groups) // _kq(knobs["step"]))
    each = knobs["rows"] * knobs["columns"] * knobs["vectors"]
    most = INT16_MAX // (2 * _product(op, isa)) if knobs["step"] == "pairs" else STRAIGHT
    for piece in (Pieces(steps, op.kernel[0]), Pieces(1, op.kernel[0]), Pieces(1, 1)):
        products = piece.steps * piece.rows * op.kernel[1]
        if products <= most and products * each <= STRAIGHT:
            return piece if knobs["rows"] == 1 or piece.rows == op.kernel[0] else None
    return None


def steps(op: Conv2d, isa: Isa) -> tuple[str, ...]:
    """The steps that are exact for the operator's formats (see `dot.steps`).

    Without vpdpbusd, sums of one kernel row in int16 have to fit.
    """
    if isa.has_dot4:
        return ("bytes",)
    product = _product(op, isa)
    if 2 * product > INT16_MAX:
        return ("words",)
    return ("pairs", "bytes") if 2 * op.kernel[1] * product <= INT16_MAX else ("bytes",)


def _product(op: Conv2d, isa: Isa) -> int:
    operands = operands_of(op, isa, "bytes")
    return operands.left_max * operands.right_max


def space(op: Conv2d, isa: Isa) -> Space:
    """All knobs with their choices for `op`."""
    lanes = _lanes(op, isa, "bytes")
    vectors = max(1, lanes.outs // lanes.width)
    return Space(
        {
            "step": steps(op, isa),
            "rows": tuple(rows for rows in ROWS if rows <= op.oh),
            "columns": tuple(cuts(op.ow, COLUMNS)),
            "vectors": (*(v for v in VECTORS if vectors % v == 0), *_dense(op, isa)),
            "block": tuple(block for block in BLOCKS if block < op.oh),
            "order": ("mc", "cm"),
        },
        lambda knobs: refuses(op, isa, knobs) is None,
    )


def refuses(op: Conv2d, isa: Isa, knobs: Knobs) -> str | None:
    """Why the combination is not in the space."""
    rows, columns, vectors = knobs["rows"], knobs["columns"], knobs["vectors"]
    # A window, its order, and for steps of several instructions the constant and a temporary.
    extra = 2 if isa.has_dot4 else 3
    if rows * columns * vectors + extra > isa.registers:
        return f"a tile of {rows} x {columns} x {vectors} vectors exceeds {isa.registers} registers"
    if (op.oh % rows or op.ow % columns) and vectors in _dense(op, isa):
        # LLVM moves the products of what may be outside behind the branch, and spills windows.
        return f"tiles of {rows} x {columns} are partly outside of {op.oh} x {op.ow}"
    if pieces(op, isa, knobs) is None:
        tile = f"a tile of {rows} x {columns} x {vectors} vectors"
        return f"{tile} is too long for straight-line code, or for sums in int16"
    return refuses_block("block", knobs["block"], -(-op.oh // rows))


def work(op: Conv2d, isa: Isa, knobs: Knobs) -> Counts:
    """What a kernel with these knobs does (`Template.work`)."""
    t, lanes = _tiling(op, isa, knobs), _lanes(op, isa, knobs["step"], knobs["vectors"])
    rows = grouped_conv.Rows(op, t, lanes, "uint8", 0)
    (kh, kw), (down, across), (below, beside) = op.kernel, op.stride, op.dilation
    lines = {i * down + k * below for i in range(t.rows) for k in range(kh)}
    places = {j * across + s * beside for j in range(t.columns) for s in range(kw)}
    alone = t.rows == 1  # rows of the kernel one after the other
    windows = kh * len(places) if alone else len(lines) * len(places)
    # Vectors that have a window of their own, and those of them that are no two broadcasts.
    own = range(t.vectors if lanes.dense else 1)
    groups = [lanes.groups_of(vector) for vector in own]
    shuffled = sum(read[-1] - read[0] > lanes.dense for read in groups)
    loads = shuffled or len({group for read in groups for group in read})
    outputs = t.rows * t.columns * t.vectors
    weights = kw * t.vectors * (1 if alone else kh)
    each = {"bytes": 1 if isa.has_dot4 else 3, "pairs": 2, "words": 2}[knobs["step"]]
    spilled = max(0, outputs + weights + 3 - isa.registers) * (kh if alone else 1)
    size = rows.count * rows.shape[-1] * (2 if knobs["step"] == "words" else 1)
    copied = op.n * rows.blocks * size
    tiles = op.n * rows.blocks * t.block * rows.column_tiles * lanes.panels(t.vectors)
    steps = tiles * lanes.steps
    return {
        "products": steps * outputs * kh * kw * each,
        "multiplied": steps * outputs * kh * kw * isa.halves,
        "loads": steps * (windows * loads + kh * kw * t.vectors),
        "shuffles": steps * windows * shuffled,
        "spilled": steps * spilled,
        "copy": copied / (2 * isa.lanes),
        "tiles": tiles,
        "stores": tiles * outputs,
        "l2": copied * (size > isa.target.l1d),
        "l3": copied * (size > isa.target.l2),
    }


def _tiling(op: Conv2d, isa: Isa, knobs: Knobs) -> Tiling:
    return Tiling(
        rows=knobs["rows"],
        columns=knobs["columns"],
        vectors=knobs["vectors"],
        lanes=isa.lanes,
        kq=_kq(knobs["step"]),
        block=knobs["block"] or -(-op.oh // knobs["rows"]),
    )


def kernel(op: Conv2d, isa: Isa, knobs: Knobs) -> Kernel:
    """The scheduled kernel. Raises ScheduleRefused for knobs outside of the space."""
    refuse(refuses(op, isa, knobs))
    t = _tiling(op, isa, knobs)
    definition = grouped_conv.define(op, operands_of(op, isa, knobs["step"]), t)
    sch = definition.schedule()
    _schedule(sch, knobs, t.block, definition.lhs.lanes.width)
    func = use_windows(sch.mod["main"], isa, definition, knobs["step"], pieces(op, isa, knobs))
    return finished(func, definition, isa=isa)


def _schedule(sch: Schedule, knobs: Knobs, tiles_in_block: int, width: int) -> None:
    tile, pad, y = (sch.get_sblock(name) for name in ("tile", "pad", "y"))
    image, rt, ct, panel, *inner = sch.get_loops(tile)
    block, rt = sch.split(rt, [None, tiles_in_block])
    tiles = (rt, ct, panel) if knobs["order"] == "mc" else (panel, rt, ct)
    sch.reorder(image, block, *tiles, *inner)
    innermost = tiles[-1]
    # Tiles are small here: the innermost loop over them is done by one thread.
    outer = parallel_tiles(sch, (image, block, *tiles[:-1]), 2 if knobs["block"] else 3)
    if knobs["block"]:
        sch.compute_at(pad, outer, preserve_unit_loops=True)
    sch.reverse_compute_at(y, innermost, preserve_unit_loops=True)
    *_, row, column, channel = sch.get_loops(y)
    vector, lane = sch.split(channel, [None, width])
    for loop in (row, column, vector):
        sch.unroll(loop)
    sch.vectorize(lane)
