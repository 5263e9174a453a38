"""QuantizeLinear and DequantizeLinear: scales per tensor, per axis or blocked.

Tensors of 4 and 2 bits are taken one value in a byte, as NumPy has them (`ml_dtypes`).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from lpgen.errors import OnnxError
from lpgen.formats import Format
from lpgen.onnx import checks
from lpgen.onnx.imported import Imported, NodeKind, Relayout
from lpgen.ops import DequantizeLinear, QuantizeLinear
from lpgen.ops.tensor_type import TensorType

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
    if _type_name(precision) not in ("", "float32"):
        raise OnnxError(f"precision is {_type_name(precision)}, lpgen has float32")
    _check_real("x", x.dtype)
    asked = _type_name(output_dtype)
    dtype = (asked or "uint8") if zero is None else zero.dtype.name
    if asked not in ("", dtype):
        raise OnnxError(f"output_dtype is {asked}, but the zero point has type {dtype}")
    form = checks.format_of("y", dtype, FORMATS)
    return _import(QuantizeLinear, form, dtype, x, scale, zero, **attributes)


def dequantize(
    x: TensorType,
    scale: np.ndarray,
    zero: np.ndarray | None = None,
    output_dtype: int = 0,
    **attributes: Any,
) -> Imported:
    """DequantizeLinear to float32."""
    if _type_name(output_dtype) not in ("", "float32"):
        raise OnnxError(f"y has type {_type_name(output_dtype)}, lpgen has float32")
    form = checks.format_of("x", x.dtype, FORMATS)
    return _import(DequantizeLinear, form, x.dtype, x, scale, zero, **attributes)


def _import(
    kind: type,
    form: Format,
    dtype: str,
    x: TensorType,
    scale: np.ndarray,
    zero: np.ndarray | None,
    axis: int = 1,
    block_size: int = 0,
) -> Imported:
    """dtype: the name of the quantized tensor's type."""
    _check_real("the scale", scale.dtype.name)
    per, sizes = _granularity(x.shape, scale.shape, axis, block_size)
    op = kind(**sizes, format=form, per=per)
    if zero is None:
        zero = np.zeros(scale.shape, form.dtype)
    else:
        checks.check_type("the zero point", zero, dtype)
        of_one = ((), (1,)) if per == "tensor" else ()
        checks.check_shape("the zero point", zero, scale.shape, *of_one)
    same = tuple(range(len(x.shape)))
    return Imported(
        op,
        {"x": Relayout(x.shape, x.shape, same, op.extents)},
        Relayout(op.extents, op.extents, (0, 1, 2), x.shape),
        parameters={
            "scale": scale.reshape(op.scale_shape),
            "zero": zero.astype(form.dtype).reshape(op.scale_shape),
        },
    )


def _granularity(
    shape: tuple[int, ...], scales: tuple[int, ...], axis: int, block: int
) -> tuple[str, dict[str, int]]:
    """(per, sizes) of the operator for a tensor and scales of these shapes."""
    total = math.prod(shape)
    if block < 0:
        raise OnnxError(f"block_size={block}, expected 0 (none) or more")
    if not block and scales in ((), (1,)):
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


def _type_name(number: int) -> str:
    """NumPy's name of ONNX's number of a type, "" for 0 (the default)."""
    from onnx import TensorProto, helper

    if number not in TensorProto.DataType.values():
        raise OnnxError(f"type {number} is none of ONNX")
    try:
        return helper.tensor_dtype_to_np_dtype(number).name if number else ""
    except KeyError:  # NumPy has no such type
        return TensorProto.DataType.Name(number).lower()


def _check_real(what: str, dtype: str) -> None:
    if dtype != "float32":
        raise OnnxError(f"{what} has type {dtype}, lpgen has float32")


NODES = {
    "QuantizeLinear": NodeKind(("scale", "zero"), quantize),
    "DequantizeLinear": NodeKind(("scale", "zero"), dequantize),
}
