"""Tensors of few bits between layers as bit planes, where all that read them count bits.

The bitserial algorithm takes the planes of its input before it counts (docs/packed.md). A product
whose result nothing but such kernels reads writes planes, and they read them as they lie: in place
of a byte for each value. Other algorithms would have to take planes apart.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from lpgen.build import Choice
from lpgen.network.network import Network, Step
from lpgen.ops import Operator, Product
from lpgen.ops.epilogue import Pack

PLANES = "planes"

Chooser = Callable[[Operator], Choice]
"""What finds the kernel of an operator."""


def with_planes(network: Network, choosers: Sequence[Chooser]) -> Network:
    """The network with planes between its layers; choosers: what finds the kernels of an operator
    on each target, which all have to count bits."""

    def counts(op: Operator) -> bool:
        return all(choose(op).template.endswith("/bitserial") for choose in choosers)

    def pays(readers: Collection[Product]) -> bool:
        return all(map(counts, readers)) and all(counts(_reading(op)) for op in readers)

    found = _between(network)
    return _in_planes(network, [t for t, readers in found.items() if pays(readers)])


def planes_as_in(network: Network, workloads: Sequence[str]) -> Network:
    """The network with planes where steps with these workloads have them."""
    reading = zip(network.steps, workloads, strict=False)
    given = {step.inputs.get("x") for step, text in reading if f"input={PLANES}" in text.split()}
    return _in_planes(network, given & _between(network).keys())


def _between(network: Network) -> dict[str, list[Product]]:
    """The tensors that may be planes, each with the products that read it."""
    writers = {step.output: step.op for step in network.steps if _may_pack(step.op)}
    readers: dict[str, list[Product]] = defaultdict(list)
    others = set(network.outputs)
    for step in network.steps:
        for argument, tensor in step.inputs.items():
            if argument == "x" and tensor in writers and _takes(step.op, writers[tensor]):
                readers[tensor].append(step.op)
            else:
                others.add(tensor)
    return {tensor: ops for tensor, ops in readers.items() if tensor not in others}


def _may_pack(op: Operator) -> bool:
    """Whether it makes codes that it could pack."""
    if not isinstance(op, Product) or op.y_format is None or op.pack is not None:
        return False
    return op.range is None and Pack(PLANES).check_within(op.epilogue) is None


def _takes(op: Operator, writer: Product) -> bool:
    """Whether it is a product of what another one writes, of the same shape."""
    if not isinstance(op, Product) or op.input != "act" or op.range is not None:
        return False
    return op.act == writer.y_format and op.x_extents == writer.y_extents


def _reading(op: Product) -> Product:
    return replace(op, input=PLANES)


def _in_planes(network: Network, tensors: Collection[str]) -> Network:
    def of(step: Step) -> Step:
        op = step.op
        if step.output in tensors:
            op = replace(op, epilogue=(*op.epilogue, Pack(PLANES)))
        if step.inputs.get("x") in tensors:
            op = _reading(op)
        return replace(step, op=op)

    return replace(network, steps=tuple(map(of, network.steps)))
