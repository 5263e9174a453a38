"""ExecuTorch: its XNNPACK, a newer one than LiteRT's, called through XNNPACK's own C interface.

One operator is one subgraph (include/xnnpack.h of github.com/google/XNNPACK): int8 activations and
result, or float ones that it quantizes per row. The executor around it, which allocates a result
and copies tensors at each call, is left out.
"""

import ctypes
import importlib.metadata
import math
import weakref
from collections.abc import Callable, Sequence
from ctypes import POINTER, byref, c_float, c_int, c_int32, c_size_t, c_uint32, c_void_p
from functools import cache, partial
from typing import Any

import numpy as np

from lpgen.bench.case import Case, Contender, Unsupported
from lpgen.bench.grouped import GroupedCase
from lpgen.bench.peers import Variants
from lpgen.bench.peers._foreign import folder, load
from lpgen.ops.parameter import nearest_bfloat16
from lpgen.runtime.memory import aligned_copy

_FP32, _QINT8, _QCINT8, _QCINT32, _QCINT4, _QDINT8, _QBINT4, _QCINT2 = 1, 3, 6, 7, 8, 9, 12, 18
"""enum xnn_datatype: float; int8; constants with a scale per channel; activations quantized per
row; weights with a scale per block"""
_WEIGHTS = {2: _QCINT2, 4: _QCINT4, 8: _QCINT8}
_INPUT, _OUTPUT = 1, 2
"""Flags of values that are external, and their numbers less 1."""
_NONE = 0xFFFFFFFF
_BLOCK = 32
"""Weights with one scale come in multiples of as many."""
_EXTRA_BYTES = 64
"""XNNPACK reads a few bytes beyond the end of an array."""

_IDS = [c_uint32, c_uint32, POINTER(c_uint32)]
_VALUE = [c_void_p, c_int]
_SHAPE = [c_size_t, POINTER(c_size_t), c_void_p]
_CHANNELS = [c_size_t, c_size_t, POINTER(c_size_t), c_void_p]
_NODE = [c_float, c_float, c_uint32, c_uint32, c_uint32, c_uint32, c_uint32]
_FUNCTIONS = {
    "xnn_initialize": [c_void_p],
    "xnn_create_subgraph": [c_uint32, c_uint32, POINTER(c_void_p)],
    "xnn_define_tensor_value": [*_VALUE, *_SHAPE, *_IDS],
    "xnn_define_quantized_tensor_value": [*_VALUE, c_int32, c_float, *_SHAPE, *_IDS],
    "xnn_define_channelwise_quantized_tensor_value_v2": [
        *_VALUE,
        c_int32,
        c_void_p,
        *_CHANNELS,
        *_IDS,
    ],
    "xnn_define_blockwise_quantized_tensor_value": [
        *_VALUE,
        c_int32,
        c_void_p,
        c_size_t,
        c_size_t,
        c_size_t,
        *_SHAPE[1:],
        *_IDS,
    ],
    "xnn_define_dynamically_quantized_tensor_value": [
        *_VALUE,
        c_size_t,
        c_size_t,
        POINTER(c_size_t),
        *_IDS,
    ],
    "xnn_define_convert": [c_void_p, c_uint32, c_uint32, c_uint32],
    "xnn_define_fully_connected": [c_void_p, *_NODE],
    "xnn_define_convolution_2d": [c_void_p, *[c_uint32] * 11, c_size_t, c_size_t, *_NODE],
    "xnn_define_depthwise_convolution_2d": [c_void_p, *[c_uint32] * 11, c_size_t, *_NODE],
    "xnn_create_runtime_v2": [c_void_p, c_void_p, c_uint32, POINTER(c_void_p)],
    "xnn_reshape_runtime": [c_void_p],
    "xnn_setup_runtime_v2": [c_void_p, c_size_t, c_void_p],
    "xnn_invoke_runtime": [c_void_p],
    "xnn_delete_runtime": [c_void_p],
    "xnn_delete_subgraph": [c_void_p],
}


class _External(ctypes.Structure):
    _fields_ = (("id", c_uint32), ("data", c_void_p))


def version() -> str:
    """Of the package, whose XNNPACK is loaded as well."""
    _library()
    return importlib.metadata.version("executorch")


@cache
def _library() -> ctypes.CDLL:
    path = folder("executorch") / "lib" / "libexecutorch_backend_xnnpack.so"
    library = load(path, {name: (c_int, types) for name, types in _FUNCTIONS.items()})
    if library.xnn_initialize(None) != 0:
        raise ImportError("XNNPACK does not run on this CPU")
    return library


@cache
def _pool(threads: int) -> int | None:
    """A pool of so many threads; one thread is the caller's."""
    if threads == 1:
        return None
    path = folder("executorch") / "lib" / "libexecutorch_threadpool.so"
    return load(path, {"pthreadpool_create": (c_void_p, [c_size_t])}).pthreadpool_create(threads)


