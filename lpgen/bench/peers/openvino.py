"""OpenVINO: models of one operator, compiled for latency.

Integer arithmetic comes from low-precision transformations of a model with dequantization before
and FakeQuantize after the operator; weights below 8 bits from weight compression, with float
activations that the plugin quantizes by itself (docs.openvino.ai: "Low-precision transformations",
"Dynamic quantization").
"""

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from lpgen.bench.case import U8, Case, Contender, Unsupported
from lpgen.bench.grouped import GroupedCase
from lpgen.bench.peers import Variants
from lpgen.runtime.memory import aligned_copy

# To the plugin's order of axes and back; it keeps activations in NHWC and drops both.
_TO_NCHW = (0, 3, 1, 2)
_TO_NHWC = (0, 2, 3, 1)
_GROUP = 128


def version() -> str:
    """Of the library."""
    return importlib.import_module("openvino").__version__.partition("-")[0]


def variants(case: Case, threads: int) -> Variants:
    if case.op.kind == "conv2d":
        return {"Convolution": partial(_quantized, case, threads, _convolution)}
    if case.op.group_size:
        return {f"MatMul int{case.op.weight.bits} weights": partial(_groups, case, threads)}
    if case.op.kind == "dense":
        ways: Variants = {"MatMul": partial(_quantized, case, threads, _matmul)}
        for bits in case.widths(2, 4, 8):
            ways[f"MatMul int{bits} weights"] = partial(_compressed, case, threads, bits)
        return ways
    raise Unsupported(f"no operator for {case.op.kind}")


def model(
    path: str, inputs: dict[str, np.ndarray], outputs: dict[str, np.ndarray], threads: int
) -> Callable[[], None]:
    """A call that runs an ONNX file on the inputs and writes the outputs, both by name."""
    import openvino

    core = openvino.Core()
    read = core.read_model(path)
    read.reshape({name: list(array.shape) for name, array in inputs.items()})
    request = core.compile_model(read, "CPU", _settings(threads)).create_infer_request()
    for name, array in (inputs | outputs).items():
        request.set_tensor(name, openvino.Tensor(array, shared_memory=True))

    def call(run=request.infer, kept=(inputs, outputs, request)) -> None:
        run(share_outputs=True)  # or else it copies the result

    return call


def _quantized(case: Case, threads: int, operator: Callable) -> Contender:
    """8-bit activations in, uint8 out."""
    import openvino.opset13 as o

    x = o.parameter(list(case.x.shape), case.x.dtype, name="x")
    # All before the change of axes: behind it the plugin would compute in float.
    real = o.convert(x, "f32")
    if case.op.zero_act:
        real = o.subtract(real, np.float32(case.op.zero_act))
    y = operator(o, o.multiply(real, np.float32(case.x_scale)), case)
    low, high = (np.float32(case.y_scale * (end - case.y_zero)) for end in (U8.min, U8.max))
    y = o.fake_quantize(y, low, high, np.float32(U8.min), np.float32(U8.max), 256)
    y = o.convert(y, "u8")
    if case.op.kind == "conv2d":
        y = o.transpose(y, list(_TO_NHWC))
    return _contender(x, y, case.x, case.op.y_shape, np.uint8, "int8", threads)


def _matmul(o: Any, x: Any, case: Case) -> Any:
    weights = _dequantized(o, case.signed_weights(), case.w_scale[:, None])
    y = o.matmul(x, weights, False, True)
    return y if case.bias is None else o.add(y, case.real_bias[None])


def _convolution(o: Any, x: Any, case: Case) -> Any:
    op, w = case.op, case.signed_weights().transpose(0, 3, 1, 2)
    scale = case.w_scale[:, None, None, None]
    function = o.convolution
    if op.groups > 1:
        w = w.reshape(op.groups, -1, *w.shape[1:])
        scale = scale.reshape(op.groups, -1, 1, 1, 1)
        function = o.group_convolution
    geometry = list(op.stride), list(op.pad[:2]), list(op.pad[2:]), list(op.dilation)
    weights = _dequantized(o, w, scale)
    y = function(o.transpose(x, list(_TO_NCHW)), weights, *geometry)
    return y if case.bias is None else o.add(y, case.real_bias[None, :, None, None])


