"""Operators without weights, in vectors of the ISA: loops over rows that threads share."""

from __future__ import annotations

from collections.abc import Callable

from lpgen.algorithms.kernel import Kernel
from lpgen.algorithms.rows import Rows, entry
from lpgen.isa import Isa
from lpgen.ops import Operator
from lpgen.schedules.common.rows import cells, conv, matmul, movement, sums, tables, windows
from lpgen.space import Counts, Knobs, Space

DEFINITIONS: dict[str, Callable[[Operator, Isa, int], Rows]] = {
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
    "reduce": sums.reduce,
    "resize": windows.resize,
    "slice": movement.slice_,
    "softmax": sums.softmax,
    "transpose": movement.transpose,
    "unary": sums.unary,
}
"""For each kind of operator what makes its rows, from the vectors of a step."""

SERVES = tuple(DEFINITIONS)


def why_not(op: Operator, isa: Isa) -> str | None:
    """None: the template serves every one."""
    return None


def space(op: Operator, isa: Isa) -> Space:
    """vectors: how many side by side a step has."""
    return Space({"vectors": (1, 2, 4)})


def work(op: Operator, isa: Isa, knobs: Knobs) -> Counts:
    """What a kernel with these knobs does (`Template.work`)."""
    vector = isa.bits // 8
    read = sum(argument.nbytes for argument in op.signature.inputs) / vector
    written = op.signature.output.nbytes / vector
    return {
        "loads": read,
        "stores": written,
        "products": op.ops / vector,
        "runs": written / knobs["vectors"],
        "code": knobs["vectors"],
    }


def kernel(op: Operator, isa: Isa, knobs: Knobs) -> Kernel:
    """The scheduled kernel."""
    return Kernel(op, entry(op, DEFINITIONS[op.kind](op, isa, knobs["vectors"])), None)
