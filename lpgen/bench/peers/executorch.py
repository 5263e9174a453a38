"""ExecuTorch: its XNNPACK, a newer one than LiteRT's, called through XNNPACK's own C interface.

One operator is one subgraph: int8 activations and result, or float ones that it quantizes per row.
The executor around it, which allocates a result and copies tensors at each call, is left out.
"""

import importlib.metadata
import math
from collections.abc import Callable
from functools import partial

import numpy as np

from lpgen.bench.case import Case, Contender, Unsupported
from lpgen.bench.grouped import GroupedCase
from lpgen.bench.peers import Variants
from lpgen.bench.peers._xnnpack import (
    INPUT,
    NONE,
    OUTPUT,
    QCINT2,
    QCINT4,
    QCINT8,
    QCINT32,
    Subgraph,
    library,
    with_room,
)
from lpgen.ops.parameter import nearest_bfloat16

_WEIGHTS = {2: QCINT2, 4: QCINT4, 8: QCINT8}
_BLOCK = 32
"""Weights with one scale come in multiples of as many."""


def version() -> str:
    """Of the package, whose XNNPACK is loaded as well."""
    library()
    return importlib.metadata.version("executorch")


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
    graph, (x, zero) = Subgraph(), case.shifted_input(np.int8)
    source = graph.quantized(x.shape, zero, case.x_scale, INPUT)
    result = graph.quantized(case.op.y_shape, case.y_zero - 128, case.y_scale, OUTPUT)
    bias = NONE
    if case.bias is not None:
        scale = (np.float32(case.x_scale) * case.w_scale).astype(np.float32)
        bias = graph.constant(QCINT32, 0, case.bias.shape, case.bias, scale, 0)
    _operator(graph, case, source, bias, result, bits)
    y = with_room(np.zeros(case.op.y_shape, np.int8))
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


def _floats(case: Case, threads: int, weight: str, weights: Callable[[Subgraph], int]) -> Contender:
    """A fully connected operator from float to float, its input quantized per row between."""
    graph, x = Subgraph(), case.real_input()
    source = graph.floats(x.shape, INPUT)
    result = graph.floats(case.op.y_shape, OUTPUT)
    codes = graph.rows(x.shape)
    graph.define("convert", source, codes, 0)
    bias = NONE if case.bias is None else graph.floats((case.op.n,), 0, case.real_bias)
    w = weights(graph)
    graph.define("fully_connected", -math.inf, math.inf, codes, w, bias, result, 0)
    y = with_room(np.zeros(case.op.y_shape, np.float32))
    return Contender(graph.call(x, y, threads), lambda: y, "f32", weight)


def _operator(graph: Subgraph, case: Case, source: int, bias: int, result: int, bits: int) -> None:
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


def _weights(graph: Subgraph, case: Case, bits: int) -> int:
    """Constants with a scale per output channel, OHWI or [1, kh, kw, oc] of depthwise ones."""
    w, axis = case.signed_weights(), 0
    if case.op.kind == "conv2d" and case.op.depthwise:
        w, axis = np.ascontiguousarray(w.transpose(3, 1, 2, 0)), 3
    data = w if bits == 8 else _packed(w.view(np.uint8) & (1 << bits) - 1, bits)
    return graph.constant(_WEIGHTS[bits], 0, w.shape, data, case.w_scale, axis)


def _packed(codes: np.ndarray, bits: int) -> np.ndarray:
    """Codes [n, k] in bytes, the first one in the lowest bits."""
    fields = 8 // bits
    if codes.shape[1] % fields:
        raise Unsupported(f"rows of {bits}-bit weights fill whole bytes, not {codes.shape[1]}")
    parts = codes.reshape(len(codes), -1, fields) << np.arange(0, 8, bits, dtype=np.uint8)
    return np.bitwise_or.reduce(parts, axis=2).astype(np.uint8)
