"""XNNPACK through its own C interface (include/xnnpack.h of github.com/google/XNNPACK), out of the
library that comes with ExecuTorch."""

import ctypes
import weakref
from collections.abc import Callable, Sequence
from ctypes import POINTER, byref, c_float, c_int, c_int32, c_size_t, c_uint32, c_void_p
from functools import cache
from typing import Any

import numpy as np

from lpgen.bench.case import Unsupported
from lpgen.bench.peers._foreign import folder, load
from lpgen.runtime.memory import aligned_copy

QCINT8, QCINT32, QCINT4, QCINT2 = 6, 7, 8, 18
"""Of enum xnn_datatype: constants with a scale per channel."""

_FP32, _QINT8, _QDINT8, _QBINT4 = 1, 3, 9, 12
"""Float; int8; activations quantized per row; weights with a scale per block."""

INPUT, OUTPUT = 1, 2
"""Flags of values that are external, and their numbers less 1."""

NONE = 0xFFFFFFFF
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


@cache
def library() -> ctypes.CDLL:
    """XNNPACK, ready for use. Raises ImportError where it is not, or does not run."""
    path = folder("executorch") / "lib" / "libexecutorch_backend_xnnpack.so"
    loaded = load(path, {name: (c_int, types) for name, types in _FUNCTIONS.items()})
    if loaded.xnn_initialize(None) != 0:
        raise ImportError("XNNPACK does not run on this CPU")
    return loaded


@cache
def _pool(threads: int) -> int | None:
    """A pool of so many threads; one thread is the caller's."""
    if threads == 1:
        return None
    path = folder("executorch") / "lib" / "libexecutorch_threadpool.so"
    return load(path, {"pthreadpool_create": (c_void_p, [c_size_t])}).pthreadpool_create(threads)


class Subgraph:
    """A graph from one external value to another, which grows by values and operators."""

    def __init__(self) -> None:
        self._handle = c_void_p()
        self._kept: list[Any] = []
        lib = library()
        _done("subgraph", lib.xnn_create_subgraph(2, 0, byref(self._handle)))
        weakref.finalize(self, lib.xnn_delete_subgraph, self._handle)

    def define(self, kind: str, *arguments: Any) -> None:
        """One node or value. Raises Unsupported where XNNPACK does not have it."""
        function = getattr(library(), f"xnn_define_{kind}")
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
        lib, runtime = library(), c_void_p()
        pool = _pool(threads)
        _done("runtime", lib.xnn_create_runtime_v2(self._handle, pool, 0, byref(runtime)))
        weakref.finalize(self, lib.xnn_delete_runtime, runtime)
        _done("shapes", lib.xnn_reshape_runtime(runtime))
        x = with_room(x)
        ends = (_External * 2)((INPUT - 1, x.ctypes.data), (OUTPUT - 1, y.ctypes.data))
        _done("setup", lib.xnn_setup_runtime_v2(runtime, len(ends), ends))
        run = lib.xnn_invoke_runtime

        def call(kept=(x, y, ends, self)) -> None:
            if run(runtime) != 0:
                raise RuntimeError("XNNPACK did not run")

        return call

    def _value(self, kind: str, flag: int, *arguments: Any) -> int:
        number = c_uint32()
        self.define(kind, *arguments, flag - 1 if flag else NONE, flag, byref(number))
        return number.value

    def _address(self, data: np.ndarray) -> int:
        kept = with_room(data)
        self._kept.append(kept)
        return kept.ctypes.data


def _dims(shape: Sequence[int]) -> tuple[int, Any]:
    return len(shape), (c_size_t * len(shape))(*shape)


def with_room(data: np.ndarray) -> np.ndarray:
    """An aligned copy with readable memory behind it."""
    room = aligned_copy(np.zeros(data.nbytes + _EXTRA_BYTES, np.uint8))
    view = room[: data.nbytes].view(data.dtype).reshape(data.shape)
    view[:] = data
    return view


def _done(what: str, status: int) -> None:
    if status != 0:
        raise Unsupported(f"XNNPACK refuses the {what.replace('_', ' ')} (status {status})")
