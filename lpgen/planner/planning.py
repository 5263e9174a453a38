"""Planning: from a model, its data and a wish to a plan that was run whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from lpgen.planner.errors import protected
from lpgen.planner.search import Search, Wish, expected_metric
from lpgen.planner.times import Compiler, Times, fitted, problem_of
from lpgen.planner.whole import Whole
from lpgen.plans import Group, LayerGroup, Plan, Precision, bits_of, bytes_of
from lpgen.plans.solve import Solution, front
from lpgen.sensitivity import Journal, Table, Variant, digest, parts_of
from lpgen.sensitivity.table import Result


@dataclass(frozen=True)
class Point:
    """A plan in figures: seconds of a call, loss as added up over layers, the metric that this lets
    expect, bytes of weights, bits of a weight on average."""

    seconds: float
    loss: float
    metric: float
    nbytes: float
    bits: float


class Planning:
    """Plans for one model; times, table: what was measured of its layers; compiler: None where
    plans are not compiled, and times stay those expected; journal: what was measured of plans."""

    def __init__(
        self,
        groups: Sequence[LayerGroup],
        choices: Sequence[Precision],
        times: Times,
        table: Table,
        whole: Whole,
        compiler: Compiler | None,
        journal: Journal | None = None,
    ) -> None:
        self.groups, self.times, self.table = groups, times, table
        self.whole, self.compiler = whole, compiler
        self.problem, self.options = problem_of(groups, choices, times, table)
        self._journal = journal or Journal(None, "")

    def plan(self, solution: Solution) -> Plan:
        """The plan of a solution."""
        chosen = zip(self.groups, self.options, solution.choice, strict=True)
        return Plan(tuple(Group(g.name, g.nodes, options[c]) for g, options, c in chosen))

    def point(self, solution: Solution) -> Point:
        """A solution in figures."""
        known = [r for row in self.table.rows for r in row.results.values()]
        points = [(0.0, self.table.reference), *((r.divergence, r.metric) for r in known)]
        plan = self.plan(solution)
        return Point(
            *(solution.seconds + self.times.glue, solution.loss),
            *(expected_metric(solution.loss, points), solution.nbytes),
            bits_of(plan, self.groups),
        )

    def front(self, max_bytes: float) -> list[Solution]:
        """Plans of which none is faster and finer than another one."""
        return front(self.problem, max_bytes=max_bytes)

    def uniform(self) -> dict[str, Solution]:
        """The plans that give all groups the same choice, where all can have it, by its text."""
        found = {}
        names = {str(p) for options in self.options for p in options}
        for name in names:
            places = [[str(p) for p in options] for options in self.options]
            if all(name in place for place in places):
                found[name] = self.problem.solution([place.index(name) for place in places])
        return found

    def result(self, solution: Solution) -> Result:
        """Divergence and metric of a plan, run whole, once."""
        run = lambda plan: self.whole.result(plan)._asdict()  # noqa: E731
        return Result(**self._once("result", solution, run))

    def seconds(self, solution: Solution) -> float:
        """Seconds of a call of a plan, compiled, once."""
        compiler = self.compiler
        assert compiler is not None
        run = lambda plan: {"seconds": compiler.measured(compiler.network(plan))[0]}  # noqa: E731
        return self._once("seconds", solution, run)["seconds"]

    def _once(
        self, what: str, solution: Solution, run: Callable[[Plan], dict[str, float]]
    ) -> dict[str, float]:
        """What is measured of a plan, if the journal has it not yet."""
        plan = self.plan(solution)
        key = f"{what} {digest(plan.to_toml())}"
        if key not in self._journal.known:
            self._journal.add(key, run(plan))
        return self._journal.known[key]

    def solved(self, wish: Wish, progress: Callable[[str], None] = lambda text: None) -> Solution:
        """The plan that meets a wish. Raises PlanError where none does."""
        seconds = self.seconds if self.compiler else None
        metric = lambda solution: self.result(solution).metric  # noqa: E731
        search = Search(self.problem, self.times.glue, metric, seconds, progress=progress)
        return search.found(wish)

    def protected(
        self,
        plan: Plan,
        rate: float,
        errors: Table,
        progress: Callable[[str], None] = lambda text: None,
    ) -> Plan:
        """A plan that keeps its metric, measured, where stored bits flip at this rate; errors: the
        table of variants `flips_of` its groups. Raises PlanError where that cannot be."""
        flips = flips_of(plan, rate)

        def loss(name: str) -> float:
            return errors.row(name).results[str(flips[name])].divergence

        def result(tried: Plan) -> Result:
            key = f"errors {digest(tried.to_toml())}"
            if key not in self._journal.known:
                self._journal.add(key, self.whole.result(tried, errors=True)._asdict())
            return Result(**self._journal.known[key])

        found = protected(plan, rate, loss, result, plan.measured["metric"], progress)
        measured = {**plan.measured, "metric_with_errors": result(found).metric}
        return replace(found, measured=measured)

    def made(self, solution: Solution, wish: Wish, model: str) -> Plan:
        """The plan with what was expected of it, and what was measured."""
        plan, point = self.plan(solution), self.point(solution)
        predicted = {
            "milliseconds": point.seconds * 1e3,
            "metric": point.metric,
            "divergence": point.loss,
            "bytes": bytes_of(plan, self.groups),
            "weight_bits": point.bits,
        }
        result = self.result(solution)
        measured = {"metric": result.metric, "divergence": result.divergence}
        if self.compiler is not None:
            measured = {"milliseconds": self.seconds(solution) * 1e3} | measured
        return replace(
            plan,
            model=model,
            metric=self.table.metric,
            wish=str(wish),
            predicted=predicted,
            measured=measured,
        )


def flips_of(plan: Plan, rate: float) -> dict[str, Variant]:
    """The variant of each quantized group, by its name, whose stored bits flip at a rate."""
    groups = (group for group in plan.groups if group.precision.weight is not None)
    return {group.name: Variant("flips", group.precision, rate) for group in groups}


def wanted_by(choices: Sequence[Precision]) -> Callable[[LayerGroup], list[Variant]]:
    """The variants of a group that the choices need to be weighed."""

    def wanted(group: LayerGroup) -> list[Variant]:
        fit = fitted(group)
        found = [fit(choice) for choice in choices]
        parts = [parts_of(p) for p in found if p is not None and p.weight is not None]
        return list(dict.fromkeys(part for pair in parts for part in pair))

    return wanted
