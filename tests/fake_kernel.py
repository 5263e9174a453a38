"""A dense kernel small enough to read, with every kind of scratch memory, for tests."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm import IRModule, te
from tvm.s_tir import Schedule

from lpgen.algorithms.kernel import Kernel
from lpgen.ops import Dense


@dataclass(frozen=True)
class IdentityLayout:
    """Packed weights are the bytes of the values, [n, k]."""

    op: Dense

    @property
    def nbytes(self) -> int:
        return self.op.n * self.op.k

    def pack(self, w: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(w, self.op.weight.dtype).view(np.uint8).ravel()

    def te_module(self) -> IRModule:
        op = self.op
        w = te.placeholder(op.w_shape, op.weight.dtype, name="w")
        packed = te.compute(
            (self.nbytes,), lambda i: w[i // op.k, i % op.k].astype("uint8"), name="packed"
        )
        return IRModule({"main": te.create_prim_func([w, packed])})


def fake_kernel(op: Dense, serial: bool = False, parallel: bool = False) -> Kernel:
    """y = x W^T through a widened copy of x, int32[m, k], and of the weights, int32[k].

    serial: the copy of x is made before the loop over columns, and is the serial workspace;
    parallel: the columns run in parallel, each with its own copy of a row of the weights.
    The copies are on the stack or in the workspace depending on their size.
    """
    x = te.placeholder(op.x_shape, op.act.dtype, name="x")
    packed = te.placeholder((op.n * op.k,), "uint8", name="packed")
    row = te.compute(
        (op.n, op.k),
        lambda n, k: packed[n * op.k + k].astype(op.weight.dtype).astype("int32"),
        name="row",
    )
    left = te.compute(op.x_shape, lambda m, k: x[m, k].astype("int32"), name="left")
    k = te.reduce_axis((0, op.k), name="k")
    source = left if serial else x
    tile = te.compute(
        (op.n, op.m),
        lambda n, m: te.sum(source[m, k].astype("int32") * row[n, k], axis=k),
        name="tile",
    )
    y = te.compute(op.y_shape, lambda m, n: tile[n, m], name="y")
    parameters = [x, packed, y]
    sch = Schedule(IRModule({"main": te.create_prim_func(parameters)}))
    columns = sch.get_loops("tile")[0]
    sch.compute_at("row", columns)
    sch.reverse_compute_at("y", columns)
    if parallel:
        sch.parallel(columns)
    return Kernel(op, sch.mod, IdentityLayout(op))


def unaligned(shape: tuple[int, ...], dtype: str, offset: int) -> np.ndarray:
    """A dense array of zeros that starts `offset` bytes after a 64-byte boundary."""
    nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.zeros(nbytes + 128, np.uint8)
    start = -raw.ctypes.data % 64 + offset
    return raw[start : start + nbytes].view(dtype).reshape(shape)
