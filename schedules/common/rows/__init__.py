"""Operators without weights, in vectors of the ISA: loops over rows that threads share."""

from __future__ import annotations

from collections.abc import Callable

from lpgen.algorithms.kernel import Kernel
from lpgen.algorithms.rows import Rows, entry
from lpgen.isa import Isa
from lpgen.ops import Operator
from lpgen.ops.rounded import Rounded
from lpgen.schedules.common.rows import (
    attention,
    cells,
    codes,
    conv,
    matmul,
    movement,
    sums,
    tables,
    windows,
)
from lpgen.space import Counts, Knobs, Space

DEFINITIONS: dict[str, Callable[[Operator, Isa, int], Rows]] = {
    "attention": attention.attention,
    "concat": movement.concat,
    "conv2d_f32": conv.conv2d_f32,
    "fold": windows.fold,
    "gather": movement.gather,
    "gru_cell": cells.cell,
    "layer_norm": sums.layer_norm,
    "lookup": tables.lookup,
    "lstm_cell": cells.cell,
    "matmul": matmul.matmul,
    "pad": movement.pad,
    "pool": windows.pool,
    "quantize_rows": codes.quantize_rows,
    "reduce": sums.reduce,
    "resize": windows.resize,
    "slice": movement.slice_,
    "softmax": sums.softmax,
    "transpose": movement.transpose,
    "unary": sums.unary,
}
"""For each kind of operator what makes its rows, from the vectors of a step."""

FEWEST_SUMS = 8
"""Sums of a register tile that hide the latency of an addition."""

SERVES = tuple(DEFINITIONS)


def why_not(op: Operator, isa: Isa) -> str | None:
    """None, or the reason why the CPU does not serve `op`."""
    if isinstance(op, Rounded) and op.rounded == "sum" and not isa.target.has_fma:
        return f"{op.kind} with rounded=sum: {isa.target} has no instruction for that"
    return None


def space(op: Operator, isa: Isa) -> Space:
    """vectors: how many side by side a step has."""
    return Space({"vectors": (1, 2, 4)})


def work(op: Operator, isa: Isa, knobs: Knobs) -> Counts:
    """What a kernel with these knobs does (`Template.work`)."""
    vector = isa.bits // 8
    read = sum(argument.nbytes for argument in op.signature.inputs) / vector
    written = op.signature.output.nbytes / vector
    counts = {
        "loads": read,
        "stores": written,
        "products": op.ops / vector,
        "runs": written / knobs["vectors"],
        "code": knobs["vectors"],
    }
    return counts | _tiles(op, isa, knobs["vectors"], counts)


def _tiles(op: Operator, isa: Isa, vectors: int, counts: Counts) -> Counts:
    """What is different in register tiles of float32: a number of the left side is loaded for the
    vectors of a row, sums wait for each other where they are few. A multiplication of AVX-512
    takes a number from memory itself, so that tiles one vector wide load none (Zen 4: 1.2 to 1.45
    times as fast as others)."""
    if op.kind == "matmul":
        (height, wide), rows = matmul.tile(op, isa, vectors), op.m
    elif op.kind == "attention":
        (height, wide), rows = attention.tile(op, isa, vectors), op.m
    elif op.kind == "conv2d_f32" and not op.depthwise:
        (height, wide), rows = conv.tile(op, isa, vectors), op.pixels
    else:
        return {}
    tall = min(height, rows)
    steps = op.ops / (2 * isa.lanes * tall * wide)
    itself = isa.bits == 512 and wide == 1
    return {
        "loads": counts["loads"] + steps * tall * (not itself),
        "stall": steps * max(0, FEWEST_SUMS - tall * wide),
        "runs": counts["stores"] / (tall * wide),
    }


def kernel(op: Operator, isa: Isa, knobs: Knobs) -> Kernel:
    """The scheduled kernel."""
    return Kernel(op, entry(op, DEFINITIONS[op.kind](op, isa, knobs["vectors"])), None)
