"""ONNX Runtime: models of one node, run with inputs and outputs bound beforehand.

Operators: https://onnx.ai/onnx/operators (QLinearConv, ConvInteger, QLinearMatMul, MatMulInteger)
and docs/ContribOperators.md of ONNX Runtime (QLinearConv in NHWC, QGemm, MatMulNBits).
Activations are uint8, signed ones with a zero point of 128: its kernels for int8 are slower.
"""

import importlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from lpgen.bench.case import Case, Contender, Unsupported
from lpgen.bench.grouped import GroupedCase
from lpgen.bench.peers import Variants
from lpgen.runtime.memory import aligned_copy

_OPSET = 17
_IR_VERSION = 9
_CONTRIB = "com.microsoft"
_QUANTIZED = ("x", "x_scale", "x_zero", "w", "w_scale", "w_zero", "y_scale", "y_zero")
_GEMM = (*_QUANTIZED[:6], "bias", *_QUANTIZED[6:])
_ABSENT = ""
_BLOCKS = 16, 256
"""MatMulNBits' smallest and largest block of weights with one scale."""
_FASTEST = {2: 128, 4: 256, 8: 256}
"""Its fastest block for each width; with any other than 32, 64 and 128 two bits become floats."""
_INT8_COMPUTE = 4
"""MatMulNBits' accuracy_level that lets it quantize activations to int8, its fastest."""


def version() -> str:
    """Of the library; it also takes the package `onnx` to write its models."""
    importlib.import_module("onnx")
    return importlib.import_module("onnxruntime").__version__


def variants(case: Case, threads: int) -> Variants:
    if case.op.kind == "conv2d":
        return {
            "QLinearConv NHWC": partial(_linear_conv, case, threads),
            "ConvInteger": partial(_integer_conv, case, threads),
        }
    if case.op.group_size:
        return {f"MatMulNBits {case.op.weight.bits}": partial(_matmul_groups, case, threads)}
    if case.op.kind == "dense":
        ways: Variants = {
            "QLinearMatMul": partial(_linear_matmul, case, threads, gemm=False),
            "QGemm": partial(_linear_matmul, case, threads, gemm=True),
            "MatMulInteger": partial(_integer_matmul, case, threads),
        }
        for bits in case.widths(2, 4, 8):
            ways[f"MatMulNBits {bits}"] = partial(_matmul_nbits, case, threads, bits)
        return ways
    raise Unsupported(f"no operator for {case.op.kind}")


def model(
    path: str, inputs: dict[str, np.ndarray], outputs: dict[str, np.ndarray], threads: int
) -> Callable[[], None]:
    """A call that runs an ONNX file on the inputs and writes the outputs, both by name."""
    return _call_of(_session_of(path, threads), inputs, outputs)


def _linear_conv(case: Case, threads: int) -> Contender:
    inputs = _QUANTIZED if case.bias is None else (*_QUANTIZED, "bias")
    node = _node("QLinearConv", inputs, _CONTRIB, channels_last=1, **_geometry(case.op))
    return _requantizing(case, node, _channels_first(_weights(case)), threads)


def _integer_conv(case: Case, threads: int) -> Contender:
    op = case.op
    n, oh, ow, oc = op.y_shape
    codes, zero = case.shifted_input(np.uint8)
    w = _channels_first(_weights(case))
    constants = {"w": w, "x_zero": np.full((), zero, np.uint8)}
    node = _node("ConvInteger", ("x", "w", "x_zero"), **_geometry(op))
    x, y = _channels_first(codes), _result((n, oc, oh, ow), np.int32)
    call = _bound(node, x, y, constants, threads)
    return Contender(call, lambda: y.transpose(0, 2, 3, 1), "s32", w.dtype.name)


def _linear_matmul(case: Case, threads: int, gemm: bool) -> Contender:
    if gemm:
        inputs = [_ABSENT if case.bias is None and n == "bias" else n for n in _GEMM]
        node = _node("QGemm", inputs, _CONTRIB)
    elif case.bias is None:
        node = _node("QLinearMatMul", _QUANTIZED)
    else:
        raise Unsupported("has no bias")
    return _requantizing(case, node, np.ascontiguousarray(_weights(case).T), threads)


def _integer_matmul(case: Case, threads: int) -> Contender:
    x, zero = case.shifted_input(np.uint8)
    y = _result(case.op.y_shape, np.int32)
    w = np.ascontiguousarray(_weights(case).T)
    constants = {"w": w, "x_zero": np.full((), zero, np.uint8)}
    call = _bound(_node("MatMulInteger", ("x", "w", "x_zero")), x, y, constants, threads)
    return Contender(call, lambda: y, "s32", w.dtype.name)


