"""MatMulNBits of com.microsoft: weights of few bits with a scale for each block along k."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lpgen.errors import OnnxError
from lpgen.formats import Format
from lpgen.onnx import checks
from lpgen.onnx.rules import products
from lpgen.onnx.rules.attributes import attributes
from lpgen.onnx.rules.structure import known
from lpgen.onnx.values import Blocks, Constant, Value

if TYPE_CHECKING:
    import onnx

    from lpgen.onnx.lowering import Lowering


def few_bits(lowering: Lowering, node: onnx.NodeProto) -> Sequence[Value]:
    """MatMulNBits: codes [n, blocks, bytes], packed along k from the lowest bits on."""
    given = lowering.inputs(node) + [None] * 6
    asked = attributes(
        node, K=None, N=None, bits=4, block_size=None, accuracy_level=0, weight_prepacked=0
    )
    n, k, bits, block = (asked[name] for name in ("N", "K", "bits", "block_size"))
    names = ("B", "scales", "zero_points", "g_idx", "bias")
    b, scale, zero, order, _ = (known(lowering, node, i, name) for i, name in enumerate(names, 1))
    if not all((n, k, block)) or bits not in (2, 4, 8) or order is not None:
        raise OnnxError(f"bits={bits} with N, K and block_size, and no g_idx, is what lpgen has")
    if asked["weight_prepacked"]:
        raise OnnxError("weight_prepacked is not served")
    blocks = -(-k // block)
    checks.check_type("B", b, "uint8")
    if b.size * 8 != n * blocks * block * bits:
        raise OnnxError(f"B has shape {b.shape}, expected {n} rows of {blocks} blocks")
    codes = _unpacked(b.reshape(n, -1), bits)[:, :k]
    scales = checks.real("scales", scale).reshape(n, blocks)
    zeros = np.full((n, blocks), 1 << bits - 1, np.int32)
    if zero is not None:
        if zero.dtype != np.uint8:
            raise OnnxError(f"zero_points have type {zero.dtype}, lpgen has uint8")
        zeros = _unpacked(zero.reshape(n, -1), bits)[:, :blocks].astype(np.int32)
    by, less = (np.repeat(v, block, axis=1)[:, :k] for v in (scales, zeros.astype(np.float32)))
    real = (codes.astype(np.float32) - less) * by
    coded = Blocks(codes, scales, block, Format("u", bits), 0).less(zeros)
    return [products.of_matrix(lowering, given[0], Constant(real.T, blocks=coded), given[5], node)]


def _unpacked(rows: np.ndarray, bits: int) -> np.ndarray:
    """Bytes [n, ...] as codes of so many bits, the lowest first."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    codes = rows[:, :, None] >> shifts & ((1 << bits) - 1)
    return codes.reshape(len(rows), -1).astype(np.uint8)


RULES = {"com.microsoft.MatMulNBits": few_bits}
