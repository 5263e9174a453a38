"""Conv, MatMul and Gemm of quantized values: products of codes, whose epilogue comes behind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from lpgen.errors import OnnxError
from lpgen.formats import REAL, Format
from lpgen.onnx import conv, matmul
from lpgen.onnx.imported import Imported
from lpgen.onnx.rules import real
from lpgen.onnx.rules.attributes import attributes
from lpgen.onnx.rules.product import Product, narrowed
from lpgen.onnx.values import Blocks, Constant, Mapped, Scale, Value
from lpgen.ops.epilogue import Scale as Scaled
from lpgen.ops.tensor_type import TensorType

if TYPE_CHECKING:
    import onnx

    from lpgen.onnx.lowering import Lowering


UNASKED = (
    "activations are float32 or have a scale found in each call; ask for one in each row "
    "(--dynamic s8), or for weights of float32 (--dynamic f32)"
)
MOST_BIAS = 2**30
"""Of int32: beyond it, sums could leave int32, and it is taken as float32."""


def activations(
    lowering: Lowering, value: Value | None, w: Value | None, node: onnx.NodeProto | None
) -> Mapped | None:
    """Activations with one scale and zero point; None for a product of real numbers: of weights
    that are not quantized, or, where that is asked for, of activations that are not.

    Raises OnnxError for weights that are no constant, and where it is not asked for.
    """
    if not isinstance(w, Constant):
        raise OnnxError("the tensor of weights is no constant")
    if isinstance(value, Constant):
        raise OnnxError("activations are constant")
    affine = lowering.affine(value) if _quantized(w) else None
    if _quantized(w) and affine is None and lowering.activations(node) is None:
        raise OnnxError(UNASKED)
    return affine


def _quantized(w: Constant) -> bool:
    """Whether weights are codes of 8 bits or fewer with scales."""
    return w.blocks is not None or not (w.codes is None or w.scale is None or w.form is None)


def _product(
    x: Mapped,
    w: Constant,
    axis: int,
    bias: Value | None,
    make: Callable[[TensorType, np.ndarray, np.ndarray], Imported],
) -> Product:
    """A product; axis: where the channels of w are; make: gives it from the type of x, codes and
    zero points of w, for all or [channels]."""
    assert x.scale is not None
    assert w.scale is not None
    assert w.codes is not None
    channels = w.codes.shape[axis]
    if not w.scale.single and w.scale.axis != axis:
        raise OnnxError(f"scales of weights on axis {w.scale.axis}, expected {axis}: the channels")
    imported = make(x.codes.type, w.codes, w.scale.zero.reshape(-1))
    imported = narrowed(imported, x.form)
    scale = x.scale.scale.reshape(()) * np.broadcast_to(w.scale.scale.ravel(), (channels,))
    shape = imported.y.shape
    place = len(shape) - 1 if axis != 0 else 1
    return Product(
        TensorType(shape, "float32"),
        *(-np.inf, np.inf),
        *(x.codes, imported, scale.astype(np.float32), place),
        _bias(bias, scale, channels),
    )


def _bias(value: Value | None, scale: np.ndarray, channels: int) -> np.ndarray | None:
    """int32 where it is in steps of the scale, else float32; [channels]."""
    if value is None:
        return None
    if not isinstance(value, Constant):
        raise OnnxError("the bias is no constant")
    array = value.array
    if array.size not in (1, channels) or max(array.shape, default=1) != array.size:
        raise OnnxError(f"the bias has shape {array.shape}, expected ({channels},)")
    codes = value.codes
    if codes is not None and codes.dtype == np.int32 and value.scale and not value.scale.zero.any():
        steps = np.broadcast_to(value.scale.scale, scale.shape)
        small = np.abs(codes.astype(np.int64)).max(initial=0) <= MOST_BIAS
        if small and np.allclose(steps, scale, rtol=1e-5, atol=0):
            return np.ascontiguousarray(np.broadcast_to(codes.ravel(), (channels,)))
    return np.ascontiguousarray(np.broadcast_to(array.ravel(), (channels,)), dtype=np.float32)


def matrix_of(w: Constant) -> tuple[np.ndarray, Scale]:
    """The codes of a matrix [k, n] of weights and how they are scaled."""
    assert w.codes is not None
    assert w.scale is not None
    if w.codes.ndim != 2:
        raise OnnxError(f"weights have shape {w.codes.shape}, expected a matrix")
    if not w.scale.single and w.scale.axis != 1:
        raise OnnxError(f"scales of weights on axis {w.scale.axis}, expected 1: the channels")
    return w.codes, w.scale


def convolution(lowering: Lowering, node: onnx.NodeProto) -> Sequence[Value]:
    """Conv of dequantized values and weights."""
    from lpgen.onnx.rules import dynamic

    value, w, *rest = lowering.inputs(node)
    x, bias = activations(lowering, value, w, node), rest[0] if rest else None
    given = {a.name for a in node.attribute}
    names = ("kernel_shape", "strides", "dilations", "pads", "auto_pad", "group")
    known = attributes(node, **dict.fromkeys(names))
    kept = {name: value for name, value in known.items() if name in given}
    if x is None:
        how = lowering.activations(node)
        if _quantized(w) and how is not None and how.form != REAL:
            x = lowering.tensor(value)
            return [dynamic.convolution(x, w, bias, kept, how.form)]
        return [real.convolution(lowering, value, w.array, bias, kept)]
    zero = x.scale.zero.astype(x.form.dtype)

    def make(kind: TensorType, codes: np.ndarray, zeros: np.ndarray) -> Imported:
        zeros = zeros if zeros.size > 1 else zeros.reshape(())
        return conv.product(kind, codes, zero, zeros, kept)

    return [_product(x, w, 0, bias, make)]


def matrix(lowering: Lowering, node: onnx.NodeProto) -> Sequence[Value] | None:
    """MatMul of a matrix of weights, or of two tensors."""
    from lpgen.onnx.rules import one_hot, rows

    value, w = lowering.inputs(node)
    if isinstance(value, one_hot.OneHot) and isinstance(w, Constant) and w.array.ndim == 2:
        return [one_hot.rows(lowering, node.output[0], value, w.array)]
    if not isinstance(w, Constant) and not isinstance(value, Constant):
        return rows.product(lowering, node)
    if isinstance(w, Constant) and w.array.ndim != 2 and w.codes is None:
        return None  # as many matrices of real numbers as there are
    return [of_matrix(lowering, value, w, None, node)]


def of_matrix(
    lowering: Lowering,
    value: Value,
    w: Value | None,
    bias: Value | None,
    node: onnx.NodeProto | None = None,
    turned: bool = False,
) -> Product | real.RealProduct:
    """x [..., k] times weights [k, n], or [n, k] where they are turned, plus a vector; node: the
    product, where it is one."""
    from lpgen.onnx.rules import dynamic, layered

    x, how = activations(lowering, value, w, node), lowering.activations(node)
    if how is not None and how.layers is not None and not _quantized(w):
        rows = w.array.T if turned else w.array
        return layered.product(lowering, lowering.tensor(value), rows, bias, how, how.layers)
    if w.blocks is not None and w.blocks.axis != int(turned):
        raise OnnxError(
            f"scales of blocks are along axis {w.blocks.axis}, expected {int(turned)}: k"
        )
    w = _transposed(w) if turned else w
    if x is not None and w.blocks is not None:
        made = _matrix_of_blocks(x, w.blocks)
        return made if bias is None else dynamic.with_bias(made, bias)
    if x is not None:
        return matrix_product(x, w, bias)
    if _quantized(w):
        return dynamic.product(lowering, lowering.tensor(value), w, bias, node)
    return real.matrix(lowering, value, w.array, bias)


def _matrix_of_blocks(x: Mapped, w: Blocks) -> Product:
    """Codes with one scale times weights with scales along k."""
    zero = x.scale.zero.astype(x.form.dtype).reshape(())
    imported = of_blocks(x.codes.type, zero, w, x.form)
    shape = imported.y.shape
    return Product(
        *(TensorType(shape, "float32"), -np.inf, np.inf, x.codes, imported),
        *(w.scale * x.scale.scale.reshape(()), len(shape) - 1, None, "act", 0, w.size),
    )


def of_blocks(kind: TensorType, zero: np.ndarray, w: Blocks, act: Format) -> Imported:
    """The product of codes of this type with those of the weights."""
    imported = matmul.product(kind, w.codes.T, zero, None)
    if w.zero is None:
        return narrowed(imported, act)
    groups = (Scaled(f"group{w.size}"),)
    op = replace(*(imported.op,), act=act, weight=w.form, zero_weight="group", epilogue=groups)
    zeros = {"zero_weight": w.zero.astype(w.form.dtype)}
    weights = imported.weights.astype(w.form.dtype)
    return replace(imported, op=op, weights=weights, parameters=imported.parameters | zeros)


def matrix_product(x: Mapped, w: Constant, bias: Value | None) -> Product:
    """The product with a matrix [k, n] of weights."""
    matrix_of(w)
    zero = x.scale.zero.astype(x.form.dtype)

    def make(kind: TensorType, codes: np.ndarray, zeros: np.ndarray) -> Imported:
        zeros = zeros if zeros.size > 1 else zeros.reshape(())
        return matmul.product(kind, codes, zero, zeros)

    return _product(x, w, 1, bias, make)


def gemm(lowering: Lowering, node: onnx.NodeProto) -> Sequence[Value]:
    """Gemm: x times B, or its transpose, plus C."""
    value, w, *rest = lowering.inputs(node)
    given = attributes(node, alpha=1.0, beta=1.0, transA=0, transB=0)
    if given["transA"] or given["alpha"] != 1 or given["beta"] != 1:
        raise OnnxError("alpha and beta are 1 and transA 0 in what lpgen has")
    bias = rest[0] if rest else None
    return [of_matrix(lowering, value, w, bias, node, bool(given["transB"]))]


def _transposed(w: Constant) -> Constant:
    """Weights [n, k] as [k, n]."""
    if w.codes is None or w.scale is None:
        return replace(w, array=w.array.T, codes=None)
    scale = w.scale if w.scale.single else w.scale._replace(axis=1 - w.scale.axis)
    return replace(w, array=w.array.T, codes=np.ascontiguousarray(w.codes.T), scale=scale)


RULES = {"Conv": convolution, "MatMul": matrix, "Gemm": gemm}
