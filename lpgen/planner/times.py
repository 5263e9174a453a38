"""Times of layers in every precision, on this CPU: of whole networks, step by step.

For each choice the network in which every layer has it, where some kernel does, is built and timed;
what a layer takes there, with the steps that lead to it and its weights out of the cache as they
are, is its time. What stands behind the last layer is counted once: that of the first choice.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from pathlib import Path

import numpy as np

from lpgen import runtime
from lpgen.bench.measure import pinned
from lpgen.bench.network import bound_call
from lpgen.build import Choice
from lpgen.build.objects import Objects
from lpgen.build.scratch import scratch_folder
from lpgen.errors import LpgenError, PlanError
from lpgen.network import Network, build
from lpgen.network.examples import inputs_of
from lpgen.onnx.lowering import lower
from lpgen.onnx.model import read_model
from lpgen.ops import Operator
from lpgen.planner.crossings import Owners, alternating, matrix, seen_as
from lpgen.plans import FLOAT, Group, LayerGroup, Plan, Precision, activations_of
from lpgen.plans.solve import Problem
from lpgen.quantize import write
from lpgen.quantize.calibration import Calibration
from lpgen.quantize.layers import for_kernels
from lpgen.quantize.model import quantize
from lpgen.records import Log
from lpgen.records.choose import choose
from lpgen.sensitivity import Journal, Table
from lpgen.target import Target

ROUNDS = 30
"""In which a network is timed."""


@dataclass(frozen=True)
class Times:
    """seconds: of each group in each choice that it can have, by names, with what leads to it;
    glue: of other steps; crossings: what more it takes by the names of neighbours, and by how the
    two see their inputs ("s8 row > float")."""

    seconds: Mapping[str, Mapping[str, float]]
    glue: float
    crossings: Mapping[tuple[str, str], Mapping[str, float]] = field(default_factory=dict)


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
    _count: int = 0

    def network(self, plan: Plan) -> Network:
        """The network of a plan. Raises UnservedNodes where some node has no operator."""
        model, how = self.calibration.model, {}
        if any(group.precision.weight is not None for group in plan.groups):
            model = quantize(self.calibration, plan).model
            how = activations_of(plan, model, for_kernels)
        with scratch_folder() as folder:
            path = folder / "model.onnx"
            write(model, path)
            return lower(read_model(path, self.shapes), how)

    def measured(
        self, network: Network, progress: Callable[[int, int], None] = lambda done, of: None
    ) -> tuple[float, list[float]]:
        """Seconds of a call, and of each step in it. Kernels that another network had are not
        compiled again."""
        self._count += 1
        path = self._folder / f"{self._count}.so"  # what is loaded stays mapped
        settings = {"name": "planned", "threads": self.threads, "on_progress": progress}
        kept = {"chooser": self._chooser, "objects": self._objects}
        build(network, self.target, path, **settings, **kept)
        return step_times(path, self.threads)

    @cached_property
    def _folder(self) -> Path:
        """A folder for as long as this process runs."""
        return _folders.enter_context(scratch_folder())

    @cached_property
    def _chooser(self) -> Callable[[Operator], Choice]:
        return cache(
            partial(choose, target=self.target, logs=list(self.logs), threads=self.threads)
        )

    @cached_property
    def _objects(self) -> Objects:
        return Objects(self._folder)


_folders = contextlib.ExitStack()
atexit.register(_folders.close)


def step_times(library: str | os.PathLike[str], threads: int = 1) -> tuple[float, list[float]]:
    """Seconds of a call of a library's network, and of each step in it, on random inputs: the least
    of some rounds, as a time only grows by what else a machine does."""
    network = runtime.load(library).network
    inputs = inputs_of(network, np.random.default_rng(0))
    with pinned(threads):
        call, _ = bound_call(network, inputs, threads)
        walk, whole = network.walk(inputs, threads=threads), np.inf
        steps = np.full(len(network.steps), np.inf)
        for _ in range(ROUNDS):
            for _ in range(2):
                start = time.perf_counter()
                call()
                whole = min(whole, time.perf_counter() - start)
            walk.run(0, len(steps))
            steps = np.minimum(steps, walk.nanoseconds)
    return whole, (steps * 1e-9).tolist()


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
    progress("between layers", len(choices), len(choices))
    if glue is None:
        raise PlanError(f"no network of the choices {', '.join(map(str, choices))} is served")
    return Times(seconds, glue, _crossings(compiler, groups, choices, seconds, journal))


def _times(
    compiler: Compiler,
    groups: Sequence[LayerGroup],
    choice: Precision,
    choices: Sequence[Precision],
    journal: Journal,
) -> dict[str, float] | None:
    """Seconds by group in the network of one choice, "" for the rest; None: it is not served."""
    plan = uniform_where(groups, choice, choices)
    if choice.weight is not None:
        return _measured(compiler, groups, plan, f"seconds {choice}", journal)
    try:
        return _measured(compiler, groups, plan, f"seconds {choice}", journal)
    except LpgenError:
        return None  # float layers are left to other programs


def _measured(
    compiler: Compiler, groups: Sequence[LayerGroup], plan: Plan, key: str, journal: Journal
) -> dict[str, float]:
    """Seconds by group in the network of a plan, with what leads to each, "" for the rest."""
    if key not in journal.known:
        network = compiler.network(plan)
        whole, steps = compiler.measured(network)
        owners = Owners(network, groups)
        found = dict.fromkeys((group.name for group in groups), 0.0) | owners.seconds(steps)
        rest = whole - sum(found.values()) + found.get("", 0.0)
        journal.add(key, found | {"": max(0.0, rest)})
        if "before" not in journal.known:  # of the first network
            journal.add("before", owners.before)
    return dict(journal.known[key])


def _crossings(
    compiler: Compiler,
    groups: Sequence[LayerGroup],
    choices: Sequence[Precision],
    seconds: Mapping[str, Mapping[str, float]],
    journal: Journal,
) -> dict[tuple[str, str], dict[str, float]]:
    """What it takes where neighbours see their inputs in two ways, of which the first choice that
    has each stands for all."""
    ways: dict[str, Precision] = {}
    for choice in choices:
        if any(str(choice) in known for known in seconds.values()):
            ways.setdefault(seen_as(choice), choice)
    found: dict[tuple[str, str], dict[str, float]] = {}
    for one, other in itertools.permutations(ways.values(), 2):
        before = journal.known["before"]
        turns = alternating(before, groups)
        asked = {g.name: (one, other)[turns[g.name]] for g in groups}
        plans = {choice: uniform_where(groups, choice, choices) for choice in (one, other)}
        mixed = [plans[asked[g.name]].groups[i] for i, g in enumerate(groups)]
        key = f"seconds {one} > {other}"
        taken = _measured(compiler, groups, Plan(tuple(mixed)), key, journal)
        for name, last in before.items():
            alone = seconds[name].get(str(asked[name]))
            if alone is not None and str(asked[last]) in seconds[last]:
                way = f"{seen_as(asked[last])} > {seen_as(asked[name])}"
                found.setdefault((last, name), {})[way] = taken[name] - alone
    return found


def problem_of(
    groups: Sequence[LayerGroup],
    choices: Sequence[Precision],
    times: Times,
    table: Table,
) -> tuple[Problem, list[list[Precision]]]:
    """The integer program of a model, and the options of each group."""
    options: list[list[Precision]] = []
    asked: list[list[Precision]] = []
    for group in groups:
        fit, known = fitted(group), times.seconds[group.name]
        found: dict[Precision, Precision] = {}
        for choice in choices:
            if (precision := fit(choice)) is not None and str(choice) in known:
                found.setdefault(precision, choice)
        if not found:
            raise PlanError(f"none of the choices is for {group.name}")
        options.append(list(found))
        asked.append(list(found.values()))
    seconds = [
        np.array([times.seconds[group.name][str(choice)] for choice in found])
        for group, found in zip(groups, asked, strict=True)
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
    places = {group.name: place for place, group in enumerate(groups)}
    crossings = {
        (places[one], places[other]): matrix(costs, asked[places[one]], asked[places[other]])
        for (one, other), costs in times.crossings.items()
    }
    return Problem(seconds, loss, nbytes, crossings), options
