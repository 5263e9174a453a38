"""llama.cpp: one multiplication of matrices on ggml's CPU backend, from llama-cpp-python.

ggml keeps weights in blocks that share scales (ggml/src/ggml-common.h): Q8_0, Q4_0 and Q4_1 in
blocks of 32, TQ2_0 (-1, 0, 1) of 256. They lie in the backend's repacking buffer where it has one
for their type. Activations are float, and ggml quantizes them to int8 in blocks itself.
"""

import ctypes
import importlib.metadata
import weakref
from collections.abc import Callable
from ctypes import c_char_p, c_int, c_int64, c_size_t, c_void_p
from functools import cache, partial
from itertools import count, takewhile

import numpy as np

from lpgen.bench.case import Case, Contender, Unsupported
from lpgen.bench.grouped import GroupedCase
from lpgen.bench.peers import Variants
from lpgen.bench.peers._foreign import folder, load

_TYPES = {"F32": 0, "Q4_0": 2, "Q4_1": 3, "Q8_0": 8, "TQ2_0": 35}
"""enum ggml_type"""
_BLOCKS = {"Q4_0": 32, "Q4_1": 32, "Q8_0": 32, "TQ2_0": 256}
_OBJECTS = 1 << 20
"""Bytes for the descriptions of tensors and of the graph, which need a tenth of it."""


class _InitParams(ctypes.Structure):
    _fields_ = (("mem_size", c_size_t), ("mem_buffer", c_void_p), ("no_alloc", ctypes.c_bool))


_LOG = ctypes.CFUNCTYPE(None, c_int, c_char_p, c_void_p)
_SILENT = _LOG(lambda level, text, data: None)
"""Instead of a line on stderr for each weight that is repacked."""
_FUNCTIONS = {
    "ggml_log_set": (None, [_LOG, c_void_p]),
    "ggml_init": (c_void_p, [_InitParams]),
    "ggml_new_tensor_2d": (c_void_p, [c_void_p, c_int, c_int64, c_int64]),
    "ggml_mul_mat": (c_void_p, [c_void_p] * 3),
    "ggml_add": (c_void_p, [c_void_p] * 3),
    "ggml_new_graph": (c_void_p, [c_void_p]),
    "ggml_build_forward_expand": (None, [c_void_p] * 2),
    "ggml_free": (None, [c_void_p]),
    "ggml_get_data": (c_void_p, [c_void_p]),
    "ggml_nbytes": (c_size_t, [c_void_p]),
    "ggml_backend_cpu_init": (c_void_p, []),
    "ggml_backend_free": (None, [c_void_p]),
    "ggml_backend_buffer_free": (None, [c_void_p]),
    "ggml_backend_cpu_set_n_threads": (None, [c_void_p, c_int]),
    "ggml_backend_cpu_reg": (c_void_p, []),
    "ggml_backend_reg_dev_get": (c_void_p, [c_void_p, c_size_t]),
    "ggml_backend_reg_get_proc_address": (c_void_p, [c_void_p, c_char_p]),
    "ggml_backend_dev_supports_op": (ctypes.c_bool, [c_void_p] * 2),
    "ggml_backend_cpu_buffer_type": (c_void_p, []),
    "ggml_backend_buft_get_alloc_size": (c_size_t, [c_void_p] * 2),
    "ggml_backend_buft_alloc_buffer": (c_void_p, [c_void_p, c_size_t]),
    "ggml_backend_buffer_get_base": (c_void_p, [c_void_p]),
    "ggml_backend_tensor_alloc": (c_int, [c_void_p] * 3),
    "ggml_backend_tensor_set": (None, [c_void_p, c_void_p, c_size_t, c_size_t]),
    "ggml_backend_graph_compute": (c_int, [c_void_p] * 2),
}


def version() -> str:
    """Of llama-cpp-python, whose library is loaded as well."""
    _library()
    return importlib.metadata.version("llama-cpp-python")


@cache
def _library() -> ctypes.CDLL:
    # Not llama_cpp itself: that loads the whole of llama.cpp, of which ggml is the lowest part.
    library = load(folder("llama_cpp") / "lib" / "libggml.so", _FUNCTIONS)
    library.ggml_log_set(_SILENT, None)
    return library


