"""Places as rows of zeros with a single 1, of which a product with a table takes rows of the table:
OneHot, and Equal of a tensor and the numbers 0, 1, 2, ... on its last axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from lpgen.errors import OnnxError
from lpgen.onnx.rules import logic
from lpgen.onnx.rules.attributes import attributes
from lpgen.onnx.rules.structure import known
from lpgen.onnx.values import Constant, Stored
from lpgen.ops.binary import Binary
from lpgen.ops.movement import Gather
from lpgen.ops.tensor_type import TensorType
from lpgen.ops.unary import Unary

if TYPE_CHECKING:
    import onnx

    from lpgen.onnx.lowering import Lowering


@dataclass(frozen=True)
class OneHot:
    """A tensor [..., depth] that is 1 where the last axis has the number of `index` [...], else 0;
    a number outside of 0..depth-1 gives zeros."""

    index: Stored
    type: TensorType

    UNREAD: ClassVar[str] = "places of ones are read by something else than a product with a table"


def equal(lowering: Lowering, node: onnx.NodeProto) -> Sequence[OneHot]:
    """Equal of integers that are the same along the last axis and 0, 1, 2, ... on it."""
    a, b = lowering.inputs(node)
    for value, numbers in ((a, b), (b, a)):
        if not isinstance(numbers, Constant) or not isinstance(value, Stored):
            continue
        value, depth = lowering.repeated.get(value.name, value), numbers.array.size
        shape = np.broadcast_shapes(value.type.shape, numbers.array.shape)
        counts = np.array_equal(numbers.array.ravel(), np.arange(depth))
        if counts and numbers.array.shape[-1:] == (depth,) and value.type.shape[-1:] == (1,):
            if value.type.shape == (*shape[:-1], 1):
                index = lowering.reshaped(value, shape[:-1])
                return [OneHot(index, TensorType(shape, "bool"))]
    raise OnnxError("lpgen has it of a tensor and the numbers 0, 1, 2, ... on its last axis")


def one_hot(lowering: Lowering, node: onnx.NodeProto) -> Sequence[OneHot]:
    """OneHot with 0 and 1 on the last axis. Its places may be counted from the end: these are not
    served, and give zeros."""
    value = lowering.inputs(node)[0]
    depth = int(known(lowering, node, 1, "the depth").reshape(()))
    values = known(lowering, node, 2, "the tensor of values")
    axis, shape = attributes(node, axis=-1)["axis"], value.type.shape
    if values.tolist() != [0, 1] or axis not in (-1, len(shape)):
        raise OnnxError(f"values {values.tolist()} on axis {axis}, lpgen has 0 and 1 on the last")
    return [OneHot(lowering.tensor(value), TensorType((*shape, depth), values.dtype.name))]


def rows(lowering: Lowering, name: str, value: OneHot, table: np.ndarray) -> Stored:
    """The rows of a table [depth, columns] of float32, zeros where there is none."""
    depth, columns = table.shape
    if depth != value.type.shape[-1]:
        raise OnnxError(f"shapes {value.type.shape} and {table.shape} do not match")
    shape = value.index.type.shape
    count = math.prod(shape)
    index = lowering.ordered(value.index, range(len(shape)))
    real = logic.cast(lowering, f"{name}:real", index, "float32")
    bounds = Unary(size=count, function="clip", alpha=-1.0, beta=float(depth))
    within = lowering.step(f"{name}:within", bounds, {"x": real})
    one = {"b": np.float32([1])}
    plus = Binary(inner=count, function="add", b_axes="none")
    within = lowering.stored(within, TensorType(shape, "float32"))
    moved = lowering.step(f"{name}:moved", plus, {"a": within}, constants=one)
    moved = lowering.stored(moved, TensorType(shape, "float32"))
    places = logic.cast(lowering, f"{name}:index", moved, "int32")
    # Rows of zeros around the table are those of places outside.
    wide = np.pad(table.astype(np.float32), ((1, 1), (0, 0)))
    op = Gather(rows=depth + 2, columns=columns, count=count, dtype="float32")
    made = lowering.step(name, op, {"index": places}, constants={"x": wide})
    return lowering.stored(made, TensorType((*shape, columns), "float32"))


RULES = {"Equal": equal, "OneHot": one_hot}
