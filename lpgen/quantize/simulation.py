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

from lpgen.plans import Plan, plan_of
from lpgen.plans.groups import node_names
from lpgen.quantize.graph import Graph, with_opset

if TYPE_CHECKING:
    import onnx

_SMALLEST = 2.0**-100
"""As in `ops.lhs`: below it the largest |x| counts as 0."""


def simulated(model: onnx.ModelProto, plan: Plan | None = None) -> onnx.ModelProto:
    """A copy of a quantized model with its activations quantized as the plan says, by default the
    one that it holds; a model without a plan as it is."""
    plan = plan or plan_of(model)
    # From there on ReduceMax has its axes as an input.
    copy = with_opset(model, 18 if plan else 1)
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
    x = edge
    if group:
        shape = graph.constant(f"{edge}.groups", np.int64([-1, group]))
        x = graph.add("Reshape", [x, shape], f"{edge}.grouped")
    last = graph.constant(f"{edge}.axis", np.int64([-1]))
    size = graph.add("Abs", [x], f"{edge}.size")
    largest = graph.add("ReduceMax", [size, last], f"{edge}.largest", keepdims=1)
    least = graph.constant(f"{edge}.smallest", np.float32(_SMALLEST))
    largest = graph.add("Max", [largest, least], f"{edge}.scaled")
    count = graph.constant(f"{edge}.levels", np.float32(levels))
    factor = graph.add("Div", [count, largest], f"{edge}.factor")
    steps = graph.add("Mul", [x, factor], f"{edge}.steps")
    codes = graph.add("Round", [steps], f"{edge}.rounded")
    step = graph.add("Div", [largest, count], f"{edge}.step")
    seen = graph.add("Mul", [codes, step], f"{edge}.quantized")
    if not group:
        return seen
    return graph.add(
        "Reshape", [seen, graph.add("Shape", [edge], f"{edge}.sizes")], f"{edge}.whole"
    )
