"""Types and shapes of a node's tensors against ONNX: one line of what is wrong."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import numpy as np

from lpgen.errors import OnnxError
from lpgen.formats import Format
from lpgen.ops.tensor_type import TensorType

BYTES = {"uint8": Format("u", 8), "int8": Format("s", 8)}
REALS = ("float32", "float16", "bfloat16")

Shape = tuple[int, ...]


def tensor_type(what: str, given: Any) -> TensorType:
    """`given` with sizes as int and the name of its dtype; OnnxError unless all sizes are known and
    none is 0."""
    try:
        shape, dtype = given
        shape = tuple(operator.index(size) for size in shape)
    except (TypeError, ValueError):
        raise OnnxError(f"{what} is {given!r}, expected a TensorType of known sizes") from None
    if any(size < 1 for size in shape):
        raise OnnxError(f"{what} has shape {shape}, which is empty")
    return TensorType(shape, type_name(dtype))


def type_name(dtype: Any) -> str:
    """NumPy's name of a dtype; of what it does not know (int4, where `ml_dtypes` is not there) the
    text."""
    try:
        return str(dtype) if dtype is None else np.dtype(dtype).name
    except (TypeError, ValueError):
        return str(dtype)


def check_type(what: str, values: np.ndarray, *expected: str) -> None:
    """Raise OnnxError unless the dtype has one of the names."""
    if values.dtype.name not in expected:
        raise OnnxError(f"{what} has type {values.dtype.name}, expected {' or '.join(expected)}")


def check_shape(what: str, values: np.ndarray, *expected: Shape) -> None:
    """Raise OnnxError unless the shape is one of these."""
    if values.shape not in expected:
        allowed = " or ".join(map(str, dict.fromkeys(expected)))
        raise OnnxError(f"{what} has shape {values.shape}, expected {allowed}")


def format_of(what: str, dtype: str, formats: Mapping[str, Format] = BYTES) -> Format:
    """The format of a tensor of quantized values; OnnxError where there is none."""
    if dtype not in formats:
        raise OnnxError(f"{what} has type {dtype}, lpgen has {', '.join(formats)}")
    return formats[dtype]


def real(what: str, values: np.ndarray) -> np.ndarray:
    """Scales as float32."""
    check_type(what, values, *REALS)
    return values.astype(np.float32)


def single(what: str, values: np.ndarray, *more: Shape) -> Any:
    """The one number in `values`, a scalar or of one element, or several times in one of the shapes
    `more`. OnnxError for other shapes, and for different numbers."""
    check_shape(what, values, (), (1,), *more)
    some = np.unique(values)
    if some.size != 1:
        raise OnnxError(f"{what} has {some.size} different values, lpgen has one for a tensor")
    return some[0].item()


def zero_point(what: str, values: np.ndarray | None, dtype: str, *more: Shape) -> int:
    """The zero point of a tensor of the dtype, as `single`; 0 for None."""
    if values is None:
        return 0
    check_type(what, values, dtype)
    return single(what, values, *more)


def check_real(what: str, dtype: str) -> None:
    """Raise OnnxError unless the type is float32."""
    if dtype != "float32":
        raise OnnxError(f"{what} has type {dtype}, lpgen has float32")
