"""Measuring: every variant of every group, all other layers float, on all calls of the data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from lpgen.ops import hadamard
from lpgen.plans import LayerGroup, Precision, groups_of
from lpgen.plans.constants import Constants
from lpgen.plans.groups import node_names
from lpgen.quantize import layers
from lpgen.quantize.calibration import Calibration, Seen
from lpgen.quantize.data import Call
from lpgen.quantize.model import quantized_layer
from lpgen.quantize.patches import Place
from lpgen.quantize.ranges import chosen
from lpgen.quantize.session import Session
from lpgen.sensitivity.faked import Act, bias_input, faked, weights_input
from lpgen.sensitivity.journal import Journal
from lpgen.sensitivity.metrics import Metric, Outputs, divergence
from lpgen.sensitivity.rest import Front
from lpgen.sensitivity.table import Result, Row, Table
from lpgen.sensitivity.variants import Variant, flipped, noisy

if TYPE_CHECKING:
    import onnx

Progress = Callable[[str, int, int], None]
"""Told the group at work, how many results there are, and of how many."""

Wanted = Callable[[LayerGroup], Iterable[Variant]]


def sensitivity(
    calibration: Calibration,
    wanted: Wanted,
    metric: Metric,
    journal: Journal,
    progress: Progress = lambda what, done, of: None,
    name: str = "",
    calls: Sequence[Call] = (),
) -> Table:
    """The table of a model; wanted: the variants of a group; what the journal has is not measured
    again; name: of the model; calls: what outputs are compared on [those that calibrate]. Raises
    QuantizeError where the data do not fit the model."""
    measure = Measure(calibration, metric, calls)
    groups = groups_of(calibration.model)
    plans = {group.name: list(wanted(group)) for group in groups}
    keys = {g.name: [f"{g.name} {variant}" for variant in plans[g.name]] for g in groups}
    missing = [g for g in groups if any(key not in journal.known for key in keys[g.name])]
    total = sum(map(len, plans.values()))
    done = total - sum(key not in journal.known for found in keys.values() for key in found)
    progress("", done, total)
    for group, seen in measure.seen(missing):
        at_group = AtGroup(measure, group, seen)
        for variant, key in zip(plans[group.name], keys[group.name], strict=True):
            if key not in journal.known:
                journal.add(key, at_group.result(variant)._asdict())
                done += 1
                progress(f"{group.name} {variant}", done, total)
    rows = [
        Row(
            *(group.name, group.nodes, group.count),
            {
                str(variant): Result(**journal.known[key])
                for variant, key in zip(plans[group.name], keys[group.name], strict=True)
            },
        )
        for group in groups
    ]
    reference = metric(measure.reference, measure.reference, measure.calls)
    return Table(name, metric.name, reference, len(measure.calls), tuple(rows))


class Measure:
    """A float model, its data, and what it gives; calls: what outputs are compared on, where these
    are not the calls that calibrate."""

    def __init__(
        self, calibration: Calibration, metric: Metric, calls: Sequence[Call] = ()
    ) -> None:
        self.calibration, self.metric = calibration, metric
        self.model, self.calls = calibration.model, calls or calibration.calls
        self.front = Front(self.model, self.calls)
        self.constants = Constants(self.model)
        self.nodes = dict(zip(node_names(self.model.graph), self.model.graph.node, strict=True))

    @cached_property
    def reference(self) -> Outputs:
        """The outputs of the float model."""
        session = Session(self.model)
        return [session(call) for call in self.calls]

    def result(self, outputs: Outputs) -> Result:
        """How far outputs are from those of the float model."""
        apart = divergence(outputs, self.reference)
        return Result(apart, self.metric(outputs, self.reference, self.calls))

    def places(self, group: LayerGroup) -> list[Place]:
        """The layers of a group in the graph."""
        return [Place(layer, self.nodes[layer.node]) for layer in group.layers]

    def seen(self, groups: Sequence[LayerGroup]) -> Iterator[tuple[LayerGroup, dict[str, Seen]]]:
        """What the layers of each group saw, by node, as soon as that is known of all of them."""
        owner = {layer.node: group for group in groups for layer in group.layers}
        waiting: dict[str, dict[str, Seen]] = {group.name: {} for group in groups}
        places = [place for group in groups for place in self.places(group)]
        for place, seen in self.calibration.seen(places):
            group = owner[place.layer.node]
            found = waiting[group.name]
            found[place.layer.node] = seen
            if len(found) == len(group.layers):
                yield group, waiting.pop(group.name)


class AtGroup:
    """The variants of one group; seen: by its nodes."""

    def __init__(self, measure: Measure, group: LayerGroup, seen: Mapping[str, Seen]) -> None:
        self.measure, self.group, self.seen = measure, group, seen
        self.places = measure.places(group)
        self.rest = measure.front.at(group.name)
        self._layers: dict[tuple, layers.BitLayers | layers.Planes] = {}

    @cached_property
    def session(self) -> Session:
        """The rest of the model, to which the weights and biases of the group are given."""
        return Session(faked(self.rest, {}, self.group.layers))

    def result(self, variant: Variant) -> Result:
        """What a variant does."""
        if variant.kind == "acts":
            session, given = Session(self._seeing(variant.precision)), {}
        else:
            session = self.session
            given = {k: v for place in self.places for k, v in self._given(place, variant)}
        measure = self.measure
        pairs = zip(measure.reference, measure.front.calls, strict=True)
        return measure.result([before | session(call | given) for before, call in pairs])

    def _seeing(self, precision: Precision) -> onnx.ModelProto:
        """The rest of the model, whose group sees its input in few bits."""
        scope = None
        if precision.scales == "static":
            sample = self.measure.calibration.values(self.group.input).sample
            scope = chosen(sample, precision.act)
        return faked(self.rest, dict.fromkeys(self.group.nodes, Act(precision, scope)))

    def _given(self, place: Place, variant: Variant) -> Iterator[tuple[str, np.ndarray]]:
        """The weights of a layer as ONNX has them, and its bias, if it has one."""
        layer, calibration = place.layer, self.measure.calibration
        w, shift = place.rows(self.measure.constants[layer.weight]), np.zeros(layer.n)
        rng = np.random.default_rng(list(f"{layer.node} {variant}".encode()))
        if variant.kind == "noise":
            made = noisy(w, variant.amount, rng)
        elif variant.kind == "layers":
            made = self._in_layers(place, w, variant.precision)
        else:
            seen = self.seen[layer.node]
            made = quantized_layer(calibration, place, w, variant.precision, seen)
            codes, shift = made.codes, made.shift
            if variant.kind == "flips":
                codes = flipped(codes, variant.amount, rng)
            block = variant.precision.hadamard
            made = hadamard.rotated(codes.real(), block) if block else codes.real()
        yield weights_input(layer.node), place.restored(np.ascontiguousarray(made, np.float32))
        if bias := calibration.biases.of(place.node, layer.n):
            yield bias_input(layer.node), bias.corrected(shift)

    def _in_layers(self, place: Place, w: np.ndarray, precision: Precision) -> np.ndarray:
        """The first bit layers of weights [n, k], as a library stores them: of one code, whatever
        the number is."""
        how = str(precision.weight), precision.weight_group, precision.hadamard
        key = (place.layer.node, *how)
        if key not in self._layers:
            self._layers[key] = layers.stored(w, precision)
        return layers.real(self._layers[key], precision)
