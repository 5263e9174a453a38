"""Functions of single elements: of quantized values they are tables, whatever the function is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from lpgen.onnx import evaluate
from lpgen.onnx.rules import quantization
from lpgen.onnx.rules.structure import known
from lpgen.onnx.values import Constant, Mapped, Pending, Stored, Value

if TYPE_CHECKING:
    import onnx

    from lpgen.onnx.lowering import Lowering

UNARY = (
    *("Abs", "Celu", "Clip", "Elu", "Erf", "Exp", "Floor", "Ceil", "Gelu", "HardSigmoid"),
    *("HardSwish", "LeakyRelu", "Log", "Mish", "Neg", "Reciprocal", "Relu", "Round", "Selu"),
    *("Sigmoid", "Softplus", "Softsign", "Sqrt", "Tanh", "ThresholdedRelu"),
)
BINARY = ("Add", "Div", "Max", "Min", "Mul", "Pow", "Sub")


def function(lowering: Lowering, node: onnx.NodeProto) -> Sequence[Value] | None:
    """A function of one element: bounds of what waits, or another table; None for a tensor of real
    numbers."""
    value = lowering.inputs(node)[0]
    if node.op_type not in ("Relu", "Clip"):
        return mapped(lowering, node)
    if isinstance(value, Stored) and value.type.dtype == "float32":
        value = quantization.Bounded(value.type, -np.inf, np.inf, value)
    if isinstance(value, Pending):
        low, high = _bounds(lowering, node)
        return [replace(value, low=max(value.low, low), high=max(low, min(value.high, high)))]
    return mapped(lowering, node)


def mapped(lowering: Lowering, node: onnx.NodeProto) -> Sequence[Mapped] | None:
    """A function of the codes of one tensor and of constant numbers, as a table."""
    given = lowering.inputs(node)
    tensors = [value for value in given if isinstance(value, Mapped)]
    others = [v for v in given if v is not None and not isinstance(v, Mapped)]
    if not tensors or any(tensor.codes != tensors[0].codes for tensor in tensors):
        return None
    if not all(isinstance(value, Constant) and value.array.size == 1 for value in others):
        return None
    arrays = {}
    for name, value in zip(node.input, given, strict=True):
        if isinstance(value, Mapped):
            arrays[name] = value.table
        elif isinstance(value, Constant):
            arrays[name] = value.array.reshape(())
    (table,) = evaluate.evaluate(node, arrays, lowering.model.opsets)
    return [Mapped(tensors[0].codes, np.asarray(table, np.float32))]


def of_table(lowering: Lowering, node: onnx.NodeProto, value: Mapped) -> Mapped:
    """A node of one input on the values of a table."""
    arrays = {node.input[0]: value.table}
    (table,) = evaluate.evaluate(node, arrays, lowering.model.opsets)
    return Mapped(value.codes, np.asarray(table, np.float32))


def _bounds(lowering: Lowering, node: onnx.NodeProto) -> tuple[float, float]:
    if node.op_type == "Relu":
        return 0.0, float("inf")
    given = {a.name: a.f for a in node.attribute}  # before opset 11
    low, high = known(lowering, node, 1, "min"), known(lowering, node, 2, "max")
    low = given.get("min", -np.inf) if low is None else low
    high = given.get("max", np.inf) if high is None else high
    return float(low), float(high)


RULES = dict.fromkeys(UNARY, function) | dict.fromkeys(("Div", "Max", "Min", "Pow", "Sub"), mapped)
