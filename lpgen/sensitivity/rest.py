"""The rest of a model, from one node on.

What comes before a group of layers is the same for all its variants. So it is run once: `Front`
holds, for each call, the tensors that the rest reads, and moves on from group to group.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lpgen.plans.constants import Constants
from lpgen.plans.groups import node_names
from lpgen.quantize.data import Call
from lpgen.quantize.graph import read_by
from lpgen.quantize.session import Session

if TYPE_CHECKING:
    import onnx


class Front:
    """The calls of a model as they are in front of a node.

    place: how many nodes are behind, of those that do not read constants alone; calls: the tensors
    by name that the nodes from there on read. Nodes of `rest` have the names that plans call them.
    """

    def __init__(self, model: onnx.ModelProto, calls: Sequence[Call]) -> None:
        self._model, self._constants = model, Constants(model)
        named = list(zip(node_names(model.graph), model.graph.node, strict=True))
        self._tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        self._names = {node.output[0]: name for name, node in named}
        self._nodes = [n for _, n in named if any(out not in self._constants for out in n.output)]
        self._places = {self._names[n.output[0]]: i for i, n in enumerate(self._nodes)}
        self._given = calls
        self.place, self.calls = 0, calls

    def at(self, node: str) -> onnx.ModelProto:
        """The rest of the model from a node on, by its name in plans; `calls` are its calls."""
        place = self._places[node]
        if place < self.place:
            self.place, self.calls = 0, self._given
        rest = self._nodes[place:]
        wanted = list(dict.fromkeys(name for node in rest for name in self._read(node)))
        known = self.calls[0].keys()
        between = self._nodes[self.place : place]
        made = {name for node in between for name in node.output}
        found: Sequence[Call] = [{} for _ in self.calls]
        if outputs := [name for name in wanted if name in made]:
            part = self._part(between, outputs)
            session, given = Session(part), [value.name for value in part.graph.input]
            found = [session(_only(call, given)) for call in self.calls]
        old = [name for name in wanted if name in known]
        self.calls = [_only(c, old) | new for c, new in zip(self.calls, found, strict=True)]
        self.place = place
        made = {name for node in rest for name in node.output}
        return self._part(rest, [v.name for v in self._model.graph.output if v.name in made])

    def _read(self, node: onnx.NodeProto) -> Iterator[str]:
        return (name for name in read_by(node) if name and name not in self._constants)

    def _part(self, nodes: Sequence[onnx.NodeProto], outputs: Sequence[str]) -> onnx.ModelProto:
        """A model of some nodes, on the present calls."""
        import onnx

        made, known = {name for node in nodes for name in node.output}, self.calls[0]
        read = dict.fromkeys(name for node in nodes for name in self._read(node))
        inputs = [name for name in read if name not in made and name in known]
        part = onnx.ModelProto()
        part.CopyFrom(self._frame)
        graph = part.graph
        graph.name = "part"
        placed: set[str] = set()
        for node in nodes:
            self._add_constants(graph, node, placed)
            graph.node.add().CopyFrom(node)
            graph.node[-1].name = self._names[node.output[0]]
        graph.input.extend(_kind(name, [call[name] for call in self.calls]) for name in inputs)
        graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
        return part

    @property
    def _frame(self) -> onnx.ModelProto:
        """A model of the same versions that is empty."""
        import onnx

        frame = onnx.ModelProto(ir_version=self._model.ir_version)
        frame.opset_import.extend(self._model.opset_import)
        frame.functions.extend(self._model.functions)
        return frame

    def _add_constants(
        self, graph: onnx.GraphProto, node: onnx.NodeProto, placed: set[str]
    ) -> None:
        """What a node reads that is constant, and what makes that."""
        for name in read_by(node):
            if not name or name in placed or name not in self._constants:
                continue
            maker = self._constants.maker(name)
            if maker is None:
                placed.add(name)
                graph.initializer.append(self._tensors[name])
            else:
                placed.update(maker.output)
                self._add_constants(graph, maker, placed)
                graph.node.add().CopyFrom(maker)


def _only(call: Call, names: Sequence[str]) -> Call:
    return {name: call[name] for name in names}


def _kind(name: str, arrays: Sequence[np.ndarray]) -> onnx.ValueInfoProto:
    """An input as all calls have it: sizes in which they differ stay open."""
    from onnx import helper

    kind = helper.np_dtype_to_tensor_dtype(arrays[0].dtype)
    if len({array.ndim for array in arrays}) > 1:
        return helper.make_tensor_value_info(name, kind, None)
    sizes = zip(*(array.shape for array in arrays), strict=True)
    return helper.make_tensor_value_info(
        name, kind, [same[0] if len(set(same)) == 1 else None for same in sizes]
    )
