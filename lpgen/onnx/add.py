"""QLinearAdd of com.microsoft: two quantized tensors, each with its scale and zero point."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from lpgen.errors import OnnxError
from lpgen.onnx import checks
from lpgen.onnx.imported import Imported, NodeKind, Relayout
from lpgen.ops.add import Add
from lpgen.ops.tensor_type import TensorType


def add(
    a: TensorType,
    a_scale: np.ndarray,
    b: np.ndarray | TensorType,
    b_scale: np.ndarray,
    y_scale: np.ndarray,
    a_zero: np.ndarray | None = None,
    b_zero: np.ndarray | None = None,
    y_zero: np.ndarray | None = None,
    **attributes: Any,
) -> Imported:
    """QLinearAdd; b has the shape of a, or that of its last axes (1 or missing in front)."""
    if attributes:
        raise OnnxError(f"attribute {min(attributes)} is none of QLinearAdd")
    other = b if isinstance(b, TensorType) else TensorType(b.shape, b.dtype.name)
    if other.dtype != a.dtype:
        raise OnnxError(f"b has type {other.dtype}, expected {a.dtype}")
    form = checks.format_of("a", a.dtype)
    own = tuple(other.shape)
    while own[:1] == (1,) and (len(own) > len(a.shape) or a.shape[-len(own)] != 1):
        own = own[1:]
    if own != a.shape[len(a.shape) - len(own) :]:
        raise OnnxError(f"b has shape {other.shape}, lpgen adds the last axes of {a.shape}")
    inner = math.prod(own)
    op = Add(outer=math.prod(a.shape) // inner, inner=inner, a=form, b=form, out=form)
    given = zip(("a", "b", "y"), (a_scale, b_scale, y_scale), strict=True)
    scales = [checks.single(f"{name}_scale", checks.real(f"{name}_scale", s)) for name, s in given]
    given = zip(("a", "b", "y"), (a_zero, b_zero, y_zero), strict=True)
    zeros = [checks.zero_point(f"{name}_zero_point", zero, a.dtype) for name, zero in given]
    to_b = Relayout(other.shape, other.shape, tuple(range(len(other.shape))), (inner,))
    whole = (op.outer, inner)
    constant = {} if isinstance(b, TensorType) else {"b": to_b(b)}
    return Imported(
        op,
        {"a": Relayout(a.shape, a.shape, tuple(range(len(a.shape))), whole)}
        | ({"b": to_b} if isinstance(b, TensorType) else {}),
        Relayout(whole, whole, (0, 1), np.broadcast_shapes(a.shape, other.shape)),
        parameters=constant | {"scales": np.float32(scales), "zeros": np.int32(zeros)},
    )


NODES = {
    "QLinearAdd": NodeKind(
        ("a_scale", "a_zero", "b", "b_scale", "b_zero", "y_scale", "y_zero"),
        add,
        domain="com.microsoft",
        tensors=("b",),
        required=("a_scale", "b", "b_scale", "y_scale"),
    )
}
