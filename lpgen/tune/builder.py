"""The builder: schedules and compiles candidates, and may die of any of them; it runs none."""

from collections import OrderedDict
from typing import Any, NamedTuple

import numpy as np

from lpgen.algorithms.kernel import Layout
from lpgen.ops.operator import Example
from lpgen.tune.built import Built, Case, Problem, Weights
from lpgen.tune.messages import Candidate


class _Known(NamedTuple):
    """What a builder knows of an operator: its problem, the examples of its cases by their names,
    and the layouts of its weights with a name for each."""

    problem: Problem
    examples: dict[str, Example]
    layouts: dict[Layout, str]


class Builder:
    """Builds candidates of operators, of which the last few stay (`operators`).

    Inputs of a problem: random values, and the two constant ones whose sums are the largest and the
    smallest, where accumulators that are too narrow overflow.
    """

    def __init__(self, operators: int = 1) -> None:
        self._operators = operators
        self._known: OrderedDict[tuple[Any, int], _Known] = OrderedDict()

    def problem(self, op: Any, seed: int) -> Problem:
        """The operator's inputs and exact results, made when they are asked for first."""
        if (op, seed) not in self._known:
            if len(self._known) == self._operators:
                self._known.popitem(last=False)
            self._known[op, seed] = _made(op, seed)
        self._known.move_to_end((op, seed))
        return self._known[op, seed].problem

    def build(self, op: Any, target: Any, candidate: Candidate, seed: int, threads: int) -> Built:
        """The machine code of a candidate. Raises whatever its template, TVM or LLVM does."""
        # TVM, which takes seconds to import.
        from lpgen.build.link import shared_object
        from lpgen.build.lower import jit_module, ranged_module

        problem = self.problem(op, seed)
        kernel = candidate.template.kernel(op, target, candidate.knobs)
        if op.range:
            module = ranged_module(kernel, target, threads, op.range.some())
        else:
            module = jit_module(kernel, target, threads)
        code = shared_object(module, target)
        # A name of the layout's weights, unique among those of this builder's problem.
        names = self._known[op, seed].layouts
        layout = kernel.layout
        weights = None if layout is None else names.setdefault(layout, str(len(names)))
        return Built(problem.key, code, weights, threads)

    def weights(self, key: str) -> Weights:
        """The weights that a candidate of the last problem that was asked for reads, packed now."""
        known = self._known[next(reversed(self._known))]
        layout = next(layout for layout, its in known.layouts.items() if its == key)
        packed: dict[int, np.ndarray] = {}  # those of several sizes are the same
        for e in known.examples.values():
            if id(e.weights) not in packed:
                packed[id(e.weights)] = layout.pack(e.weights, **e.parameters)
        return Weights(key, tuple(packed[id(e.weights)] for e in known.examples.values()))


def _made(op: Any, seed: int) -> _Known:
    rng = np.random.default_rng(seed)
    cases = _ranged_cases(op, rng) if op.range else _cases(op, rng)
    fixed = op.with_rows(op.range.some()[0]) if op.range else op
    reuse = fixed.reuse if op.signature.packed is not None else None
    name = f"{op.name} seed={seed}"
    problem = Problem(name, fixed.signature, reuse, tuple(case for case, _ in cases))
    return _Known(problem, {case.name: example for case, example in cases}, {})


def _cases(op: Any, rng: np.random.Generator) -> list[tuple[Case, Example]]:
    """Random inputs, which are timed, and the constant ones."""
    named = {"random input": "random"} | {f"input {which}": which for which in op.far_ends}
    examples = {name: op.example(rng, which) for name, which in named.items()}
    found = []
    for name, example in examples.items():
        found += _of_layers(op, name, example, calls=int(name == "random input"))
    return found


def _of_layers(op: Any, name: str, example: Example, rows: int = 0, calls: int = 0) -> list:
    """The case of an example, or with bit layers one for each number of them that stands for all;
    calls: in a round, more with few layers."""
    if not op.layers:
        return [(Case(name, example.inputs, op.reference(**example.given), rows, calls), example)]
    found = []
    for layers, times in op.bit_layers.round().items():
        own, label = example.with_layers(layers), f"{name} with {layers} layers"
        case = Case(label, own.inputs, op.reference(**own.given), rows, calls * times)
        found.append((case, own))
    return found


def _ranged_cases(op: Any, rng: np.random.Generator) -> list[tuple[Case, Example]]:
    """Random inputs of several sizes, which are timed in rounds, with the same weights; and the
    constant ones of the largest of them."""
    found, first = [], None
    for rows, calls in op.range.round().items():
        fixed = op.at(rows)
        example = fixed.example(rng)
        first = first or example
        example = example._replace(weights=first.weights, parameters=first.parameters)
        found += _of_layers(fixed, f"random input of {rows} rows", example, rows, calls)
    constant = [(case, e) for case, e in _cases(fixed, rng) if not case.calls]
    return found + [(case._replace(rows=rows), example) for case, example in constant]
