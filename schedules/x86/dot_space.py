"""The knobs of the dot algorithm on x86, which of their combinations are valid, and a first guess.

| knob    | meaning                                                                                |
|---------|----------------------------------------------------------------------------------------|
| step    | the instruction: bytes (vpdpbusd, or vpmaddubsw + vpmaddwd), words (vpmaddwd on int16),|
|         | pairsN (vpmaddubsw, int16 sums of N steps before they are widened)                     |
| rows    | rows of the register tile                                                              |
| vectors | vectors of output columns in the register tile                                         |
| m_block | row tiles of a block; 0: all                                                           |
| n_block | panels of a block; 0: all                                                              |
| outer   | order of the blocks: mn (panels vary fastest) or nm                                    |
| inner   | order of the tiles in a block, the same way                                            |
| left    | direct: read the rows in place; copied: copy them into tile order first (im2col)       |
| expand  | where stored weights become operands: panel (a block's, once, into the cache),         |
|         | register (each use), none (they are stored as operands)                                |
| unroll  | k groups of one iteration of the innermost loop                                        |
"""

import math
from collections.abc import Iterator

from lpgen.algorithms.dot import Operands, Tiling, byte_operands, word_operands
from lpgen.algorithms.reduction import cut
from lpgen.algorithms.weights import PLANES
from lpgen.ops import Conv2d, Dense
from lpgen.schedules.x86.isa import Isa
from lpgen.space import Knobs, Space

ROWS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 20, 24, 28)
VECTORS = (1, 2, 3, 4, 5, 6, 8, 12, 16)
BLOCKS = (1, 2, 4, 8, 16, 32, 64, 128)
INT16_MAX = 2**15 - 1
WASTE = 8  # empty row tiles or panels may be one in so many


def operands_of(op: Dense | Conv2d, step: str) -> Operands:
    """What the two sides become for the step."""
    return word_operands(op) if step == "words" else byte_operands(op)


