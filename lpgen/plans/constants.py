"""Edges of a graph of ONNX that are the same in every call, and their values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from lpgen.onnx.evaluate import evaluate

if TYPE_CHECKING:
    import onnx


class Constants(Mapping[str, np.ndarray]):
    """Values of the constant edges of a model by name: its initializers, and what nodes make that
    read constants alone, which is computed when it is asked for."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        self._opsets = {entry.domain: entry.version for entry in model.opset_import}
        self._makers: dict[str, onnx.NodeProto] = {}
        self._values: dict[str, np.ndarray] = {}
        for node in model.graph.node:
            if all(name in self for name in node.input if name):
                self._makers.update(dict.fromkeys(node.output, node))

    def __contains__(self, name: object) -> bool:
        return name in self._tensors or name in self._makers

    def __iter__(self) -> Iterator[str]:
        return iter([*self._tensors, *self._makers])

    def __len__(self) -> int:
        return len(self._tensors) + len(self._makers)

    def maker(self, name: str) -> onnx.NodeProto | None:
        """The node that makes a constant edge; None for an initializer."""
        return self._makers.get(name)

    def __getitem__(self, name: str) -> np.ndarray:
        """The value of an edge. Raises OnnxError where ONNX has no meaning for its node."""
        from onnx import numpy_helper

        if name not in self._values:
            if name in self._tensors:
                self._values[name] = numpy_helper.to_array(self._tensors[name])
            else:
                node = self._makers[name]
                inputs = {n: self[n] for n in node.input if n}
                made = evaluate(node, inputs, self._opsets)
                self._values.update(zip(node.output, made, strict=False))
        return self._values[name]
