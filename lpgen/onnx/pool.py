"""MaxPool, AveragePool and those of whole images, in one or two dimensions; the quantized means of
com.microsoft."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lpgen.errors import OnnxError
from lpgen.formats import REAL, Format, Real
from lpgen.onnx import checks
from lpgen.onnx.conv import TO_FIRST, TO_LAST, geometry
from lpgen.onnx.imported import Imported, NodeKind, Relayout
from lpgen.ops.pool import Pool
from lpgen.ops.tensor_type import TensorType


def max_pool(x: TensorType, kernel_shape: Sequence[int] = (), **attributes: Any) -> Imported:
    """MaxPool, its first output."""
    if attributes.pop("storage_order", 0):
        raise OnnxError("storage_order is of the indices, which lpgen does not give")
    return _pool(x, "max", kernel_shape, attributes)


def average_pool(x: TensorType, kernel_shape: Sequence[int] = (), **attributes: Any) -> Imported:
    """AveragePool of float32."""
    return _pool(x, "average", kernel_shape, attributes)


def global_max(x: TensorType) -> Imported:
    """GlobalMaxPool."""
    return _pool(x, "max", x.shape[2:], {})


def global_average(x: TensorType) -> Imported:
    """GlobalAveragePool of float32."""
    return _pool(x, "average", x.shape[2:], {})


def quantized_average(
    x: TensorType,
    x_scale: np.ndarray,
    y_scale: np.ndarray,
    x_zero: np.ndarray | None = None,
    y_zero: np.ndarray | None = None,
    kernel_shape: Sequence[int] = (),
    channels_last: int = 0,
    **attributes: Any,
) -> Imported:
    """QLinearAveragePool; kernel_shape: the whole image by default (QLinearGlobalAveragePool)."""
    scales = [
        checks.single(f"{name}_scale", checks.real(f"{name}_scale", scale))
        for name, scale in (("x", x_scale), ("y", y_scale))
    ]
    dtype = x.dtype if y_zero is None else y_zero.dtype.name
    zeros = [
        checks.zero_point("x_zero_point", x_zero, x.dtype),
        checks.zero_point("y_zero_point", y_zero, dtype),
    ]
    if channels_last:
        raise OnnxError("channels_last=1, lpgen reads channels first")
    out = checks.format_of("y_zero_point", dtype)
    parameters = {"scales": np.float32(scales), "zeros": np.int32(zeros)}
    return _pool(x, "average", kernel_shape or x.shape[2:], attributes, out, parameters)


def _pool(
    x: TensorType,
    how: str,
    kernel_shape: Sequence[int],
    attributes: dict[str, Any],
    out: Format | None = None,
    parameters: dict[str, np.ndarray] | None = None,
) -> Imported:
    """parameters: what a call takes beside x."""
    act = _values(x.dtype)
    if len(x.shape) not in (3, 4):
        raise OnnxError(f"x has {len(x.shape)} axes, lpgen has 3 or 4")
    if how == "average" and (act == REAL) != (parameters is None):
        raise OnnxError(f"x has type {x.dtype}, which has no such mean")
    if len(kernel_shape) != len(x.shape) - 2:
        raise OnnxError(f"kernel_shape={list(kernel_shape)}, but x has {len(x.shape)} axes")
    ceil = attributes.pop("ceil_mode", 0)
    counted = attributes.pop("count_include_pad", 0)
    fields = geometry(x.shape[2:], kernel_shape, **attributes)
    if fields.pop("groups") != 1:
        raise OnnxError("attribute group is none of a pool")
    size = (1, *x.shape[2:])[-2:]
    if ceil:
        if counted and any(fields["pad"]):
            raise OnnxError("ceil_mode=1 with count_include_pad=1")
        fields["pad"] = _ceiled(size, **fields)
    n, c = x.shape[:2]
    op = Pool(
        **{"n": n, "h": size[0], "w": size[1], "c": c, "how": how, "act": act, "out": out},
        **{"count": "all" if counted else "valid", **fields},
    )
    spatial = op.y_shape[1:3][4 - len(x.shape) :]
    return Imported(
        op,
        {"x": Relayout(x.shape, (n, c, *size), TO_LAST, op.x_shape)},
        Relayout(op.y_shape, op.y_shape, TO_FIRST, (n, c, *spatial)),
        parameters=parameters or {},
    )


def _ceiled(
    size: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    pad: Sequence[int],
) -> tuple[int, ...]:
    """Edges with which the last window is whole: one that would begin in the padding behind the
    image is none."""
    pad = list(pad)
    for axis, extent in enumerate(size):
        window = (kernel[axis] - 1) * dilation[axis] + 1
        room = extent + pad[axis] + pad[axis + 2] - window
        steps = -(-room // stride[axis])
        if steps * stride[axis] >= extent + pad[axis]:
            steps -= 1
        pad[axis + 2] += max(0, steps * stride[axis] - room)
    return tuple(pad)


def _values(dtype: str) -> Format | Real:
    return REAL if dtype == "float32" else checks.format_of("x", dtype)


_MEAN = ("x_scale", "x_zero", "y_scale", "y_zero")
NODES = {
    "MaxPool": NodeKind((), max_pool),
    "AveragePool": NodeKind((), average_pool),
    "GlobalMaxPool": NodeKind((), global_max),
    "GlobalAveragePool": NodeKind((), global_average),
    **dict.fromkeys(
        ("QLinearAveragePool", "QLinearGlobalAveragePool"),
        NodeKind(
            *(_MEAN, quantized_average), domain="com.microsoft", required=("x_scale", "y_scale")
        ),
    ),
}
