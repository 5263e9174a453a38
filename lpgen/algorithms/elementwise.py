"""Operators on every element for itself.

An operator's definition is one stage y [rows, columns] whose columns become lanes. Rows and columns
are such that along a row the scales are one number or neighbours in memory, wherever that can be.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tvm import te, tirx

from lpgen.algorithms.result.epilogue import product
from lpgen.algorithms.sections import argument_buffer
from lpgen.ops.elementwise import QUANTIZE_LIMIT, Elementwise
from lpgen.tir.vectors import ROUNDING, ROUNDING_BITS
from lpgen.tir.views import wrapped

if TYPE_CHECKING:
    from tvm import IRModule

    from lpgen.formats import Format
    from lpgen.ops import Operator
    from lpgen.ops.add import Add

Tensors = list[te.Tensor]


@dataclass(frozen=True)
class View:
    """The tensor as rows x columns; scale_at(row, column): the place of an element's scale."""

    rows: int
    columns: int
    scale_at: Callable[[tirx.Expr, tirx.Expr], tirx.Expr]

    @classmethod
    def of(cls, op: Elementwise) -> View:
        """The view of `op` with the longest rows."""
        outer, axis, inner = op.extents
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


def _scaled(op: Elementwise, element: Callable[..., tirx.Expr]) -> Tensors:
    """The definition whose elements are element(x, scale, zero)."""
    view = View.of(op)
    x, *scales = _placeholders(op, {"x": (view.rows, view.columns)})

    def value(r, c):
        at = view.scale_at(r, c)
        return element(x[r, c], *(tensor[at] for tensor in scales))

    return [x, *scales, te.compute((view.rows, view.columns), value, name="y")]


def _quantize(op: Elementwise) -> Tensors:
    def element(x, scale, zero):
        return quantized(x / scale, zero.astype("int32"), op.format)

    return _scaled(op, element)


def _dequantize(op: Elementwise) -> Tensors:
    def element(x, scale, zero):
        return (x.astype("int32") - zero.astype("int32")).astype("float32") * scale

    return _scaled(op, element)


def _add(op: Add) -> Tensors:
    a, b, scales, zeros = _placeholders(op, {"a": (op.outer, op.inner)})

    def element(r, c):
        values = enumerate((a[r, c], b[c]))
        real_a, real_b = (
            product((v.astype("int32") - zeros[i]).astype("float32"), scales[i]) for i, v in values
        )
        v = real_a + real_b
        v = te.max(v, tirx.const(0, "float32")) if op.clamp == "relu" else v
        v = v / scales[2]
        if op.rounded == "quotient":
            return quantized(v, zeros[2], op.out)
        return quantized(v + zeros[2].astype("float32"), tirx.const(0, "int32"), op.out)

    return [a, b, scales, zeros, te.compute((op.outer, op.inner), element, name="y")]


def quantized(v: tirx.Expr, zero: tirx.Expr, form: Format) -> tirx.Expr:
    """float32 v rounded half to even, plus the zero point, saturated; the lowest value for NaN."""
    limit = tirx.const(QUANTIZE_LIMIT, "float32")
    v = te.min(te.max(v, -limit), limit)  # NaN is not above -limit
    v = tirx.reinterpret("int32", v + tirx.const(ROUNDING, "float32"))
    v = v - tirx.const(ROUNDING_BITS, "int32") + zero
    low, high = (tirx.const(bound, "int32") for bound in (form.min, form.max))
    return te.max(te.min(v, high), low).astype(form.dtype)


DEFINITIONS: dict[str, Callable[..., Tensors]] = {
    "quantize": _quantize,
    "dequantize": _dequantize,
    "add": _add,
}
"""For each kind of operator what makes its tensors: the arguments of its signature in order, with
any shape of the same size, but the scales with theirs; the last one is the stage y."""


def define(op: Operator) -> Tensors:
    """The tensor expression of `op`."""
    return DEFINITIONS[op.kind](op)


def entry(func: tirx.PrimFunc, op: Operator) -> IRModule:
    """The module with "main" in the operator's signature around `func` of the definition."""
    outer = [argument_buffer(argument) for argument in op.signature]
    views = [(inner, buffer, 0) for inner, buffer in zip(func.params, outer, strict=True)]
    return wrapped(func, [func.body], outer, views)


def _placeholders(op: Operator, shapes: dict[str, tuple[int, ...]]) -> Tensors:
    """The inputs, in their own shapes (of several axes: as one) or those given."""
    return [
        te.placeholder(shapes.get(a.name, (math.prod(a.shape),)), a.dtype, name=a.name)
        for a in op.signature.inputs
    ]