def steps(op: Dense | Conv2d, isa: Isa) -> tuple[str, ...]:
    """The steps that are exact for the operator's formats.

    vpmaddubsw saturates: the sum of two products, 2 * max|left| * max|right|, has to fit int16, and
    N steps summed in int16 need N times that.
    """
    if isa.dot:
        return ("bytes",)
    operands = byte_operands(op)
    most = INT16_MAX // (2 * operands.left_max * operands.right_max)
    names = ["words"]
    if most >= 1:
        names.append("bytes")
    kg = cut(op, 4).kg
    chunks = {2**i for i in range(1, 13) if 2**i <= min(most, kg)}
    if most >= 2 and kg >= 2:
        chunks.add(-(-kg // -(-kg // most)))
    names += [f"pairs{chunk}" for chunk in sorted(chunks)[-4:]]
    return tuple(names)


def chunk_of(step: str) -> int:
    """N of pairsN, 0 for the other steps."""
    return int(step.removeprefix("pairs")) if step.startswith("pairs") else 0


def expanded(op: Dense | Conv2d, step: str) -> bool:
    """Whether stored weights differ from operands."""
    return op.weight.bits < 8 or step == "words"


def multiple_of(op: Dense | Conv2d, knobs: Knobs) -> int:
    """What the number of k groups of a run has to be a multiple of."""
    fields = 8 // min(PLANES.get(op.weight.bits, (8,))) if knobs["expand"] == "register" else 1
    return math.lcm(chunk_of(knobs["step"]) or 1, fields, knobs["unroll"])


def tiling(op: Dense | Conv2d, isa: Isa, knobs: Knobs) -> Tiling:
    """The sizes that the knobs mean for this operator."""
    matrix = op.matrix
    rows, vectors = knobs["rows"], knobs["vectors"]
    return Tiling(
        rows=rows,
        vectors=vectors,
        lanes=isa.lanes,
        kq=2 if knobs["step"] == "words" else 4,
        row_tiles=_rounded(-(-matrix.m // rows), knobs["m_block"]),
        panels=_rounded(-(-matrix.n // (vectors * isa.lanes)), knobs["n_block"]),
        copied=knobs["left"] == "copied",
        chunk=chunk_of(knobs["step"]),
        multiple=multiple_of(op, knobs),
    )


def _rounded(count: int, block: int) -> int:
    return -(-count // block) * block if block else count


def space(op: Dense | Conv2d, isa: Isa) -> Space:
    """All knobs with their choices for `op`."""
    matrix = op.matrix
    names = steps(op, isa)
    places = ("panel", "register") if any(expanded(op, step) for step in names) else ("none",)
    if any(not expanded(op, step) for step in names) and "none" not in places:
        places = (*places, "none")
    return Space(
        {
            "step": names,
            "rows": tuple(_rows(matrix.m)),
            "vectors": tuple(_vectors(matrix.n, isa)),
            "m_block": (0, *(b for b in BLOCKS if b < matrix.m)),
            "n_block": (0, *(b for b in BLOCKS if b * isa.lanes < matrix.n)),
            "outer": ("mn", "nm"),
            "inner": ("mn", "nm"),
            "left": ("direct", "copied"),
            "expand": places,
            "unroll": (1, 2, 4, 8),
        },
        lambda knobs: refusal(op, isa, knobs) is None,
    )


def _rows(m: int) -> Iterator[int]:
    """Tile heights that waste little of the last tile, among them the even cuts of a small m."""
    even = {-(-m // tiles) for tiles in range(1, 5)}
    for rows in sorted({*ROWS, *(rows for rows in even if rows <= ROWS[-1])}):
        if rows in even or (rows < m and -(-m // rows) * rows - m <= m // WASTE):
            yield rows


def _vectors(n: int, isa: Isa) -> Iterator[int]:
    whole = -(-n // isa.lanes)
    for vectors in VECTORS:
        if vectors == 1 or (vectors <= whole and -(-whole // vectors) * vectors <= whole * 1.25):
            yield vectors


def unfit(op: Dense | Conv2d) -> str | None:
    """Why the algorithm does not serve the operator: one output column per group wastes a vector."""
    if op.matrix.n == 1 and op.matrix.groups > 1:
        return f"groups={op.matrix.groups} leave one output channel each: a depthwise kernel fits"
    return None


def refusal(op: Dense | Conv2d, isa: Isa, knobs: Knobs) -> str | None:
    """Why the combination is not in the space: it cannot be scheduled, does the same as another
    combination, or cannot be any good."""
    matrix = op.matrix
    rows, vectors, step = knobs["rows"], knobs["vectors"], knobs["step"]
    if not _fits_registers(isa, rows, vectors, step, knobs["expand"]):
        return f"a tile of {rows} x {vectors} vectors exceeds {isa.registers} registers"
    if rows * vectors < min(8, isa.registers // 3) and rows < matrix.m:
        return f"{rows} x {vectors} accumulators do not hide the latency of an instruction"
    tiles, panels = -(-matrix.m // rows), -(-matrix.n // (vectors * isa.lanes))
    for name, count in (("m_block", tiles), ("n_block", panels)):
        block = knobs[name]
        if block and (block >= count or _rounded(count, block) - count > count // WASTE):
            return f"{name}={block} does not divide {count} well"
    blocks = (tiles if knobs["m_block"] else 1, panels if knobs["n_block"] else 1)
    if 1 in blocks and knobs["outer"] != "mn":
        return "one block in a direction: there is only one order"
    inside = (knobs["m_block"] or tiles, knobs["n_block"] or panels)
    if 1 in inside and knobs["inner"] != "mn":
        return "one tile in a direction: there is only one order"
    return _expand_refusal(op, knobs) or _unroll_refusal(op, knobs)


def _fits_registers(isa: Isa, rows: int, vectors: int, step: str, expand: str) -> bool:
    # One row takes its weights from memory, more rows hold a vector of each; then the broadcast
    # left value, and for two-instruction steps the constant and a temporary.
    weights = vectors if rows > 1 or expand == "register" else 0
    extra = {"bytes": 1 if isa.dot else 3, "words": 2}.get(step, 2)
    if isa.registers == 16:
        weights = min(weights, 2)  # a weight vector can be a memory operand as well
    return rows * vectors + weights + extra <= isa.registers


def _expand_refusal(op: Dense | Conv2d, knobs: Knobs) -> str | None:
    if expanded(op, knobs["step"]) == (knobs["expand"] == "none"):
        return "weights are expanded exactly if they are not stored as operands"
    fields = 8 // min(PLANES.get(op.weight.bits, (8,)))
    if knobs["expand"] == "register":
        if knobs["unroll"] % fields:
            return f"expanding in registers needs unroll={fields} or a multiple"
        if isinstance(op, Conv2d) and cut(op, 4).kg % fields:
            return f"the k groups of a run are no multiple of the {fields} fields of a byte"
    return None


def _unroll_refusal(op: Dense | Conv2d, knobs: Knobs) -> str | None:
    unroll, chunk = knobs["unroll"], chunk_of(knobs["step"])
    if unroll > 1:
        kg = chunk or cut(op, 2 if knobs["step"] == "words" else 4).kg
        if unroll > kg or (chunk and chunk % unroll) or (isinstance(op, Conv2d) and kg % unroll):
            return f"unroll={unroll} does not divide the {kg} k groups"
        fields = 8 // min(PLANES.get(op.weight.bits, (8,)))
        if unroll * knobs["rows"] * knobs["vectors"] > 64 and unroll > fields:
            return f"unroll={unroll} makes the loop too long"
    return None


def default(op: Dense | Conv2d, isa: Isa) -> Knobs:
    """A good first guess: the point of the space with the best preferences, looked at in turn."""
    choices = space(op, isa)
    matrix = op.matrix
    small = matrix.m <= 16
    bytes_per_panel = op.matrix.k * isa.lanes

    def cost(knobs: Knobs) -> tuple:
        t = tiling(op, isa, knobs)
        rows, vectors = knobs["rows"], knobs["vectors"]
        wasted = t.row_tiles * rows * t.panels * vectors / (matrix.m * matrix.n / isa.lanes)
        # Loads of a step against its multiplications.
        loads = (rows + vectors) / (rows * vectors)
        n_block = (knobs["n_block"] or t.panels) * vectors * bytes_per_panel
        return (
            {"b": 1, "w": 2, "p": 0}[knobs["step"][0]] - chunk_of(knobs["step"]) / 1e4,
            knobs["left"] != "direct",
            knobs["expand"] != ("register" if small and knobs["expand"] != "none" else "panel"),
            round(wasted + loads, 3),
            knobs["m_block"],
            knobs["inner"] != "mn",
            abs(math.log2(n_block / 2**18)),
            knobs["outer"] != "mn" if small else knobs["outer"] != "nm",
            knobs["unroll"],
        )

    return min(choices.enumerate(), key=cost)