def variants(case: Case, threads: int) -> Variants:
    op = case.op
    if op.kind != "dense":
        raise Unsupported(f"no operator for {op.kind}")
    if op.group_size:
        return {f"mul_mat {op.weight.bits} bits": partial(_groups, case, threads)}
    types = {2: "TQ2_0", 4: "Q4_0", 8: "Q8_0"}
    return {
        f"mul_mat {types[bits]}": partial(_channels, case, threads, types[bits], bits)
        for bits in case.widths(*types)
    }


def _channels(case: Case, threads: int, kind: str, bits: int) -> Contender:
    """Weights with one scale per channel, said once for each block."""
    _divisible(case, kind)
    # Unsigned codes of ternary weights begin at -1.
    middle = 1 if bits == 2 else 1 << bits - 1
    scale = np.repeat(case.w_scale[:, None], case.op.k // _BLOCKS[kind], axis=1)
    codes = case.signed_weights().astype(np.int16) + middle
    if codes.min() < 0:
        raise Unsupported(f"{kind} holds -1, 0 and 1")
    return _multiplied(case, threads, kind, codes.astype(np.uint8), scale, None, f"int{bits}")


def _groups(case: GroupedCase, threads: int) -> Contender:
    """The same with scales of groups, and their zero points in blocks that have minima."""
    codes, zeros = case.codes(4, 8)
    bits = case.op.weight.bits
    centred = not np.any(zeros != 1 << bits - 1)
    if bits == 8 and not centred:
        raise Unsupported("Q8_0 has no zero points")
    kind = "Q8_0" if bits == 8 else "Q4_0" if centred else "Q4_1"
    block, group = _BLOCKS[kind], case.op.group_size
    _divisible(case, kind)
    if group % block:
        raise Unsupported(f"{kind} shares a scale among {block} weights, not {group}")
    scale = np.repeat(case.w_scale, group // block, axis=1)
    lows = None if centred else -scale * np.repeat(zeros, group // block, axis=1)
    return _multiplied(case, threads, kind, codes, scale, lows, f"int{bits}")


def _divisible(case: Case, kind: str) -> None:
    if case.op.k % _BLOCKS[kind]:
        raise Unsupported(f"{kind} wants k in whole blocks of {_BLOCKS[kind]}, not {case.op.k}")


def _multiplied(
    case: Case,
    threads: int,
    kind: str,
    codes: np.ndarray,
    scale: np.ndarray,
    lows: np.ndarray | None,
    weight: str,
) -> Contender:
    """The product with codes[n, k] in blocks with scale[n, blocks] and perhaps lows[n, blocks]."""
    lib, op = _library(), case.op
    graph = _Graph(op.k, threads)
    x = graph.tensor("F32", op.k, op.m)
    graph.place(x, case.real_input())
    y = graph.product(kind, _packed(kind, codes, scale, lows), op.n, x)
    if case.bias is not None:
        bias = graph.tensor("F32", op.n, 1)
        graph.place(bias, case.real_bias)
        graph.place(y)
        y = lib.ggml_add(graph.context, y, bias)
    result = graph.place(y)
    call = graph.call(y)

    def fetch(kept=graph) -> np.ndarray:
        return result.reshape(op.y_shape).copy()

    return Contender(call, fetch, "f32", weight)


class _Graph:
    """Tensors of one graph, each in memory of its own, and the backend that computes them."""

    def __init__(self, k: int, threads: int) -> None:
        lib = _library()
        self._k = k
        self.context = lib.ggml_init(_InitParams(_OBJECTS, None, True))
        self._backend = lib.ggml_backend_cpu_init()
        lib.ggml_backend_cpu_set_n_threads(self._backend, threads)
        self._buffers: list[int] = []
        weakref.finalize(self, _freed, self.context, self._backend, self._buffers)

    def tensor(self, kind: str, columns: int, rows: int) -> int:
        return _library().ggml_new_tensor_2d(self.context, _TYPES[kind], columns, rows)

    def product(self, kind: str, data: np.ndarray, n: int, x: int) -> int:
        """x[m, k] times weights of this type, repacked where the backend can do that."""
        lib = _library()
        device = lib.ggml_backend_reg_dev_get(lib.ggml_backend_cpu_reg(), 0)
        for buffers in [*_repacking(device), lib.ggml_backend_cpu_buffer_type()]:
            # A tensor keeps to its first buffer.
            w = self.tensor(kind, self._k, n)
            self._allocate(buffers, w)
            y = lib.ggml_mul_mat(self.context, w, x)
            if lib.ggml_backend_dev_supports_op(device, y):
                lib.ggml_backend_tensor_set(w, data.ctypes.data, 0, data.nbytes)
                return y
        raise Unsupported(f"ggml does not multiply {kind}")

    def place(self, tensor: int, data: np.ndarray | None = None) -> np.ndarray:
        """Plain memory for a float tensor, as float32[size], filled with `data`."""
        lib = _library()
        self._allocate(lib.ggml_backend_cpu_buffer_type(), tensor)
        floats = ctypes.c_float * (lib.ggml_nbytes(tensor) // ctypes.sizeof(ctypes.c_float))
        view = np.ctypeslib.as_array(floats.from_address(lib.ggml_get_data(tensor)))
        if data is not None:
            view[:] = data.reshape(-1)
        return view

    def call(self, result: int) -> Callable[[], None]:
        """What computes `result`."""
        lib = _library()
        graph = lib.ggml_new_graph(self.context)
        lib.ggml_build_forward_expand(graph, result)
        run, backend = lib.ggml_backend_graph_compute, self._backend

        def call(kept=self) -> None:
            if run(backend, graph) != 0:
                raise RuntimeError("ggml did not compute the graph")

        return call

    def _allocate(self, kind: int, tensor: int) -> None:
        """Memory of this type for the tensor."""
        lib = _library()
        size = lib.ggml_backend_buft_get_alloc_size(kind, tensor)
        buffer = lib.ggml_backend_buft_alloc_buffer(kind, size)
        self._buffers.append(buffer)
        lib.ggml_backend_tensor_alloc(buffer, tensor, lib.ggml_backend_buffer_get_base(buffer))


def _repacking(device: int) -> list[int]:
    """The types of buffers in which the CPU backend lays out weights in its own way."""
    lib = _library()
    name = b"ggml_backend_dev_get_extra_bufts"
    address = lib.ggml_backend_reg_get_proc_address(lib.ggml_backend_cpu_reg(), name)
    kinds = ctypes.CFUNCTYPE(ctypes.POINTER(c_void_p), c_void_p)(address)(device)
    return list(takewhile(bool, (kinds[place] for place in count())))


def _freed(context: int, backend: int, buffers: list[int]) -> None:
    lib = _library()
    for buffer in buffers:
        lib.ggml_backend_buffer_free(buffer)
    lib.ggml_backend_free(backend)
    lib.ggml_free(context)


def _packed(kind: str, codes: np.ndarray, scale: np.ndarray, lows: np.ndarray | None) -> np.ndarray:
    """Rows of ggml's blocks, bytes[n, size]: scale and minimum in float16, then the codes."""
    n, blocks = scale.shape
    codes = codes.reshape(n, blocks, _BLOCKS[kind])
    if kind == "Q8_0":
        fields = (codes.astype(np.int16) - 128).astype(np.int8).view(np.uint8)
    elif kind == "TQ2_0":
        # In halves; a byte holds what lies 32 apart.
        parts = codes.reshape(n, blocks, 2, 4, 32)
        fields = _joined(parts, axis=3, bits=2).reshape(n, blocks, -1)
    else:
        fields = _joined(codes.reshape(n, blocks, 2, -1), axis=2, bits=4)
    numbers = [scale] if lows is None else [scale, lows]
    halves = [part.astype(np.float16)[..., None].view(np.uint8) for part in numbers]
    order = [fields, *halves] if kind == "TQ2_0" else [*halves, fields]
    return np.ascontiguousarray(np.concatenate(order, axis=2).reshape(n, -1))


def _joined(codes: np.ndarray, axis: int, bits: int) -> np.ndarray:
    """Bytes whose fields are the codes along an axis, the first one in the lowest bits."""
    shape = [1] * codes.ndim
    shape[axis] = -1
    shifts = np.arange(0, 8, bits, dtype=np.uint8).reshape(shape)
    return np.bitwise_or.reduce(codes << shifts, axis=axis).astype(np.uint8)
