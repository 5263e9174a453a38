"""A model in parts: networks of lpgen, and the nodes between them that stay with onnxruntime.

Every tensor has a depth: how many nodes that stay lie at most on a way to it. Steps whose results
have one depth are one network. Of such a set no way leads out and back, because every way through a
node that stays goes up, and no two of these sets could be one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lpgen.build.scratch import scratch_folder
from lpgen.errors import OnnxError
from lpgen.network import Network, Step, TensorType
from lpgen.network.fusion import fused
from lpgen.network.network import alive
from lpgen.network.ort import DOMAIN
from lpgen.onnx.checks import type_name
from lpgen.onnx.lowering import Lowering, Quantizing, needed
from lpgen.onnx.model import Model, read_model
from lpgen.onnx.unserved import Unserved
from lpgen.onnx.values import Constant, Stored

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class Partition:
    """A model in parts.

    networks: those of lpgen, by the type of their node; nodes: of the model that is left, in order;
    unserved: the nodes that stay, and why; the others: of that model.
    """

    networks: Mapping[str, Network]
    nodes: Sequence[onnx.NodeProto] = field(repr=False)
    unserved: Sequence[Unserved]
    inputs: Mapping[str, TensorType]
    outputs: Mapping[str, TensorType]
    constants: Mapping[str, np.ndarray] = field(repr=False)
    opsets: Mapping[str, int]


def partition(
    path: str | os.PathLike[str],
    name: str,
    shapes: Mapping[str, Sequence[int]] = {},
    dynamic: Quantizing = "",
) -> Partition:
    """The parts of a model in a file of ONNX; name: what types of nodes begin with.

    shapes, dynamic: as `read_network` takes them. Raises OnnxError for what is no model, for one in
    which nothing is served, and where the sizes of what a node gives are not known.
    """
    model = read_model(path, shapes)
    lowering = _Parted(model, dynamic)
    for node in needed(lowering.model):
        lowering.node(node)
    return lowering.parts(name)


class _Parted(Lowering):
    """A lowering that goes on behind a node that is not served: its outputs are inputs, too."""

    def __init__(self, model: Model, dynamic: Quantizing) -> None:
        super().__init__(model, dynamic)
        self.kinds: dict[str, TensorType] = {}  # of what nodes that stay give
        self.kept: list[tuple[onnx.NodeProto, dict[str, Stored]]] = []

    def refuse(self, node: onnx.NodeProto, reason: str) -> None:
        """The node stays: what it reads has to be there as ONNX has it."""
        self.kinds |= self._inferred(node)
        super().refuse(node, reason)
        read = {}
        for name in node.input:
            value = self.values.get(name) if name else None
            if value is not None and not isinstance(value, Constant):
                tensor = self.tensor(value, name)
                read[name] = self.ordered(tensor, range(len(tensor.order)))
        self.kept.append((node, read))
        for name in filter(None, node.output):
            self.values[name] = self.stored(name, self.kinds[name])
            self.taken.add(name)

    def _inferred(self, node: onnx.NodeProto) -> dict[str, TensorType]:
        """The types of what a node gives, by the rules of ONNX."""
        from onnx import defs, helper, numpy_helper, shape_inference

        values = {name: self.values[name] for name in node.input if name}
        opset = self.model.opsets.get(node.domain.removeprefix("ai.onnx"), 1)
        try:
            found = shape_inference.infer_node_outputs(
                defs.get_schema(node.op_type, opset, node.domain),
                node,
                {name: _info(name, value.type).type for name, value in values.items()},
                {
                    name: numpy_helper.from_array(value.array)
                    for name, value in values.items()
                    if isinstance(value, Constant)
                },
                opset_imports=[helper.make_opsetid(*pair) for pair in self.model.opsets.items()],
            )
            return {name: _type(kind) for name, kind in found.items()}
        except Exception as error:  # the rules of ONNX raise many kinds
            reason = str(error).strip().splitlines()[0]
            raise OnnxError(f"{node.op_type} {node.name}: sizes of its results: {reason}") from None

    def parts(self, name: str) -> Partition:
        """The networks and what lies between."""
        outputs, steps, names = self.finished()
        kept = [
            (node, {edge: names.get(t.name, t.name) for edge, t in read.items()})
            for node, read in self.kept
        ]
        steps = alive(steps, {*outputs, *(t for _, read in kept for t in read.values())})
        if not steps:
            raise OnnxError("nothing of the model is served")
        depths = self._depths(steps, kept)
        external = dict(self.model.inputs)
        external |= {n: self.kinds[n] for node, _ in kept for n in node.output if n in self.kinds}
        networks = {}
        for depth in sorted({depths[step.output] for step in steps}):
            inside = [step for step in steps if depths[step.output] == depth]
            read = {t for _, edges in kept for t in edges.values()} | set(outputs)
            read |= {t for s in steps if s not in inside for t in s.inputs.values()}
            networks[f"{name}_{len(networks)}"] = _network(inside, external, outputs, read)
            external |= networks[f"{name}_{len(networks) - 1}"].outputs
        return Partition(
            networks,
            self._nodes(networks, kept),
            self.unserved,
            self.model.inputs,
            outputs,
            self.constants_by_name(),
            self.model.opsets,
        )

    def _depths(
        self, steps: Sequence[Step], kept: Iterable[tuple[onnx.NodeProto, Mapping[str, str]]]
    ) -> dict[str, int]:
        """The depth of every tensor."""
        depths = dict.fromkeys(self.model.inputs, 0)
        left = [*steps, *kept]
        while left:
            later = []
            for part in left:
                step = isinstance(part, Step)
                read = part.inputs.values() if step else part[1].values()
                if not all(tensor in depths for tensor in read):
                    later.append(part)
                    continue
                depth = max((depths[tensor] for tensor in read), default=0)
                made = [part.output] if step else filter(None, part[0].output)
                depths |= dict.fromkeys(made, depth if step else depth + 1)
            left = later
        return depths

    def _nodes(
        self,
        networks: Mapping[str, Network],
        kept: Iterable[tuple[onnx.NodeProto, Mapping[str, str]]],
    ) -> list[onnx.NodeProto]:
        """The model's nodes, each behind those whose results it reads."""
        from onnx import helper

        left = [
            helper.make_node(kind, [*n.inputs], [*n.outputs], name=kind, domain=DOMAIN)
            for kind, n in networks.items()
        ]
        for node, names in kept:
            copy = type(node)()
            copy.CopyFrom(node)
            copy.input[:] = [names.get(edge, edge) for edge in node.input]
            left.append(copy)
        known = {*self.model.inputs, ""}
        known |= set(self.constants_by_name())
        ordered = []
        while left:
            ready = [node for node in left if known.issuperset(node.input)]
            ordered += ready
            known.update(name for node in ready for name in node.output)
            left = [node for node in left if node not in ready]
        return ordered

    def constants_by_name(self) -> dict[str, np.ndarray]:
        """Constants by name, those that were computed here, too."""
        return {n: v.array for n, v in self.values.items() if isinstance(v, Constant)}


