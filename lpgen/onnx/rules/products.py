"""Conv, MatMul and Gemm of quantized values: products of codes, whose epilogue comes behind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from lpgen.errors import OnnxError
from lpgen.formats import REAL, Format
from lpgen.onnx import conv, matmul
from lpgen.onnx.imported import Imported
from lpgen.onnx.rules import real
from lpgen.onnx.rules.attributes import attributes
from lpgen.onnx.rules.bounds import bounded_real
from lpgen.onnx.values import Blocks, Constant, Mapped, Pending, Scale, Stored, Target, Value
from lpgen.ops.epilogue import Bias, Clamp, Quantize, Step
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


@dataclass(frozen=True)
class Product(Pending):
    """Sums of products of codes.

    imported: the operator with int32 sums; scale: what one of a sum is worth, float32[channels], or
    [channels, groups] where `group` neighbours in k share one; channels: the axis of the result
    that they are on; bias: int32 in these steps, or float32, or None; input, hadamard: how x comes
    in, as in a workload.
    """

    x: Stored
    imported: Imported
    scale: np.ndarray
    channels: int
    bias: np.ndarray | None
    input: str = "act"
    hadamard: int = 0
    group: int = 0

    def quantized(self, lowering: Lowering, name: str, to: Target) -> Stored:
        """Requantized: sums times scale / that of the codes, in float32."""
        low, high = to.code(self.low), to.code(self.high)
        bounds = [] if (low, high) == (to.form.min, to.form.max) else [Clamp((low, high))]
        with np.errstate(all="ignore"):
            scale, bias = self.scale / to.scale, self.bias
            bias = bias / to.scale if bias is not None and bias.dtype == np.float32 else bias
        made = self._step(lowering, name, scale, bias, [*bounds, Quantize(to.form, int(to.zero))])
        return replace(made, form=to.form)

    def real(self, lowering: Lowering, name: str) -> Stored:
        """float32: sums times scale."""
        whole = all(np.isinf(b) or float(b).is_integer() for b in (self.low, self.high))
        if not whole:
            made = self._step(lowering, f"{name}:unbounded", self.scale, self.bias, [])
            return bounded_real(lowering, made, self)
        bounds: list[Step] = []
        if (self.low, self.high) != (-np.inf, np.inf):
            low, high = (int(np.clip(b, -(2.0**31), 2.0**31 - 1)) for b in (self.low, self.high))
            bounds = [Clamp("relu" if (self.low, self.high) == (0, np.inf) else (low, high))]
        return self._step(lowering, name, self.scale, self.bias, bounds)

    def _step(
        self,
        lowering: Lowering,
        name: str,
        scale: np.ndarray,
        bias: np.ndarray | None,
        last: Sequence[Step],
    ) -> Stored:
        each = bool(self.group or np.any(scale != scale[0]))
        of = f"group{self.group}" if self.group else "channel" if each else "tensor"
        steps: list[Step] = [Scaled(of)]
        parameters = {"scale": scale if each else scale[:1]}
        if bias is not None:
            real = bias.dtype == np.float32
            steps.insert(1 if real else 0, Bias("f32" if real else "s32"))
            parameters["bias"] = bias
        rotated = {"hadamard": self.hadamard} if self.hadamard else {}
        op = replace(self.imported.op, epilogue=(*steps, *last), input=self.input, **rotated)
        parameters = self.imported.parameters | parameters
        op.legal_parameters(parameters)
        imported = replace(self.imported, op=op, parameters=parameters)
        return lowering.apply(imported, name, [self.x])

    def biased(self, values: np.ndarray) -> Product | None:
        """With float32 numbers added, one for each channel or the same for all; None where they are
        others."""
        if self.bias is not None or (self.low, self.high) != (-np.inf, np.inf):
            return None
        each = real.along(values, self.type.shape, self.channels)
        return None if each is None else replace(self, bias=each)


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


def narrowed(imported: Imported, act: Format) -> Imported:
    """With the format of the activations, and that of the fewest bits that holds the weights."""
    op = replace(imported.op, act=act)
    if not op.zero_weight:
        op = replace(op, weight=Format.of_values(imported.weights))
    weights = imported.weights.astype(op.weight.dtype)
    return replace(imported, op=op, weights=weights)


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
    value, w, *rest = lowering.inputs(node)
    x, bias = activations(lowering, value, w, node), rest[0] if rest else None
    given = {a.name for a in node.attribute}
    names = ("kernel_shape", "strides", "dilations", "pads", "auto_pad", "group")
    known = attributes(node, **dict.fromkeys(names))
    kept = {name: value for name, value in known.items() if name in given}
    if x is None:
        how = lowering.activations(node)
        if _quantized(w) and how is not None and how.form != REAL:
            raise OnnxError("activations of convolutions are not quantized in each call")
        return [real.convolution(lowering, value, w.array, bias, kept)]
    zero = x.scale.zero.astype(x.form.dtype)

    def make(kind: TensorType, codes: np.ndarray, zeros: np.ndarray) -> Imported:
        zeros = zeros if zeros.size > 1 else zeros.reshape(())
        return conv.product(kind, codes, zero, zeros, kept)

    return [_product(x, w, 0, bias, make)]


def matrix(lowering: Lowering, node: onnx.NodeProto) -> Sequence[Value] | None:
    """MatMul of a matrix of weights, or of two tensors."""
    from lpgen.onnx.rules import rows

    value, w = lowering.inputs(node)
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
    from lpgen.onnx.rules import dynamic

    x = activations(lowering, value, w, node)
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
