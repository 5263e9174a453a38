"""From a graph of ONNX to a network of operators, node by node in their order."""

from __future__ import annotations

import itertools
import os
from collections.abc import Hashable, Mapping, Sequence
from collections.abc import Set as Names
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from lpgen.errors import LpgenError, OnnxError
from lpgen.formats import REAL, Format
from lpgen.network import Network, Step, TensorType
from lpgen.network.fusion import fused
from lpgen.network.network import alive
from lpgen.onnx import evaluate, rules
from lpgen.onnx.axes import MOST_TURNS, turns
from lpgen.onnx.model import Model, read_model
from lpgen.onnx.nodes import import_node, kinds
from lpgen.onnx.rotation import unrotated
from lpgen.onnx.rules import bodies
from lpgen.onnx.tensors import Tensors
from lpgen.onnx.unserved import Unserved, UnservedNodes
from lpgen.onnx.values import Activations, Constant, Pending, Stored, Trail, Value
from lpgen.ops.layers import NAME

if TYPE_CHECKING:
    import onnx


Quantizing = str | Mapping[str, Activations]
"""How activations of float32 are quantized: a format for all of them, or for each node; "": not."""


def read_network(
    path: str | os.PathLike[str],
    shapes: Mapping[str, Sequence[int]] = {},
    dynamic: Quantizing = "",
) -> Network:
    """The network of a model in a file of ONNX.

    Quantized parts, whether their nodes are QLinear ones or ordinary ones between DequantizeLinear
    and QuantizeLinear, become operators on codes; images lie with channels last in between.
    shapes: as `read_model` takes them. dynamic: the format of activations that are float32 in front
    of quantized weights, or have a scale for the tensor that is found in each call: they get one
    for each row, so that results are finer than those of the model; "f32": weights are float32
    there; "": such nodes are not served. Or how each node does it, by its name.
    Raises OnnxError for what is no model, and UnservedNodes.
    """
    return lower(read_model(path, shapes), dynamic)


def lower(model: Model, dynamic: Quantizing = "") -> Network:
    """The network of a model, as `read_network` says. Raises UnservedNodes."""
    lowering = Lowering(model, dynamic)
    for node in needed(lowering.model):
        lowering.node(node)
    return lowering.network()


def needed(model: Model) -> list[onnx.NodeProto]:
    """The nodes that outputs depend on."""
    wanted, kept = set(model.outputs), []
    for node in reversed(model.nodes):
        if wanted.intersection(node.output):
            kept.append(node)
            wanted.update(node.input)
    return kept[::-1]


