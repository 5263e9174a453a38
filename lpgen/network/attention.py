"""Attention: a product, a softmax and a product become one step, which reads heads where the
products in front of it leave them. The steps give the same bits, but where they divide by a number
that is no power of two: attention multiplies, and differs in the last one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from lpgen.network.network import Network, Step, alive
from lpgen.ops.attention import Attention, Heads
from lpgen.ops.binary import Binary
from lpgen.ops.movement import Transpose
from lpgen.ops.rowwise import MatMul, Softmax

SMALLEST = float(np.finfo(np.float32).tiny)
"""Of numbers whose reciprocal is a float32, too."""


def found(
    step: Step, before: Mapping[str, Step], readers: Counter[str]
) -> tuple[Step, tuple[str, ...]] | None:
    """Attention for its last product, and the tensors that are not needed any more; None for any
    other step. before: the steps by what they write."""
    if not _is_product(step) or step.op.order != "kn":
        return None
    weights = _only(step.inputs["a"], before, readers)
    if weights is None or not isinstance(weights.op, Softmax):
        return None
    scores, gone = _only(weights.inputs["x"], before, readers), [weights.output]
    factor = _factor(scores)
    if factor is not None:
        gone.append(scores.output)
        scores = _only(next(iter(scores.inputs.values())), before, readers)
    if scores is None or not _is_product(scores):
        return None
    first, last, soft = scores.op, step.op, weights.op
    if (first.batch, first.m, first.n) != (last.batch, last.m, last.k):
        return None
    if (soft.rows, soft.columns) != (first.batch * first.m, first.n):
        return None
    if len({first.rounded, soft.rounded, last.rounded}) > 1:
        return None
    op = Attention(
        heads=first.batch,
        m=first.m,
        n=first.n,
        k=first.k,
        columns=last.n,
        factor=1.0 if factor is None else factor,
        added=soft.added,
        times=soft.times,
        nan=soft.nan,
        keys=Heads("apart" if first.order == "nk" else "turned"),
        rounded=first.rounded,
    )
    inputs = {"queries": scores.inputs["a"], "keys": scores.inputs["b"]}
    inputs |= {"values": step.inputs["b"]}
    inputs |= {"added": weights.inputs["added"]} if soft.added else {}
    sources = (*scores.sources, *weights.sources, *step.sources)
    made = replace(step, op=op, inputs=inputs, sources=tuple(dict.fromkeys(sources)))
    return made, (*gone, scores.output)


def _is_product(step: Step) -> bool:
    return isinstance(step.op, MatMul) and {*step.inputs} == {"a", "b"}


def _only(tensor: str, before: Mapping[str, Step], readers: Counter[str]) -> Step | None:
    """The step that writes a tensor which one step alone reads."""
    return before.get(tensor) if readers[tensor] == 1 else None


def _factor(step: Step | None) -> float | None:
    """The number that a step multiplies a tensor with, or the reciprocal of what it divides it by;
    None for any other step."""
    if step is None or not isinstance(step.op, Binary) or step.op.function not in ("mul", "div"):
        return None
    numbers = [*step.constants.values()]
    if len(step.inputs) != 1 or len(numbers) != 1 or numbers[0].size != 1:
        return None
    number = float(numbers[0].item())
    if step.op.function == "mul":
        return number if math.isfinite(number) else None
    fits = "b" in step.constants and abs(number) > SMALLEST
    return float(np.float32(1 / number)) if fits else None


class _Moved(NamedTuple):
    """A tensor whose heads are moved apart, [batch, heads, rows, columns], or together; turned:
    rows and columns change places, too."""

    tensor: str
    batch: int
    heads: int
    turned: bool


def laid_out(network: Network) -> Network:
    """The network whose attention reads heads, and writes them, where they are before and behind
    a transposition."""
    steps = {step.output: step for step in network.steps}
    for name, step in list(steps.items()):
        if not isinstance(step.op, Attention):
            continue
        for operand in ("queries", "keys", "values"):
            step = _reading(step, operand, steps)
        readers = [s for s in steps.values() if name in s.inputs.values()]
        if len(readers) == 1 and name not in network.outputs:
            step = _writing(step, readers[0])
        steps = {
            (step.output if output == name else output): (step if output == name else other)
            for output, other in steps.items()
            if output == name or output != step.output
        }
    return replace(network, steps=tuple(alive([*steps.values()], network.outputs)))


def _reading(step: Step, operand: str, steps: Mapping[str, Step]) -> Step:
    op, tensor = step.op, step.inputs[operand]
    rows, columns = (op.m if operand == "queries" else op.n), op.k
    columns = op.depth if operand == "values" else columns
    form = getattr(op, operand).form
    moved = _moved(steps.get(tensor), rows, columns)
    if moved is None or form == "beside" or (form == "turned") != moved.turned:
        return step
    fitting = _split(op, moved)
    if fitting is None:
        return step
    op = replace(fitting, **{operand: Heads("beside")})
    return replace(step, op=op, inputs={**step.inputs, operand: moved.tensor})


def _writing(step: Step, reader: Step) -> Step:
    op = step.op
    moved = _moved(reader, op.m, op.depth, back=True)
    fitting = _split(op, moved) if moved else None
    if fitting is None or op.result.form == "beside":
        return step
    sources = tuple(dict.fromkeys((*step.sources, *reader.sources)))
    op = replace(fitting, result=Heads("beside"))
    return replace(step, op=op, output=reader.output, sources=sources)


def _split(op: Attention, moved: _Moved) -> Attention | None:
    """The operator for so many heads of so many batches, None where it has others."""
    if (op.batch, op.heads) == (moved.batch, moved.heads):
        return op
    apart = all(h.form != "beside" for h in (op.queries, op.keys, op.values, op.result))
    if not apart or op.batch * op.heads != moved.batch * moved.heads:
        return None
    return replace(op, batch=moved.batch, heads=moved.heads)


def _moved(step: Step | None, rows: int, columns: int, back: bool = False) -> _Moved | None:
    """What a transposition moves, None for any other step; back: heads that are apart move
    together."""
    if step is None or not isinstance(step.op, Transpose) or step.op.out is not None:
        return None
    op = step.op
    shape, axes = op.shape, op.axes
    if len(shape) == 3:
        shape, axes = (1, *shape), (0, *(axis + 1 for axis in axes))
    if op.dtype != "float32" or len(shape) != 4 or axes not in ((0, 2, 1, 3), (0, 2, 3, 1)):
        return None
    tensor, turned = step.inputs["x"], axes == (0, 2, 3, 1)
    if back:
        batch, heads = shape[:2]
        fits = not turned and shape[2:] == (rows, columns)
    else:
        batch, heads = shape[0], shape[2]
        fits = (shape[1], shape[3]) == (rows, columns)
    return _Moved(tensor, batch, heads, turned) if fits else None


def numbers_first(network: Network) -> Network:
    """The network that multiplies with numbers before it transposes: then the product in front may
    take them."""
    readers = Counter(name for step in network.steps for name in step.inputs.values())
    readers.update([*network.outputs])
    steps = {step.output: step for step in network.steps}
    for output, step in list(steps.items()):
        if _factor(step) is None:
            continue
        (operand, tensor), *_ = step.inputs.items()
        turning = _only(tensor, steps, readers)
        if turning is None or not isinstance(turning.op, Transpose) or turning.op.out is not None:
            continue
        source = turning.inputs["x"]
        if _only(source, steps, readers) is None:
            continue
        steps[tensor] = replace(step, inputs={operand: source}, output=tensor)
        steps[output] = replace(turning, inputs={"x": tensor}, output=output)
    return replace(network, steps=tuple(steps.values()))
