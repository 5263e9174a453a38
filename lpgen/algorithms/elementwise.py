"""Quantizing and dequantizing: every element for itself, with its scale and zero point.

The tensor [outer, axis, inner] is seen as rows x columns so that along a row the scales are one
number or neighbours in memory, wherever that can be; the columns of a row become lanes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from tvm import te, tirx

from lpgen.algorithms.definition import Definition
from lpgen.algorithms.sections import (
    Section,
    Sectioned,
    joined_packers,
    pack_entry,
    placeholders,
)
from lpgen.ops.elementwise import QUANTIZE_LIMIT, Elementwise

if TYPE_CHECKING:
    from tvm import IRModule

# x + 1.5 * 2^23 is rounded to an integer, half to even, in the lowest bits of its float32.
_ROUNDING = 1.5 * 2**23
_ROUNDING_BITS = 0x4B400000


@dataclass(frozen=True)
class Scales(Sectioned):
    """Zero points as int32 and scales as float32, each in one array in the operator's order."""

    op: Elementwise

    @cached_property
    def sections(self) -> list[Section]:
        """Parts of the packed bytes, in order."""
        count = int(np.prod(self.op.w_shape))
        return [Section("zero", (count,), "int32"), Section("scale", (count,), "float32")]

    def pack(self, w: np.ndarray, **parameters: np.ndarray) -> np.ndarray:
        """The packed bytes of zero points `w` and the scales."""
        return self.bytes_of((w, self.op.legal_parameters(parameters)["scale"]))

    def te_module(self) -> IRModule:
        """The packer as TIR: "main"(weights, scale, packed)."""
        zeros, scales = self.sections
        w = te.placeholder(zeros.shape, self.op.format.dtype, name="w")
        zero = te.compute(zeros.shape, lambda i: w[i].astype("int32"), name="zero")
        first = pack_entry(w, [zero], [zeros], self.op.w_shape, self.op.format.dtype)
        given = te.placeholder(scales.shape, "float32", name="scale_in")
        scale = te.compute(scales.shape, lambda i: given[i], name="scale")
        own = te.create_prim_func([w, given, scale])
        return joined_packers(self.op, first["main"], own, self.sections)


@dataclass(frozen=True)
class View:
    """The tensor as rows x columns; scale_at(row, column): the place of an element's scale."""

    rows: int
    columns: int
    scale_at: Callable[[tirx.Expr, tirx.Expr], tirx.Expr]

    @classmethod
    def of(cls, op: Elementwise) -> View:
        """The view of `op` with the longest rows."""
        outer, axis, inner = op.x_shape
        blocks, block = op.blocks, op.block
        if op.per == "tensor":
            return cls(1, outer * axis * inner, lambda r, c: 0)
        if op.per == "axis" and inner == 1:
            return cls(outer, axis, lambda r, c: c)
        if op.per == "axis":
            return cls(outer * axis, inner, lambda r, c: r % axis)
        if inner == 1 and axis % block == 0:
            return cls(outer * blocks, block, lambda r, c: r)
        if inner == 1:
            return cls(outer, axis, lambda r, c: r * blocks + c // block)
        return cls(
            outer * axis,
            inner,
            lambda r, c: (r // axis * blocks + r % axis // block) * inner + c,
        )


def define(op: Elementwise) -> Definition[View, Scales]:
    """The tensor expression of `op`, one stage y."""
    view, layout = View.of(op), Scales(op)
    x = te.placeholder((view.rows, view.columns), op.act.dtype, name="x")
    zeros, scales = placeholders(layout.sections)

    def element(r, c):
        at = view.scale_at(r, c)
        if op.kind == "quantize":
            return _quantized(op, x[r, c], zeros[at], scales[at])
        return (x[r, c].astype("int32") - zeros[at]).astype("float32") * scales[at]

    y = te.compute((view.rows, view.columns), element, name="y")
    return Definition(op, view, layout, layout, [x, zeros, scales, y], [])


def _quantized(op: Elementwise, x: tirx.Expr, zero: tirx.Expr, scale: tirx.Expr) -> tirx.Expr:
    limit = tirx.const(QUANTIZE_LIMIT, "float32")
    v = te.min(te.max(x / scale, -limit), limit)  # NaN is not above -limit
    v = tirx.reinterpret("int32", v + tirx.const(_ROUNDING, "float32"))
    v = v - tirx.const(_ROUNDING_BITS, "int32") + zero
    low, high = (tirx.const(bound, "int32") for bound in (op.format.min, op.format.max))
    return te.max(te.min(v, high), low).astype(op.y_dtype)
