"""The knobs of the bitserial algorithm, which combinations are valid, and their work.

| knob    | meaning                                                                                |
|---------|----------------------------------------------------------------------------------------|
| count   | how bits are counted: instruction (vpopcntd) or shuffle (vpshufb)                      |
| word    | values of k in a word, 32 or 8: a vector then has 1 or 4 times as many columns as      |
|         | 32-bit lanes, and counting what is left in the end costs a quarter for each            |
| depth   | levels of carry-save adders above the highest plane's                                  |
| words   | words of k in a piece of straight-line code                                            |
| rows    | rows of the register tile                                                              |
| vectors | vectors of words in the register tile; more than 2 where bytes are counted by an       |
|         | instruction, which takes no table and few registers                                    |
| m_block | row tiles of a block; 0: all                                                           |
| n_block | panels of a block; 0: all                                                              |
| outer   | order of the blocks: mn (panels vary fastest) or nm                                    |
| inner   | order of the tiles in a block, the same way                                            |
| left    | direct: pack bit planes once, as the input lies; inside: the same, and taps in the     |
|         | padding are left out; copied: pack a block's rows in tile order; folded: the same, of  |
|         | an input whose kernel rows are neighbours (few channels)                               |
"""

import math
from functools import lru_cache

from lpgen.algorithms.bitserial import Tiling, is_xor, k_split_of, offset_of, planes_of_left
from lpgen.algorithms.lhs.encode import AT_SOURCE
from lpgen.algorithms.lhs.k_split import foldable
from lpgen.isa import Isa
from lpgen.ops import Conv2d, Dense
from lpgen.schedules.common import blocks, inside
from lpgen.schedules.common.bitserial.counts import Counting
from lpgen.schedules.common.bitserial.plan import Plan
from lpgen.space import Counts, Knobs, Space

ROWS = (1, 2, 3, 4, 6)
HIGHEST = 8
"""Rows of a tile that is a part of a line, at most."""
WORDS = (8, 16, 32, 64, 128)
DEPTHS = {
    "instruction": (0, 1, 2),
    "ternary": (3, 4, 5),
    "bytes": (0, 1, 2),
    "shuffle": (1, 2, 3, 4),
}
"""Levels worth trying: one full adder costs 5 instructions, with ternary logic 2 (3 for the first
with its products); counting a vector 2 (an instruction for words or bytes), or 7 by shuffles."""

LONGEST = 384
"""Most products in straight-line code: more instructions than that do not stay decoded."""


