"""One ONNX node with its constants to an operator: which node is served by what."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from lpgen.errors import LpgenError, OnnxError
from lpgen.onnx import conv, linear, matmul
from lpgen.onnx.imported import Imported, TensorType

if TYPE_CHECKING:
    import onnx

_REQUANTIZED = ("x_scale", "x_zero", "w", "w_scale", "w_zero", "y_scale", "y_zero")
# The inputs behind the first one by our names, in the order of the node; and what imports it.
_KINDS: dict[str, tuple[tuple[str, ...], Callable[..., Imported]]] = {
    "ConvInteger": (("w", "x_zero", "w_zero"), conv.integer),
    "QLinearConv": ((*_REQUANTIZED, "bias"), conv.requantized),
    "MatMulInteger": (("w", "x_zero", "w_zero"), matmul.integer),
    "QLinearMatMul": (_REQUANTIZED, matmul.requantized),
    "QuantizeLinear": (("scale", "zero"), linear.quantize),
    "DequantizeLinear": (("scale", "zero"), linear.dequantize),
}


def import_node(
    node: onnx.NodeProto, x: TensorType, constants: Mapping[str, np.ndarray]
) -> Imported:
    """The operator that computes `node` from a first input of type `x`.

    constants: the values of the other inputs by their names in the node. Raises OnnxError for a
    node that no operator computes, with the reason, and for an input that is not constant.
    """
    from onnx.helper import get_attribute_value

    if node.op_type not in _KINDS:
        raise OnnxError(f"{node.op_type} is none of {', '.join(_KINDS)}")
    names, convert = _KINDS[node.op_type]
    given: dict[str, np.ndarray] = {}
    for ours, name in zip(names, node.input[1:], strict=False):
        if name and name not in constants:
            raise OnnxError(f"{node.op_type}: input {name!r} is no constant")
        if name:
            given[ours] = np.asarray(constants[name])
    attributes = {a.name: _text(get_attribute_value(a)) for a in node.attribute}
    try:
        return convert(x, **given, **attributes)
    except LpgenError as error:
        raise OnnxError(f"{node.op_type}: {error}") from None


def _text(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value