def variants(case: Case, threads: int) -> Variants:
    op = case.op
    if op.kind == "conv2d":
        return {"convolution": partial(_quantized, case, threads, 8)}
    if op.kind != "dense":
        raise Unsupported(f"no operator for {op.kind}")
    if op.group_size:
        return {"dynamic x int4 in blocks": partial(_groups, case, threads)}
    ways: Variants = {}
    for bits in case.widths(*_WEIGHTS):
        ways[f"int8 x int{bits}"] = partial(_quantized, case, threads, bits)
        ways[f"dynamic x int{bits}"] = partial(_dynamic, case, threads, bits)
    return ways


def _quantized(case: Case, threads: int, bits: int) -> Contender:
    """int8 activations in and out; the result's codes are the uint8 ones less 128."""
    graph, (x, zero) = _Subgraph(), case.shifted_input(np.int8)
    source = graph.quantized(x.shape, zero, case.x_scale, _INPUT)
    result = graph.quantized(case.op.y_shape, case.y_zero - 128, case.y_scale, _OUTPUT)
    bias = _NONE
    if case.bias is not None:
        scale = (np.float32(case.x_scale) * case.w_scale).astype(np.float32)
        bias = graph.constant(_QCINT32, 0, case.bias.shape, case.bias, scale, 0)
    _operator(graph, case, source, bias, result, bits)
    y = _with_room(np.zeros(case.op.y_shape, np.int8))
    call = graph.call(x, y, threads)
    return Contender(call, lambda: y.astype(np.int16) + 128, "u8", f"int{bits}")


def _dynamic(case: Case, threads: int, bits: int) -> Contender:
    """Float activations and result."""
    return _floats(case, threads, f"int{bits}", lambda graph: _weights(graph, case, bits))


def _groups(case: GroupedCase, threads: int) -> Contender:
    """The same with scales of groups in bfloat16."""
    group, middle = case.op.group_size, 8
    codes, zeros = case.codes(4)
    if np.any(zeros != middle):
        raise Unsupported("weights in blocks have no zero points")
    if group % _BLOCK or case.op.k % group:
        raise Unsupported(f"blocks are multiples of {_BLOCK} that divide k, not {group}")
    scale = nearest_bfloat16(case.w_scale).view(np.uint32) >> 16
    nibbles, scale = _packed(codes, 4), scale.astype(np.uint16)
    return _floats(
        case,
        threads,
        "int4",
        lambda graph: graph.blocks(codes.shape, middle, nibbles, scale, group),
    )


def _floats(
    case: Case, threads: int, weight: str, weights: Callable[["_Subgraph"], int]
) -> Contender:
    """A fully connected operator from float to float, its input quantized per row between."""
    graph, x = _Subgraph(), case.real_input()
    source = graph.floats(x.shape, _INPUT)
    result = graph.floats(case.op.y_shape, _OUTPUT)
    codes = graph.rows(x.shape)
    graph.define("convert", source, codes, 0)
    bias = _NONE if case.bias is None else graph.floats((case.op.n,), 0, case.real_bias)
    w = weights(graph)
    graph.define("fully_connected", -math.inf, math.inf, codes, w, bias, result, 0)
    y = _with_room(np.zeros(case.op.y_shape, np.float32))
    return Contender(graph.call(x, y, threads), lambda: y, "f32", weight)


