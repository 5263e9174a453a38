"""The knobs of the winograd algorithm, which of their combinations are valid, and their work.

| knob    | meaning                                                                             |
|---------|-------------------------------------------------------------------------------------|
| step    | bytes: int32 sums of four products; pairsN: int16 sums of two, N steps long; words: |
|         | int32 sums of two products of int16; crossed: bytes, half as many products, of sums |
|         | of both sides; crossed_words: the same of words                                     |
| tile    | outputs of a transformed tile, high x wide; 1: no transformation of that side;      |
|         | 4i: one with the points i and -i                                                    |
| rows    | transformed tiles of the register tile, below each other                            |
| columns | and side by side                                                                    |
| vectors | vectors of output channels in the register tile                                     |
| block   | rows of register tiles whose input is transformed together; 0: all                  |
| weights | transformed: stored so, a byte each; codes: stored as they are, in few bits, and    |
|         | transformed panel by panel                                                          |
"""

import math
from functools import lru_cache

from lpgen.algorithms.weights.panels import PLANES
from lpgen.algorithms.winograd import why_not as never
from lpgen.algorithms.winograd.geometry import Geometry, Tiling
from lpgen.algorithms.winograd.sides import Matrix
from lpgen.algorithms.winograd.tile import Tile, outputs_of
from lpgen.isa import Isa
from lpgen.ops import Conv2d, Dense
from lpgen.schedules.common import blocks
from lpgen.space import Counts, Knobs, Space

BOTH = ("2x2", "3x2", "2x3", "3x3", "4x2", "2x4", "4x3", "3x4", "4x4")
IMAGINARY = ("4ix4i", "4ix2", "2x4i", "4ix3", "3x4i", "4ix4", "4x4i", "1x4i", "4ix1")
"""Tiles of bytes whose numbers i keeps small (`sides`); words have room for the others."""

TILES = (*BOTH, *IMAGINARY, "1x2", "2x1", "1x3", "3x1", "1x4", "4x1")
ROWS, COLUMNS, VECTORS = (1, 2, 3, 4, 5, 6, 7, 8), (1, 2, 3, 4, 5, 6, 7, 8, 9), (1, 2, 4)
BLOCKS = (0, 1, 2, 4)
CHUNKS = (2, 3, 4, 8, 16)
FEW_PAIRS = 4
"""Steps of an int16 sum from which on it beats two products of words added to int32."""

FEWEST = 4
"""Sums that hide the latency of the instruction."""

tile_of = lru_cache(maxsize=256)(Tile.of)


def why_not(op: Dense | Conv2d, isa: Isa) -> str | None:
    """Why the algorithm does not serve the operator."""
    reason = never(op)
    if reason is None and not _tiles(op, isa):
        reason = refuses_tile(op, isa, next(iter(possible(op))))
    return reason


def possible(op: Conv2d) -> tuple[str, ...]:
    """Tiles that transform some side, and only sides whose outputs share values."""
    found = []
    for name in TILES:
        sides = zip(outputs_of(name), op.kernel, op.stride, (op.oh, op.ow), strict=True)
        if all(m == 1 or (taps > stride and size > 1) for m, taps, stride, size in sides):
            found.append(name)
    return tuple(found) or (TILES[0],)


@lru_cache(maxsize=256)
def fitting(op: Conv2d, isa: Isa, words: bool = False) -> tuple[str, ...]:
    """The tiles that are exact in bytes, or in words."""
    return tuple(name for name in possible(op) if refuses_tile(op, isa, name, words) is None)


def _tiles(op: Conv2d, isa: Isa) -> tuple[str, ...]:
    """The tiles that are exact."""
    found = {*fitting(op, isa), *(fitting(op, isa, True) if _in_words(op, isa) else ())}
    return tuple(name for name in TILES if name in found)


@lru_cache(maxsize=256)
def _in_words(op: Conv2d, isa: Isa) -> bool:
    """Whether words may pay: bytes hold no tile that is transformed on both sides, or their sums in
    int16 are widened so often that products of words cost little more."""
    if isa.kq != 4 or isa.kq_words != 2:
        return False
    pairs = [tile_of(op, name).pairs for name in fitting(op, isa) if name in BOTH]
    return not pairs or (not isa.has_dot4 and max(pairs) < FEW_PAIRS)


