"""Network: operators in the order in which they run, on named tensors."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from lpgen.errors import NetworkError
from lpgen.ops import Operator
from lpgen.ops.signature import Argument, Role
from lpgen.ops.tensor_type import TensorType


@dataclass(frozen=True)
class Step:
    """One call of a kernel.

    name: what messages call it, unique in its network, such as the name of a node of ONNX.
    inputs: the tensor that each input of the operator reads, by the argument's name; constants: the
    arrays of those inputs that are the same in every call (scales, zero points, tables), and
    numbers (int32, of no dimensions) of those that are scalars; a scalar may also be an input of
    the network, such as how many bit layers a call uses. output: the tensor that it writes.
    weights, parameters: what is packed once, in the operator's layout, as `Operator.reference`
    takes it; None and {} for an operator without weights. sources: names of the nodes that it
    computes.
    """

    name: str
    op: Operator
    inputs: Mapping[str, str]
    output: str
    weights: np.ndarray | None = field(default=None, repr=False)
    parameters: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False)
    constants: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False)
    sources: tuple[str, ...] = ()

    def reference(self, tensors: Mapping[str, np.ndarray]) -> np.ndarray:
        """The exact result, as the operator's output; tensors: by name, of any shape with as many
        elements as the operator's inputs have."""
        given = dict(self.constants)
        for argument in self.op.signature.inputs:
            if argument.name in self.inputs:
                tensor = tensors[self.inputs[argument.name]]
                given[argument.name] = tensor.reshape(argument.shape)
        for argument in self.op.signature.scalars:
            if argument.name in self.inputs:
                given[argument.name] = int(tensors[self.inputs[argument.name]])
        weights = {} if self.weights is None else {"w": self.weights, **self.parameters}
        return self.op.reference(**given, **weights)


@dataclass(frozen=True)
class Network:
    """A directed acyclic graph of steps.

    inputs, outputs: the tensors that a call is given and gives, by name, in order, as the caller
    sees them. steps: in an order in which they can run. Every tensor is an input or the output of
    one step, dense in memory; a step may see it in another shape of as many elements, so that
    reshaping costs nothing. An output is the output of a step, of one each.
    Raises NetworkError where that does not hold: a tensor that nothing writes before it is read, or
    that is written twice, another dtype or number of elements, an input or a constant of an
    operator that is missing, two steps of one name.
    """

    inputs: Mapping[str, TensorType]
    outputs: Mapping[str, TensorType]
    steps: tuple[Step, ...]

    def __post_init__(self) -> None:
        known = dict(self.inputs)
        names: set[str] = set()
        for step in self.steps:
            if step.name in names:
                raise NetworkError(f"two steps are called {step.name}")
            names.add(step.name)
            _check_inputs(step, known)
            for argument in step.op.signature.scalars:
                tensor = step.inputs.get(argument.name)
                if tensor is not None and tensor not in self.inputs:
                    reason = f"{argument.name} is {tensor}, no input of the network"
                    raise NetworkError(f"step {step.name}: {reason}")
            if step.output in known:
                raise NetworkError(f"step {step.name}: tensor {step.output} is written before")
            made = step.op.signature.output
            known[step.output] = TensorType(made.shape, made.dtype)
        for name, kind in self.outputs.items():
            if name not in known or name in self.inputs:
                raise NetworkError(f"output {name} is no result of a step")
            if _size(known[name]) != _size(kind):
                raise NetworkError(f"output {name}: {kind} is not what is computed, {known[name]}")

    @property
    def tensors(self) -> dict[str, TensorType]:
        """All tensors by name: inputs as the caller sees them, others as the step that writes
        them does."""
        made = {step.output: step.op.signature.output for step in self.steps}
        return {**self.inputs, **{n: TensorType(a.shape, a.dtype) for n, a in made.items()}}

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """All tensors for these inputs, by the oracles of the operators: inputs and results of
        steps, the outputs in their own shapes. Raises NetworkError for another shape or dtype."""
        tensors: dict[str, np.ndarray] = {}
        for name, kind in self.inputs.items():
            if name not in inputs:
                raise NetworkError(f"input {name} is missing")
            array = np.asarray(inputs[name])
            if (array.shape, array.dtype.name) != tuple(kind):
                given = TensorType(array.shape, array.dtype.name)
                raise NetworkError(f"input {name} is {given}, expected {kind}")
            tensors[name] = array
        for step in self.steps:
            tensors[step.output] = step.reference(tensors)
        return tensors | {n: tensors[n].reshape(kind.shape) for n, kind in self.outputs.items()}

    def reference(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs for these inputs, by the oracles of the operators."""
        tensors = self.run(inputs)
        return {name: tensors[name] for name in self.outputs}


def _size(kind: TensorType | Argument) -> tuple[int, str]:
    return math.prod(kind.shape), kind.dtype


def _check_inputs(step: Step, known: Mapping[str, TensorType]) -> None:
    """Raise NetworkError unless every input of the operator is given, and once."""
    where = f"step {step.name}"
    signature = step.op.signature
    arguments = {a.name: a for a in signature.of_role(Role.INPUT, Role.SCALAR)}
    given = [*step.inputs, *step.constants]
    if unknown := sorted(set(given) - set(arguments)):
        raise NetworkError(f"{where}: {step.op.kind} has no input {unknown[0]}")
    for name, argument in arguments.items():
        if given.count(name) != 1:
            count = "missing" if name not in given else "given twice"
            raise NetworkError(f"{where}: input {name} is {count}")
        if name in step.constants:
            array = step.constants[name]
            kind, what = TensorType(array.shape, array.dtype.name), f"constant {name}"
        else:
            what = f"tensor {step.inputs[name]}"
            if step.inputs[name] not in known:
                raise NetworkError(f"{where}: {what} is read before it is written")
            kind = known[step.inputs[name]]
        if _size(kind) != _size(argument):
            expected = TensorType(argument.shape, argument.dtype)
            raise NetworkError(f"{where}: {what} is {kind}, {name} is {expected}")
    if (step.weights is None) != (step.op.signature.packed is None):
        raise NetworkError(f"{where}: weights are {'missing' if step.weights is None else 'extra'}")


def alive(steps: Sequence[Step], wanted: Iterable[str]) -> list[Step]:
    """The steps that one of the wanted tensors depends on."""
    wanted, kept = set(wanted), []
    for step in reversed(steps):
        if step.output in wanted:
            kept.append(step)
            wanted.update(step.inputs.values())
    return kept[::-1]
