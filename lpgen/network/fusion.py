"""Steps that become one: what is added behind a product goes into its epilogue, and so does a ReLU;
a number that real results are multiplied by goes into its scales; the arithmetic of a GELU is the
function; a mask is added by the softmax behind it; what is around that is attention.

Additions, ReLU and masks are exact, and so is attention but for quotients by a number: the fused
operator gives the same bits (`lpgen.ops.epilogue.Middle`, or a residual of float32). A GELU differs
in the last bits from its parts (`lpgen.ops.functions`), and so do scales that are multiplied first.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np

from lpgen.network import attention, gelu, softmax
from lpgen.network.coded import coded
from lpgen.network.network import Network, Step
from lpgen.ops import Operator, Product
from lpgen.ops.add import Add
from lpgen.ops.binary import Binary
from lpgen.ops.elementwise import QuantizeLinear
from lpgen.ops.epilogue import Bias, Chain, Clamp, Middle, Pack, Quantize, Residual, Scale
from lpgen.ops.pairs import ALL_AXES
from lpgen.ops.unary import Unary


def fused(network: Network) -> Network:
    """The network with every addition that can be in the epilogue of the product that one of its
    tensors comes from, the later one where both do, and behind it a ReLU."""
    network = attention.numbers_first(network)
    readers = Counter(name for step in network.steps for name in step.inputs.values())
    readers.update(list(network.outputs))
    steps: dict[str, Step] = {}
    for step in network.steps:
        made = (
            _with_product(step, steps, readers)
            or _with_scale(step, steps, readers)
            or gelu.found(step, steps, readers)
            or softmax.found(step, steps, readers)
            or attention.found(step, steps, readers)
        )
        if made is not None:
            step, gone = made
            for output in gone:
                del steps[output]
        steps[step.output] = step
    short = replace(network, steps=tuple(steps.values()))
    for name in [step.name for step in short.steps]:
        short = _bounded(short, name)
    return coded(attention.laid_out(short))


def _bounded(network: Network, name: str) -> Network:
    """The network with the ReLU in the epilogue of the product of that name whose result nothing
    else reads, but what quantizes it to codes of which the lowest is 0: these make zeros of
    negative numbers anyway."""
    product = next((step for step in network.steps if step.name == name), None)
    if product is None or not _ends_in_float(product.op) or product.output in network.outputs:
        return network
    reads = [step for step in network.steps if product.output in step.inputs.values()]
    bounds = [step for step in reads if isinstance(step.op, Unary) and step.op.function == "relu"]
    if not bounds or not all(step in bounds or _has_no_negative_code(step) for step in reads):
        return network
    kept = next((s.output for s in bounds if s.output in network.outputs), bounds[0].output)
    others = {step.output for step in bounds} - {kept, *network.outputs}
    instead = dict.fromkeys((product.output, *others), kept)
    steps = []
    for step in network.steps:
        if step.output == kept or step.output in others:
            continue
        inputs = {a: instead.get(tensor, tensor) for a, tensor in step.inputs.items()}
        step = replace(step, inputs=inputs)
        if step.name == name:
            sources = (*product.sources, *(s for bound in bounds for s in bound.sources))
            op = replace(product.op, epilogue=(*product.op.epilogue, Clamp("relu")))
            step = replace(step, op=op, output=kept, sources=sources)
        steps.append(step)
    return replace(network, steps=tuple(steps))


def _ends_in_float(op: Operator) -> bool:
    """Whether it is a product whose result is float32 and not bounded."""
    if not isinstance(op, Product) or not op.epilogue or op.signature.output.dtype != "float32":
        return False
    return not any(isinstance(step, Clamp | Pack) for step in op.epilogue)


def _has_no_negative_code(step: Step) -> bool:
    """Whether it quantizes to codes that stand for 0 and more."""
    zeros = step.constants.get("zero")
    quantizes = isinstance(step.op, QuantizeLinear) and zeros is not None
    return quantizes and bool((np.asarray(zeros) == step.op.format.min).all())


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


def _with_scale(
    step: Step, before: dict[str, Step], readers: Counter[str]
) -> tuple[Step, tuple[str]] | None:
    """A product whose real result nothing but a multiplication by a number reads, with that number
    in its scales, and the tensor that is not needed any more; None where it stays."""
    if not isinstance(step.op, Binary) or step.op.function != "mul" or len(step.inputs) != 1:
        return None
    (tensor,), (number,) = step.inputs.values(), step.constants.values()
    product = before.get(tensor)
    if number.size != 1 or product is None or readers[tensor] != 1:
        return None
    op, factor = product.op, np.float32(number.item())
    if not isinstance(op, Product) or op.signature.output.dtype != "float32":
        return None
    if not op.epilogue or not all(isinstance(part, Scale | Bias) for part in op.epilogue):
        return None
    scaled = {"scale", *(["bias"] if Bias("f32") in op.epilogue else [])}
    parameters = {n: a * factor if n in scaled else a for n, a in product.parameters.items()}
    made = replace(
        product,
        name=step.name,
        output=step.output,
        parameters=parameters,
        sources=(*product.sources, *step.sources),
    )
    return made, (tensor,)


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
