"""Truth values, which lie in memory as 0 and 1, what is chosen by them, and rows of a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lpgen.errors import OnnxError
from lpgen.formats import Format
from lpgen.onnx.rules import parts
from lpgen.onnx.rules.attributes import attributes
from lpgen.onnx.rules.spelled import Spelled
from lpgen.onnx.rules.structure import axis_of
from lpgen.onnx.values import Constant, Mapped, Stored, Value
from lpgen.ops.cast import Cast
from lpgen.ops.movement import Gather
from lpgen.ops.tensor_type import TensorType
from lpgen.ops.unary import Unary

if TYPE_CHECKING:
    import onnx

    from lpgen.onnx.lowering import Lowering

TRUTH = Format("u", 1)


@dataclass(frozen=True)
class IsNan:
    """Where a tensor of float32 is no number."""

    x: Stored

    @property
    def type(self) -> TensorType:
        """Shape and dtype."""
        return TensorType(self.x.type.shape, "bool")


def cast(lowering: Lowering, name: str, value: Value, to: str) -> Stored:
    """A tensor as another type; "bool": its truth values."""
    x = lowering.tensor(value)
    op = Cast(size=math.prod(x.type.shape), dtype=x.type.dtype, to=to)
    made = lowering.step(name, op, {"x": x})
    kind = TensorType(x.type.shape, op.signature.output.dtype)
    return Stored(made, kind, x.order, TRUTH if to == "bool" else None)


def is_nan(lowering: Lowering, node: onnx.NodeProto) -> Sequence[Value]:
    """IsNaN, of which Where makes something."""
    x = lowering.tensor(lowering.inputs(node)[0])
    if x.type.dtype != "float32":
        raise OnnxError(f"x has type {x.type.dtype}, lpgen has float32")
    return [IsNan(x)]


def both(lowering: Lowering, node: onnx.NodeProto) -> Sequence[Value]:
    """And with constants that are all true, in one shape or another."""
    a, b = lowering.inputs(node)
    for value, other in ((a, b), (b, a)):
        if not isinstance(other, Constant):
            continue
        shape = np.broadcast_shapes(value.type.shape, other.array.shape)
        if other.array.all():
            return [parts.expanded(lowering, node.output[0], lowering.tensor(value), shape)]
        if not other.array.any():
            return [Constant(np.zeros(shape, bool))]
    raise OnnxError("of two tensors, or with truth values that differ")


def where(lowering: Lowering, node: onnx.NodeProto) -> Sequence[Value]:
    """Where between two numbers, a number in the place of NaN, or bounds of two tensors."""
    condition, a, b = lowering.inputs(node)
    if isinstance(condition, IsNan) and isinstance(a, Constant) and a.array.size == 1:
        if isinstance(b, Stored) and b == condition.x:
            op = Unary(
                size=math.prod(b.type.shape), function="replace_nan", alpha=float(a.array.item())
            )
            made = lowering.step(node.output[0], op, {"x": b})
            return [Stored(made, b.type, b.order)]
    numbers = [v.array.item() for v in (b, a) if isinstance(v, Constant) and v.array.size == 1]
    if isinstance(condition, Stored) and condition.form == TRUTH and len(numbers) == 2:
        return [Mapped(condition, np.float32(numbers))]
    return chosen(lowering, node)


def chosen(lowering: Lowering, node: onnx.NodeProto) -> Sequence[Value]:
    """Where of tensors of float32: max(min(a, inf or -inf), min(b, -inf or inf)), which is a or b;
    of one number less of that."""
    spelled = Spelled(lowering, node)
    condition, a, b = (lowering.values[name] for name in node.input)
    if any(v.type.dtype != "float32" for v in (a, b)):
        raise OnnxError(f"of {a.type.dtype} and {b.type.dtype}, lpgen has float32")

    def bound(true: float, false: float) -> str:
        numbers = [np.float32(true), np.float32(false)]
        if isinstance(condition, Constant):
            return spelled.constant(np.where(condition.array, *numbers))
        return spelled("Where", node.input[0], *map(spelled.constant, numbers))

    def one(tensor: str, other: float, when: bool) -> str:
        """The tensor where the condition is `when`, else a number."""
        ends = [(np.inf, other), (-np.inf, other)]
        upper, lower = (bound(*(end if when else end[::-1])) for end in ends)
        least = other <= np.finfo(np.float32).min
        made = spelled("Min", tensor, upper, writes=node.output[0] if least else "")
        return made if least else spelled("Max", made, lower, writes=node.output[0])

    numbers = [
        v.array.item() if isinstance(v, Constant) and v.array.size == 1 else None for v in (a, b)
    ]
    if numbers[1] is not None and numbers[0] is None:
        return spelled.lowered(one(node.input[1], numbers[1], True))
    if numbers[0] is not None and numbers[1] is None:
        return spelled.lowered(one(node.input[2], numbers[0], False))
    sides = [
        spelled("Min", name, bound(*ends))
        for name, ends in zip(node.input[1:], ((np.inf, -np.inf), (-np.inf, np.inf)), strict=True)
    ]
    return spelled.lowered(spelled("Max", *sides, writes=node.output[0]))


def gather(lowering: Lowering, node: onnx.NodeProto) -> Sequence[Value]:
    """Gather of one place that is known, or of rows of a constant table."""
    if part := parts.gather(lowering, node):
        return part
    table, index = lowering.inputs(node)
    axis = axis_of(attributes(node, axis=0)["axis"], len(table.type.shape))
    if not isinstance(table, Constant) or axis != 0 or isinstance(index, Constant):
        raise OnnxError("lpgen gathers rows of a constant table, and places that are known")
    rows, *rest = table.array.shape
    places = lowering.tensor(index)
    if places.type.dtype != "int32":
        places = cast(lowering, f"{node.output[0]}:index", places, "int32")
    places = lowering.ordered(places, range(len(places.order)))
    return [_gathered(lowering, node.output[0], table.array.reshape(rows, -1), places, rest)]


def _gathered(
    lowering: Lowering, name: str, table: np.ndarray, places: Stored, rest: Sequence[int]
) -> Stored:
    op = Gather(
        **dict(zip(("rows", "columns"), table.shape, strict=True)),
        **{"count": math.prod(places.type.shape), "dtype": table.dtype.name},
    )
    made = lowering.step(name, op, {"index": places}, constants={"x": table})
    return lowering.stored(made, TensorType((*places.type.shape, *rest), table.dtype.name))


def gather_nd(lowering: Lowering, node: onnx.NodeProto) -> Sequence[Value]:
    """GatherND of single elements whose places are known."""
    value, places = lowering.inputs(node)
    if attributes(node, batch_dims=0)["batch_dims"] or not isinstance(places, Constant):
        raise OnnxError("places that are found in each call, or batches")
    x = lowering.tensor(value)
    shape, index = x.type.shape, places.array
    if index.shape[-1] != len(shape):
        raise OnnxError(f"{index.shape[-1]} numbers for a place in {len(shape)} axes")
    index = np.where(index < 0, index + shape, index)
    if (index < 0).any() or (index >= shape).any():
        raise OnnxError(f"places outside of shape {shape}")
    x = lowering.ordered(x, range(len(shape)))
    flat = np.ravel_multi_index(tuple(np.moveaxis(index, -1, 0)), shape).astype(np.int32)
    if np.array_equal(flat.ravel(), np.arange(math.prod(shape))):
        return [lowering.reshaped(x, flat.shape)]
    op = Gather(rows=math.prod(shape), columns=1, count=flat.size, dtype=x.type.dtype)
    constants = {"index": flat.ravel()}
    made = lowering.step(node.output[0], op, {"x": x}, constants=constants)
    return [lowering.stored(made, TensorType(flat.shape, x.type.dtype), form=x.form)]


RULES = {
    "And": both,
    "Gather": gather,
    "GatherND": gather_nd,
    "IsNaN": is_nan,
    "Where": where,
}
