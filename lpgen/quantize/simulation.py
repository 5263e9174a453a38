"""What kernels do with activations whose scales are found in each call, in standard nodes of ONNX.

A quantized model leaves these activations float and holds the plan. Here the quantization is spelt
out, so that any runtime gives the results of the kernels, but for the order of float32 additions:

    a = max |x|,  q = round(x * (levels / a)),  x is seen as q * (a / levels)

for each row, or each group of neighbours along k; levels is the largest code. It is for measuring:
it runs slower than float.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lpgen.ops.lhs import SMALLEST
from lpgen.plans import Plan, plan_of
from lpgen.plans.groups import node_names
from lpgen.quantize.graph import Graph

if TYPE_CHECKING:
    import onnx


def simulated(model: onnx.ModelProto, plan: Plan | None = None) -> onnx.ModelProto:
    """A copy of a quantized model with its activations quantized as the plan says, by default the
    one that it holds; a model without a plan as it is."""
    plan = plan or plan_of(model)
    copy = type(model)()
    copy.CopyFrom(model)
    if plan is None:
        return copy
    graph, made = Graph(copy), {}
    for name, node in zip(node_names(copy.graph), copy.graph.node, strict=True):
        precision = plan.precision(name)
        if precision.weight is None or precision.scales == "static":
            continue
        key = (node.input[0], precision.act, precision.act_group)
        if key not in made:
            made[key] = _seen(graph, node.input[0], precision.act.max, precision.act_group)
        node.input[0] = made[key]
    graph.finish()
    return copy


def _seen(graph: Graph, edge: str, levels: int, group: int) -> str:
    """The edge as it is seen through its codes."""
    if not group:
        return by_row(graph, edge, levels)
    shape = graph.constant(f"{edge}.groups", np.int64([-1, group]))
    seen = by_row(graph, graph.add("Reshape", [edge, shape], f"{edge}.grouped"), levels)
    return graph.add(
        "Reshape", [seen, graph.add("Shape", [edge], f"{edge}.sizes")], f"{edge}.whole"
    )


def by_row(graph: Graph, x: str, levels: int) -> str:
    """step * round(x / step) with step = largest |x| of the last axis / levels."""

    def add(kind: str, *inputs: str, **attributes: int) -> str:
        return graph.add(kind, inputs, f"{x}.{kind.lower()}", **attributes)

    number = graph.constant("levels", np.float32(levels))
    size = add("Abs", x)
    opset = next(o.version for o in graph.model.opset_import if o.domain in ("", "ai.onnx"))
    if opset >= 18:  # axes were an attribute before
        axes = graph.constant("last", np.int64([-1]))
        largest = add("ReduceMax", size, axes, keepdims=1)
    else:
        largest = add("ReduceMax", size, axes=[-1], keepdims=1)
    largest = add("Max", largest, graph.constant("smallest", np.float32(SMALLEST)))
    codes = add("Round", add("Mul", x, add("Div", number, largest)))
    return add("Mul", codes, add("Div", largest, number))
