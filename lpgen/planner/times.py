"""Times of layers in every precision, on this CPU: of whole networks, step by step.

For each choice the network in which every layer has it, where some kernel does, is built and timed;
what a layer takes there, with its neighbours and cold weights, is its time. Steps that are no layer
(the glue) are counted once: those of the first choice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from lpgen.bench.network import bench_network
from lpgen.build.scratch import scratch_folder
from lpgen.errors import LpgenError, PlanError
from lpgen.network import Network, build
from lpgen.onnx.lowering import lower
from lpgen.onnx.model import read_model
from lpgen.plans import FLOAT, Group, LayerGroup, Plan, Precision, activations_of
from lpgen.plans.solve import Problem
from lpgen.quantize import write
from lpgen.quantize.calibration import Calibration
from lpgen.quantize.model import quantize
from lpgen.records import Log
from lpgen.sensitivity import Journal, Table
from lpgen.target import Target

QUANTIZING = 5 / 2e10
"""Seconds that an element takes on its way from float32 to codes, where nobody measured: five bytes
of memory."""


@dataclass(frozen=True)
class Times:
    """seconds: of each group in each choice that it can have, by names; glue: of other steps."""

    seconds: Mapping[str, Mapping[str, float]]
    glue: float


@dataclass
class Compiler:
    """Networks of plans for one CPU, built and timed.

    shapes: sizes of inputs that the model leaves open; logs, threads: as `lpgen.choose` takes them.
    """

    calibration: Calibration
    target: Target
    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    logs: Iterable[Log] = ()
    threads: int = 1

    def network(self, plan: Plan) -> Network:
        """The network of a plan. Raises UnservedNodes where some node has no operator."""
        model, how = self.calibration.model, {}
        if any(group.precision.weight is not None for group in plan.groups):
            model = quantize(self.calibration, plan).model
            how = activations_of(plan, model)
        with scratch_folder() as folder:
            path = folder / "model.onnx"
            write(model, path)
            return lower(read_model(path, self.shapes), how)

    def measured(
        self, network: Network, progress: Callable[[int, int], None] = lambda done, of: None
    ) -> tuple[float, list[float]]:
        """Seconds of a call, and of each step in it."""
        with scratch_folder() as folder:
            path = folder / "network.so"
            settings = {"name": "planned", "threads": self.threads, "on_progress": progress}
            build(network, self.target, path, self.logs, **settings)
            found = bench_network(path, threads=self.threads)
        return found.us_median * 1e-6, [step.us * 1e-6 for step in found.steps]


def uniform_where(
    groups: Sequence[LayerGroup], choice: Precision, others: Sequence[Precision]
) -> Plan:
    """The plan in which each group has the choice, or the first of the others that it can have; of
    convolutions the scales are static."""
    made = []
    for group in groups:
        asked = next((p for p in map(fitted(group), (choice, *others)) if p is not None), FLOAT)
        made.append(Group(group.name, group.nodes, asked))
    return Plan(tuple(made))


def fitted(group: LayerGroup) -> Callable[[Precision], Precision | None]:
    """A function from a precision that is asked for to that which a group has for it, None where no
    kernel has it: scales of convolutions are static, and their input has no sign."""
    convolution = any(layer.kind == "Conv" for layer in group.layers)

    def fit(asked: Precision) -> Precision | None:
        found = asked
        if convolution and asked.weight is not None and asked.scales != "static":
            if asked.weight_group or asked.hadamard:
                return None
            found = Precision.parse(f"w{asked.weight.bits}a{asked.act.bits} static")
        return None if group.why_not(found) else found

    return fit


def times_of(
    compiler: Compiler,
    groups: Sequence[LayerGroup],
    choices: Sequence[Precision],
    journal: Journal,
    progress: Callable[[str, int, int], None] = lambda what, done, of: None,
) -> Times:
    """The times of all groups in all choices; a choice whose network is not served is left out, if
    it is not the first. What the journal has is not measured again."""
    seconds: dict[str, dict[str, float]] = {group.name: {} for group in groups}
    glue = None
    for done, choice in enumerate(choices):
        progress(str(choice), done, len(choices))
        found = _times(compiler, groups, choice, choices, journal)
        if found is None:
            continue
        glue = found.pop("") if glue is None else glue
        for group in groups:
            if fitted(group)(choice) is not None:
                seconds[group.name][str(choice)] = found[group.name]
    progress("", len(choices), len(choices))
    if glue is None:
        raise PlanError(f"no network of the choices {', '.join(map(str, choices))} is served")
    return Times(seconds, glue)


def _times(
    compiler: Compiler,
    groups: Sequence[LayerGroup],
    choice: Precision,
    choices: Sequence[Precision],
    journal: Journal,
) -> dict[str, float] | None:
    """Seconds by group in the network of one choice, "" for the glue; None: it is not served."""
    key = f"seconds {choice}"
    if key not in journal.known:
        plan = uniform_where(groups, choice, choices)
        try:
            network = compiler.network(plan)
        except LpgenError:
            if choice.weight is not None:
                raise
            return None  # float layers are left to other programs
        whole, steps = compiler.measured(network)
        owner = {node: group.name for group in groups for node in group.nodes}
        found = dict.fromkeys((group.name for group in groups), 0.0)
        for step, taken in zip(network.steps, steps, strict=True):
            names = [owner[node] for node in step.sources if node in owner]
            if names:
                found[names[0]] += taken
        journal.add(key, found | {"": max(0.0, whole - sum(found.values()))})
    return dict(journal.known[key])


def problem_of(
    groups: Sequence[LayerGroup],
    choices: Sequence[Precision],
    times: Times,
    table: Table,
    sizes: Mapping[str, int] | None = None,
) -> tuple[Problem, list[list[Precision]]]:
    """The integer program of a model, and the options of each group; sizes: elements of the groups'
    inputs by name, for what it takes to quantize them behind a float layer."""
    options: list[list[Precision]] = []
    names: list[list[str]] = []
    for group in groups:
        fit, known = fitted(group), times.seconds[group.name]
        found: dict[Precision, str] = {}
        for choice in choices:
            if (precision := fit(choice)) is not None and str(choice) in known:
                found.setdefault(precision, str(choice))
        if not found:
            raise PlanError(f"none of the choices is for {group.name}")
        options.append(list(found))
        names.append(list(found.values()))
    seconds = [
        np.array([times.seconds[group.name][name] for name in found])
        for group, found in zip(groups, names, strict=True)
    ]
    loss = [
        np.array([table.row(group.name).loss(p) for p in found])
        for group, found in zip(groups, options, strict=True)
    ]
    nbytes = [
        np.array([float(group.nbytes(p)) for p in found])
        for group, found in zip(groups, options, strict=True)
    ]
    loss = [np.where(np.isfinite(values), values, 1e6) for values in loss]
    crossings = _crossings(groups, options, sizes or {})
    return Problem(seconds, loss, nbytes, crossings), options


def _crossings(
    groups: Sequence[LayerGroup], options: Sequence[Sequence[Precision]], sizes: Mapping[str, int]
) -> dict[tuple[int, int], np.ndarray]:
    """What it takes to quantize the input of a group with static scales behind a float one."""
    found = {}
    for m in range(1, len(groups)):
        static = np.array([p.weight is not None and p.scales == "static" for p in options[m]])
        plain = np.array([p.weight is None for p in options[m - 1]])
        taken = sizes.get(groups[m].name, 0) * QUANTIZING
        if taken and static.any() and plain.any():
            found[m - 1, m] = taken * np.outer(plain, static)
    return found
