"""QuantizeLinear and DequantizeLinear: scales per tensor, per axis or blocked.

Tensors of 4 and 2 bits are taken one value in a byte, as NumPy has them (`ml_dtypes`).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from lpgen.errors import OnnxError
from lpgen.formats import Format
from lpgen.onnx.imported import Imported, Relayout, TensorType
from lpgen.ops import DequantizeLinear, QuantizeLinear

FORMATS = {
    f"{sign}int{bits}": Format(sign or "s", bits) for sign in ("u", "") for bits in (2, 4, 8)
}


def quantize(
    x: TensorType,
    scale: np.ndarray,
    zero: np.ndarray | None = None,
    output_dtype: int = 0,
    precision: int = 0,
    saturate: int = 1,
    **attributes: Any,
) -> Imported:
    """QuantizeLinear from float32 (saturate is for float8 only)."""
    from onnx import TensorProto, helper

    if precision not in (0, TensorProto.FLOAT):
        raise OnnxError(f"precision={TensorProto.DataType.Name(precision)}, lpgen has FLOAT")
    dtype = "uint8"
    if output_dtype:
        dtype = helper.tensor_dtype_to_np_dtype(output_dtype)
    dtype = zero.dtype if zero is not None else dtype
    _check_real("x", x.dtype)
    return _import(QuantizeLinear, _format(dtype, "y"), x, scale, zero, **attributes)


def dequantize(
    x: TensorType,
    scale: np.ndarray,
    zero: np.ndarray | None = None,
    output_dtype: int = 0,
    **attributes: Any,
) -> Imported:
    """DequantizeLinear to float32."""
    from onnx import TensorProto

    if output_dtype not in (0, TensorProto.FLOAT):
        raise OnnxError(f"y has type {TensorProto.DataType.Name(output_dtype)}, lpgen has float32")
    return _import(DequantizeLinear, _format(x.dtype, "x"), x, scale, zero, **attributes)


def _import(
    kind: type,
    form: Format,
    x: TensorType,
    scale: np.ndarray,
    zero: np.ndarray | None,
    axis: int = 1,
    block_size: int = 0,
) -> Imported:
    _check_real("the scale", scale.dtype)
    per, sizes = _granularity(x.shape, scale.shape, axis, block_size)
    op = kind(**sizes, format=form, per=per)
    zeros = np.zeros(scale.shape, form.dtype) if zero is None else zero.astype(form.dtype)
    if zeros.size != scale.size:
        raise OnnxError(f"the zero point has shape {zeros.shape}, the scale {scale.shape}")
    same = tuple(range(len(x.shape)))
    return Imported(
        op,
        zeros.reshape(op.w_shape),
        {"scale": scale.reshape(op.w_shape)},
        x=Relayout(x.shape, same, op.x_shape),
        y=Relayout(op.y_shape, (0, 1, 2), x.shape),
    )


def _granularity(
    shape: tuple[int, ...], scales: tuple[int, ...], axis: int, block: int
) -> tuple[str, dict[str, int]]:
    """(per, sizes) of the operator for a tensor and scales of these shapes."""
    total = math.prod(shape)
    if not block and math.prod(scales) == 1:
        return "tensor", {"axis": total}
    if not -len(shape) <= axis < len(shape):
        raise OnnxError(f"axis={axis}, but x has {len(shape)} axes")
    axis %= len(shape)
    sizes = {
        "outer": math.prod(shape[:axis]),
        "axis": shape[axis],
        "inner": math.prod(shape[axis + 1 :]),
    }
    expected = (shape[axis],)
    if block:
        expected = (*shape[:axis], -(-shape[axis] // block), *shape[axis + 1 :])
    if scales != expected:
        raise OnnxError(f"the scale has shape {scales}, expected {expected}")
    return f"block{block}" if block else "axis", sizes


def _format(dtype: Any, what: str) -> Format:
    name = np.dtype(dtype).name
    if name not in FORMATS:
        raise OnnxError(f"{what} has type {name}, lpgen has {', '.join(FORMATS)}")
    return FORMATS[name]


def _check_real(what: str, dtype: Any) -> None:
    if np.dtype(dtype).name != "float32":
        raise OnnxError(f"{what} has type {np.dtype(dtype).name}, lpgen has float32")
