"""Steps that become one: what is added behind a product goes into its epilogue, the arithmetic of
a GELU is the function.

Additions are exact: the fused operator gives the same bits (`lpgen.ops.epilogue.Middle`, or a
residual of float32). A GELU differs in the last bits from its parts (`lpgen.ops.functions`).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np

from lpgen.network import gelu
from lpgen.network.network import Network, Step
from lpgen.ops import Operator, Product
from lpgen.ops.add import Add
from lpgen.ops.binary import Binary
from lpgen.ops.epilogue import Chain, Clamp, Middle, Pack, Quantize, Residual
from lpgen.ops.pairs import ALL_AXES


def fused(network: Network) -> Network:
    """The network with every addition that can be in the epilogue of the product that one of its
    tensors comes from, the later one where both do."""
    readers = Counter(name for step in network.steps for name in step.inputs.values())
    readers.update(list(network.outputs))
    steps: dict[str, Step] = {}
    for step in network.steps:
        made = _with_product(step, steps, readers) or gelu.found(step, steps, readers)
        if made is not None:
            step, gone = made
            for output in gone:
                del steps[output]
        steps[step.output] = step
    return replace(network, steps=tuple(steps.values()))


def _with_product(
    step: Step, before: dict[str, Step], readers: Counter[str]
) -> tuple[Step, tuple[str]] | None:
    """An addition with the product in front of it, and the tensor that is not needed any more; None
    where it stays."""
    if not _is_sum(step.op) or set(step.inputs) != {"a", "b"} or not _whole(step.op):
        return None
    places = {output: place for place, output in enumerate(before)}
    found = [
        (places[tensor], tensor, operand)
        for operand, tensor in step.inputs.items()
        if tensor in before and readers[tensor] == 1 and _takes(before[tensor].op, step.op)
    ]
    if not found:
        return None
    _, tensor, operand = max(found)
    return _fused(before[tensor], step, operand), (tensor,)


def _is_sum(op: Operator) -> bool:
    """Whether it is an addition that an epilogue can compute."""
    if isinstance(op, Binary):
        return op.function == "add"
    return isinstance(op, Add) and op.rounded == "quotient"


def _whole(op: Add | Binary) -> bool:
    """Whether both tensors have all elements of the result."""
    return all(op.shape_of(op.axes_of(which)) == op.shape_of(ALL_AXES) for which in "ab") or (
        op.outer * op.middle == 1 and all(op.axes_of(which) in (ALL_AXES, "i") for which in "ab")
    )


def _takes(op: Operator, add: Add | Binary) -> bool:
    """Whether it is a product with a result of the kind that is added, and nothing behind it."""
    if not isinstance(op, Product) or not op.epilogue:
        return False
    if any(isinstance(step, Clamp | Middle | Pack | Residual) for step in op.epilogue):
        return False
    if isinstance(add, Add):
        return isinstance(op.epilogue[-1], Quantize)
    return op.signature.output.dtype == "float32"


def _fused(product: Step, add: Step, operand: str) -> Step:
    """The product with the addition in its epilogue; operand: which one the product's result is."""
    op, last = add.op, product.op.epilogue[-1]
    other = "b" if operand == "a" else "a"
    if isinstance(op, Binary):
        return _joined(product, add, other, (*product.op.epilogue, Residual("f32")), {})
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
    return _joined(product, add, other, epilogue, parameters)


def _joined(
    product: Step, add: Step, other: str, epilogue: Chain, parameters: dict[str, np.ndarray]
) -> Step:
    """The product with another epilogue, which takes what was added as its residual."""
    return replace(
        product,
        name=add.name,
        op=replace(product.op, epilogue=epilogue),
        inputs={**product.inputs, "residual": add.inputs[other]},
        output=add.output,
        parameters={**product.parameters, **parameters},
        sources=(*product.sources, *add.sources),
    )
