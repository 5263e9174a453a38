"""What no operator may be: words that contradict each other, sizes that int32 does not hold."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from lpgen.ops import epilogue, groups, inputs, outliers
from lpgen.ops.steps import check_zero
from lpgen.ops.words import MAX_ELEMENTS

if TYPE_CHECKING:
    from lpgen.ops.base import Operator

INT32_MAX = 2**31 - 1


def words(op: Operator) -> str | None:
    """Why its zero points, epilogue, input, scales and outliers cannot be, or None."""
    reason = check_zero("zero_act", op.act, op.zero_act)
    if op.zero_weight not in ("channel", "group"):
        reason = reason or check_zero("zero_weight", op.weight, op.zero_weight)
    reason = reason or epilogue.check_chain(op.epilogue)
    return reason or inputs.check(op) or groups.check(op) or outliers.check(op)


def sizes(op: Operator) -> str | None:
    """Why its sizes cannot be, or None: tensors are indexed with int32, and no exact result may
    leave int32."""
    for what, shape in (("x", op.x_extents), ("w", op.w_shape), ("y", op.y_extents)):
        if math.prod(shape) > MAX_ELEMENTS:
            return f"{what} has {math.prod(shape)} elements {shape}, the limit is {MAX_ELEMENTS}"
    # Without the zero points, too: kernels add up the values as they are.
    act, weight = op.farthest
    largest = max(act * weight, op.act.largest * op.weight.largest)
    sparse = outliers.bound(op, max(act, op.act.largest))
    if op.matrix.k * largest + sparse <= INT32_MAX:
        return None
    beside = f" outliers={op.outliers}" if sparse else ""
    return (
        f"k={op.matrix.k} with act={op.act} weight={op.weight}{beside} may reach "
        f"{op.matrix.k * largest + sparse}, above the int32 limit {INT32_MAX}; "
        f"k may be {INT32_MAX // (largest + sparse // op.matrix.k)} at most"
    )