@lru_cache(maxsize=1024)
def refuses_tile(op: Conv2d, isa: Isa, name: str, words: bool = False) -> str | None:
    """Why a tile is not exact."""
    if words and name in IMAGINARY:
        return f"tile={name}: words are exact in tiles with fewer products"
    try:
        tile = tile_of(op, name, words)
    except ValueError as error:
        return f"tile={name}: {error}"
    reason = tile.why_not()
    if reason is None and not words and not isa.has_dot4 and tile.pairs == 0:
        reason = "two products of transformed values do not fit int16"
    if reason is None and words and tile.saving <= 1 + isa.has_dot4:
        reason = f"{tile.saving:.2f} times fewer products, of words, are no fewer instructions"
    return reason and f"tile={name}: {reason}"


def steps(op: Conv2d, isa: Isa) -> tuple[str, ...]:
    """Steps that the instruction set has, and those of them that may pay."""
    pairs = () if isa.has_dot4 else tuple(f"pairs{count}" for count in CHUNKS)
    crosses = isa.crosses and any(tile_of(op, name).crossings for name in fitting(op, isa))
    of_bytes = ("bytes", *pairs, *(("crossed",) if crosses else ())) if fitting(op, isa) else ()
    if not _in_words(op, isa):
        return of_bytes
    wide = isa.crosses and any(tile_of(op, name, True).crossings for name in fitting(op, isa, True))
    return (*of_bytes, "words", *(("crossed_words",) if wide else ()))


def exact_tile(op: Conv2d, knobs: Knobs) -> Tile:
    """The tile that the knobs mean."""
    return tile_of(op, knobs["tile"], of_words(knobs))


def of_words(knobs: Knobs) -> bool:
    """Whether products are of int16."""
    return knobs["step"] in ("words", "crossed_words")


def _crossed(knobs: Knobs) -> bool:
    """Whether products are of sums of both sides (`lpgen.algorithms.crossed`)."""
    return knobs["step"] in ("crossed", "crossed_words")


def space(op: Conv2d, isa: Isa) -> Space:
    """All knobs with their choices for `op`."""
    return Space(
        {
            "step": steps(op, isa),
            "tile": _tiles(op, isa),
            "rows": ROWS,
            "columns": COLUMNS,
            "vectors": tuple(v for v in VECTORS if v == 1 or (v - 1) * isa.lanes < op.oc),
            "block": BLOCKS,
            "weights": ("transformed", "codes"),
        },
        lambda knobs: refuses(op, isa, knobs) is None,
    )


