"""One ONNX node with its constants to an operator: which node is served by what."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lpgen.errors import LpgenError, OnnxError
from lpgen.formats import as_array
from lpgen.onnx.checks import tensor_type
from lpgen.onnx.imported import Imported, NodeKind
from lpgen.ops.tensor_type import TensorType

if TYPE_CHECKING:
    import onnx

OLDEST_OPSET = 13
"""A node has to be one of the newest operators of ONNX, or of these."""

_ONNX = ("", "ai.onnx")
"""Names of the domain of ONNX's own operators."""


@cache
def kinds() -> dict[str, NodeKind]:
    """What is served, by the operator's name: the `NODES` of the modules beside this one."""
    found: dict[str, NodeKind] = {}
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        found |= getattr(importlib.import_module(f"{__package__}.{module.name}"), "NODES", {})
    return dict(sorted(found.items()))


def import_node(
    node: onnx.NodeProto, x: TensorType | np.ndarray, constants: Mapping[str, np.ndarray]
) -> Imported:
    """The operator that computes `node` from a first input of type `x`, or, of some, from x itself.

    constants: the values of the other inputs by their names in the node; a TensorType for one that
    every call gives. Raises OnnxError for a node that no operator computes or that is none of ONNX
    (inputs, attributes, types and shapes are checked), with the reason, and for an input that has
    to be constant and is not.
    """
    from onnx.helper import get_attribute_value

    kind = kinds().get(node.op_type)
    domain = "" if node.domain in _ONNX else node.domain
    if kind is None or domain != kind.domain:
        name = ".".join(filter(None, (node.domain, node.op_type)))
        raise OnnxError(f"{name} is none of {', '.join(kinds())}")
    try:
        if not domain:
            _check_node(node)
        given = _inputs(node, kind, constants)
        attributes = {a.name: _text(get_attribute_value(a)) for a in node.attribute}
        constant = isinstance(x, np.ndarray) and "x" in kind.tensors
        first = x if constant else tensor_type("x", x)
        imported = kind.convert(first, **given, **attributes)
        if imported.weights is not None:
            imported.op.legal_parameters(imported.parameters)
    except LpgenError as error:
        raise OnnxError(f"{node.op_type}: {error}") from None
    return imported


def _inputs(
    node: onnx.NodeProto, kind: NodeKind, constants: Mapping[str, Any]
) -> dict[str, np.ndarray | TensorType]:
    """The inputs behind the first one by our names: constants, and the types of others."""
    if len(node.input) > len(kind.names) + 1:
        raise OnnxError(f"{len(node.input)} inputs, expected {len(kind.names) + 1} at most")
    given: dict[str, np.ndarray | TensorType] = {}
    for ours, name in zip(kind.names, node.input[1:], strict=False):
        if not name:
            continue
        if name not in constants:
            raise OnnxError(f"input {name!r} is no constant")
        value = constants[name]
        tensor = isinstance(value, TensorType)
        if tensor and ours not in kind.tensors:
            raise OnnxError(f"input {name!r} is no constant")
        given[ours] = tensor_type(name, value) if tensor else as_array(name, value)
    if missing := [name for name in kind.required if name not in given]:
        raise OnnxError(f"input {missing[0]} is missing")
    return given


def _check_node(node: onnx.NodeProto) -> None:
    """Raise OnnxError where inputs or attributes are not those of the operator in ONNX's schema."""
    import onnx
    from onnx import checker, defs

    plain = type(node)()
    plain.CopyFrom(node)
    plain.domain = ""  # the checker does not know it by its other name
    reasons = []
    for opset in (defs.onnx_opset_version(), OLDEST_OPSET):  # attributes have become inputs
        context = checker.C.CheckerContext()
        context.ir_version, context.opset_imports = onnx.IR_VERSION, {"": opset}
        try:
            checker.check_node(plain, context)
        except checker.ValidationError as error:
            reasons.append(str(error).strip().splitlines()[0])
    if len(reasons) > 1:
        raise OnnxError(reasons[0])


def _text(value: Any) -> Any:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
