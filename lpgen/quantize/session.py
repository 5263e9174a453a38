"""A float model as a function: by onnxruntime where it is installed, else by ONNX's reference."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lpgen.errors import QuantizeError
from lpgen.quantize.graph import with_opset

if TYPE_CHECKING:
    import onnx


_QUANTIZED = ("QuantizeLinear", "DequantizeLinear")


class Session:
    """A model that is called with arrays by name; the results by name are those of `outputs`, any
    edges of its graph."""

    def __init__(self, model: onnx.ModelProto, outputs: Sequence[str] = ()) -> None:
        self.outputs = list(outputs) or [value.name for value in model.graph.output]
        exposed = _exposed(model, self.outputs)
        try:
            self._call = _onnxruntime(exposed, self.outputs)
        except ImportError:
            from onnx.reference import ReferenceEvaluator

            # It has QuantizeLinear and DequantizeLinear from this version on.
            evaluator = ReferenceEvaluator(with_opset(exposed, 19))
            self._call = lambda given: evaluator.run(self.outputs, given)

    def __call__(self, given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The results of one call. Raises QuantizeError where the model refuses the arrays."""
        try:
            found = self._call(dict(given))
        except Exception as error:  # both raise many kinds
            raise QuantizeError(f"the model refuses the data: {_first_line(error)}") from None
        return dict(zip(self.outputs, found, strict=True))


def _exposed(model: onnx.ModelProto, outputs: Sequence[str]) -> onnx.ModelProto:
    """The model with these edges among its outputs."""
    import onnx

    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    known = {value.name for value in exposed.graph.output}
    for name in outputs:
        if name not in known:
            exposed.graph.output.append(onnx.ValueInfoProto(name=name))
    return exposed


def _onnxruntime(model: onnx.ModelProto, outputs: Sequence[str]) -> Callable[..., list]:
    """A call of onnxruntime. Raises ImportError where it is not installed."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    options.log_severity_level = 3
    levels = onnxruntime.GraphOptimizationLevel
    quantized = any(node.op_type in _QUANTIZED for node in model.graph.node)
    # Of 20 lines of text a recogniser with int4 weights reads 19 as it is written, and 9 or 16 with
    # what onnxruntime 1.32 makes of quantized nodes; products with weights behind DequantizeLinear
    # get their inputs rounded.
    most = levels.ORT_DISABLE_ALL if quantized else levels.ORT_ENABLE_ALL
    options.graph_optimization_level = most
    try:
        providers = ["CPUExecutionProvider"]
        made = onnxruntime.InferenceSession(model.SerializeToString(), options, providers)
    except Exception as error:
        raise QuantizeError(f"onnxruntime refuses the model: {_first_line(error)}") from None
    return lambda given: made.run(list(outputs), given)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
