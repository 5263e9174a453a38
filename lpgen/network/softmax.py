"""What attention has around a softmax: a mask that is added in front of it, and behind it a number
for rows of which nothing is left. Both are exact: the fused operator gives the same bits."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from lpgen.network.network import Step
from lpgen.ops.binary import Binary
from lpgen.ops.pairs import ALL_AXES
from lpgen.ops.rowwise import Softmax
from lpgen.ops.unary import Unary


def found(
    step: Step, before: dict[str, Step], readers: Counter[str]
) -> tuple[Step, tuple[str, ...]] | None:
    """The softmax with what is added in front of it, or with the number behind it, and the tensor
    that is not needed any more; None for any other step. before: the steps by what they write."""
    tensor = step.inputs.get("x")
    inner = before.get(tensor)
    if inner is None or readers[tensor] != 1:
        return None
    if isinstance(step.op, Softmax):
        made = _with_mask(step, inner)
    elif isinstance(step.op, Unary) and step.op.function == "replace_nan":
        made = _with_number(step, inner)
    else:
        made = None
    return made and (made, (tensor,))


def _with_mask(softmax: Step, add: Step) -> Step | None:
    op, sums = softmax.op, add.op
    if not isinstance(sums, Binary) or sums.function != "add" or set(add.inputs) != {"a", "b"}:
        return None
    x, mask = ("a", "b") if sums.axes_of("a") == ALL_AXES else ("b", "a")
    axes = sums.axes_of(mask)
    rows, rest = divmod(sums.inner, op.columns)
    if op.added or rest or sums.axes_of(x) != ALL_AXES or axes not in ("i", "oi", "mi", ALL_AXES):
        return None
    if axes == "mi":
        rows *= sums.middle
    times = {"i": sums.outer * sums.middle, "oi": sums.middle, "mi": sums.outer}.get(axes, 1)
    return replace(
        softmax,
        op=replace(op, added=rows, times=times),
        inputs={"x": add.inputs[x], "added": add.inputs[mask]},
        sources=(*add.sources, *softmax.sources),
    )


def _with_number(number: Step, softmax: Step) -> Step | None:
    if not isinstance(softmax.op, Softmax) or softmax.op.nan is not None:
        return None
    return replace(
        softmax,
        name=number.name,
        op=replace(softmax.op, nan=number.op.alpha),
        output=number.output,
        sources=(*softmax.sources, *number.sources),
    )
