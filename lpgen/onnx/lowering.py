"""From a graph of ONNX to a network of operators, node by node in their order."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from collections.abc import Set as Names
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lpgen.errors import LpgenError, OnnxError
from lpgen.formats import Format
from lpgen.network import Network, Step, TensorType
from lpgen.network.fusion import fused
from lpgen.onnx import evaluate, rules
from lpgen.onnx.imported import Imported, Relayout, inverse
from lpgen.onnx.linear import FORMATS
from lpgen.onnx.model import Model, read_model
from lpgen.onnx.nodes import import_node, kinds
from lpgen.onnx.values import Constant, Mapped, Pending, Recoded, Stored, Target, Value
from lpgen.ops import DequantizeLinear
from lpgen.ops.lookup import Lookup
from lpgen.ops.movement import Transpose

if TYPE_CHECKING:
    import onnx


class Unserved(NamedTuple):
    """A node that no operator computes, and why."""

    operator: str
    node: str
    reason: str


class UnservedNodes(OnnxError):
    """A model with nodes that no operator computes: `nodes` lists them."""

    def __init__(self, nodes: Sequence[Unserved]) -> None:
        first = nodes[0]
        more = f" (and {len(nodes) - 1} more: lpgen import)" if len(nodes) > 1 else ""
        super().__init__(f"{first.operator} {first.node} is not served: {first.reason}{more}")
        self.nodes = tuple(nodes)


def read_network(
    path: str | os.PathLike[str],
    shapes: Mapping[str, Sequence[int]] = {},
    dynamic: str = "",
) -> Network:
    """The network of a model in a file of ONNX.

    Quantized parts, whether their nodes are QLinear ones or ordinary ones between DequantizeLinear
    and QuantizeLinear, become operators on codes; images lie with channels last in between.
    shapes: as `read_model` takes them. dynamic: the format of activations that are float32 in front
    of quantized weights, or have a scale for the tensor that is found in each call: they get one
    for each row, so that results are finer than those of the model; "": such nodes are not served.
    Raises OnnxError for what is no model, and UnservedNodes.
    """
    return lower(read_model(path, shapes), dynamic)


def lower(model: Model, dynamic: str = "") -> Network:
    """The network of a model, as `read_network` says. Raises UnservedNodes."""
    lowering = Lowering(model, dynamic)
    for node in needed(model):
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


class Lowering:
    """The network so far: `values` of edges by name, `steps` in order."""

    def __init__(self, model: Model, dynamic: str = "") -> None:
        self.model, self.dynamic = model, dynamic
        self.steps: list[Step] = []
        self.unserved: list[Unserved] = []
        self.values: dict[str, Value | None] = {
            name: Constant(array) for name, array in model.constants.items()
        }
        for name, kind in model.inputs.items():
            self.values[name] = self.stored(name, kind)
        self._made: dict[Hashable, tuple[Stored, Value]] = {}
        self._moves: dict[Hashable, Stored] = {}
        self.quantized: dict[str, tuple[Stored, Target]] = {}  # codes: what they were made of
        self.taken = set(model.inputs)
        self._node = ""

    # Nodes

    def node(self, node: onnx.NodeProto) -> None:
        """One node: its outputs get their values; None where it is not served, or its inputs are
        not."""
        given = [self.values[name] for name in node.input if name]
        if any(value is None for value in given):
            self.values.update(dict.fromkeys(node.output))
            return
        self._node = node.name or node.output[0]
        try:
            results = self._results(node, given)
            self.values.update(zip(node.output, results, strict=False))
        except LpgenError as error:
            self.refuse(node, str(error))

    def refuse(self, node: onnx.NodeProto, reason: str) -> None:
        """A node that is not served: nor is what reads its results."""
        name = ".".join(filter(None, (node.domain, node.op_type)))
        self.unserved.append(Unserved(name, self._node, reason))
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
        raise OnnxError("not with these inputs" if rule else "no operator computes it")

    def constants(self, node: onnx.NodeProto) -> dict[str, np.ndarray]:
        """The constant inputs of a node by their names in the graph."""
        found = ((name, self.values.get(name)) for name in node.input if name)
        return {name: value.array for name, value in found if isinstance(value, Constant)}

    def inputs(self, node: onnx.NodeProto) -> list[Value | None]:
        """The values of a node's inputs, None for those that are left out."""
        return [self.values[name] if name else None for name in node.input]

    # Tensors

    @staticmethod
    def stored(
        name: str, kind: TensorType, order: Sequence[int] = (), form: Format | None = None
    ) -> Stored:
        """A tensor in memory; order: the natural one by default."""
        order = tuple(order) or tuple(range(len(kind.shape)))
        return Stored(name, kind, order, form or FORMATS.get(kind.dtype))

    def tensor(self, value: Value, name: str = "") -> Stored:
        """A value in memory as what it is: float32 where it only waits or is a function of codes.
        name: of the tensor, where a step has to make it."""
        if isinstance(value, Stored):
            return value
        if isinstance(value, Pending):
            return self.once(value, "real", lambda: value.real(self, name or self._node))
        if isinstance(value, Recoded):
            return self._looked_up(value)
        if isinstance(value, Mapped):
            return self.once(value, "real", lambda: self._real(value, name))
        raise OnnxError("a constant is read as a tensor")

    def affine(self, value: Value | None) -> Mapped | None:
        """The value as a tensor of codes with one scale, None where it is none."""
        if isinstance(value, Mapped) and value.scale is None and value.made_of:
            recoded, scale = value.made_of
            value = Mapped.of(self._looked_up(recoded), scale)
        return value if isinstance(value, Mapped) and value.scale is not None else None

    def _looked_up(self, value: Recoded) -> Stored:
        """Codes that the step of a table makes, once for all that read them."""
        codes, form = value.codes, value.form
        key = (codes.name, codes.type.shape, codes.order, str(form), value.table.tobytes())
        if key not in self._moves:
            assert codes.form
            op = Lookup(size=math.prod(codes.type.shape), act=codes.form, out=form)
            made = self.step(value.name, op, {"x": codes}, constants={"table": value.table})
            self._moves[key] = Stored(made, value.type, codes.order, form)
        return self._moves[key]

    def _real(self, value: Mapped, name: str) -> Stored:
        """The step that gives a function of codes as float32."""
        affine = self.affine(value)
        if affine is None or affine.scale is None:
            op = Lookup(size=math.prod(value.type.shape), act=value.form, out="f32")
            constants = {"table": value.table.astype(np.float32)}
            name = name or f"{value.codes.name}:mapped"
            made = self.step(name, op, {"x": value.codes}, constants=constants)
            return Stored(made, value.type, value.codes.order)
        codes, scale = affine.codes, affine.scale
        op = DequantizeLinear(axis=math.prod(codes.type.shape), format=codes.form)
        constants = {
            "scale": scale.scale.reshape(1),
            "zero": scale.zero.reshape(1).astype(codes.form.dtype),
        }
        made = self.step(name or f"{codes.name}:real", op, {"x": codes}, constants=constants)
        return Stored(made, value.type, codes.order)

    def ordered(self, tensor: Stored, order: Sequence[int]) -> Stored:
        """The tensor with its axes in this order in memory: itself, or a step moves it."""
        order = tuple(order)
        if tensor.lies(order):
            return replace(tensor, order=order)
        key = (tensor.name, tensor.type.shape, tensor.order, order)
        if key not in self._moves:
            self._moves[key] = self._moved(tensor, order)
        return self._moves[key]

    def _moved(self, tensor: Stored, order: tuple[int, ...]) -> Stored:
        """What moves the tensor; float32 that was only quantized is moved and quantized at once."""
        source, to = self.quantized.get(tensor.name, (tensor, None))
        if source.type.shape != tensor.type.shape or source.order != tensor.order:
            source, to = tensor, None  # seen in another shape since
        axes = tuple(source.order.index(axis) for axis in order)
        op = Transpose(shape=source.memory.shape, axes=axes, dtype=source.type.dtype)
        constants = {}
        if to is not None:
            op = replace(op, out=to.form)
            constants = {"scales": np.float32([to.scale]), "zeros": np.int32([to.zero])}
        name = f"{tensor.name}:{''.join(map(str, order))}"
        made = self.step(name, op, {"x": source}, constants=constants)
        return Stored(made, tensor.type, order, tensor.form)

    def reshaped(self, tensor: Stored, shape: Sequence[int]) -> Stored:
        """The tensor in another shape: nothing moves where axes that are merged or split lie
        together; else a step brings it into its natural order."""
        shape = tuple(shape)
        order = _reshaped_order(tensor, shape)
        if order is None:
            tensor = self.ordered(tensor, range(len(tensor.order)))
            order = tuple(range(len(shape)))
        return Stored(tensor.name, TensorType(shape, tensor.type.dtype), order, tensor.form)

    def aligned(self, tensors: Sequence[Stored]) -> list[Stored]:
        """Tensors that are broadcast with each other, with as many axes in the same order in
        memory: that of the largest one."""
        lead = max(tensors, key=lambda t: (len(t.order), math.prod(t.type.shape)))
        axes = len(lead.order)
        wide = [(*[1] * (axes - len(t.order)), *t.type.shape) for t in tensors]
        pairs = zip(tensors, wide, strict=True)
        return [self.ordered(self.reshaped(t, shape), lead.order) for t, shape in pairs]

    def once(self, value: Value, what: Hashable, make: Callable[[], Stored]) -> Stored:
        """What is made of a value, once for all that read it."""
        key = (id(value), what)
        if key not in self._made:
            self._made[key] = (make(), value)  # the value stays, so that no other gets its id
        return self._made[key][0]

    # Steps

    def step(
        self,
        output: str,
        op: Any,
        inputs: Mapping[str, Stored],
        weights: np.ndarray | None = None,
        parameters: Mapping[str, np.ndarray] = {},
        constants: Mapping[str, np.ndarray] = {},
    ) -> str:
        """A step that writes the tensor `output`, whose name is returned (another, where there is
        one of that name already)."""
        output = self._unique(output)
        tensors = {argument: tensor.name for argument, tensor in inputs.items()}
        self.steps.append(
            Step(
                *(output, op, tensors, output, weights, dict(parameters), dict(constants)),
                (self._node,),
            )
        )
        return output

    def _unique(self, name: str) -> str:
        """The name, or one like it that no tensor has."""
        found, count = name, 1
        while found in self.taken:
            found, count = f"{name}:{count + 1}", count + 1
        self.taken.add(found)
        return found

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
        types = {name: tensor.type for name, tensor in seen.items()}
        given = {
            name: array
            if array.size == 1
            else array.reshape(*[1] * (axes - array.ndim), *array.shape).transpose(order)
            for name, array in constants.items()
        }
        first = node.input[0]
        x = types[first] if first in types else given[first]
        imported = import_node(node, x, given | types)
        made = self.apply(imported, name, [seen[n] for n in node.input if n in seen])
        shape = tuple(made.type.shape[order.index(axis)] for axis in range(axes))
        return replace(made, type=TensorType(shape, made.type.dtype), order=order)

    def apply(self, imported: Imported, name: str, tensors: Iterable[Stored]) -> Stored:
        """The step of an imported node on its tensors, in memory as ONNX has them or in another
        order."""
        pairs = zip(imported.inputs.items(), tensors, strict=True)
        fed = {argument: self._fed(tensor, relayout) for (argument, relayout), tensor in pairs}
        packed = imported.weights is not None
        made = self.step(
            *(name, imported.op, fed, imported.weights, imported.parameters if packed else {}),
            constants={} if packed else imported.parameters,
        )
        return self._result(made, imported)

    def _fed(self, tensor: Stored, relayout: Relayout) -> Stored:
        """A tensor as an operator takes it."""
        return self.ordered(self.reshaped(tensor, relayout.view), relayout.axes)

    def _result(self, made: str, imported: Imported) -> Stored:
        """The result of an operator as ONNX sees it."""
        y, output = imported.y, imported.op.signature.output
        form = FORMATS.get(output.dtype)
        if output.format and output.format != "f32":
            try:
                form = Format.parse(output.format)
            except LpgenError:
                form = None
        seen = tuple(y.view[axis] for axis in y.axes)
        tensor = Stored(made, TensorType(seen, output.dtype), inverse(y.axes), form)
        return self.reshaped(tensor, y.shape)

    # The end

    def network(self) -> Network:
        """The network; raises UnservedNodes where there are any."""
        if self.unserved:
            raise UnservedNodes(self.unserved)
        outputs, steps, _ = self.finished()
        return fused(Network(self.model.inputs, outputs, tuple(alive(steps, outputs))))

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
        self._node = name
        if isinstance(value, Constant):
            raise OnnxError(f"output {name} is constant")
        tensor = self.tensor(value, name)
        tensor = self.ordered(tensor, range(len(tensor.order)))
        if tensor.name in taken or tensor.name in self.model.inputs:
            tensor = self._moved(tensor, tensor.order)  # a copy
        return tensor


