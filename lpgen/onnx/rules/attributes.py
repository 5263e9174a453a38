"""Attributes of nodes as Python values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lpgen.errors import OnnxError

if TYPE_CHECKING:
    import onnx


def attributes(node: onnx.NodeProto, **known: Any) -> dict[str, Any]:
    """The attributes of a node by name, with the defaults in `known`; OnnxError for others."""
    from onnx.helper import get_attribute_value

    given = {a.name: get_attribute_value(a) for a in node.attribute}
    if unknown := sorted(set(given) - set(known)):
        raise OnnxError(f"attribute {unknown[0]} is none that lpgen knows")
    texts = {n: v.decode(errors="replace") for n, v in given.items() if isinstance(v, bytes)}
    return known | given | texts
