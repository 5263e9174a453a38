"""Nodes that give elements other places, or none: shapes, transpositions, what does nothing.

Nothing moves in memory until an operator wants its input in another order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lpgen.errors import OnnxError
from lpgen.onnx.rules.attributes import attributes
from lpgen.onnx.values import Constant, Mapped, Pending, Recoded, Stored, Value
from lpgen.ops.tensor_type import TensorType

if TYPE_CHECKING:
    import onnx

    from lpgen.onnx.lowering import Lowering


def on_codes(
    lowering: Lowering, value: Value, change: Callable[[Stored], Stored]
) -> Stored | Recoded | Mapped:
    """What `change` makes of a tensor, or of the codes that a value is a function of."""
    if isinstance(value, Recoded):
        return replace(value, codes=change(value.codes))
    if isinstance(value, Mapped):
        codes = change(value.codes)
        made_of = value.made_of and (replace(value.made_of[0], codes=codes), value.made_of[1])
        return replace(value, codes=codes, made_of=made_of)
    return change(lowering.tensor(value))


def known(lowering: Lowering, node: onnx.NodeProto, place: int, what: str) -> np.ndarray | None:
    """An input that has to be constant, None where it is left out."""
    value = (lowering.inputs(node) + [None] * place)[place]
    if value is None:
        return None
    if not isinstance(value, Constant):
        raise OnnxError(f"{what} is no constant")
    return value.array


def identity(lowering: Lowering, node: onnx.NodeProto) -> Sequence[Value]:
    """Identity, Dropout."""
    (value, *_) = lowering.inputs(node)
    return [value]


def cast(lowering: Lowering, node: onnx.NodeProto) -> Sequence[Value] | None:
    """Cast; int8 weights stay known as codes, sums of dynamic ones as these."""
    from onnx import helper

    from lpgen.onnx.rules import logic
    from lpgen.onnx.rules.dynamic import Sums
    from lpgen.onnx.rules.one_hot import OneHot

    (value,) = lowering.inputs(node)
    given = attributes(node, to=0, saturate=1, round_mode="up")
    to = np.dtype(helper.tensor_dtype_to_np_dtype(given["to"])).name
    if isinstance(value, Constant):
        if value.type.dtype in ("int8", "uint8") and to == "float32":
            return [Constant(value.array.astype(to), value.array)]
        return None
    if isinstance(value, OneHot):
        return [replace(value, type=value.type._replace(dtype=to))]
    if to == value.type.dtype or (isinstance(value, Sums) and to == "float32"):
        return [value]
    return [logic.cast(lowering, node.output[0], value, to)]


def cast_like(lowering: Lowering, node: onnx.NodeProto) -> Sequence[Value] | None:
    """CastLike, of what has that type already."""
    value, like = lowering.inputs(node)
    if value.type.dtype == like.type.dtype:
        return [value]
    if isinstance(value, Constant):
        return [Constant(value.array.astype(like.type.dtype))]
    raise OnnxError(f"{value.type.dtype} to {like.type.dtype}: lpgen has it for constants")


def shape(lowering: Lowering, node: onnx.NodeProto) -> Sequence[Value]:
    """Shape, which is known."""
    (value,) = lowering.inputs(node)
    sizes = value.type.shape
    given = attributes(node, start=0, end=len(sizes))
    return [Constant(np.array(sizes[given["start"] : given["end"]], np.int64))]


def size(lowering: Lowering, node: onnx.NodeProto) -> Sequence[Value]:
    """Size, which is known."""
    (value,) = lowering.inputs(node)
    return [Constant(np.array(math.prod(value.type.shape), np.int64))]


def reshape(lowering: Lowering, node: onnx.NodeProto) -> Sequence[Value]:
    """Reshape to sizes that are known."""
    value = lowering.inputs(node)[0]
    wanted = known(lowering, node, 1, "the shape")
    given = attributes(node, allowzero=0)
    old = value.type.shape
    sizes = [int(s) for s in wanted]
    for axis, asked in enumerate(sizes):
        if asked == 0 and not given["allowzero"] and axis < len(old):
            sizes[axis] = old[axis]
    if sizes.count(-1) == 1 and (rest := math.prod(s for s in sizes if s != -1)) > 0:
        sizes[sizes.index(-1)] = math.prod(old) // rest
    if min(sizes, default=1) < 1 or math.prod(sizes) != math.prod(old):
        raise OnnxError(f"{list(old)} cannot have the shape {[int(s) for s in wanted]}")
    return [_reshaped(lowering, value, sizes)]


def flatten(lowering: Lowering, node: onnx.NodeProto) -> Sequence[Value]:
    """Flatten to a matrix."""
    (value,) = lowering.inputs(node)
    old = value.type.shape
    axis = axis_of(attributes(node, axis=1)["axis"], len(old), past=1)
    return [_reshaped(lowering, value, (math.prod(old[:axis]), math.prod(old[axis:])))]


def squeeze(lowering: Lowering, node: onnx.NodeProto) -> Sequence[Value]:
    """Squeeze of some axes, or of all of size 1."""
    value = lowering.inputs(node)[0]
    old = value.type.shape
    axes = _axes(lowering, node, len(old))
    if axes is None:
        axes = [axis for axis, size in enumerate(old) if size == 1]
    if wrong := [axis for axis in axes if old[axis] != 1]:
        raise OnnxError(f"axis {wrong[0]} has size {old[wrong[0]]}, expected 1")
    sizes = [size for axis, size in enumerate(old) if axis not in axes]
    return [_reshaped(lowering, value, sizes)]


def unsqueeze(lowering: Lowering, node: onnx.NodeProto) -> Sequence[Value]:
    """Unsqueeze."""
    value = lowering.inputs(node)[0]
    old = list(value.type.shape)
    asked = known(lowering, node, 1, "the tensor of axes")
    count = len(attributes(node, axes=())["axes"]) if asked is None else asked.size
    axes = _axes(lowering, node, len(old) + count) or []
    sizes = [1 if axis in axes else old.pop(0) for axis in range(len(old) + count)]
    return [_reshaped(lowering, value, sizes)]


def transpose(lowering: Lowering, node: onnx.NodeProto) -> Sequence[Value]:
    """Transpose: the same memory, seen with its axes in another order."""
    (value,) = lowering.inputs(node)
    axes = len(value.type.shape)
    perm = tuple(attributes(node, perm=())["perm"]) or tuple(reversed(range(axes)))
    if sorted(perm) != list(range(axes)):
        raise OnnxError(f"perm={list(perm)} is no order of {axes} axes")

    def change(tensor: Stored) -> Stored:
        kind = TensorType(tuple(tensor.type.shape[p] for p in perm), tensor.type.dtype)
        return replace(tensor, type=kind, order=tuple(perm.index(axis) for axis in tensor.order))

    return [on_codes(lowering, value, change)]


def _reshaped(lowering: Lowering, value: Value, sizes: Sequence[int]) -> Value:
    if isinstance(value, Pending) and tuple(sizes) == value.type.shape:
        return value
    return on_codes(lowering, value, lambda tensor: lowering.reshaped(tensor, sizes))


def _axes(lowering: Lowering, node: onnx.NodeProto, count: int) -> list[int] | None:
    """The axes in the second input, or in the attribute of older nodes; None: not said."""
    asked = known(lowering, node, 1, "the tensor of axes")
    if asked is None:
        asked = attributes(node, axes=None)["axes"]
    return None if asked is None else [axis_of(int(axis), count) for axis in np.ravel(asked)]


def axis_of(axis: int, count: int, past: int = 0) -> int:
    """An axis counted from the first; `past`: how many behind the last are legal."""
    if not -count <= axis < count + past:
        raise OnnxError(f"axis={axis}, but there are {count} axes")
    return axis + count if axis < 0 else axis


RULES: dict[str, Any] = {
    "Identity": identity,
    "Dropout": identity,
    "Cast": cast,
    "CastLike": cast_like,
    "Shape": shape,
    "Size": size,
    "Reshape": reshape,
    "Flatten": flatten,
    "Squeeze": squeeze,
    "Unsqueeze": unsqueeze,
    "Transpose": transpose,
}