def tiling(op: Dense | Conv2d, isa: Isa, knobs: Knobs) -> Tiling:
    """The sizes that the knobs mean for this operator."""
    vectors = knobs["vectors"] * (32 // knobs["word"])
    return Tiling(
        rows=knobs["rows"],
        vectors=vectors,
        lanes=isa.lanes,
        **blocks.counts(op, knobs["rows"], vectors * isa.lanes, knobs),
        word=knobs["word"],
        left=knobs["left"],
    )


def plan_of(op: Dense | Conv2d, isa: Isa, knobs: Knobs) -> Plan:
    """What the code of a tile depends on."""
    left, low = planes_of_left(op)
    return Plan(
        counting=Counting(isa, knobs["word"], knobs["count"] == "instruction"),
        cut=k_split_of(op, knobs["word"], knobs["left"]),
        planes=(left, op.weight.bits),
        low=low,
        xor=is_xor(op),
        direct=knobs["left"] in AT_SOURCE,
        inside=knobs["left"] == "inside",
        rows=knobs["rows"],
        vectors=knobs["vectors"],
        levels=left + op.weight.bits - 2 + knobs["depth"],
        words=knobs["words"],
    )


def space(op: Dense | Conv2d, isa: Isa) -> Space:
    """All knobs with their choices for `op`."""
    matrix = op.matrix
    depths = sorted({depth for count in counts(isa) for depth in _depths(isa, count)})
    return Space(
        {
            "count": counts(isa),
            "word": (8, 32),
            "depth": tuple(depths),
            "words": (4, *WORDS) if isa.counts_bytes else WORDS,
            "rows": tuple(sorted({*(r for r in ROWS if r <= matrix.m), *_lines(op)})),
            "vectors": (1, 2, 4) if isa.counts_bytes else (1, 2),
            **blocks.knobs(matrix.m, matrix.n, isa.lanes),
            "left": _left(op),
        },
        lambda knobs: refuses(op, isa, knobs) is None,
    )


def counts(isa: Isa) -> tuple[str, ...]:
    """Ways to count bits that the target has."""
    return ("instruction", "shuffle") if isa.has_count_bits else ("shuffle",)


def _depths(isa: Isa, count: str) -> tuple[int, ...]:
    if count == "shuffle":
        count = "bytes" if isa.counts_bytes else "ternary" if isa.has_bit_logic else "shuffle"
    return DEPTHS[count]


def _left(op: Dense | Conv2d) -> tuple[str, ...]:
    folded = ("folded",) if foldable(op, empty=not is_xor(op)) else ()
    return (*(AT_SOURCE if _lines(op) else AT_SOURCE[:1]), "copied", *folded)


def _lines(op: Dense | Conv2d) -> tuple[int, ...]:
    """Tile heights that may leave out the padding, if that adds nothing."""
    return inside.tile_rows(op, HIGHEST) if offset_of(op) + op.zero_act == 0 else ()


def refuses(op: Dense | Conv2d, isa: Isa, knobs: Knobs) -> str | None:
    """Why the combination is not in the space: it cannot be scheduled, does the same as another
    combination, or cannot be any good."""
    count, word, vectors = knobs["count"], knobs["word"], knobs["vectors"]
    if knobs["left"] not in _left(op):
        return f"the input cannot be {knobs['left']}"
    if reason := inside.misplaced(op, knobs["left"], knobs["rows"], ROWS, _lines(op)):
        return reason
    if count not in counts(isa):
        return f"{isa.target} has no instruction that counts bits"
    if knobs["depth"] not in _depths(isa, count):
        return f"depth={knobs['depth']} does not pay with count={count}"
    small = op.matrix.n <= 2 * isa.lanes
    if word == 8 and (count == "instruction" or op.matrix.n <= isa.lanes):
        return "words of 8 bits are for counting by shuffles, across many columns"
    if word == 32 and count == "shuffle" and not (small or isa.counts_bytes):
        return "counting by shuffles costs less for words of 8 bits"
    if vectors > 1 and (word == 8 or op.matrix.n <= isa.lanes * vectors // 2):
        return f"vectors={vectors} are for counting by instruction, across many columns"
    columns = vectors * isa.lanes * (32 // word)
    if refused := blocks.refuses(op, knobs["rows"], columns, knobs):
        return refused
    return _refuses_piece(
        op, isa, *(knobs[k] for k in ("count", "word", "depth", "words", "rows", "vectors", "left"))
    )


@lru_cache(maxsize=4096)
def _refuses_piece(op, isa: Isa, count, word, depth, words, rows, vectors, left) -> str | None:
    knobs = {"count": count, "word": word, "depth": depth, "words": words, "rows": rows}
    p = plan_of(op, isa, {**knobs, "vectors": vectors, "left": left})
    if p.products > LONGEST and (words, rows, vectors) != (WORDS[0], 1, 1):
        return f"{p.products} products are too many for straight-line code"
    if words != WORDS[0] and words >= 2 * p.cut.steps:
        return f"words={words} are more than the {p.cut.steps} there are"
    return p.overflow()


def work(op: Dense | Conv2d, isa: Isa, knobs: Knobs) -> Counts:
    """What a kernel with these knobs does (`Template.work`)."""
    t, p = tiling(op, isa, knobs), plan_of(op, isa, knobs)
    matrix, c = op.matrix, p.cut
    (left, right), sums = p.planes, p.rows * p.vectors
    tiles = matrix.groups * t.row_tiles * t.panels
    lines, pixels = inside.shares(op) if p.inside else (1, 1)
    words = tiles * c.steps * lines * pixels
    merged, counted = _adders(p)
    ternary = isa.has_bit_logic
    instruction = knobs["count"] == "instruction" or isa.counts_bytes
    pieces = tiles * -(-c.steps // p.words) * sums
    # A piece counts what leaves its top level, and what is left in all where it is the whole tile.
    counting = max(words * sums * counted, pieces) + (tiles * sums * p.levels if p.single else 0)
    columns = t.vectors * t.lanes
    encoded = matrix.groups * (math.prod(op.x_shape) if p.direct else matrix.m * matrix.k)
    return {
        "products": words * sums * left * right * (0.5 if ternary else 1.0),
        "adders": words * sums * merged * (2 if ternary else 5),
        "counts": words * sums * counted * (2 if instruction else 8),
        "counting": counting * (1 if instruction else 2),
        "loads": words * (p.rows * left + p.vectors * right),
        "runs": tiles * c.r * c.s
        if p.counting.halves and not p.levels and not p.widening  # counters stay in registers
        else pieces * (0 if p.single else p.levels + 2) * (1 + 3 * p.widening),
        "finish": tiles * sums * ((p.levels * 2 if instruction else p.levels * 8) + 4 * t.repeat),
        "copy": encoded * left,
        "code": max(0, p.products - 96) / 96 * tiles,
        "tiles": tiles,
        "wraps": tiles * c.r * c.s * blocks.wraps(op, p.rows, knobs["left"]),
        "stores": tiles * sums * t.repeat,
        **blocks.traffic(
            op,
            knobs,
            t.row_tiles,
            t.panels,
            p.rows * c.steps * left * 4,
            columns * c.steps * c.kq * right / 8,
            isa.target,
        ),
    }


def _adders(p: Plan) -> tuple[float, float]:
    """Full adders, and vectors whose bits are counted, for each word of a place of the tile."""
    adders, carried = 0.0, 0.0
    for level in range(p.levels):
        pairs = sum(level - q in range(p.planes[0]) for q in range(p.planes[1]))
        merged = (pairs + carried) / 2
        adders += merged
        carried = merged
    left, right = p.planes
    above = sum(a + b >= p.levels for a in range(left) for b in range(right))
    return adders, carried + above