def _compressed(case: Case, threads: int, bits: int) -> Contender:
    """Float activations and result, weights of `bits` bits."""
    import openvino
    import openvino.opset13 as o

    weights, scale = case.signed_weights(), case.w_scale[:, None]
    if bits == 2:  # there are unsigned ones only
        zero = 2
        codes = o.constant((weights + zero).astype(np.uint8), dtype=openvino.Type.u2)
        zero = o.constant(np.full((1, 1), zero, np.uint8), dtype=openvino.Type.u2)
        centred = o.subtract(o.convert(codes, "f32"), o.convert(zero, "f32"))
        real = o.multiply(centred, o.constant(scale))
    else:
        real = _dequantized(o, weights, scale, {4: openvino.Type.i4}.get(bits, np.int8))
    x = case.real_input()
    parameter = o.parameter(list(x.shape), x.dtype, name="x")
    y = o.matmul(parameter, real, False, True)
    if case.bias is not None:
        y = o.add(y, case.real_bias[None])
    return _contender(parameter, y, x, case.op.y_shape, np.float32, f"int{bits}", threads)


def _groups(case: GroupedCase, threads: int) -> Contender:
    """The same with scales and zero points of groups."""
    import openvino
    import openvino.opset13 as o

    op = case.op
    if op.k % op.group_size:
        raise Unsupported(f"groups of {op.group_size} do not divide k={op.k}")
    codes, zeros = case.codes(4, 8)
    kind = {4: openvino.Type.u4, 8: openvino.Type.u8}[op.weight.bits]
    w = o.constant(codes.reshape(op.n, -1, op.group_size), dtype=kind)
    zero, scale = o.constant(zeros[..., None], dtype=kind), case.w_scale[..., None]
    centred = o.subtract(o.convert(w, "f16"), o.convert(zero, "f16"))
    real = o.multiply(centred, o.constant(scale.astype(np.float16)))
    real = o.convert(o.reshape(real, [op.n, op.k], False), "f32")
    x = case.real_input()
    parameter = o.parameter(list(x.shape), x.dtype, name="x")
    y = o.matmul(parameter, real, False, True)
    if case.bias is not None:
        y = o.add(y, case.real_bias[None])
    weight = f"int{op.weight.bits}"
    return _contender(parameter, y, x, op.y_shape, np.float32, weight, threads, op.group_size)


def _dequantized(o: Any, weights: np.ndarray, scale: np.ndarray, kind: Any = np.int8) -> Any:
    constant = o.constant(np.ascontiguousarray(weights), dtype=kind)
    return o.multiply(o.convert(constant, "f32"), o.constant(np.ascontiguousarray(scale)))


def _contender(
    parameter: Any,
    result: Any,
    x: np.ndarray,
    y_shape: tuple[int, ...],
    dtype: Any,
    weight: str,
    threads: int,
    group: int = _GROUP,
) -> Contender:
    import openvino

    model = openvino.Model([result], [parameter], "operator")
    # Float activations of compressed weights share a scale in groups of as many: its fastest.
    settings = _settings(threads) | {"DYNAMIC_QUANTIZATION_GROUP_SIZE": group}
    request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()
    y = aligned_copy(np.zeros(y_shape, dtype))
    request.set_input_tensor(openvino.Tensor(x, shared_memory=True))
    request.set_output_tensor(openvino.Tensor(y, shared_memory=True))

    def call(run=request.infer, kept=(x, y, request)) -> None:
        run(share_outputs=True)  # or else it copies the result

    out = "f32" if dtype is np.float32 else "u8"
    return Contender(call, lambda: y, out, weight)


def _settings(threads: int) -> dict[str, Any]:
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": threads,
        "ENABLE_CPU_PINNING": False,
        # Not bfloat16, which it takes where it may: that is another operator.
        "INFERENCE_PRECISION_HINT": "f32",
    }
