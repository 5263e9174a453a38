"""A dense kernel small enough to read, with every kind of scratch memory, for tests."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm import IRModule, te, tirx
from tvm.s_tir import Schedule

from lpgen.algorithms.kernel import Kernel
from lpgen.ops import Dense


@dataclass(frozen=True)
class IdentityLayout:
    """Packed weights are the bytes of the values, [n, k], and `padding` zeros behind them."""

    op: Dense
    padding: int = 0

    @property
    def nbytes(self) -> int:
        return self.op.n * self.op.k + self.padding

    def pack(self, w: np.ndarray) -> np.ndarray:
        values = np.ascontiguousarray(w, self.op.weight.dtype).view(np.uint8).ravel()
        return np.pad(values, (0, self.padding))

    def te_module(self) -> IRModule:
        op = self.op
        w = te.placeholder(op.w_shape, op.weight.dtype, name="w")
        count = op.n * op.k

        def byte(i):
            return te.if_then_else(i < count, w[i // op.k, i % op.k].astype("uint8"), zero)

        zero = tirx.const(0, "uint8")
        packed = te.compute((self.nbytes,), byte, name="packed")
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
