"""The winograd algorithm: transformed patches of a block, then a matrix product for each place.

for image, block of register tile rows          # shared among threads
  patch = the block's transformed input
  for panel
    weights = the panel's transformed codes         # weights=codes
    for row tile, column tile
      for p, q                                    # places of the transformed tile
        sums = 0                                    # rows x columns x vectors registers
        for r, s, k4: sums += dot4(patch, weights)  # r, s: taps, or products of the place
        tile[p, q] = sums
      y = A^T tile A ...
"""

import math

from tvm.s_tir import Schedule

from lpgen.algorithms import winograd
from lpgen.algorithms.crossed import SIDES
from lpgen.algorithms.definition import Definition
from lpgen.algorithms.kernel import Kernel
from lpgen.algorithms.lhs.view import PARALLEL_BYTES
from lpgen.algorithms.winograd.geometry import Geometry
from lpgen.errors import refuse
from lpgen.isa import Isa
from lpgen.ops import Conv2d
from lpgen.schedules.common import blocks
from lpgen.schedules.common.dot import intrinsics
from lpgen.schedules.common.finish import finished
from lpgen.schedules.common.winograd import shared
from lpgen.schedules.common.winograd.knobs import exact_tile, refuses, space, tiling, why_not, work
from lpgen.space import Knobs
from lpgen.tir.prefetch import AHEAD
from lpgen.tir.threads import bound_stage, number_tiles

__all__ = ["kernel", "space", "why_not", "work"]


INT8_MAX = 127
LINE = 64
"""Bytes of a cache line."""


def kernel(op: Conv2d, isa: Isa, knobs: Knobs) -> Kernel:
    """The scheduled kernel. Raises ScheduleRefused for knobs outside of the space."""
    refuse(winograd.why_not(op) or refuses(op, isa, knobs))
    definition = winograd.define(op, exact_tile(op, knobs), tiling(isa, knobs))
    sch = definition.schedule()
    _schedule(sch, isa, definition, knobs["block"])
    func = shared.bound(sch.mod["main"], definition.lhs.sides)
    far = definition.layout.nbytes > isa.target.l2 * blocks.NEAR
    return finished(func, definition, prefetch=AHEAD if far else 0, isa=isa)


