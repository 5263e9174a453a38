"""ConvTranspose of float32: a product of matrices, and its patches laid over each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lpgen.errors import OnnxError
from lpgen.onnx.checks import check_real
from lpgen.onnx.imported import Imported, Relayout, same
from lpgen.onnx.rules.attributes import attributes
from lpgen.onnx.values import Constant, Value
from lpgen.ops.binary import Binary
from lpgen.ops.conv2d_f32 import RealConv2d
from lpgen.ops.movement import Transpose
from lpgen.ops.resize import Fold

if TYPE_CHECKING:
    import onnx

    from lpgen.onnx.lowering import Lowering

TO_LAST, TO_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)


def conv_transpose(lowering: Lowering, node: onnx.NodeProto) -> Sequence[Value]:
    """Each pixel times all weights is a patch [kh, kw, oc]; they are added where they overlap."""
    given, w, *bias = lowering.inputs(node)
    x = lowering.tensor(given)
    check_real("x", x.type.dtype)
    if len(x.type.shape) != 4 or not isinstance(w, Constant):
        raise OnnxError("lpgen has constant weights and two dimensions")
    check_real("W", w.array.dtype.name)
    fold = _fold(node, x.type.shape, w.array.shape)
    if bias and bias[0] is not None and not isinstance(bias[0], Constant):
        raise OnnxError("B is no constant")
    each = np.zeros(fold.c, np.float32) if not bias or bias[0] is None else bias[0].array
    n, c, h, wide = x.type.shape
    patch = math.prod(w.array.shape[2:])
    product = RealConv2d(h=n * h * wide, w=1, ic=c, oc=patch * fold.c, kernel=(1, 1))
    weights = w.array.transpose(2, 3, 1, 0).reshape(product.oc, c)
    laid = _laid(fold)
    inside = each if isinstance(laid, Transpose) else np.zeros_like(each)
    imported = Imported(
        product,
        {"x": Relayout(x.type.shape, x.type.shape, TO_LAST, product.x_shape)},
        same(product.y_shape, fold.x_shape),
        parameters={"weights": product.arranged(weights), "bias": np.tile(inside, patch)},
    )
    name = node.output[0]
    patches = lowering.apply(imported, f"{name}:patches", [x])
    shape = tuple(fold.y_shape[axis] for axis in TO_FIRST)
    added = isinstance(laid, Fold) and each.any()
    of_op, made = laid.signature.inputs[0].shape, laid.signature.output.shape
    to_first = Relayout(made, fold.y_shape, TO_FIRST, shape)
    imported = Imported(laid, {"x": same(fold.x_shape, of_op)}, to_first)
    y = lowering.apply(imported, f"{name}:sums" if added else name, [patches])
    if not added:
        return [y]
    add = Binary(function="add", outer=math.prod(fold.y_shape[:3]), inner=fold.c)
    whole = (add.outer, add.inner)
    imported = Imported(
        add,
        {"a": Relayout(shape, shape, TO_LAST, whole)},
        Relayout(whole, fold.y_shape, TO_FIRST, shape),
        parameters={"b": each},
    )
    return [lowering.apply(imported, name, [y])]


def _laid(fold: Fold) -> Fold | Transpose:
    """What lays the patches: nothing is added where they are side by side."""
    beside = fold.kernel == fold.stride and fold.dilation == (1, 1)
    if not beside or any(fold.pad) or any(fold.more):
        return fold
    rows, (down, across) = fold.n * fold.h, fold.kernel
    shape = (rows, fold.w, down, across * fold.c)
    return Transpose(shape=shape, axes=(0, 2, 1, 3), dtype=fold.dtype)


def _fold(node: onnx.NodeProto, x: tuple[int, ...], w: tuple[int, ...]) -> Fold:
    """How the patches lie; OnnxError for attributes that are not served."""
    known = attributes(
        *(node,),
        **{"auto_pad": "NOTSET", "group": 1, "output_shape": None, "kernel_shape": None},
        **{"strides": [1, 1], "dilations": [1, 1], "pads": [0] * 4, "output_padding": [0, 0]},
    )
    for name, usual in (("auto_pad", "NOTSET"), ("group", 1), ("output_shape", None)):
        if known[name] != usual:
            raise OnnxError(f"{name}={known[name]}, lpgen has {usual}")
    if len(w) != 4 or w[0] != x[1]:
        raise OnnxError(f"W has shape {w}, expected {x[1]} in front of 3 axes")
    return Fold(
        **{"n": x[0], "h": x[2], "w": x[3], "c": w[1], "kernel": w[2:], "dtype": "float32"},
        stride=tuple(known["strides"]),
        pad=tuple(known["pads"]),
        dilation=tuple(known["dilations"]),
        more=tuple(known["output_padding"]),
    )


RULES = {"ConvTranspose": conv_transpose}
