"""Steps that become one: a residual that is added behind a product goes into its epilogue.

Exact: the fused operator gives the same bits (`lpgen.ops.epilogue.Middle`).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np

from lpgen.network.network import Network, Step
from lpgen.ops import Product
from lpgen.ops.add import Add
from lpgen.ops.epilogue import Clamp, Middle, Quantize, Residual
from lpgen.ops.pairs import ALL_AXES


def fused(network: Network) -> Network:
    """The network with every addition that can be in the epilogue of the product that one of its
    tensors comes from, the later one where both do."""
    readers = Counter(name for step in network.steps for name in step.inputs.values())
    readers.update(list(network.outputs))
    steps: dict[str, Step] = {}
    for step in network.steps:
        made = _with_product(step, steps, readers)
        if made is not None:
            step, product = made
            del steps[product]
        steps[step.output] = step
    return replace(network, steps=tuple(steps.values()))


def _with_product(
    step: Step, before: dict[str, Step], readers: Counter[str]
) -> tuple[Step, str] | None:
    """An addition with the product in front of it, and the tensor that is not needed any more; None
    where it stays."""
    op = step.op
    if not isinstance(op, Add) or op.rounded != "quotient" or op.clamp not in ("none", "relu"):
        return None
    if set(step.inputs) != {"a", "b"} or not _whole(op):
        return None
    places = {output: place for place, output in enumerate(before)}
    found = [
        (places[tensor], tensor, operand)
        for operand, tensor in step.inputs.items()
        if tensor in before and readers[tensor] == 1 and _takes_residual(before[tensor], op)
    ]
    if not found:
        return None
    _, tensor, operand = max(found)
    return _fused(before[tensor], step, operand), tensor


def _whole(op: Add) -> bool:
    """Whether both tensors have all elements of the result."""
    return all(op.shape_of(op.axes_of(which)) == op.shape_of(ALL_AXES) for which in "ab") or (
        op.outer * op.middle == 1 and all(op.axes_of(which) in (ALL_AXES, "i") for which in "ab")
    )


def _takes_residual(step: Step, add: Add) -> bool:
    """Whether the step is a product whose result is quantized last, with nothing in between."""
    op = step.op
    if not isinstance(op, Product) or not op.epilogue or op.signature.output.format.count(":"):
        return False
    others = [s for s in op.epilogue if isinstance(s, Clamp | Middle | Residual)]
    return isinstance(op.epilogue[-1], Quantize) and not others


def _fused(product: Step, add: Step, operand: str) -> Step:
    """The product with the addition in its epilogue; operand: which one the product's result is."""
    op, last = add.op, product.op.epilogue[-1]
    other = "b" if operand == "a" else "a"
    scales = dict(zip("aby", add.constants["scales"], strict=True))
    zeros = dict(zip("aby", map(int, add.constants["zeros"]), strict=True))
    clamp = [Clamp("relu")] if op.clamp == "relu" else []
    epilogue = (
        *product.op.epilogue[:-1],
        Middle(last.format, last.zero),
        Residual(getattr(op, other), zeros[other]),
        *clamp,
        Quantize(op.out, zeros["y"]),
    )
    parameters = {
        "middle_scale": np.float32([scales[operand]]),
        "residual_scale": np.float32([scales[other]]),
        "output_scale": np.float32([scales["y"]]),
    }
    return replace(
        product,
        name=add.name,
        op=replace(product.op, epilogue=epilogue),
        inputs={**product.inputs, "residual": add.inputs[other]},
        output=add.output,
        parameters={**product.parameters, **parameters},
        sources=(*product.sources, *add.sources),
    )
