"""The builder: schedules and compiles candidates, and may die of any of them; it runs none."""

from typing import Any

import numpy as np

from lpgen.algorithms.kernel import Layout
from lpgen.tune.built import Built, Case, Problem, Weights
from lpgen.tune.messages import Candidate


class Builder:
    """Builds candidates of one operator after the other.

    Inputs of a problem: random values, and the two constant ones whose sums are the largest and the
    smallest, where accumulators that are too narrow overflow.
    """

    def __init__(self) -> None:
        self._of: tuple[Any, int] | None = None

    def problem(self, op: Any, seed: int) -> Problem:
        """The operator's inputs and exact results; they are kept, and so is what is packed, until
        another operator's are asked for."""
        if self._of == (op, seed):
            return self._problem
        rng = np.random.default_rng(seed)
        named = {"random input": "random"} | {f"input {which}": which for which in op.far_ends}
        self._examples = {name: op.example(rng, which) for name, which in named.items()}
        cases = tuple(
            Case(name, example.inputs, op.reference(**example.given))
            for name, example in self._examples.items()
        )
        reuse = op.reuse if op.signature.packed is not None else None
        self._problem = Problem(f"{op.name} seed={seed}", op.signature, reuse, cases)
        self._layouts: dict[Layout, str] = {}
        self._of = op, seed
        return self._problem

    def build(self, op: Any, target: Any, candidate: Candidate, seed: int, threads: int) -> Built:
        """The machine code of a candidate. Raises whatever its template, TVM or LLVM does."""
        # TVM, which takes seconds to import.
        from lpgen.build.link import shared_object
        from lpgen.build.lower import jit_module

        problem = self.problem(op, seed)
        kernel = candidate.template.kernel(op, target, candidate.knobs)
        code = shared_object(jit_module(kernel, target, threads))
        return Built(problem.key, code, self._key(kernel.layout), threads)

    def weights(self, key: str) -> Weights:
        """The weights that a candidate of the current problem reads, packed now."""
        layout = next(layout for layout, known in self._layouts.items() if known == key)
        examples = self._examples.values()
        return Weights(key, tuple(layout.pack(e.weights, **e.parameters) for e in examples))

    def _key(self, layout: Layout | None) -> str | None:
        """A name of the layout's weights, unique among those of this builder's problem."""
        return None if layout is None else self._layouts.setdefault(layout, str(len(self._layouts)))
