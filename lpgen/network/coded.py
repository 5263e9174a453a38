"""Activations that are quantized once: in front of several products that read them, or with the
function that they come from. The products see the codes and steps that they would have made
themselves, so that results have the same bits."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import NamedTuple

from lpgen.formats import Format
from lpgen.network.network import Network, Step
from lpgen.ops import Dense
from lpgen.ops.coded import KNOWN, PLAIN, QuantizeRows
from lpgen.ops.lhs import CODED
from lpgen.ops.unary import Unary

UNSIGNED = Format.parse("u8"), 128
"""What codes of s8 around 0 become, all 128 higher: most CPUs multiply unsigned by signed bytes."""


class _Read(NamedTuple):
    """How products read a tensor: its rows, their length, the format and the zero point."""

    rows: int
    columns: int
    act: Format
    zero: int


def coded(network: Network) -> Network:
    """The network with a step that quantizes each tensor of which several products would, or one
    that comes out of a function which nothing else wants."""
    readers: defaultdict[str, list[Step]] = defaultdict(list)
    for step in network.steps:
        for tensor in {*step.inputs.values()}:
            readers[tensor].append(step)
    writers = {step.output: step for step in network.steps}
    made: dict[str, list[Step]] = {}  # by the output of the step that they stand behind
    instead: dict[str, Step] = {}  # by the output of the step
    gone: set[str] = set()
    for tensor, reading in readers.items():
        kinds = defaultdict(list)
        for step in reading:
            if (read := _read(step, tensor)) is not None:
                kinds[read].append(step)
        for number, (read, products) in enumerate(kinds.items()):
            source = writers.get(tensor)
            alone = len(products) == len(reading) and tensor not in network.outputs
            function = _function(source) if alone else None
            if function is None and len(products) < 2:
                continue
            step = _quantizing(tensor, read, source if function else None, number)
            instead |= {p.output: _reading(p, step.output, read) for p in products}
            made.setdefault(tensor, []).append(step)
            gone |= {tensor} if function else set()
    inputs = [step for name in network.inputs for step in made.get(name, ())]
    steps = [
        new
        for step in network.steps
        for new in (
            *([] if step.output in gone else [instead.get(step.output, step)]),
            *made.get(step.output, ()),
        )
    ]
    return replace(network, steps=(*inputs, *steps))


def _read(step: Step, tensor: str) -> _Read | None:
    """How a product reads a tensor that it quantizes row by row, None for any other step."""
    op = step.op
    if not isinstance(op, Dense) or op.input != "f32:row" or op.hadamard or op.range or op.layers:
        return None
    if step.inputs["x"] != tensor or tensor in [t for n, t in step.inputs.items() if n != "x"]:
        return None
    return _Read(op.m, op.k, op.act, op.zero_act)


def _function(source: Step | None) -> str | None:
    """The function that a step computes, where it is one that is known here."""
    if source is None or not isinstance(source.op, Unary) or source.op.function not in KNOWN:
        return None
    return source.op.function


def _quantizing(tensor: str, read: _Read, source: Step | None, number: int) -> Step:
    """The step that quantizes a tensor, with the function of the step that it comes from."""
    act, zero = _stored(read)
    op = QuantizeRows(
        rows=read.rows,
        columns=read.columns,
        act=act,
        zero=zero,
        function=source.op.function if source else PLAIN,
        rounded=source.op.rounded if source else "product",
    )
    name = f"{tensor}:codes" + (str(number) if number else "")
    x = source.inputs["x"] if source else tensor
    return Step(name, op, {"x": x}, name, sources=source.sources if source else ())


def _reading(product: Step, codes: str, read: _Read) -> Step:
    act, zero = _stored(read)
    op = replace(product.op, input=CODED, act=act, zero_act=zero)
    return replace(product, op=op, inputs={**product.inputs, "x": codes})


def _stored(read: _Read) -> tuple[Format, int]:
    return UNSIGNED if (str(read.act), read.zero) == ("s8", 0) else (read.act, read.zero)