def _operator(
    graph: "_Subgraph", case: Case, source: int, bias: int, result: int, bits: int
) -> None:
    """The operator of `case` between two values of int8."""
    op = case.op
    ends = -math.inf, math.inf, source, _weights(graph, case, bits), bias, result, 0
    if op.kind == "dense":
        graph.define("fully_connected", *ends)
        return
    top, left, bottom, right = op.pad
    places = top, right, bottom, left, *op.kernel, *op.stride, *op.dilation
    if op.depthwise:
        graph.define("depthwise_convolution_2d", *places, op.oc // op.ic, op.ic, *ends)
    else:
        channels = op.ic // op.groups, op.oc // op.groups
        graph.define("convolution_2d", *places, op.groups, *channels, *ends)


def _weights(graph: "_Subgraph", case: Case, bits: int) -> int:
    """Constants with a scale per output channel, OHWI or [1, kh, kw, oc] of depthwise ones."""
    w, axis = case.signed_weights(), 0
    if case.op.kind == "conv2d" and case.op.depthwise:
        w, axis = np.ascontiguousarray(w.transpose(3, 1, 2, 0)), 3
    data = w if bits == 8 else _packed(w.view(np.uint8) & (1 << bits) - 1, bits)
    return graph.constant(_WEIGHTS[bits], 0, w.shape, data, case.w_scale, axis)


class _Subgraph:
    """A graph from one external value to another, which grows by values and operators."""

    def __init__(self) -> None:
        self._handle = c_void_p()
        self._kept: list[Any] = []
        lib = _library()
        _done("subgraph", lib.xnn_create_subgraph(2, 0, byref(self._handle)))
        weakref.finalize(self, lib.xnn_delete_subgraph, self._handle)

    def define(self, kind: str, *arguments: Any) -> None:
        """One node or value. Raises Unsupported where XNNPACK does not have it."""
        function = getattr(_library(), f"xnn_define_{kind}")
        _done(kind, function(self._handle, *arguments))

    def quantized(self, shape: Sequence[int], zero: int, scale: float, flag: int) -> int:
        """An external value of int8."""
        return self._value("quantized_tensor_value", flag, _QINT8, zero, scale, *_dims(shape), None)

    def floats(self, shape: Sequence[int], flag: int, data: np.ndarray | None = None) -> int:
        """Float values: external ones, or constants."""
        address = None if data is None else self._address(data)
        return self._value("tensor_value", flag, _FP32, *_dims(shape), address)

    def rows(self, shape: Sequence[int]) -> int:
        """Values that are quantized per row at each call."""
        rank, sizes = _dims(shape)
        return self._value("dynamically_quantized_tensor_value", 0, _QDINT8, rank, 1, sizes)

    def constant(
        self,
        kind: int,
        zero: int,
        shape: Sequence[int],
        data: np.ndarray,
        scale: np.ndarray,
        axis: int,
    ) -> int:
        """Constants with a scale for each place on `axis`."""
        rank, sizes = _dims(shape)
        scales, address = self._address(scale), self._address(data)
        name = "channelwise_quantized_tensor_value_v2"
        return self._value(name, 0, kind, zero, scales, rank, axis, sizes, address)

    def blocks(
        self, shape: Sequence[int], zero: int, data: np.ndarray, scale: np.ndarray, block: int
    ) -> int:
        """Weights of 4 bits with a scale in bfloat16 for each block of each row."""
        rank, sizes = _dims(shape)
        scales, address = self._address(scale), self._address(data)
        name = "blockwise_quantized_tensor_value"
        return self._value(name, 0, _QBINT4, zero, scales, rank, 0, block, sizes, address)

    def call(self, x: np.ndarray, y: np.ndarray, threads: int) -> Callable[[], None]:
        """What computes y from x, both used in place."""
        lib, runtime = _library(), c_void_p()
        pool = _pool(threads)
        _done("runtime", lib.xnn_create_runtime_v2(self._handle, pool, 0, byref(runtime)))
        weakref.finalize(self, lib.xnn_delete_runtime, runtime)
        _done("shapes", lib.xnn_reshape_runtime(runtime))
        x = _with_room(x)
        ends = (_External * 2)((_INPUT - 1, x.ctypes.data), (_OUTPUT - 1, y.ctypes.data))
        _done("setup", lib.xnn_setup_runtime_v2(runtime, len(ends), ends))
        run = lib.xnn_invoke_runtime

        def call(kept=(x, y, ends, self)) -> None:
            if run(runtime) != 0:
                raise RuntimeError("XNNPACK did not run")

        return call

    def _value(self, kind: str, flag: int, *arguments: Any) -> int:
        number = c_uint32()
        self.define(kind, *arguments, flag - 1 if flag else _NONE, flag, byref(number))
        return number.value

    def _address(self, data: np.ndarray) -> int:
        kept = _with_room(data)
        self._kept.append(kept)
        return kept.ctypes.data


def _dims(shape: Sequence[int]) -> tuple[int, Any]:
    return len(shape), (c_size_t * len(shape))(*shape)


def _with_room(data: np.ndarray) -> np.ndarray:
    """An aligned copy with readable memory behind it."""
    room = aligned_copy(np.zeros(data.nbytes + _EXTRA_BYTES, np.uint8))
    view = room[: data.nbytes].view(data.dtype).reshape(data.shape)
    view[:] = data
    return view


def _packed(codes: np.ndarray, bits: int) -> np.ndarray:
    """Codes [n, k] in bytes, the first one in the lowest bits."""
    fields = 8 // bits
    if codes.shape[1] % fields:
        raise Unsupported(f"rows of {bits}-bit weights fill whole bytes, not {codes.shape[1]}")
    parts = codes.reshape(len(codes), -1, fields) << np.arange(0, 8, bits, dtype=np.uint8)
    return np.bitwise_or.reduce(parts, axis=2).astype(np.uint8)


def _done(what: str, status: int) -> None:
    if status != 0:
        raise Unsupported(f"XNNPACK refuses the {what.replace('_', ' ')} (status {status})")