def _network(
    steps: Sequence[Step],
    external: Mapping[str, TensorType],
    outputs: Mapping[str, TensorType],
    read: set[str],
) -> Network:
    """The network of some steps; read: what others read of their results."""
    made = {step.output: step.op.signature.output for step in steps}
    given = dict.fromkeys(t for step in steps for t in step.inputs.values() if t not in made)
    wanted = {
        name: outputs.get(name, TensorType(argument.shape, argument.dtype))
        for name, argument in made.items()
        if name in read
    }
    return fused(Network({name: external[name] for name in given}, wanted, tuple(steps)))


def write_model(parts: Partition, path: str | os.PathLike[str], threads: int = 1) -> None:
    """The model that is left, with a node of domain `lpgen` for each network, to a file.

    threads: of lpgen's pool, on which each of these nodes runs. The file appears complete or not at
    all. Raises OnnxError where it cannot be written.
    """
    import onnx
    from onnx import helper, numpy_helper

    read = {name for node in parts.nodes for name in node.input}
    constants = {n: array for n, array in parts.constants.items() if n in read}
    nodes = [type(node).FromString(node.SerializeToString()) for node in parts.nodes]
    for node in nodes:
        if node.domain == DOMAIN:
            node.attribute.append(helper.make_attribute("threads", threads))
    graph = helper.make_graph(
        nodes,
        "lpgen",
        [_info(name, kind) for name, kind in parts.inputs.items()],
        [_info(name, kind) for name, kind in parts.outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    versions = [helper.make_opsetid(*pair) for pair in {**parts.opsets, DOMAIN: 1}.items()]
    model = helper.make_model(graph, opset_imports=versions)
    try:
        with scratch_folder(Path(path).absolute().parent) as beside:
            onnx.save(model, beside / "model.onnx")
            os.replace(beside / "model.onnx", path)
    except OSError as error:
        raise OnnxError(f"{path} cannot be written: {error.strerror}") from None


def _type(kind: onnx.TypeProto) -> TensorType:
    """A type whose sizes are all known; ValueError for others."""
    from onnx import helper

    tensor = kind.tensor_type
    sizes = tuple(d.dim_value for d in tensor.shape.dim)
    if not tensor.HasField("shape") or not all(size > 0 for size in sizes):
        raise ValueError("they are found in each call")
    return TensorType(sizes, type_name(helper.tensor_dtype_to_np_dtype(tensor.elem_type)))


def _info(name: str, kind: TensorType) -> onnx.ValueInfoProto:
    from onnx import helper

    number = helper.np_dtype_to_tensor_dtype(np.dtype(kind.dtype))
    return helper.make_tensor_value_info(name, number, kind.shape)
