"""The knobs of the dot algorithm, which of their combinations are valid, and their work.

| knob    | meaning                                                                                |
|---------|----------------------------------------------------------------------------------------|
| step    | the instruction: bytes (vpdpbusd, or vpmaddubsw + vpmaddwd; sdot, or smull + sadalp),  |
|         | words (vpmaddwd, smlal on int16), pairsN (vpmaddubsw, smlal: int16 sums of N steps     |
|         | before they are widened), crossed (bytes, half as many products, of sums of both sides)|
| rows    | rows of the register tile                                                              |
| vectors | vectors of output columns in the register tile                                         |
| m_block | row tiles of a block; 0: all                                                           |
| n_block | panels of a block; 0: all                                                              |
| outer   | order of the blocks: mn (panels vary fastest) or nm                                    |
| inner   | order of the tiles in a block, the same way                                            |
| left    | direct: read the rows in place; copied: copy them into tile order first (im2col);      |
|         | folded: copy the input so that the kernel's rows are neighbours (few channels);        |
|         | inside: read the rows in place, and leave out the taps that lie in the padding         |
| expand  | where stored weights become operands: panel (a block's, once, into the cache),         |
|         | register (each use), none (they are stored as operands)                                |
| unroll  | k steps of one iteration of the innermost loop                                        |
| prefetch| bytes of weights to ask for in advance, 0: none (few rows, whose weights stream by)    |
"""

import itertools
import math
from collections.abc import Iterator
from functools import lru_cache

from lpgen.algorithms.depthwise import one_channel_each
from lpgen.algorithms.dot import Tiling
from lpgen.algorithms.lhs.k_split import cut
from lpgen.algorithms.weights.panels import PLANES
from lpgen.isa import Isa
from lpgen.ops import Conv2d, Dense
from lpgen.schedules.common import blocks, inside
from lpgen.schedules.common.cuts import cuts, fits
from lpgen.schedules.common.dot.steps import chunk_of, crossed, steps, unpacked
from lpgen.space import Counts, Knobs, Space

ROWS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 20, 24, 28)
VECTORS = (1, 2, 3, 4, 5, 6, 8, 12, 16)
PLACES = ("panel", "register", "none")
STREAMED = 64  # rows up to which weights stream by, used too rarely to stay in a cache


def _belongs(op: Dense | Conv2d, step: str, expand: str) -> bool:
    """Whether weights that are (or are not) unpacked for the step become operands there."""
    return unpacked(op, step) == (expand != "none")


def multiple_of(op: Dense | Conv2d, knobs: Knobs) -> int:
    """What the number of k steps of a run has to be a multiple of."""
    count = fields(op) if knobs["expand"] == "register" else 1
    return math.lcm(chunk_of(knobs["step"]) or 1, count, knobs["unroll"], 1 + _crossed(knobs))


def _crossed(knobs: Knobs) -> bool:
    """Whether products are of sums of both sides (`lpgen.algorithms.crossed`)."""
    return knobs["step"] == "crossed"


def tiling(op: Dense | Conv2d, isa: Isa, knobs: Knobs) -> Tiling:
    """The sizes that the knobs mean for this operator."""
    rows, vectors = knobs["rows"], knobs["vectors"]
    return Tiling(
        rows=rows,
        vectors=vectors,
        lanes=isa.lanes,
        kq=_kq(isa, knobs),
        **blocks.counts(op, rows, vectors * isa.lanes, knobs),
        copied=knobs["left"] == "copied",
        folded=knobs["left"] == "folded",
        interleaves=isa.has_lookup128,
        inside=knobs["left"] == "inside",
        together=rows if knobs["left"] == "inside" else 1,
        chunk=chunk_of(knobs["step"]),
        multiple=multiple_of(op, knobs),
        crossed=isa.dot4 if _crossed(knobs) else None,
        top=_top(op, isa) and not _crossed(knobs),
        lookup=isa.lookup_in_loop(isa.lanes * _kq(isa, knobs)),
    )


def _kq(isa: Isa, knobs: Knobs) -> int:
    """Values of k in a step."""
    return isa.kq_words if knobs["step"] == "words" else isa.kq


def _top(op: Dense | Conv2d, isa: Isa) -> bool:
    """Whether weights are unpacked into the top bits of their bytes: their products are as large as
    those of 8 bits, which vpdpbusd alone sums without a bound but that of int32."""
    signed = op.weight.encoding in ("s", "t") and op.weight.bits < 8
    return isa.has_dot4 and signed and op.matrix.k * 255 * 128 < 2**31


