"""Rules: what nodes become that are not one operator by themselves.

A rule takes the lowering and the node and gives the values of the node's outputs, or None where the
node is an operator after all (`lpgen.onnx.nodes`). It raises OnnxError, with the reason, for a node
that is not served.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from lpgen.onnx.rules import (
    attention,
    blocks,
    composite,
    dynamic,
    functions,
    logic,
    microsoft,
    normalization,
    one_hot,
    parts,
    pools,
    products,
    qonnx,
    quantization,
    recurrent,
    rows,
    structure,
    sums,
    transposed,
    upsampling,
)

if TYPE_CHECKING:
    import onnx

    from lpgen.onnx.lowering import Lowering
    from lpgen.onnx.values import Value

Rule = Callable[["Lowering", "onnx.NodeProto"], "Sequence[Value] | None"]

RULES: dict[str, Rule] = {
    **structure.RULES,
    **quantization.RULES,
    **functions.RULES,
    **sums.RULES,
    **pools.RULES,
    **parts.RULES,
    **logic.RULES,
    **one_hot.RULES,
    **rows.RULES,
    **normalization.RULES,
    **composite.RULES,
    **attention.RULES,
    **microsoft.RULES,
    **dynamic.RULES,
    **products.RULES,
    **transposed.RULES,
    **upsampling.RULES,
    **recurrent.RULES,
    **qonnx.RULES,
    **blocks.RULES,
}
"""By the operator's name; those of com.microsoft with their domain in front."""

_ELEMENTWISE = {
    *("QLinearAdd", "QLinearMul", "QLinearSigmoid", "QLinearLeakyRelu"),
    *("Add", "Sub", "Mul", "Div", "Min", "Max", "Pow"),
    *functions.RULES,
}


def find(node: onnx.NodeProto) -> Rule | None:
    """The rule for a node, if there is one."""
    domain = "" if node.domain in ("", "ai.onnx") else f"{node.domain}."
    return RULES.get(f"{domain}{node.op_type}")


def on_constants(node: onnx.NodeProto) -> bool:
    """Whether the rule is for known inputs, too."""
    return node.op_type in ("DequantizeLinear", "Cast", "Mul", "Quant", "BipolarQuant")


def elementwise(node: onnx.NodeProto) -> bool:
    """Whether elements are treated alike, wherever they lie, so that the order in memory stays."""
    return node.op_type in _ELEMENTWISE
