"""Means of windows of quantized values: one step from codes to codes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from lpgen.onnx.imported import Imported
from lpgen.onnx.nodes import import_node
from lpgen.onnx.rules import quantization
from lpgen.onnx.rules.bounds import bounded_real
from lpgen.onnx.values import Mapped, Pending, Stored, Target, Value
from lpgen.ops.tensor_type import TensorType

if TYPE_CHECKING:
    import onnx

    from lpgen.onnx.lowering import Lowering


@dataclass(frozen=True)
class Mean(Pending):
    """Of windows of a dequantized image; node: the AveragePool or GlobalAveragePool."""

    x: Mapped
    node: onnx.NodeProto

    def quantized(self, lowering: Lowering, name: str, to: Target) -> Stored:
        """The QLinear form of the node."""
        imported = _quantized(self.node, self.x, to)
        made = replace(lowering.apply(imported, name, [self.x.codes]), form=to.form)
        return quantization.bounded(lowering, made, to, self)

    def real(self, lowering: Lowering, name: str) -> Stored:
        """The node on real numbers."""
        x = lowering.tensor(self.x)
        made = lowering.apply(import_node(self.node, x.type, {}), name, [x])
        return bounded_real(lowering, made, self)


def _quantized(node: onnx.NodeProto, x: Mapped, to: Target) -> Imported:
    from onnx import helper

    inputs = ["x", "x_scale", "x_zero", "y_scale", "y_zero"]
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    qlinear = helper.make_node(
        *(f"QLinear{node.op_type}", inputs, ["y"]), domain="com.microsoft", **attributes
    )
    constants = {
        "x_scale": x.scale.scale.reshape(()),
        "x_zero": x.scale.zero.reshape(()).astype(x.form.dtype),
        "y_scale": np.float32(to.scale),
        "y_zero": to.of_codes.zero.reshape(()),
    }
    return import_node(qlinear, x.codes.type, constants)


def mean(lowering: Lowering, node: onnx.NodeProto) -> Sequence[Value] | None:
    """AveragePool and GlobalAveragePool of dequantized values."""
    x = lowering.affine(lowering.inputs(node)[0])
    if x is None:
        return None
    kind = import_node(node, x.type, {})  # for its shape, and to know that it is legal
    return [Mean(TensorType(kind.y.shape, "float32"), -np.inf, np.inf, x, node)]


RULES = {"AveragePool": mean, "GlobalAveragePool": mean}