class Lowering(Tensors):
    """The network so far, and the `values` of edges by name."""

    def __init__(self, model: Model, dynamic: Quantizing = "") -> None:
        super().__init__(model.inputs)
        if not isinstance(dynamic, str):
            # In front of weights that become bit layers nothing is rotated yet.
            blocks = {n: 0 if how.layers else how.hadamard for n, how in dynamic.items()}
            model = unrotated(model, blocks)
        self.model, self._dynamic = model, dynamic
        self.unserved: list[Unserved] = []
        self._layers: Stored | None = None
        self.values: dict[str, Value | None] = {
            name: Constant(array) for name, array in model.constants.items()
        }
        for name, kind in model.inputs.items():
            self.values[name] = self.stored(name, kind)
        self._readers: dict[str, list[onnx.NodeProto]] = {}
        for node in needed(model):
            for name in node.input:
                self._readers.setdefault(name, []).append(node)

    # Nodes

    def activations(self, node: onnx.NodeProto | None = None) -> Activations | None:
        """How a product of activations of float32 and quantized weights has them; None: it is not
        served. node: the product, where it is one node."""
        if isinstance(self._dynamic, str):
            form = REAL if self._dynamic == REAL.short else self._dynamic
            return Activations(form if form == REAL else Format.parse(form)) if form else None
        if node is None:
            return None
        return self._dynamic.get(node.name) or self._dynamic.get(node.output[0])

    def layers_input(self) -> Stored:
        """The input that says how many bit layers all steps use."""
        if self._layers is None:
            self._layers = self.stored(self._unique(NAME), TensorType((), "int32"))
        return self._layers

    def node(self, node: onnx.NodeProto) -> None:
        """One node: its outputs get their values; None where it is not served, or its inputs are
        not."""
        given = [self.values[name] for name in node.input if name]
        if any(value is None for value in given):
            self.values.update(dict.fromkeys(node.output))
            return
        self.current = node.name or node.output[0]
        try:
            self._lower(node)
        except LpgenError as error:
            self.refuse(node, str(error))

    def _lower(self, node: onnx.NodeProto) -> None:
        """The values of the outputs of a node."""
        given = [self.values[name] for name in node.input if name]
        results = self._results(node, given)
        for name, value in zip(node.output, results, strict=False):
            self.values[name] = self._settled(name, self._known(value, given))

    def replaced(self, node: onnx.NodeProto, by: Sequence[onnx.NodeProto]) -> None:
        """Lower other nodes in place of one that is being lowered. Raises what they do."""
        for name in node.input:
            if name:
                self._readers[name].remove(node)
        for other in by:
            for name in other.input:
                self._readers.setdefault(name, []).append(other)
        for other in by:
            self._lower(other)

    def _known(self, value: Value, given: Sequence[Value | None]) -> Value:
        """A result that waits, with the nodes that it is the result of."""
        if not isinstance(value, Pending) or any(value is other for other in given):
            return value
        if value.nodes is not None and value.nodes.name == self.current:
            return value
        left = (v.nodes for v in given if isinstance(v, Pending) and not self.is_made(v))
        before = [value.nodes] if value.nodes else [nodes for nodes in left if nodes]
        return replace(value, nodes=Trail(self.current, tuple(before)))

    def _settled(self, name: str, value: Value) -> Value:
        """The value of an edge; real numbers in memory instead of what would be computed anew for
        each of its readers, as they want it in different ways."""
        if not isinstance(value, Pending) or not value.costly or self.only_reader(name):
            return value
        wanted = {(n.op_type, *map(self._same, n.input[1:])) for n in self._readers.get(name, ())}
        alike = len(wanted) == 1 and wanted.pop()[0] == "QuantizeLinear"
        return value if alike and name not in self.model.outputs else self.tensor(value, name)

    def _same(self, name: str) -> Hashable:
        """What is the same for equal inputs."""
        value = self.values.get(name)
        return value.array.tobytes() if isinstance(value, Constant) else name

    def only_reader(self, name: str) -> bool:
        """Whether an edge is read once at most."""
        return self.readers(name) <= 1

    def readers(self, name: str) -> int:
        """How often an edge is read."""
        return len(self._readers.get(name, ())) + self.model.outputs.count(name)

    def refuse(self, node: onnx.NodeProto, reason: str) -> None:
        """A node that is not served: nor is what reads its results."""
        name = ".".join(filter(None, (node.domain, node.op_type)))
        self.unserved.append(Unserved(name, self.current, reason))
        self.values.update(dict.fromkeys(node.output))

    def _results(self, node: onnx.NodeProto, given: Sequence[Value | None]) -> Sequence[Value]:
        rule = rules.find(node)
        known = all(isinstance(value, Constant) for value in given)
        if rule and (not known or rules.on_constants(node)):
            results = rule(self, node)
            if results is not None:
                return results
        if known:
            return evaluate.constants(node, self.constants(node), self.model.opsets)
        if node.op_type in kinds():
            return [self.imported(node)]
        body = None if rule else bodies.spelled(self, node)
        if body is not None:
            return body
        raise OnnxError("not with these inputs" if rule else "no operator computes it")

    def constants(self, node: onnx.NodeProto) -> dict[str, np.ndarray]:
        """The constant inputs of a node by their names in the graph."""
        found = ((name, self.values.get(name)) for name in node.input if name)
        return {name: value.array for name, value in found if isinstance(value, Constant)}

    def inputs(self, node: onnx.NodeProto) -> list[Value | None]:
        """The values of a node's inputs, None for those that are left out."""
        return [self.values[name] if name else None for name in node.input]

    def imported(self, node: onnx.NodeProto) -> Stored:
        """A node that is one operator. Those that treat every element alike keep the order in
        memory, the others get the order that they need."""
        values = {
            name: self.tensor(value) if not isinstance(value, Constant) else value
            for name, value in zip(node.input, self.inputs(node), strict=True)
            if name and value is not None
        }
        tensors = {name: v for name, v in values.items() if isinstance(v, Stored)}
        constants = {name: v.array for name, v in values.items() if isinstance(v, Constant)}
        if rules.elementwise(node):
            return self.elementwise(node, node.output[0], tensors, constants)
        types = {name: tensor.type for name, tensor in tensors.items()}
        first = node.input[0]
        if first not in types:
            raise OnnxError(f"input {first!r} is constant")
        imported = import_node(node, types[first], constants | types)
        return self.apply(imported, node.output[0], [tensors[n] for n in node.input if n in types])

    def elementwise(
        self,
        node: onnx.NodeProto,
        name: str,
        tensors: Mapping[str, Stored],
        constants: Mapping[str, np.ndarray],
    ) -> Stored:
        """Broadcast as in ONNX, on tensors as they lie in memory. name: of the result; tensors,
        constants: the inputs, by their names in the node."""
        axes = max([array.ndim for array in constants.values()], default=0)
        wide = [
            self.reshaped(t, (*[1] * (axes - len(t.type.shape)), *t.type.shape))
            for t in tensors.values()
        ]
        laid = dict(zip(tensors, self.aligned(wide), strict=True))
        order = next(iter(laid.values())).order
        axes = len(order)
        seen = {name: self.stored(t.name, t.memory, form=t.form) for name, t in laid.items()}
        given = {
            name: array
            if array.size == 1
            else array.reshape(*[1] * (axes - array.ndim), *array.shape).transpose(order)
            for name, array in constants.items()
        }
        for known, (other, tensor) in itertools.product(given, seen.items()):
            shape = given[known].shape
            if given[known].size > 1 and len(turns(shape, tensor.type.shape)) > MOST_TURNS:
                shape = np.broadcast_shapes(shape, tensor.type.shape)
                given[known] = np.broadcast_to(given[known], shape)
                seen[other] = self.repeated_to(tensor, shape)
        types = {name: tensor.type for name, tensor in seen.items()}
        first = node.input[0]
        x = types[first] if first in types else given[first]
        imported = import_node(node, x, given | types)
        made = self.apply(imported, name, [seen[n] for n in node.input if n in seen])
        shape = tuple(made.type.shape[order.index(axis)] for axis in range(axes))
        return replace(made, type=TensorType(shape, made.type.dtype), order=order)

    # The end

    def network(self) -> Network:
        """The network; raises UnservedNodes where there are any."""
        if self.unserved:
            raise UnservedNodes(self.unserved)
        outputs, steps, _ = self.finished()
        inputs = dict(self.model.inputs)
        if self._layers is not None:
            inputs[self._layers.name] = self._layers.type
        return fused(Network(inputs, outputs, tuple(alive(steps, outputs))))

    def finished(self) -> tuple[dict[str, TensorType], list[Step], dict[str, str]]:
        """The outputs by their names in the model, the steps that write them under these, and new
        names of tensors."""
        outputs: dict[str, Stored] = {}
        for name in self.model.outputs:
            outputs[name] = self._output(name, {tensor.name for tensor in outputs.values()})
        names = {tensor.name: name for name, tensor in outputs.items()}
        for name in outputs:
            if name in self.taken and name not in names:  # another tensor has it
                names[name] = self._unique(name)
        kinds = {name: tensor.type for name, tensor in outputs.items()}
        return kinds, [_renamed(step, names) for step in self.steps], names

    def _output(self, name: str, taken: Names[str]) -> Stored:
        """An output in memory as ONNX has it, written by a step of its own."""
        value = self.values[name]
        self.current = name
        if isinstance(value, Constant):
            raise OnnxError(f"output {name} is constant")
        tensor = self.tensor(value, name)
        tensor = self.ordered(tensor, range(len(tensor.order)))
        if tensor.name in taken or tensor.name in self.model.inputs:
            tensor = self.moved(tensor, tensor.order)  # a copy
        return tensor


def _renamed(step: Step, names: Mapping[str, str]) -> Step:
    """The step with tensors by these names, where they have other ones; it is called as its output
    is."""
    inputs = {argument: names.get(name, name) for argument, name in step.inputs.items()}
    output = names.get(step.output, step.output)
    return replace(step, name=output, inputs=inputs, output=output)