def space(op: Dense | Conv2d, isa: Isa) -> Space:
    """All knobs with their choices for `op`."""
    matrix = op.matrix
    names = (*steps(op, isa), *crossed(op, isa))
    places = tuple(place for place in PLACES if any(_belongs(op, step, place) for step in names))
    return Space(
        {
            "step": names,
            "rows": _rows(op, isa),
            "vectors": tuple(_vectors(matrix.n, isa)),
            **blocks.knobs(matrix.m, matrix.n, isa.lanes),
            "left": (*blocks.left_choices(op), *(("inside",) if inside.serves(op) else ())),
            "expand": places,
            "unroll": (1, max(2, fields(op))),
            "prefetch": distances(matrix.m),
        },
        lambda knobs: refuses(op, isa, knobs) is None,
    )


def distances(m: int) -> tuple[int, ...]:
    """Choices of the knob prefetch; of several rows only the first finds a weight in memory."""
    if m <= STREAMED // 8:
        return (0, 1024, 4096, 8192)
    return (0, 4096) if m <= STREAMED else (0,)


def _rows(op: Dense | Conv2d, isa: Isa) -> tuple[int, ...]:
    rows = {*tile_rows(op.matrix.m), *inside.tile_rows(op, ROWS[-1])}
    return tuple(sorted(r for r in rows if r < isa.registers))


def tile_rows(m: int) -> Iterator[int]:
    """Tile heights."""
    return cuts(m, ROWS)