def _schedule(sch: Schedule, isa: Isa, definition: Definition, block: int) -> None:
    geometry = definition.lhs
    y, back, tile, patch, pad = (
        sch.get_sblock(name) for name in ("y", "back", "tile", "patch", "pad")
    )
    t, high, wide = geometry.tiling, geometry.tile.high, geometry.tile.wide
    rows, columns = geometry.tiles
    # The loops of the result first, then its producers go to where they are needed: behind the
    # tile y could not be placed, since it reads all places of a tile.
    image, h, w, n = sch.get_loops(y)
    ro, ri, r, i = sch.split(h, [None, block or rows, t.rows, high.outputs])
    co, c, j = sch.split(w, [None, t.columns, wide.outputs])
    panel, nv, nl = sch.split(n, [None, t.vectors, isa.lanes])
    sch.reorder(image, ro, panel, ri, co, r, c, i, j, nv, nl)
    _straight(sch, (i, j, nv))
    sch.vectorize(nl)
    panels = int(sch.get(panel).extent)
    line = columns * panels
    for loop, stride in ((panel, 1), (ri, line), (co, panels)):
        number_tiles(sch, loop, (int(sch.get(loop).extent), stride))
    outer = sch.fuse(image, ro)
    inside = (block or rows) * line
    number_tiles(sch, outer, (geometry.tile.op.n, rows * line), (rows * line // inside, inside))
    sch.parallel(outer)
    _transform_back(sch, back, c)
    sch.compute_at(tile, co, preserve_unit_loops=True)
    p, q, r, c, nv, nl, *taps, k, kt = sch.get_loops(tile)[-10:]
    sch.reorder(p, q, *taps, k, r, c, nv, nl, kt)
    if t.crossed:
        for side in SIDES:
            sch.compute_at(sch.get_sblock(side), nv, preserve_unit_loops=True)
        _terms(sch, isa, geometry.tile.words, outer if block else None, line)
    shared.mark(sch, geometry.sides, (p, q), taps)
    if t.chunk:
        sch.compute_at(sch.get_sblock("partial"), k, preserve_unit_loops=True)
    _transform(sch, isa, geometry.tile.words, patch, pad, outer if block else None, line)
    if t.codes:
        _transform_weights(sch, panel, definition.weights.codes.fields)
    _multiply(sch, isa, tile, bool(t.chunk), _instruction(isa, geometry))
    if t.crossed:
        for side, dtype in SIDES.items():
            lane = sch.get_loops(sch.get_sblock(side))[-2]
            dtypes = ("int16", "int16") if geometry.tile.words else (dtype, "int8")
            sch.tensorize(lane, intrinsics.add_across(isa, *dtypes))


def _instruction(isa: Isa, geometry: Geometry) -> str:
    """The tensor intrinsic of a step."""
    tile, chunked = geometry.tile, geometry.tiling.chunk
    if geometry.tiling.crossed:
        return intrinsics.dot_lanes(isa, words=tile.words)
    if tile.words:
        return intrinsics.dot_words(isa)
    small = int((tile.inputs[1] + tile.offsets).max()) <= INT8_MAX
    read_as = "" if isa.mixes_signs or not small else "int8"
    form = intrinsics.dot_pairs if chunked else intrinsics.dot_bytes
    return form(isa, "uint8", "int8", read_as=read_as)


def _multiply(sch: Schedule, isa: Isa, tile, chunked: bool, instruction: str) -> None:
    """The sums of a place in registers."""
    q, first, *_, r, c, nv, nl, _ = sch.get_loops(tile)[-9:]
    # Sums of their own: those of all places are more than the registers.
    copy = sch.cache_write(tile, 0, "global")
    sch.reverse_compute_at(copy, q, preserve_unit_loops=True)
    if chunked:
        partial = sch.get_sblock("partial")
        *_, row, column, vector, lane, pair, ki, kt = sch.get_loops(partial)
        sch.reorder(ki, row, column, vector, lane, pair, kt)
        zero = sch.decompose_reduction(partial, ki)
        _straight(sch, sch.get_loops(partial)[-6:-3])
        sch.tensorize(lane, instruction)
        *_, row, column, vector, lane, pair = sch.get_loops(zero)
        _straight(sch, (row, column, vector))
        sch.vectorize(sch.fuse(lane, pair))
    init = sch.decompose_reduction(tile, first)
    _straight(sch, (r, c, nv))
    sch.tensorize(nl, intrinsics.widen_pairs(isa) if chunked else instruction)
    for simple in (init, copy):
        *_, r, c, nv, nl = sch.get_loops(simple)
        _straight(sch, (r, c, nv))
        sch.vectorize(nl)


def _transform_back(sch: Schedule, back, column) -> None:
    """A tile's results in registers, one vector of channels after the other."""
    sch.compute_at(back, column, preserve_unit_loops=True)
    *_, i, j, row, column, vector, lane = sch.get_loops(back)
    sch.reorder(vector, i, j, row, column, lane)
    up = sch.get_sblock("up")
    sch.compute_at(up, vector, preserve_unit_loops=True)
    _straight(sch, (vector, i, j))
    sch.vectorize(lane)
    *_, i, q, _, _, _, lane = sch.get_loops(up)
    _straight(sch, (i, q))
    sch.vectorize(lane)


def _terms(sch: Schedule, isa: Isa, words: bool, block, line: int) -> None:
    """What is subtracted from products of sums: of each patch at all places, in the L1 cache."""
    terms, back, up, crossed = (
        sch.get_sblock(name) for name in ("terms", "terms_back", "terms_up", "crossed")
    )
    for stage in (terms, back):
        if block is not None:
            sch.compute_at(stage, block, preserve_unit_loops=True)
            bound_stage(sch, sch.get_loops(stage)[-len(sch.get(stage).iter_vars) + 1], line)
    *outer, i, j, r, c, lane = sch.get_loops(back)
    sch.reorder(r, c, i, j, lane)
    if block is None and _nbytes(sch, back) >= PARALLEL_BYTES:
        sch.parallel(sch.fuse(*outer[:3]))
    _straight(sch, (i, j))
    sch.vectorize(lane)
    sch.compute_at(up, c, preserve_unit_loops=True)
    *_, i, q, _, _, lane = sch.get_loops(up)
    _straight(sch, (i, q))
    sch.vectorize(lane)
    sch.compute_at(crossed, c, preserve_unit_loops=True)
    *_, lane, step, kt = sch.get_loops(crossed)
    sch.reorder(step, lane, kt)
    lanes = int(sch.get(lane).extent)
    for name in ("near", "far"):
        side = sch.get_sblock(name)
        sch.compute_at(side, step, preserve_unit_loops=True)
        *_, place, byte = sch.get_loops(side)
        sch.vectorize(sch.fuse(place, byte))
    zero = sch.decompose_reduction(crossed, step)
    tap = sch.get_loops(terms)[-3]
    sch.decompose_reduction(terms, tap)
    if lanes > 1:  # a single one is no vector
        sch.vectorize(sch.get_loops(zero)[-1])
        sch.tensorize(lane, intrinsics.dot_lanes(isa, lanes, words))
        sch.tensorize(sch.get_loops(terms)[-1], intrinsics.less_lanes(lanes))


def _straight(sch: Schedule, loops) -> None:
    for loop in loops:
        sch.unroll(loop)


def _transform(sch: Schedule, isa: Isa, words: bool, patch, pad, block, line: int) -> None:
    """The patches of a block, or of all before the blocks; the padded input before them."""
    if block is not None:
        sch.compute_at(patch, block, preserve_unit_loops=True)
        bound_stage(sch, sch.get_loops(patch)[-8 + 1], line)
    *outer, p, q, r, c, k = sch.get_loops(patch)
    # Pieces of the channels that are all whole: a partial one would multiply the straight code.
    lanes = isa.bits // (16 if words else 8)
    width = math.gcd(lanes, int(sch.get(k).extent))
    ko, ki = sch.split(k, [None, width])
    sch.reorder(r, c, ko, p, q, ki)
    if block is None and _nbytes(sch, patch) >= PARALLEL_BYTES:
        # In the order of the products, which a thread finds in its own caches.
        sch.parallel(sch.fuse(*outer[:3]))
    down = sch.get_sblock("down")
    sch.compute_at(down, ko, preserve_unit_loops=True)
    _straight(sch, (p, q))
    sch.vectorize(ki)
    *_, p, j, _, _, k = sch.get_loops(down)
    _straight(sch, (p, j))
    sch.vectorize(k)
    image, h, _, k = sch.get_loops(pad)
    sch.vectorize(sch.split(k, [None, width])[1])
    if _nbytes(sch, pad) >= PARALLEL_BYTES:
        sch.parallel(sch.fuse(image, h))


def _transform_weights(sch: Schedule, panel, fields: int) -> None:
    """The weights of a panel; `fields` k steps share the bytes of their codes."""
    weights, rows = sch.get_sblock("weights"), sch.get_sblock("rows")
    sch.compute_at(weights, panel, preserve_unit_loops=True)
    p, q, r, s, k4, vector, lane, kt = sch.get_loops(weights)[-8:]
    byte, field = sch.split(k4, [None, fields])
    sch.reorder(byte, vector, field, r, s, p, q, lane, kt)
    sch.compute_at(rows, s, preserve_unit_loops=True)
    _straight(sch, (field, r, s, p, q))
    # The places lie an odd number of cache lines apart, so that they are not of one set.
    sch.storage_align(weights, 0, 4, 8 * LINE, LINE)
    sch.vectorize(sch.fuse(lane, kt))
    *_, p, b, _, _, _, _, lane, kt = sch.get_loops(rows)
    _straight(sch, (p, b))
    sch.vectorize(sch.fuse(lane, kt))


def _nbytes(sch: Schedule, stage) -> int:
    """Bytes of a stage of bytes."""
    total = 1
    for loop in sch.get_loops(stage):
        total *= int(sch.get(loop).extent)
    return total
