"""Whole plans as they will run: quantized weights, and activations through their codes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lpgen.planner.errors import with_flips
from lpgen.plans import Plan, Precision, groups_of
from lpgen.plans.constants import Constants
from lpgen.plans.groups import node_names
from lpgen.quantize import layers
from lpgen.quantize.calibration import Calibration
from lpgen.quantize.data import Call
from lpgen.quantize.graph import Graph
from lpgen.quantize.model import quantize
from lpgen.quantize.patches import Place
from lpgen.quantize.session import Session
from lpgen.sensitivity.faked import Act, faked
from lpgen.sensitivity.measure import Measure
from lpgen.sensitivity.metrics import Metric
from lpgen.sensitivity.table import Result

if TYPE_CHECKING:
    import onnx


def with_layers(model: onnx.ModelProto, precisions: Mapping[str, Precision]) -> onnx.ModelProto:
    """A model in which weights that are stored as bit layers are what these stand for."""
    layered = {node: p for node, p in precisions.items() if p.bit_layers}
    if not layered:
        return model
    copy = type(model)()
    copy.CopyFrom(model)
    graph, constants = Graph(copy), Constants(copy)
    nodes = dict(zip(node_names(copy.graph), copy.graph.node, strict=True))
    for group in groups_of(model):
        for layer in group.layers:
            if layer.node in layered:
                p, place = layered[layer.node], Place(layer, nodes[layer.node])
                w = place.rows(constants[layer.weight])
                made = place.restored(layers.real(layers.stored(w, p), p))
                name = graph.constant(f"{layer.node}.layers", made)
                place.node.input[1] = name
    graph.finish()
    return copy


class Whole:
    """Plans of one model; calls: what outputs are compared on [those that calibrate]."""

    def __init__(
        self, calibration: Calibration, metric: Metric, calls: Sequence[Call] = ()
    ) -> None:
        self.calibration = calibration
        self._measure = Measure(calibration, metric, calls)

    def result(self, plan: Plan, errors: bool = False) -> Result:
        """How far the outputs of a plan are from those of the float model: of the model that
        `lpgen.quantize` makes, with dynamic scales as kernels find them; errors: with bits flipped
        in what the plan does not protect."""
        quantized = {n: p for n, p in plan.precisions.items() if p.weight is not None}
        if not quantized:
            return self._measure.result(self._measure.reference)
        model = quantize(self.calibration, plan).model
        model = with_layers(model, quantized)
        if errors:
            model = with_flips(model, quantized, plan.exposed, plan.bit_errors)
        acts = {
            node: Act(precision, rotated=True)
            for node, precision in quantized.items()
            if precision.scales != "static"
        }
        session = Session(faked(model, acts))
        return self._measure.result([session(call) for call in self._measure.calls])