def _vectors(n: int, isa: Isa) -> Iterator[int]:
    """Tile widths that waste little of the last panel, among them the even cuts of a small n."""
    whole = -(-n // isa.lanes)
    even = {-(-whole // panels) for panels in range(1, 4)}
    for vectors in sorted({*VECTORS, *even}):
        if vectors < isa.registers and (vectors in even or fits(whole, vectors)):
            yield vectors


def why_not(op: Dense | Conv2d, isa: Isa) -> str | None:
    """Why the algorithm does not serve the operator: one column per group wastes a vector."""
    if isinstance(op, Conv2d) and op.groups == op.ic:
        return one_channel_each(op)
    return None


def refuses(op: Dense | Conv2d, isa: Isa, knobs: Knobs) -> str | None:
    """Why the combination is not in the space: it cannot be scheduled, does the same as another
    combination, or cannot be any good."""
    rows, vectors = knobs["rows"], knobs["vectors"]
    if not fits_registers(isa, knobs):
        return f"a tile of {rows} x {vectors} vectors exceeds {isa.registers} registers"
    if rows * vectors < _fewest(op, isa):
        return f"{rows} x {vectors} accumulators do not hide the latency of an instruction"
    if refused := blocks.refuses(op, rows, vectors * isa.lanes, knobs):
        return refused
    if knobs["left"] == "inside" and (uneven := inside.refuses(op, rows)):
        return uneven
    if _crossed(knobs) and (knobs["expand"] != "panel" or knobs["left"] == "inside"):
        return "step=crossed: both halves of whole panels are added to"
    if _crossed(knobs) and knobs["unroll"] > 1:
        return f"step=crossed: {rows * vectors} products of sums are long enough without unroll"
    if knobs["prefetch"] and knobs["expand"] == "panel":
        return "panels are unpacked in one sweep, which the hardware prefetches"
    return _refuses_expand(op, isa, knobs) or _refuses_unroll(op, isa, knobs)


@lru_cache(maxsize=256)
def _fewest(op: Dense | Conv2d, isa: Isa) -> int:
    """Accumulators below which a tile waits for its own results: about two instructions a cycle,
    four cycles each; of 16 registers, and of small operators, what there is."""
    enough = min(8, isa.registers // 3)
    tiles = itertools.product(tile_rows(op.matrix.m), _vectors(op.matrix.n, isa))
    return min(enough, max(r * v for r, v in tiles if r * v <= isa.registers // 2))


def fits_registers(isa: Isa, knobs: Knobs) -> bool:
    rows, vectors, step = knobs["rows"], knobs["vectors"], knobs["step"]
    if isa.kq == 1:
        # A number is no vector; weights are bytes, widened to int16 for sums of int32.
        size = 4 if step == "bytes" else 2
        weights = vectors * (size - 1 + (knobs["expand"] == "register"))
        return rows * vectors * size + weights <= 4 * isa.registers
    # One row takes its weights from memory or unpacks one vector after the other, more rows hold
    # all vectors; then the broadcast left value, and for steps of several instructions the
    # constant and a temporary.
    if step == "crossed":  # weights and numbers of both halves, and two sums
        return rows * vectors + 2 * vectors + 4 <= isa.registers
    weights = vectors if rows > 1 else 2 * (knobs["expand"] == "register")
    extra = {"bytes": 1 if isa.has_dot4 else 3, "words": 2}.get(step, 2)
    return rows * vectors + weights + extra <= isa.registers


def fields(op: Dense | Conv2d) -> int:
    """k steps that share a byte of the packed weights."""
    return 8 // min(PLANES.get(op.weight.bits, (8,)))


def _refuses_expand(op: Dense | Conv2d, isa: Isa, knobs: Knobs) -> str | None:
    if not _belongs(op, knobs["step"], knobs["expand"]):
        return f"the operands of step={knobs['step']} do not come from expand={knobs['expand']}"
    if knobs["expand"] == "register":
        if knobs["left"] == "inside":
            # Twice the time of panels (3x3 256@14, u8 x s4: 840 us to 357, Ice Lake): every run of
            # taps keeps the unpacked vectors of a byte's fields in the registers of the sums.
            return "what is unpacked in registers does not fit beside sums whose taps are left out"
        count = fields(op)
        if knobs["unroll"] % count:
            return f"expanding in registers needs unroll={count}"
        if isinstance(op, Conv2d) and _kg(op, isa, knobs) % count:
            return f"the k steps of a run are no multiple of the {count} fields of a byte"
        if chunk_of(knobs["step"]) % count:
            return f"the k steps of a chunk are no multiple of the {count} fields of a byte"
    return None


def _refuses_unroll(op: Dense | Conv2d, isa: Isa, knobs: Knobs) -> str | None:
    unroll = knobs["unroll"]
    if unroll == 1:
        return None
    if unroll > 2 and knobs["expand"] != "register":
        return f"unroll={unroll} is for expanding in registers"
    chunk = chunk_of(knobs["step"])
    kg = chunk or _kg(op, isa, knobs)
    if unroll > kg or (kg % unroll and (chunk or isinstance(op, Conv2d))):
        return f"unroll={unroll} does not divide the {kg} k steps"
    return None


def _kg(op: Dense | Conv2d, isa: Isa, knobs: Knobs) -> int:
    left = knobs["left"]
    return cut(op, _kq(isa, knobs), 1, left == "folded", taps=left == "inside").kg


def work(op: Dense | Conv2d, isa: Isa, knobs: Knobs) -> Counts:
    """What a kernel with these knobs does (`Template.work`)."""
    t = tiling(op, isa, knobs)
    c = cut(op, t.kq, t.multiple, t.folded, taps=t.inside)
    matrix, chunk = op.matrix, chunk_of(knobs["step"])
    tiles = matrix.groups * t.row_tiles * t.panels
    # Rows of the kernel are left out as a whole, columns for a part of the tile.
    lines, pixels = inside.shares(op) if t.inside else (1, 1)
    steps, sums = tiles * c.steps * lines, t.rows * t.vectors
    words = knobs["step"] == "words"
    each = 1 if isa.has_dot4 else max(1, isa.kq // 2) + (knobs["step"] == "bytes")
    # One instruction waits five cycles for its own sum.
    stall = 5 - sums / 2 if isa.has_dot4 else 2 - sums * each / 3
    places = matrix.groups * matrix.n * c.steps * t.kq / (isa.bits // 8)
    # A plane is shifted and masked, and several are put together; 8 bits are widened alone.
    planes = len(PLANES.get(op.weight.bits, ()))
    unpacking = max(1, 2 * planes - 1) + (planes > 0 and words)
    sweeps = t.row_tiles / (knobs["m_block"] or t.row_tiles) if knobs["outer"] == "mn" else 1
    bits = 8 if knobs["expand"] != "register" else op.weight.bits
    size = 2 if words and knobs["expand"] == "panel" else 1
    row = t.rows * matrix.k * (2 if words and t.copied else 1)
    panel = t.vectors * isa.lanes * c.steps * t.kq * bits / 8 * size
    sums_of_sides = _crossed(knobs)
    if sums_of_sides:  # three instructions of four bytes each for eight, which two start in a cycle
        each = 3 / 4
    return {
        "products": steps * sums * each * pixels,
        "multiplied": steps * sums * pixels / (1 + sums_of_sides),
        "loads": steps * (t.rows * pixels + t.vectors),
        "unpack": steps * t.vectors * unpacking * (knobs["expand"] == "register"),
        "flush": tiles * -(-c.steps // chunk) * sums * lines * pixels if chunk else 0,
        "stall": steps * max(0, stall),
        "expand": places * sweeps * unpacking * (knobs["expand"] == "panel"),
        "copy": matrix.groups
        * t.row_tiles
        * t.rows
        * c.steps
        * t.kq
        * (t.copied + sums_of_sides / 16),
        "fold": matrix.m * matrix.k * t.folded,
        "tiles": tiles,
        "runs": tiles * c.r * c.s * lines * (-(-c.kg // chunk) if chunk else 1),
        "wraps": tiles * c.r * c.s * blocks.wraps(op, t.rows, knobs["left"]),
        "stores": tiles * sums,
        # More of them at once than stores wait for.
        "bursts": tiles * max(0, sums - 8),
        **blocks.traffic(op, knobs, t.row_tiles, t.panels, row, panel, isa.target),
    }
