"""Nodes of onnxruntime's optimizer of transformers, and ONNX's own that stand for several.

Source: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from lpgen.errors import OnnxError
from lpgen.onnx.rules.attributes import attributes
from lpgen.onnx.rules.functions import mapped
from lpgen.onnx.rules.spelled import Spelled, refuse
from lpgen.onnx.values import Value

if TYPE_CHECKING:
    import onnx

    from lpgen.onnx.lowering import Lowering


def _root_mean(spelled: Spelled, x: str, scale: str, epsilon: float) -> list[Value]:
    """x over the root of the mean of its squares along the last axis."""
    axes = spelled.constant(np.int64([-1]))
    mean = spelled("ReduceMean", spelled("Mul", x, x), axes)
    root = spelled("Sqrt", spelled("Add", mean, spelled.constant(np.float32(epsilon))))
    made = spelled("Mul", spelled("Div", x, root), scale, writes=spelled.node.output[0])
    return spelled.lowered(made)


def skip(lowering: Lowering, node: onnx.NodeProto, simple: bool = False) -> Sequence[Value]:
    """SkipLayerNormalization: a sum that is normalized; the sum is its last output."""
    spelled = Spelled(lowering, node)
    given = attributes(node, epsilon=1e-12 if not simple else 1e-5)
    outputs = [*node.output, "", "", ""][:4]
    refuse([("its mean, or its deviation", any(outputs[1:3]))])
    bias = spelled.input(3 if simple else 4)
    total = spelled("Add", spelled.input(0), spelled.input(1), writes="" if bias else outputs[3])
    if bias:
        total = spelled("Add", total, bias, writes=outputs[3])
    if simple:
        made = _root_mean(spelled, total, spelled.input(2), given["epsilon"])
    else:
        scales = [spelled.input(place) for place in (2, 3) if spelled.input(place)]
        how = {"axis": -1, "epsilon": given["epsilon"], "writes": outputs[0]}
        made = spelled.lowered(spelled("LayerNormalization", total, *scales, **how))
    return [*made * 3, lowering.values[total]][: len(node.output)]


def embedded(lowering: Lowering, node: onnx.NodeProto, coded: bool = False) -> Sequence[Value]:
    """EmbedLayerNormalization: rows of tables of words, positions and segments, normalized; coded:
    all that is constant is codes, with scales and zero points behind."""
    spelled = Spelled(lowering, node)
    given = attributes(node, epsilon=1e-12, mask_index_type=0)
    outputs = [*node.output, "", ""][:3]
    readers = lowering.readers(outputs[1]) if outputs[1] else 0
    refuse([("its index of the mask", readers), ("its sum", outputs[2])])

    def real(edge: str, place: int) -> str:
        """What the codes of the input at a place stand for; edge: these, or some of them."""
        if not coded:
            return edge
        zero = [spelled.input(place + 11)] if spelled.input(place + 11) else []
        return spelled("DequantizeLinear", edge, spelled.input(place + 6), *zero)

    _, rows = spelled.shape(0)
    total = real(spelled("Gather", spelled.input(2), spelled.input(0)), 2)
    table = spelled.array(3, "the table of positions")
    if not coded and spelled.input(8):
        positions = spelled("Gather", spelled.input(3), spelled.input(8))
    else:
        positions = real(spelled.constant(np.ascontiguousarray(table[None, :rows])), 3)
    total = spelled("Add", total, positions)
    if segments := spelled.input(1):
        total = spelled("Add", total, real(spelled("Gather", spelled.input(4), segments), 4))
    scales = [real(spelled.input(place), place) for place in (5, 6)]
    how = {"axis": -1, "epsilon": given["epsilon"], "writes": node.output[0]}
    return spelled.lowered(spelled("LayerNormalization", total, *scales, **how)) * len(node.output)


def activated(lowering: Lowering, node: onnx.NodeProto, kind: str, **how: str) -> Sequence[Value]:
    """BiasGelu, FastGelu: a function of a sum."""
    spelled = Spelled(lowering, node)
    attributes(node)
    x = spelled.input(0)
    if spelled.input(1):
        x = spelled("Add", x, spelled.input(1))
    return spelled.lowered(spelled(kind, x, writes=node.output[0], **how))


def swish(lowering: Lowering, node: onnx.NodeProto) -> Sequence[Value]:
    """QuickGelu: x times the sigmoid of alpha x."""
    spelled = Spelled(lowering, node)
    alpha = attributes(node, alpha=1.702)["alpha"]
    inner = spelled("Mul", spelled.input(0), spelled.constant(np.float32(alpha)))
    gate = spelled("Sigmoid", inner)
    return spelled.lowered(spelled("Mul", spelled.input(0), gate, writes=node.output[0]))


def matrices(lowering: Lowering, node: onnx.NodeProto) -> Sequence[Value]:
    """FusedMatMul: alpha times a product, each side transposed or not."""
    spelled = Spelled(lowering, node)
    given = attributes(node, alpha=1.0, transA=0, transB=0, transBatchA=0, transBatchB=0)
    refuse([(f"{n}=1", given[n]) for n in ("transBatchA", "transBatchB")])
    sides = []
    for place, turned in enumerate((given["transA"], given["transB"])):
        side, axes = spelled.input(place), len(spelled.shape(place))
        if turned:
            perm = [*range(axes - 2), axes - 1, axes - 2]
            side = spelled("Transpose", side, perm=perm)
        sides.append(side)
    if given["alpha"] == 1:
        return spelled.lowered(spelled("MatMul", *sides, writes=node.output[0]))
    factor = spelled.constant(np.float32(given["alpha"]))
    made = spelled("Mul", spelled("MatMul", *sides), factor, writes=node.output[0])
    return spelled.lowered(made)


def prelu(lowering: Lowering, node: onnx.NodeProto) -> Sequence[Value]:
    """PRelu: x above 0, and below it slope x."""
    if (table := mapped(lowering, node)) is not None:
        return table
    spelled = Spelled(lowering, node)
    attributes(node)
    above = spelled("Relu", spelled.input(0))
    below = spelled("Min", spelled.input(0), spelled.constant(np.float32(0)))
    below = spelled("Mul", below, spelled.input(1))
    return spelled.lowered(spelled("Add", above, below, writes=node.output[0]))


def instances(lowering: Lowering, node: onnx.NodeProto) -> Sequence[Value]:
    """InstanceNormalization: each channel of each image by its own mean and deviation."""
    spelled = Spelled(lowering, node)
    epsilon = attributes(node, epsilon=1e-5)["epsilon"]
    n, channels, *sizes = spelled.shape(0)
    count = math.prod(sizes)
    flat = spelled("Reshape", spelled.input(0), spelled.constant(np.int64([n, channels, count])))
    ones = spelled.constant(np.ones(count, np.float32))
    made = spelled("LayerNormalization", flat, ones, axis=-1, epsilon=epsilon)
    back = spelled("Reshape", made, spelled.constant(np.int64([n, channels, *sizes])))
    along = (channels, *[1] * len(sizes))
    scale, bias = (
        spelled.constant(spelled.array(place, what).reshape(along))
        for place, what in ((1, "the scale"), (2, "the bias"))
    )
    total = spelled("Add", spelled("Mul", back, scale), bias, writes=node.output[0])
    return spelled.lowered(total)


def to_space(lowering: Lowering, node: onnx.NodeProto) -> Sequence[Value]:
    """DepthToSpace: blocks of channels become pixels."""
    spelled = Spelled(lowering, node)
    given = attributes(node, blocksize=0, mode="DCR")
    n, c, h, w = spelled.shape(0)
    size = given["blocksize"]
    if size < 1 or c % (size * size):
        raise OnnxError(f"blocksize={size} does not divide {c} channels")
    rest = c // (size * size)
    if given["mode"] == "DCR":
        sizes, perm = [n, size, size, rest, h, w], [0, 3, 4, 1, 5, 2]
    else:
        sizes, perm = [n, rest, size, size, h, w], [0, 1, 4, 2, 5, 3]
    return _blocks(spelled, sizes, perm, [n, rest, h * size, w * size])


def to_depth(lowering: Lowering, node: onnx.NodeProto) -> Sequence[Value]:
    """SpaceToDepth: blocks of pixels become channels."""
    spelled = Spelled(lowering, node)
    size = attributes(node, blocksize=0)["blocksize"]
    n, c, h, w = spelled.shape(0)
    if size < 1 or h % size or w % size:
        raise OnnxError(f"blocksize={size} does not divide {h}x{w} pixels")
    sizes = [n, c, h // size, size, w // size, size]
    shape = [n, c * size * size, h // size, w // size]
    return _blocks(spelled, sizes, [0, 3, 5, 1, 2, 4], shape)


def _blocks(
    spelled: Spelled, sizes: Sequence[int], perm: Sequence[int], shape: Sequence[int]
) -> list[Value]:
    """The input in these sizes, its axes in another order, in that shape."""
    apart = spelled("Reshape", spelled.input(0), spelled.constant(np.int64(sizes)))
    moved = spelled("Transpose", apart, perm=list(perm))
    end = spelled.constant(np.int64(shape))
    return spelled.lowered(spelled("Reshape", moved, end, writes=spelled.node.output[0]))


def least(lowering: Lowering, node: onnx.NodeProto) -> Sequence[Value]:
    """ReduceMin: the largest of the opposite numbers."""
    spelled = Spelled(lowering, node)
    given = attributes(node, axes=None, keepdims=1, noop_with_empty_axes=0)
    how = {name: value for name, value in given.items() if value is not None}
    most = spelled("ReduceMax", spelled("Neg", spelled.input(0)), *spelled.inputs[1:], **how)
    return spelled.lowered(spelled("Neg", most, writes=node.output[0]))


def total(lowering: Lowering, node: onnx.NodeProto) -> Sequence[Value]:
    """Sum of any number of tensors."""
    spelled = Spelled(lowering, node)
    first, *others = spelled.inputs
    if not others:
        return [lowering.values[first]]
    for place, other in enumerate(others, 1):
        writes = node.output[0] if place == len(others) else ""
        first = spelled("Add", first, other, writes=writes)
    return spelled.lowered(first)


RULES: dict[str, Callable[..., Sequence[Value]]] = {
    "PRelu": prelu,
    "InstanceNormalization": instances,
    "DepthToSpace": to_space,
    "SpaceToDepth": to_depth,
    "ReduceMin": least,
    "Sum": total,
    "com.microsoft.SkipLayerNormalization": skip,
    "com.microsoft.SkipSimplifiedLayerNormalization": partial(skip, simple=True),
    "com.microsoft.EmbedLayerNormalization": embedded,
    "com.microsoft.QEmbedLayerNormalization": partial(embedded, coded=True),
    "com.microsoft.BiasGelu": partial(activated, kind="Gelu"),
    "com.microsoft.FastGelu": partial(activated, kind="Gelu", approximate="tanh"),
    "com.microsoft.QuickGelu": swish,
    "com.microsoft.FusedMatMul": matrices,
}
