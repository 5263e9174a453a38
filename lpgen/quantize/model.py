"""Post-training quantization of a model of ONNX: from a float model to one of standard nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from lpgen.errors import QuantizeError
from lpgen.plans import METADATA, Plan, Precision, check_plan, groups_of
from lpgen.plans.constants import Constants
from lpgen.plans.groups import node_names
from lpgen.quantize.between import READERS, Between, ranges_between
from lpgen.quantize.calibration import Calibration, Seen
from lpgen.quantize.gptq import DAMPING
from lpgen.quantize.graph import Graph, with_opset
from lpgen.quantize.kept import Kept
from lpgen.quantize.patches import Place
from lpgen.quantize.ranges import METHODS as RANGES
from lpgen.quantize.ranges import Range, chosen
from lpgen.quantize.weights import METHODS, Quantized, quantized
from lpgen.quantize.writing import Writer

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class Settings:
    """How: weights by `method` of `weights.METHODS`, with this damping; static ranges by `ranges`
    of `ranges.METHODS`; correct: whether biases make up for the mean error; between: whether
    results between layers with static scales become codes, too."""

    method: str = "gptq"
    damping: float = DAMPING
    ranges: str = RANGES[0]
    correct: bool = True
    between: bool = True

    def __post_init__(self) -> None:
        for key, known in (("method", METHODS), ("ranges", RANGES)):
            if getattr(self, key) not in known:
                raise QuantizeError(f"{key} {getattr(self, key)!r} is none of {', '.join(known)}")
        if not 0 <= self.damping <= 1:
            raise QuantizeError(f"damping {self.damping} is outside 0..1")


@dataclass(frozen=True)
class Outcome:
    """A quantized model; layers: what was made of each, by its node; scopes: the ranges of inputs
    that are static, likewise."""

    model: onnx.ModelProto
    layers: Mapping[str, Quantized]
    scopes: Mapping[str, Range]


Progress = Callable[[str, int, int], None]
"""Told what is being done ("calibration", "weights"), how much of it is, and of how much."""


def quantize(
    calibration: Calibration,
    plan: Plan,
    settings: Settings = Settings(),
    progress: Progress = lambda what, done, of: None,
    kept: Kept | None = None,
) -> Outcome:
    """The model with its layers as a plan says; kept: where layers that are done stay, for the next
    time. Weights that are stored as bit layers stay float here: `lpgen compile` makes the layers.

    Raises PlanError for a plan that does not fit, QuantizeError for data that do not, and where a
    layer cannot be quantized, with its name.
    """
    model = calibration.model
    groups = groups_of(model)
    check_plan(plan, groups)
    wanted = {node: p for node, p in plan.precisions.items() if p.weight is not None}
    if not wanted:
        raise QuantizeError("the plan leaves every layer float: there is nothing to quantize")
    wanted = {node: p for node, p in wanted.items() if not p.bit_layers}
    nodes = dict(zip(node_names(model.graph), model.graph.node, strict=True))
    layers = [layer for group in groups for layer in group.layers if layer.node in wanted]
    places = [Place(layer, nodes[layer.node]) for layer in layers]
    done, samples = _weights(calibration, places, wanted, settings, progress, kept)
    scopes = _scopes(samples, places, wanted, settings.ranges)
    edges = {place.layer.input: scopes.get(place.layer.node) for place in places}
    coded = _between(calibration, edges, settings.ranges) if settings.between else {}
    made = with_opset(model, _opset(wanted.values()))
    _write(made, places, wanted, done, scopes, coded, settings.correct)
    _note(made, plan)
    return Outcome(made, done, scopes)


def _weights(
    calibration: Calibration,
    places: Sequence[Place],
    wanted: Mapping[str, Precision],
    settings: Settings,
    progress: Progress,
    kept: Kept | None,
) -> tuple[dict[str, Quantized], dict[str, np.ndarray]]:
    """All layers by their nodes, in their order, and samples of their inputs by edge."""
    constants, found, samples = Constants(calibration.model), {}, {}
    for layer in (place.layer for place in places):
        if not np.isfinite(constants[layer.weight]).all():
            raise QuantizeError(f"layer {layer.node}: weights are not finite (NaN or infinity)")
    if kept:
        kept.begin(calibration)
        for layer in (place.layer for place in places):
            if done := kept.get(layer.node, wanted[layer.node]):
                found[layer.node], samples[layer.input] = done
    left = [place for place in places if place.layer.node not in found]
    for place, seen in calibration.seen(left, partial(progress, "calibration")):
        node, edge = place.layer.node, place.layer.input
        w = place.rows(constants[place.layer.weight])
        found[node] = quantized_layer(calibration, place, w, wanted[node], seen, settings)
        samples[edge] = calibration.values(edge).sample
        if kept:
            kept.put(node, wanted[node], found[node], samples[edge])
        progress("weights", len(found), len(places))
    return {place.layer.node: found[place.layer.node] for place in places}, samples


def quantized_layer(
    calibration: Calibration,
    place: Place,
    w: np.ndarray,
    precision: Precision,
    seen: Seen,
    settings: Settings = Settings(),
) -> Quantized:
    """One layer, whose weights are w [n, k]: quantized once for all plans that have it so."""
    node, bias = place.layer.node, calibration.biases.of(place.node, place.layer.n)
    how = settings.method, settings.damping, settings.correct and bias is not None
    key = (node, precision.weight, precision.weight_group, precision.hadamard, *how)
    if key not in calibration.made:
        try:
            calibration.made[key] = quantized(w, precision, seen, *how)
        except QuantizeError as error:
            raise QuantizeError(f"layer {node}: {error}") from None
    return calibration.made[key]


def _scopes(
    samples: Mapping[str, np.ndarray],
    places: Sequence[Place],
    wanted: Mapping[str, Precision],
    method: str,
) -> dict[str, Range]:
    """The static ranges of inputs by the nodes that read them; those that share one, share it."""
    known: dict[tuple, Range] = {}
    found = {}
    for node, edge in ((place.layer.node, place.layer.input) for place in places):
        if wanted[node].scales == "static":
            key = (edge, wanted[node].act)
            if key not in known:
                known[key] = chosen(samples[edge], wanted[node].act, method)
            found[node] = known[key]
    return found


def _between(
    calibration: Calibration, scopes: Mapping[str, Range | None], method: str
) -> dict[str, Range]:
    """The ranges of edges between layers; scopes: of their inputs, None where they are float."""
    static = {edge: scope for edge, scope in scopes.items() if scope is not None}
    graph = Between(calibration.model)
    coded = graph.coded(static)
    calibration.observe([edge for edge, _ in coded if edge not in static])
    return ranges_between(graph, coded, static, lambda e: calibration.values(e).sample, method)


def _write(
    model: onnx.ModelProto,
    places: Sequence[Place],
    wanted: Mapping[str, Precision],
    done: Mapping[str, Quantized],
    scopes: Mapping[str, Range],
    coded: Mapping[str, Range],
    correct: bool,
) -> None:
    """Put the layers into the graph, whose opset may be newer than that of the places."""
    graph = Graph(model)
    writer = Writer(graph)
    nodes = dict(zip(node_names(model.graph), model.graph.node, strict=True))
    for place in places:
        node = place.layer.node
        if node not in nodes:
            raise QuantizeError(f"layer {node} has another name in the newer opset")
        there = place._replace(node=nodes[node])
        writer.layer(there, wanted[node], done[node], scopes.get(node), correct)
    for edge, scope in coded.items():
        writer.between(edge, scope, READERS)
    graph.finish()


def _opset(precisions: Iterable[Precision]) -> int:
    """The version of ONNX's operators that has what these need, 0: any."""
    least = (21 if p.weight_group or p.weight.bits <= 4 else 13 for p in precisions)
    return max(least, default=0)


def _note(model: onnx.ModelProto, plan: Plan) -> None:
    """The plan among the model's metadata."""
    for entry in [entry for entry in model.metadata_props if entry.key == METADATA]:
        model.metadata_props.remove(entry)
    model.metadata_props.add(key=METADATA, value=plan.to_toml())
