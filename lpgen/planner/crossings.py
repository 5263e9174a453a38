"""What stands between layers, and what it costs where neighbours have other formats.

Steps that are no layer (the glue) count for the layer that they lead to. Where a layer and the one
in front of it see their inputs in the same way, that is measured in the network in which all do.
Where they do not, tensors are converted: for two ways to see inputs, networks are timed in which
each layer has another one than the layer in front of it, once in this order and once in the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from lpgen.network import Network, Step
from lpgen.plans import LayerGroup, Precision


def seen_as(choice: Precision) -> str:
    """How a layer sees its input: what conversions depend on; a8 row, float."""
    if choice.weight is None:
        return "float"
    rotated = f" hadamard={choice.hadamard}" if choice.hadamard else ""
    return f"{choice.act} {choice.scales}{rotated}"


class Owners:
    """Steps of a network by groups of layers. of: the group that each step is for, its own of a
    layer, "" behind the last one; before: the group in front of each, by names."""

    def __init__(self, network: Network, groups: Sequence[LayerGroup]) -> None:
        owner = {node: group.name for group in groups for node in group.nodes}
        layers = [_first(owner, step) for step in network.steps]
        self.of, self.before = list(layers), {}
        leads: dict[str, str] = {}  # to which group a tensor goes, the first one that reads it
        for i in reversed(range(len(layers))):
            step = network.steps[i]
            self.of[i] = layers[i] or leads.get(step.output, "")
            for tensor in step.inputs.values():
                leads[tensor] = self.of[i] or leads.get(tensor, "")
        comes: dict[str, str] = {}  # from which group a tensor comes, the last one
        order = {group.name: place for place, group in enumerate(groups)}
        for layer, step in zip(layers, network.steps, strict=True):
            known = [comes[t] for t in step.inputs.values() if comes.get(t)]
            last = max(known, key=order.__getitem__, default="")
            if layer and last and order[last] < order[layer]:
                self.before.setdefault(layer, last)
            comes[step.output] = layer or last

    def seconds(self, steps: Iterable[float]) -> dict[str, float]:
        """Seconds of the steps added up by groups."""
        found = dict.fromkeys(self.of, 0.0)
        for name, taken in zip(self.of, steps, strict=True):
            found[name] += taken
        return found


def alternating(before: Mapping[str, str], groups: Sequence[LayerGroup]) -> dict[str, int]:
    """0 or 1 for each group, another one than that of the group in front of it."""
    found: dict[str, int] = {}
    for group in groups:
        found[group.name] = 1 - found.get(before.get(group.name, ""), 1)
    return found


def matrix(
    costs: Mapping[str, float], one: Sequence[Precision], other: Sequence[Precision]
) -> np.ndarray:
    """Seconds by the options of two neighbours; costs: "seen as > seen as", what is equal costs
    nothing."""
    keys = [[f"{seen_as(a)} > {seen_as(b)}" for b in other] for a in one]
    return np.array([[costs.get(key, 0.0) for key in row] for row in keys])


def _first(owner: Mapping[str, str], step: Step) -> str:
    return next((owner[node] for node in step.sources if node in owner), "")