def refuses(op: Conv2d, isa: Isa, knobs: Knobs) -> str | None:
    """Why the combination is not in the space."""
    words, step = of_words(knobs), knobs["step"]
    if reason := refuses_tile(op, isa, knobs["tile"], words):
        return reason
    if words and not _in_words(op, isa):
        return f"step={step}: bytes hold tiles that save as much for less"
    rows, columns, vectors = knobs["rows"], knobs["columns"], knobs["vectors"]
    sums, chunk = rows * columns * vectors, chunk_of(knobs["step"])
    tile = exact_tile(op, knobs)
    pairs = tile.pairs
    crossed = _crossed(knobs)
    if crossed and tile.crossings is None:
        return f"step={step}: sums of both sides leave the range of tile={knobs['tile']}"
    if chunk > pairs:
        return f"step={knobs['step']}: an int16 holds the sums of {pairs} pairs"
    if chunk and chunk != max((c for c in CHUNKS if c <= min(pairs, -(-op.ic // 4))), default=0):
        return f"step={knobs['step']}: more steps fit, or there are fewer"
    beside = vectors + (1 if isa.has_dot4 else 3) + crossed * (vectors + 3)
    if sums + beside > isa.registers:
        return f"a tile of {rows} x {columns} x {vectors} vectors exceeds {isa.registers} registers"
    needed = -(-op.oh // tile.high.outputs), -(-op.ow // tile.wide.outputs)
    if rows > needed[0] or columns > needed[1]:
        return f"{rows} x {columns} tiles: there are {needed[0]} x {needed[1]}"
    if sums < FEWEST and min(needed) > 1:
        return f"{sums} sums are too few to hide the latency of the instruction"
    whole = -(-needed[0] // rows)
    if knobs["block"] and (knobs["block"] >= whole or whole % knobs["block"]):
        return f"block={knobs['block']} does not divide {whole} rows of register tiles"
    return _refuses_codes(op, isa, knobs) if knobs["weights"] == "codes" else None


def _refuses_codes(op: Conv2d, isa: Isa, knobs: Knobs) -> str | None:
    """Why weights are not stored as codes."""
    tile = exact_tile(op, knobs)
    if tile.words:
        return "weights=codes: they are transformed to bytes"
    if _transformed_bytes(op, tile) <= isa.target.l2 * blocks.NEAR:
        return "weights=codes: the transformed ones stay in the L2 cache"
    if knobs["block"]:
        return "weights=codes: each block would transform them again"
    geometry = Geometry(tile, tiling(isa, knobs))
    fields = 8 // min(PLANES[op.weight.bits])
    if geometry.steps % fields:
        return f"weights=codes: {fields} steps share a byte, and there are {geometry.steps}"
    if geometry.steps * 4 > op.ic and not op.weight.has_zero:
        return f"weights=codes: {op.weight} has no zero to fill {op.ic} channels with"
    return None


def _transformed_bytes(op: Conv2d, tile: Tile) -> int:
    """Bytes of the transformed weights."""
    return tile.high.products * tile.wide.products * math.prod(tile.direct) * op.ic * op.oc


def tiling(isa: Isa, knobs: Knobs) -> Tiling:
    """The sizes of the definition."""
    chunk = chunk_of(knobs["step"])
    codes = knobs["weights"] == "codes"
    lookup = isa.lookup_in_loop(isa.bits // 8)
    sizes = (knobs["rows"], knobs["columns"], knobs["vectors"])
    return Tiling(*sizes, isa.lanes, chunk, codes, lookup, _crossed(knobs))


def chunk_of(step: str) -> int:
    """Steps between widenings, 0: none."""
    return int(step.removeprefix("pairs")) if step.startswith("pairs") else 0


def work(op: Conv2d, isa: Isa, knobs: Knobs) -> Counts:
    """What a kernel with these knobs does (`Template.work`)."""
    tile, t = exact_tile(op, knobs), tiling(isa, knobs)
    geometry = Geometry(tile, t)
    panels = -(-op.oc // (t.vectors * t.lanes))
    register_tiles = op.n * math.prod(geometry.tiles)
    places, taps = tile.high.products * tile.wide.products, math.prod(tile.direct)
    count = places * taps * geometry.steps
    sums = t.rows * t.columns * t.vectors
    each = 1 if isa.has_dot4 else 2 + 2 / t.chunk if t.chunk else 2 if tile.words else 3
    each = 3 / 4 if t.crossed else each  # of bytes: three instructions for two, two in a cycle
    # A step of two words is as many bytes as one of four.
    copied = register_tiles * places * math.prod(geometry.patches) * geometry.steps * 4
    transformed = panels * places * taps * geometry.steps * 4 * t.vectors * t.lanes
    weights = transformed
    if t.codes:
        weights = transformed // (places * taps) * math.prod(op.kernel) * op.weight.bits / 8
    outputs = math.prod(geometry.outputs) * t.vectors
    rows = knobs["block"] or geometry.tiles[0]
    block = copied * rows / (op.n * geometry.tiles[0])
    loops = register_tiles * panels
    uses = (
        (weights * op.n * geometry.tiles[0] / rows, weights + block),
        (loops * places * math.prod(geometry.patches) * geometry.steps * 4, block),
    )
    caches = blocks.by_distance(uses, isa.target)
    return {
        "products": loops * count * sums * each,
        "multiplied": loops * count * sums * isa.halves / (1 + t.crossed),
        "loads": loops * count * (t.rows * t.columns + t.vectors),
        "stall": loops * count * max(0, 5 - sums / 2) if isa.has_dot4 else 0,
        "copy": copied * _additions(tile.high.input, tile.wide.input) / places * 8 / isa.bits,
        "finish": loops * sums * _additions(tile.high.back, tile.wide.back),
        "tiles": loops * tile.high.places * tile.wide.places,
        # What a tile reads of the panel's weights after another one has.
        "again": transformed * (register_tiles - op.n * geometry.tiles[0] / rows),
        "stores": loops * outputs,
        "expand": op.n * transformed / (isa.bits // 8) * t.codes,
        **caches,
    }


def _additions(high: Matrix, wide: Matrix) -> int:
    """Additions and doublings of a transformation by both matrices, the wide one first."""
    each = [sum(sum(abs(value).bit_count() for value in row) for row in m) for m in (high, wide)]
    return len(high[0]) * each[1] + len(wide) * each[0]
