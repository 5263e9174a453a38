"""What the trees see of a candidate: shares of its price, its knobs, the operator's sizes.

Nothing in it names an instruction set: what is learned on one level is used on the others.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from lpgen.space import Counts, Knobs

ALGORITHMS = (
    *("bitserial", "depthwise", "dot", "generic", "blockwise_dot", "grouped_conv", "lane_pack"),
    *("lut_product", "lut_sum", "lut_weight", "mma", "telescoped"),
)
COUNTS = (
    *("products", "adders", "counts", "loads", "unpack", "indices", "flush", "spilled", "stall"),
    *("expand", "copy", "fold", "tiles", "runs", "stores", "finish", "code", "l2", "l3", "dram"),
    *("weights", "rows", "far", "written", "shuffles"),
)
NUMBERS = (
    *("rows", "vectors", "columns", "m_block", "n_block", "unroll", "prefetch", "words", "depth"),
    *("word", "digits", "inputs", "block", "down", "across", "lanes"),
)
WORDS = {
    "outer": ("mn", "nm"),
    "inner": ("mn", "nm"),
    "order": ("mc", "cm"),
    "left": ("direct", "copied", "folded"),
    "expand": ("none", "panel", "register"),
    "weights": ("packed", "bytes"),
    "count": ("instruction", "shuffle"),
}
LIKE = {"inside": "direct"}
"""Choices that came after the trees were fitted, and what each is most like."""

SIZES = ("m", "n", "k", "taps", "groups", "act bits", "weight bits", "few rows")
LATER = ("winograd", "tile down", "tile across", "transformed", "inside", "stride")
LATER += ("wraps", "uneven", "sums", "crossed", "imaginary")
"""What the first trees were not shown: they end before it."""

LATER_COUNTS = ("wraps", "again", "bursts")
"""Counts that came after the first trees, which see no share of their price."""

NAMES = (*ALGORITHMS, *COUNTS, "pairs", "words step", *NUMBERS, *WORDS, *SIZES, *LATER)
ABSENT = -1.0


def features(
    op: Any, algorithm: str, knobs: Knobs, counts: Counts, prices: Mapping[str, float]
) -> np.ndarray:
    """float32[len(NAMES)] of a candidate."""
    parts = [prices.get(name, 0.0) * counts.get(name, 0.0) for name in COUNTS]
    total = sum(parts) or 1.0
    step = str(knobs.get("step", ""))
    pairs = int(step[5:] or 1) if step.startswith("pairs") else 0
    m, n, k = op.matrix.m, op.matrix.n, op.matrix.k
    taps = math.prod(op.w_shape[1:-1])
    values = [
        *(float(algorithm == name) for name in ALGORITHMS),
        *(part / total for part in parts),
        math.log2(1 + pairs),
        float(step == "words"),
        *(math.log2(1 + knobs[name]) if _is_int(knobs.get(name)) else ABSENT for name in NUMBERS),
        *(_place(words, knobs.get(name)) for name, words in WORDS.items()),
        *(math.log2(size) for size in (m, n, k, taps, op.matrix.groups)),
        *(op.act.bits, op.weight.bits, float(m <= 4)),
        *_later(op, algorithm, knobs, counts),
    ]
    return np.array(values, np.float32)


def _later(op: Any, algorithm: str, knobs: Knobs, counts: Counts) -> list[float]:
    step, tile = str(knobs.get("step", "")), str(knobs.get("tile", ""))
    down, _, across = tile.partition("x")
    rows, block = knobs.get("rows", 1), knobs.get("m_block") or 1
    uneven = op.matrix.m % rows and -(-op.matrix.m // rows) % block
    if algorithm == "depthwise":
        uneven = op.ow % knobs.get("columns", 1)
    return [
        float(algorithm == "winograd"),
        *(float(side.rstrip("i") or 0) for side in (down, across)),
        float(knobs.get("weights") == "transformed"),
        float(knobs.get("left") == "inside"),
        float(getattr(op, "stride", (1, 1))[0]),
        float(counts.get("wraps", 0) > 0),
        float(uneven > 0),
        math.log2(rows * knobs.get("vectors", 1) * knobs.get("columns", 1)),
        float(step.startswith("crossed")),
        float("i" in tile),
    ]


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _place(words: tuple[str, ...], value: Any) -> float:
    value = LIKE.get(value, value)
    return float(words.index(value)) if value in words else ABSENT
