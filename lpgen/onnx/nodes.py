"""One ONNX node with its constants to an operator: which node is served by what."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from lpgen.errors import LpgenError, OnnxError
from lpgen.formats import as_array
from lpgen.onnx import conv, linear, matmul
from lpgen.onnx.checks import tensor_type
from lpgen.onnx.imported import Imported, TensorType

if TYPE_CHECKING:
    import onnx

_DOMAINS = ("", "ai.onnx")
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
    node that no operator computes or that is none of ONNX (inputs, attributes, types and shapes are
    checked), with the reason, and for an input that is not constant.
    """
    from onnx.helper import get_attribute_value

    if node.op_type not in _KINDS or node.domain not in _DOMAINS:
        kind = ".".join(filter(None, (node.domain, node.op_type)))
        raise OnnxError(f"{kind} is none of {', '.join(_KINDS)}")
    names, convert = _KINDS[node.op_type]
    try:
        _check_node(node)
        given: dict[str, np.ndarray] = {}
        for ours, name in zip(names, node.input[1:], strict=False):
            if name and name not in constants:
                raise OnnxError(f"input {name!r} is no constant")
            if name:
                given[ours] = as_array(name, constants[name])
        attributes = {a.name: _text(get_attribute_value(a)) for a in node.attribute}
        imported = convert(tensor_type("x", x), **given, **attributes)
        imported.op.legal_parameters(imported.parameters)
    except LpgenError as error:
        raise OnnxError(f"{node.op_type}: {error}") from None
    return imported


def _check_node(node: onnx.NodeProto) -> None:
    """Raise OnnxError where inputs or attributes are not those of the operator in ONNX's schema."""
    from onnx import checker

    plain = type(node)()
    plain.CopyFrom(node)
    plain.domain = ""  # the checker does not know it by its other name
    try:
        checker.check_node(plain)
    except checker.ValidationError as error:
        raise OnnxError(str(error).strip().splitlines()[0]) from None


def _text(value: Any) -> Any:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
