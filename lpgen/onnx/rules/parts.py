"""Nodes that take tensors apart and put them together: Slice, Split, Gather of one place, Concat,
Pad. Of dequantized tensors it is the codes that move."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from lpgen.errors import OnnxError
from lpgen.onnx.rules import quantization
from lpgen.onnx.rules.attributes import attributes
from lpgen.onnx.rules.bounds import bounded_real
from lpgen.onnx.rules.structure import axis_of, known, on_codes
from lpgen.onnx.values import Constant, Mapped, Pending, Recoded, Stored, Target, Value
from lpgen.ops.movement import MOST_INPUTS, Concat, Gather, Pad, Slice
from lpgen.ops.tensor_type import TensorType

if TYPE_CHECKING:
    import onnx

    from lpgen.onnx.lowering import Lowering

MIRRORS = ("reflect", "edge", "wrap")
"""How Pad takes elements of the tensor; NumPy calls them so, too."""


@dataclass(frozen=True)
class Joined(Pending):
    """Tensors side by side on an axis, with a scale each."""

    values: tuple[Value, ...]
    axis: int

    def quantized(self, lowering: Lowering, name: str, to: Target) -> Stored:
        """All with the scale of the result first; what has it already stays as it is."""
        tensors = [
            lowering.tensor(quantization.codes_of(lowering, f"{name}:{i}", value, to))
            for i, value in enumerate(self.values)
        ]
        joined = concatenated(lowering, name, tensors, self.axis)
        return quantization.bounded(lowering, replace(joined, form=to.form), to, self)

    def real(self, lowering: Lowering, name: str) -> Stored:
        """Of real numbers."""
        tensors = [lowering.tensor(value) for value in self.values]
        made = concatenated(lowering, name, tensors, self.axis)
        return bounded_real(lowering, made, self)


def concatenated(lowering: Lowering, name: str, tensors: Sequence[Stored], axis: int) -> Stored:
    """The steps that put tensors side by side, in the order in memory of the first."""
    order = tensors[0].order
    tensors = [lowering.ordered(tensor, order) for tensor in tensors]
    place = order.index(axis)
    while len(tensors) > 1:
        some = [tensors[i : i + MOST_INPUTS] for i in range(0, len(tensors), MOST_INPUTS)]
        tensors = [_beside(lowering, name, part, place) if part[1:] else part[0] for part in some]
    return tensors[0]


def _beside(lowering: Lowering, name: str, tensors: Sequence[Stored], place: int) -> Stored:
    """Up to MOST_INPUTS tensors of one order in memory, side by side on the axis at a place."""
    first = tensors[0]
    op = Concat(
        outer=math.prod(first.memory.shape[:place]),
        sizes=tuple(math.prod(tensor.memory.shape[place:]) for tensor in tensors),
        dtype=first.type.dtype,
    )
    made = lowering.step(name, op, {f"x{i}": tensor for i, tensor in enumerate(tensors)})
    axis, sizes = first.order[place], list(first.type.shape)
    sizes[axis] = sum(tensor.type.shape[axis] for tensor in tensors)
    widest = max((t.form for t in tensors if t.form), key=lambda form: form.bits, default=None)
    kind = TensorType(tuple(sizes), first.type.dtype)
    return Stored(made, kind, first.order, widest)


def concat(lowering: Lowering, node: onnx.NodeProto) -> Sequence[Value]:
    """Concat."""
    given = lowering.inputs(node)
    together = joined(tuple(given), attributes(node, axis=0)["axis"])
    if all(isinstance(value, Stored | Recoded) for value in given):
        tensors = [lowering.tensor(value) for value in given]
        return [concatenated(lowering, node.output[0], tensors, together.axis)]
    return [together]


def joined(values: tuple[Value, ...], axis: int) -> Joined:
    """Tensors side by side; OnnxError where their shapes do not match."""
    first = values[0].type.shape
    axis = axis_of(axis, len(first))
    if any(isinstance(value, Constant) for value in values):
        raise OnnxError("one of the tensors is constant")
    for value in values[1:]:
        shape = value.type.shape
        if [s for i, s in enumerate(shape) if i != axis] != [
            s for i, s in enumerate(first) if i != axis
        ]:
            raise OnnxError(f"shapes {first} and {shape} do not match")
    sizes = (*first[:axis], sum(v.type.shape[axis] for v in values), *first[axis + 1 :])
    return Joined(TensorType(sizes, "float32"), -np.inf, np.inf, values, axis)


def sliced(
    lowering: Lowering, name: str, value: Value, parts: dict[int, tuple[int, int, int]]
) -> Value:
    """Part of a tensor; parts: first, count and step by axis."""

    def change(tensor: Stored) -> Stored:
        shape = tensor.type.shape
        whole = [parts.get(axis, (0, size, 1)) for axis, size in enumerate(shape)]
        kind = TensorType(tuple(count for _, count, _ in whole), tensor.type.dtype)
        if kind == tensor.type:
            return tensor
        start, size, step = zip(*(whole[axis] for axis in tensor.order), strict=True)
        op = Slice(
            **{"shape": tensor.memory.shape, "start": start, "size": size, "step": step},
            dtype=tensor.type.dtype,
        )
        return replace(tensor, name=lowering.step(name, op, {"x": tensor}), type=kind)

    return on_codes(lowering, value, change)


def slice_(lowering: Lowering, node: onnx.NodeProto) -> Sequence[Value]:
    """Slice with bounds that are known and steps forward."""
    value = lowering.inputs(node)[0]
    shape = value.type.shape
    if len(node.input) == 1:  # before opset 10
        given = attributes(node, starts=(), ends=(), axes=None)
        starts, ends, axes, steps = given["starts"], given["ends"], given["axes"], None
    else:
        names = ("starts", "ends", "axes", "steps")
        starts, ends, axes, steps = (
            known(lowering, node, place, name) for place, name in enumerate(names, 1)
        )
    axes = range(len(starts)) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    parts = {}
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        axis = axis_of(int(axis), len(shape))
        if step < 1:
            raise OnnxError(f"step {step}, lpgen goes forward")
        first, last, by = slice(int(start), int(end), int(step)).indices(shape[axis])
        count = len(range(first, last, by))
        if count == 0:
            raise OnnxError(f"nothing is left of axis {axis}")
        parts[axis] = (first, count, by)
    return [sliced(lowering, node.output[0], value, parts)]


def split(lowering: Lowering, node: onnx.NodeProto) -> Sequence[Value]:
    """Split into parts whose sizes are known."""
    value = lowering.inputs(node)[0]
    given = attributes(node, axis=0, split=None, num_outputs=0)
    axis = axis_of(given["axis"], len(value.type.shape))
    size, count = value.type.shape[axis], len(node.output)
    sizes = known(lowering, node, 1, "split")
    sizes = given["split"] if sizes is None else [int(s) for s in sizes]
    if sizes is None:
        each = -(-size // count)
        sizes = [each] * (count - 1) + [size - each * (count - 1)]
    if sum(sizes) != size or min(sizes) < 1 or len(sizes) != count:
        raise OnnxError(f"sizes {list(sizes)} are no {count} parts of {size}")
    first, results = 0, []
    for name, part in zip(node.output, sizes, strict=True):
        results.append(sliced(lowering, name, value, {axis: (first, part, 1)}))
        first += part
    return results


def gather(lowering: Lowering, node: onnx.NodeProto) -> Sequence[Value] | None:
    """Gather of one place on an axis, which is known; None for others."""
    value, index = lowering.inputs(node)
    axis = axis_of(attributes(node, axis=0)["axis"], len(value.type.shape))
    if not isinstance(index, Constant) or index.array.size != 1 or isinstance(value, Constant):
        return None
    size = value.type.shape[axis]
    place = axis_of(int(index.array.reshape(())), size)
    part = sliced(lowering, node.output[0], value, {axis: (place, 1, 1)})
    shape = value.type.shape
    sizes = (*shape[:axis], *index.array.shape, *shape[axis + 1 :])
    return [on_codes(lowering, part, lambda tensor: lowering.reshaped(tensor, sizes))]


def expand(lowering: Lowering, node: onnx.NodeProto) -> Sequence[Value]:
    """Expand to a shape that is known."""
    value = lowering.inputs(node)[0]
    wanted = known(lowering, node, 1, "the shape")
    try:
        shape = np.broadcast_shapes(value.type.shape, tuple(int(size) for size in wanted))
    except ValueError:
        raise OnnxError(f"{value.type.shape} cannot be expanded to {wanted.tolist()}") from None
    name = node.output[0]
    return [on_codes(lowering, value, lambda x: expanded(lowering, name, x, shape))]


def expanded(lowering: Lowering, name: str, x: Stored, shape: tuple[int, ...]) -> Stored:
    """The tensor repeated along the axes that it lacks, or of which it has one place."""
    x = lowering.reshaped(x, (*[1] * (len(shape) - len(x.type.shape)), *x.type.shape))
    if x.type.shape == shape:
        return x
    return lowering.repeated_to(lowering.ordered(x, range(len(shape))), shape, name)


def pad(lowering: Lowering, node: onnx.NodeProto) -> Sequence[Value]:
    """Pad with a number, or with elements of the tensor."""
    value = lowering.inputs(node)[0]
    shape = value.type.shape
    given = attributes(node, mode="constant", pads=None, value=0.0)
    if given["mode"] not in ("constant", *MIRRORS):
        raise OnnxError(f"mode={given['mode']} is none of constant, {', '.join(MIRRORS)}")
    edges = known(lowering, node, 1, "pads") if given["pads"] is None else given["pads"]
    number = known(lowering, node, 2, "the number")
    number = given["value"] if number is None else number.reshape(()).item()
    axes = known(lowering, node, 3, "the tensor of axes")
    axes = range(len(shape)) if axes is None else [axis_of(int(a), len(shape)) for a in axes]
    before, after = dict.fromkeys(range(len(shape)), 0), dict.fromkeys(range(len(shape)), 0)
    for i, axis in enumerate(axes):
        before[axis], after[axis] = int(edges[i]), int(edges[i + len(edges) // 2])
    if min(*before.values(), *after.values()) < 0:
        raise OnnxError(f"pads={[int(e) for e in edges]}, lpgen has no negative ones")
    if given["mode"] != "constant":
        widths = [(before[axis], after[axis]) for axis in range(len(shape))]
        name, mode = node.output[0], given["mode"]
        return [on_codes(lowering, value, lambda x: _mirrored(lowering, name, x, widths, mode))]
    code = np.float32(number)
    value = lowering.affine(value) or value  # has a code for 0 in any case
    if isinstance(value, Mapped):
        places = np.flatnonzero(value.table == np.float32(number))
        if not places.size:
            raise OnnxError(f"no code stands for the number {number}")
        code = value.form.min + int(places[0])

    def change(tensor: Stored) -> Stored:
        order = tensor.order
        op = Pad(
            shape=tensor.memory.shape,
            before=tuple(before[axis] for axis in order),
            after=tuple(after[axis] for axis in order),
            dtype=tensor.type.dtype,
        )
        constants = {"value": np.array([code], tensor.type.dtype)}
        made = lowering.step(node.output[0], op, {"x": tensor}, constants=constants)
        sizes = tuple(before[a] + size + after[a] for a, size in enumerate(tensor.type.shape))
        return replace(tensor, name=made, type=TensorType(sizes, tensor.type.dtype))

    return [on_codes(lowering, value, change)]


def _mirrored(
    lowering: Lowering, name: str, x: Stored, widths: Sequence[tuple[int, int]], mode: str
) -> Stored:
    """The tensor with elements of its own around it."""
    x, shape = lowering.ordered(x, range(len(widths))), x.type.shape
    whole = max((axis + 1 for axis, width in enumerate(widths) if any(width)), default=0)
    rows, columns = math.prod(shape[:whole]), math.prod(shape[whole:])
    index = np.pad(np.arange(rows, dtype=np.int32).reshape(shape[:whole]), widths[:whole], mode)
    op = Gather(rows=rows, columns=columns, count=index.size, dtype=x.type.dtype)
    made = lowering.step(name, op, {"x": x}, constants={"index": index.ravel()})
    kind = TensorType((*index.shape, *shape[whole:]), x.type.dtype)
    return lowering.stored(made, kind, form=x.form)


RULES = {"Concat": concat, "Slice": slice_, "Split": split, "Expand": expand, "Pad": pad}