def alive(steps: Sequence[Step], wanted: Iterable[str]) -> list[Step]:
    """The steps that one of the wanted tensors depends on."""
    wanted, kept = set(wanted), []
    for step in reversed(steps):
        if step.output in wanted:
            kept.append(step)
            wanted.update(step.inputs.values())
    return kept[::-1]


def _renamed(step: Step, names: Mapping[str, str]) -> Step:
    """The step with tensors by these names, where they have other ones; it is called as its output
    is."""
    inputs = {argument: names.get(name, name) for argument, name in step.inputs.items()}
    output = names.get(step.output, step.output)
    return replace(step, name=output, inputs=inputs, output=output)


def _reshaped_order(tensor: Stored, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """The order of the axes of `shape` in memory if nothing moves, None if it has to."""
    order: list[int] = []
    place = {axis: i for i, axis in enumerate(a for a in tensor.order if tensor.type.shape[a] > 1)}
    groups = _groups(tensor.type.shape, shape)
    for old, _ in groups:
        places = [place[axis] for axis in old]
        if places != list(range(min(places, default=0), min(places, default=0) + len(places))):
            return None
    for _, new in sorted((group for group in groups if group[0]), key=lambda g: place[g[0][0]]):
        order += new
    rest = [axis for axis in range(len(shape)) if axis not in order]  # of size 1
    return (*rest, *order)


def _groups(old: tuple[int, ...], new: tuple[int, ...]) -> list[tuple[list[int], list[int]]]:
    """Axes of one shape and of another that are made of each other, smallest sets; axes of size 1
    are in none."""
    groups, i, j = [], 0, 0
    while i < len(old) or j < len(new):
        a, b = [i] if i < len(old) else [], [j] if j < len(new) else []
        i, j = i + 1, j + 1
        while math.prod(old[k] for k in a) != math.prod(new[k] for k in b):
            if math.prod(old[k] for k in a) < math.prod(new[k] for k in b):
                a.append(i)
                i += 1
            else:
                b.append(j)
                j += 1
        groups.append(([k for k in a if old[k] > 1], [k for k in b if new[k] > 1]))
    return groups
