"""Changes of a graph of ONNX: new constants, new nodes in front of others, dead ones gone."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lpgen.build.scratch import scratch_folder
from lpgen.errors import QuantizeError

if TYPE_CHECKING:
    import onnx

MOST_BYTES = 2**31 - 1
"""Of a file of ONNX without external data."""


def with_opset(model: onnx.ModelProto, least: int) -> onnx.ModelProto:
    """The model in this version of ONNX's operators, or the newer one that it has; a copy. Raises
    QuantizeError where ONNX cannot convert it."""
    from onnx import version_converter

    copy = type(model)()
    copy.CopyFrom(model)
    own = next((o.version for o in copy.opset_import if o.domain in ("", "ai.onnx")), 1)
    if own >= least:
        return copy
    try:
        made = version_converter.convert_version(copy, least)
    except Exception as error:  # the converter raises many kinds
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise QuantizeError(f"opset {own} cannot be converted to {least}: {reason}") from None
    if not made.metadata_props:  # the converter drops them
        made.metadata_props.extend(list(copy.metadata_props))
    return made


class Graph:
    """A model that is changed in place: `add` puts nodes in front of the first one that reads their
    results."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        graph = model.graph
        self._names = {name for node in graph.node for name in (*node.input, *node.output)}
        self._names |= {tensor.name for tensor in graph.initializer}
        self._added: list[onnx.NodeProto] = []

    def unique(self, name: str) -> str:
        """The name, or one like it that no edge has."""
        found, count = name, 1
        while found in self._names:
            found, count = f"{name}.{count + 1}", count + 1
        self._names.add(found)
        return found

    def constant(self, name: str, array: np.ndarray, bits: int = 8) -> str:
        """An initializer, whose name is returned; bits: 4 for int8 that is stored as int4."""
        from onnx import TensorProto, helper, numpy_helper

        name = self.unique(name)
        if bits == 4:
            codes = np.append(array.ravel(), np.zeros(array.size % 2, np.int8)).view(np.uint8) & 15
            packed = (codes[::2] | codes[1::2] << 4).tobytes()
            tensor = helper.make_tensor(name, TensorProto.INT4, array.shape, packed, raw=True)
        else:
            tensor = numpy_helper.from_array(np.array(array, order="C"), name)
        self.model.graph.initializer.append(tensor)
        return name

    def add(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """A node, whose one result is returned."""
        from onnx import helper

        output = self.unique(output)
        node = helper.make_node(kind, list(inputs), [output], name=f"{output}.node", **attributes)
        self._added.append(node)
        return output

    def finish(self) -> None:
        """All nodes in an order in which they can run; what no output depends on is
        gone."""
        graph = self.model.graph
        waiting = {node.output[0]: node for node in self._added}
        nodes: list[onnx.NodeProto] = []

        def place(node: onnx.NodeProto) -> None:
            for name in node.input:
                if name in waiting:
                    place(waiting.pop(name))
            nodes.append(node)

        for node in list(graph.node):
            place(node)
        read, kept = {value.name for value in graph.output}, []
        for node in reversed(nodes):
            if read.intersection(node.output):
                kept.append(node)
                read.update(read_by(node))
        gone = {tensor.name for tensor in graph.initializer} - read
        _replace(graph.node, kept[::-1])
        _replace(graph.initializer, [t for t in graph.initializer if t.name not in gone])
        _replace(graph.input, [value for value in graph.input if value.name not in gone])


def read_by(node: onnx.NodeProto) -> Iterator[str]:
    """The edges that a node reads, also in graphs of its own (If, Loop)."""
    yield from node.input
    for attribute in node.attribute:
        for inner in attribute.g.node:
            yield from read_by(inner)


def _replace(field: Any, values: list) -> None:
    """Other values for a repeated field."""
    copies = [type(value).FromString(value.SerializeToString()) for value in values]
    del field[:]
    field.extend(copies)


def write(model: onnx.ModelProto, path: str | os.PathLike[str]) -> None:
    """The model in a file, which is there as a whole or not at all. Raises QuantizeError."""
    import onnx

    path = Path(path)
    size = model.ByteSize()
    if size > MOST_BYTES:
        raise QuantizeError(f"{path} would have {size} bytes, the limit is {MOST_BYTES}")
    try:
        onnx.checker.check_model(model)
        with scratch_folder(path.parent) as folder:
            onnx.save(model, folder / "model.onnx")
            os.replace(folder / "model.onnx", path)
    except OSError as error:
        raise QuantizeError(f"{path}: {error.strerror}") from None