def _matmul_nbits(case: Case, threads: int, bits: int) -> Contender:
    """Float activations, which it quantizes itself; weights in blocks that share a scale."""
    op, zero = case.op, 1 << bits - 1
    block = min(_FASTEST[bits], max(_BLOCKS[0], 1 << (op.k - 1).bit_length()))
    codes = (case.signed_weights().astype(np.int16) + zero).astype(np.uint8)
    scale = np.repeat(case.w_scale[:, None], -(-op.k // block), axis=1)
    return _blocks(case, threads, bits, block, codes, scale)


def _matmul_groups(case: GroupedCase, threads: int) -> Contender:
    """The same with the scales of the operator's groups, and their zero points."""
    op = case.op
    smallest, largest = _BLOCKS
    if not smallest <= op.group_size <= largest or op.group_size & op.group_size - 1:
        raise Unsupported(f"blocks are powers of two of {smallest}..{largest}, not {op.group_size}")
    codes, zeros = case.codes(2, 4, 8)
    return _blocks(case, threads, op.weight.bits, op.group_size, codes, case.w_scale, zeros)


def _blocks(
    case: Case,
    threads: int,
    bits: int,
    block: int,
    codes: np.ndarray,
    scale: np.ndarray,
    zeros: np.ndarray | None = None,
) -> Contender:
    """MatMulNBits of codes[n, k], scale[n, blocks] and zeros[n, blocks], without which the zero
    point is the middle of the codes."""
    op, middle = case.op, 1 << bits - 1
    blocks = scale.shape[1]
    whole = np.full((op.n, blocks * block), middle, np.uint8)
    whole[:, : op.k] = codes
    constants = {
        "w": _packed(whole, bits).reshape(op.n, blocks, block * bits // 8),
        "w_scale": scale.reshape(-1),
    }
    sizes = {"K": op.k, "N": op.n, "bits": bits, "block_size": block}
    inputs = ["x", "w", "w_scale", _ABSENT, _ABSENT, _ABSENT]
    if zeros is not None and np.any(zeros != middle):
        inputs[3] = "zeros"
        constants["zeros"] = _packed(zeros, bits).reshape(-1)
    if case.bias is not None:
        inputs[5] = "bias"
        constants["bias"] = case.real_bias
    node = _node("MatMulNBits", inputs, _CONTRIB, accuracy_level=_INT8_COMPUTE, **sizes)
    x, y = case.real_input(), _result(op.y_shape, np.float32)
    return Contender(_bound(node, x, y, constants, threads), lambda: y, "f32", f"int{bits}")


def _packed(codes: np.ndarray, bits: int) -> np.ndarray:
    """Rows of codes in whole bytes, the first one in the lowest bits."""
    fields = 8 // bits
    whole = np.pad(codes, [(0, 0), (0, -codes.shape[1] % fields)])
    packed = np.zeros((len(whole), whole.shape[1] // fields), np.uint8)
    for place in range(fields):
        packed |= whole[:, place::fields] << bits * place
    return packed


def _requantizing(case: Case, node: Any, weights: np.ndarray, threads: int) -> Contender:
    """A node with the inputs of the QLinear operators, from uint8 to uint8."""
    x, zero = case.shifted_input(np.uint8)
    constants = {
        "x_scale": np.float32(case.x_scale),
        "x_zero": np.full((), zero, np.uint8),
        "w": weights,
        "w_scale": case.w_scale,
        "w_zero": np.zeros(len(case.w_scale), weights.dtype),
        "y_scale": np.float32(case.y_scale),
        "y_zero": np.full((), case.y_zero, np.uint8),
    }
    if case.bias is not None:
        constants["bias"] = case.bias
    y = _result(case.op.y_shape, np.uint8)
    call = _bound(node, x, y, constants, threads)
    return Contender(call, lambda: y, "u8", weights.dtype.name)


def _weights(case: Case) -> np.ndarray:
    """int8; uint8 only where they have to be."""
    try:
        return case.signed_weights()
    except Unsupported:
        if np.any(case.parameters.get("zero_weight", case.op.zero_weight)):
            raise
        return case.w


def _geometry(op: Any) -> dict[str, Any]:
    return {
        "kernel_shape": op.kernel,
        "strides": op.stride,
        "pads": op.pad,
        "dilations": op.dilation,
        "group": op.groups,
    }


def _channels_first(array: np.ndarray) -> np.ndarray:
    return aligned_copy(np.ascontiguousarray(array.transpose(0, 3, 1, 2)))


def _result(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    return aligned_copy(np.zeros(shape, dtype))


def _node(kind: str, inputs: Sequence[str], domain: str = "", **attributes: Any) -> Any:
    from onnx import helper

    return helper.make_node(kind, inputs, ["y"], domain=domain, **attributes)


def _bound(
    node: Any, x: np.ndarray, y: np.ndarray, constants: dict[str, np.ndarray], threads: int
) -> Callable[[], None]:
    """A call that runs a model of one node from x to y, both used in place."""
    return _call_of(_session(node, x, y, constants, threads), {"x": x}, {"y": y})


def _call_of(
    session: Any, inputs: dict[str, np.ndarray], outputs: dict[str, np.ndarray]
) -> Callable[[], None]:
    """A call of a session on arrays that are used in place."""
    import onnxruntime

    binding = session.io_binding()
    for bind, arrays in ((binding.bind_input, inputs), (binding.bind_output, outputs)):
        for name, array in arrays.items():
            bind(name, "cpu", 0, array.dtype, list(array.shape), array.ctypes.data)
    options, kept = onnxruntime.RunOptions(), (inputs, outputs, session, binding)
    # What the public methods of both call in the end: they take a microsecond more, and with
    # options a hundred.
    run, bound = session._sess.run_with_iobinding, binding._iobinding

    def call(run=run, bound=bound, options=options, kept=kept) -> None:
        run(bound, options)

    return call


def _session(
    node: Any, x: np.ndarray, y: np.ndarray, constants: dict[str, np.ndarray], threads: int
) -> Any:
    from onnx import helper, numpy_helper

    def value(name: str, array: np.ndarray) -> Any:
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        return helper.make_tensor_value_info(name, kind, list(array.shape))

    tensors = [numpy_helper.from_array(np.asarray(a), name) for name, a in constants.items()]
    graph = helper.make_graph([node], "operator", [value("x", x)], [value("y", y)], tensors)
    opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(_CONTRIB, 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)
    return _session_of(model.SerializeToString(), threads)


def _session_of(model: str | bytes, threads: int) -> Any:
    """A session of a model, or of a file."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 4
    providers = ["CPUExecutionProvider"]
    return onnxruntime.InferenceSession(model, options, providers=providers)
