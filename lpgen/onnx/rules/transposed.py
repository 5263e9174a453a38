"""ConvTranspose of float32: a product of matrices, and its patches laid over each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lpgen.errors import OnnxError
from lpgen.onnx.floats import check_real, same
from lpgen.onnx.imported import Imported, Relayout
from lpgen.onnx.rules.attributes import attributes
from lpgen.onnx.values import Constant, Value
from lpgen.ops.binary import Binary
from lpgen.ops.movement import Transpose
from lpgen.ops.resize import Fold
from lpgen.ops.rowwise import MatMul

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
    n, c, h, wide = x.type.shape
    columns = math.prod(w.array.shape[1:])
    product = MatMul(m=n * h * wide, n=columns, k=c)
    name, rows = node.output[0], (1, product.m, columns)
    imported = Imported(
        product,
        {"a": Relayout(x.type.shape, x.type.shape, TO_LAST, (1, product.m, c))},
        same(rows, fold.x_shape),
        parameters={"b": np.ascontiguousarray(w.array.transpose(0, 2, 3, 1)).reshape(1, c, -1)},
    )
    patches = lowering.apply(imported, f"{name}:patches", [x])
    shape = tuple(fold.y_shape[axis] for axis in TO_FIRST)
    biased = len(bias) > 0 and bias[0] is not None
    laid = _laid(fold)
    of_op, made = laid.signature.inputs[0].shape, laid.signature.output.shape
    to_first = Relayout(made, fold.y_shape, TO_FIRST, shape)
    imported = Imported(laid, {"x": same(fold.x_shape, of_op)}, to_first)
    y = lowering.apply(imported, f"{name}:sums" if biased else name, [patches])
    if not biased:
        return [y]
    if not isinstance(bias[0], Constant):
        raise OnnxError("B is no constant")
    add = Binary(function="add", outer=math.prod(fold.y_shape[:3]), inner=fold.c)
    whole = (add.outer, add.inner)
    imported = Imported(
        add,
        {"a": Relayout(shape, shape, TO_LAST, whole)},
        Relayout(whole, fold.y_shape, TO_FIRST, shape),
        parameters={"b": bias[0].array.reshape(fold.c)},
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
