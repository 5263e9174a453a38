"""LiteRT (TensorFlow Lite): models of one operator, run by its XNNPACK delegate.

Models are written in the flatbuffer schema that comes with the library. Quantization is that of
ai.google.dev/edge/litert/conversion/tensorflow/quantization/quantization_spec: int8 activations,
symmetric weights with a scale per output channel; for dense also float activations, which the
delegate quantizes per row. An operator that the delegate leaves to TensorFlow Lite's own kernels
counts as one it cannot run.
"""

import importlib
import importlib.metadata
from functools import partial
from typing import Any

import numpy as np

from lpgen.bench.case import Case, Contender, Unsupported
from lpgen.bench.peers import Variants

_DELEGATED = "DELEGATE"


def version() -> str:
    """Of the library; it also takes the package `flatbuffers` to write its models."""
    importlib.import_module("flatbuffers")
    importlib.import_module("ai_edge_litert.interpreter")
    return importlib.metadata.version("ai-edge-litert")


def variants(case: Case, threads: int) -> Variants:
    if case.op.group_size:
        raise Unsupported("weights with scales of groups are not compared")
    if case.op.kind == "conv2d":
        return {"Conv2D": partial(_quantized, case, threads, 8)}
    if case.op.kind == "dense":
        ways: Variants = {}
        for bits in case.widths(2, 4, 8):
            ways[f"int8 x int{bits}"] = partial(_quantized, case, threads, bits)
            ways[f"dynamic x int{bits}"] = partial(_dynamic, case, threads, bits)
        return ways
    raise Unsupported(f"no operator for {case.op.kind}")


def _quantized(case: Case, threads: int, bits: int) -> Contender:
    """int8 activations in and out; the result's codes are the uint8 ones less 128."""
    x, x_zero = case.shifted_input(np.int8)
    y_zero = case.y_zero - 128
    y_scale = np.asarray([case.y_scale], np.float32)
    from lpgen.bench.peers import _tflite

    model = _tflite.Model()
    source = model.tensor("x", x.shape, np.int8, np.asarray([case.x_scale]), x_zero)
    result = model.tensor("y", case.op.y_shape, np.int8, y_scale, y_zero)
    _operator(case, model, source, result, bits, case.bias)
    run, read = _interpreter(model.bytes(source, result), x, threads)
    return Contender(run, lambda: read().astype(np.int16) + 128, "u8", f"int{bits}")


def _dynamic(case: Case, threads: int, bits: int) -> Contender:
    """Float activations and result."""
    x = case.real_input()
    from lpgen.bench.peers import _tflite

    model = _tflite.Model()
    source = model.tensor("x", x.shape, np.float32)
    result = model.tensor("y", case.op.y_shape, np.float32)
    _operator(case, model, source, result, bits, case.real_bias)
    run, read = _interpreter(model.bytes(source, result), x, threads)
    return Contender(run, read, "f32", f"int{bits}")


def _operator(
    case: Case, model: Any, source: int, result: int, bits: int, bias: np.ndarray | None
) -> None:
    """The operator of `case` in a _tflite.Model, from tensor `source` to tensor `result`."""
    op, weights = case.op, case.signed_weights()
    if op.kind == "dense":
        w = model.weights(weights, bits, case.w_scale, axis=0)
        model.fully_connected(source, w, result, bias)
        return
    if op.depthwise:
        w = model.weights(weights.transpose(3, 1, 2, 0), bits, case.w_scale, axis=3)
    else:
        w = model.weights(weights, bits, case.w_scale, axis=0)
    model.convolution(source, w, result, bias, op)


def _interpreter(model: bytes, x: np.ndarray, threads: int) -> tuple[Any, Any]:
    """(run, read): a call of the model with `x` as its input, and its latest result."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=model, num_threads=threads)
    interpreter.allocate_tensors()
    (source,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.set_tensor(source["index"], x)
    # The plan after delegation: everything in one call of the delegate, or not.
    plan = [node["op_name"] for node in interpreter._get_ops_details()]
    if plan.count(_DELEGATED) != 1:
        raise Unsupported(f"XNNPACK does not take {', '.join(dict.fromkeys(plan))}")
    return interpreter.invoke, partial(interpreter.get_tensor, result["index"])
