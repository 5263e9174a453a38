"""Operators on every element for itself.

An operator's definition is one stage y [rows, columns] whose columns become lanes. Rows and columns
are such that along a row the scales are one number or neighbours in memory, wherever that can be.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from tvm import te, tirx

from lpgen.algorithms.result.epilogue import product
from lpgen.algorithms.sections import argument_buffer
from lpgen.ops.cast import REACH
from lpgen.ops.elementwise import QUANTIZE_LIMIT, Elementwise
from lpgen.ops.pairs import ALL_AXES
from lpgen.tir.quotient import divides, quotient
from lpgen.tir.vectors import ROUNDING, ROUNDING_BITS, splat, vector
from lpgen.tir.views import wrapped

if TYPE_CHECKING:
    from tvm import IRModule

    from lpgen.formats import Format
    from lpgen.ops import Operator
    from lpgen.ops.add import Add
    from lpgen.ops.binary import Binary
    from lpgen.ops.cast import Cast
    from lpgen.ops.mul import Mul
    from lpgen.ops.pairs import Pair, QuantizedPair

Tensors = list[te.Tensor]

LARGEST = float(np.nextafter(np.float32(REACH), 0))
"""The largest float32 that is an int32."""


@dataclass(frozen=True)
class View:
    """The tensor as rows x columns; scale_at(row, column): the place of an element's scale; shared:
    whether a row has one."""

    rows: int
    columns: int
    scale_at: Callable[[tirx.Expr, tirx.Expr], tirx.Expr]
    shared: bool = True

    @classmethod
    def of(cls, op: Elementwise) -> View:
        """The view of `op` with the longest rows."""
        outer, axis, inner = op.extents
        blocks, block = op.blocks, op.block
        if op.per == "tensor":
            return cls(1, outer * axis * inner, lambda r, c: 0)
        if op.per == "axis" and inner == 1:
            return cls(outer, axis, lambda r, c: c, False)
        if op.per == "axis":
            return cls(outer * axis, inner, lambda r, c: r % axis)
        if inner == 1 and axis % block == 0:
            return cls(outer * blocks, block, lambda r, c: r)
        if inner == 1:
            return cls(outer, axis, lambda r, c: r * blocks + c // block, False)
        return cls(
            outer * axis,
            inner,
            lambda r, c: (r // axis * blocks + r % axis // block) * inner + c,
            False,
        )


def _scaled(op: Elementwise, element: Callable[..., tirx.Expr]) -> Tensors:
    """The definition whose elements are element(x, scale, zero)."""
    view = View.of(op)
    x, *scales = _placeholders(op, {"x": (view.rows, view.columns)})

    def value(r, c):
        at = view.scale_at(r, c)
        return element(x(r, c), *(tensor(at) for tensor in scales))

    return [x, *scales, te.compute((view.rows, view.columns), value, name="y")]


def _quantize(op: Elementwise, fused: bool) -> Tensors:
    fused = fused and View.of(op).shared

    def element(x, scale, zero):
        zero = zero.astype("int32")
        plain = quantized(x / scale, zero, op.format)
        return _either(plain, divided(x, scale, zero, op.format), scale) if fused else plain

    return _scaled(op, element)


def _dequantize(op: Elementwise, fused: bool) -> Tensors:
    def element(x, scale, zero):
        return (x.astype("int32") - zero.astype("int32")).astype("float32") * scale

    return _scaled(op, element)


def _pair(op: Pair, element: Callable[..., tirx.Expr]) -> Tensors:
    """The definition whose elements are element(a, b, *the other inputs)."""
    rows = op.outer * op.middle
    whole = {name: (rows, op.inner) for name in "ab" if op.axes_of(name) == ALL_AXES}
    a, b, *others = _placeholders(op, whole)

    def at(name: str, tensor: te.Tensor, r: tirx.Expr, c: tirx.Expr) -> tirx.Expr:
        if name in whole:
            return tensor[r, c]
        outer, middle = (r, 0) if op.middle == 1 else (r // op.middle, r % op.middle)
        places = {"o": (outer, op.outer), "m": (middle, op.middle), "i": (c, op.inner)}
        index = tirx.const(0, "int32")
        for axis in op.axes_of(name):
            place, extent = places[axis]
            index = index * extent + place
        return tensor[index]

    def value(r, c):
        return element(at("a", a, r, c), at("b", b, r, c), *others)

    return [a, b, *others, te.compute((rows, op.inner), value, name="y")]


def _add(op: Add, fused: bool) -> Tensors:
    def element(a, b, scales, zeros):
        real_a, real_b = (_real(v, scales[i], zeros[i]) for i, v in enumerate((a, b)))
        v = real_a + real_b
        v = te.max(v, tirx.const(0, "float32")) if op.clamp == "relu" else v
        return _divided(op, v, scales(2), zeros(2), fused)

    return _pair(op, element)


def _mul(op: Mul, fused: bool) -> Tensors:
    def element(a, b, scales, zeros):
        if op.rounded == "quotient":
            real_a, real_b = (_real(v, scales[i], zeros[i]) for i, v in enumerate((a, b)))
            return _divided(op, real_a * real_b, scales(2), zeros(2), fused)
        products = (a.astype("int32") - zeros[0]) * (b.astype("int32") - zeros[1])
        factor = scales[0] * scales[1] / scales[2]
        v = product(products.astype("float32"), factor)
        return quantized(v + zeros[2].astype("float32"), tirx.const(0, "int32"), op.out)

    return _pair(op, element)


def _binary(op: Binary, fused: bool) -> Tensors:
    return _pair(op, BINARY[op.function])


BINARY: dict[str, Callable[[tirx.Expr, tirx.Expr], tirx.Expr]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    # Min and Max compare, and give their second operand where one is no number.
    "min": tirx.Min,
    "max": tirx.Max,
}


def _real(value: tirx.Expr, scale: tirx.Expr, zero: tirx.Expr) -> tirx.Expr:
    """A quantized value in float32."""
    return product((value.astype("int32") - zero).astype("float32"), scale)


def _divided(
    op: QuantizedPair, v: tirx.Expr, scale: tirx.Expr, zero: tirx.Expr, fused: bool
) -> tirx.Expr:
    """y of a quotient. With the zero point behind the rounding a division takes no longer."""
    if op.rounded == "quotient":
        return quantized(v / scale, zero, op.out)
    plain = quantized(v / scale + zero.astype("float32"), tirx.const(0, "int32"), op.out)
    return _either(plain, divided(v, scale, zero, op.out, late=False), scale) if fused else plain


def _either(plain: tirx.Expr, fast: tirx.Expr, scale: tirx.Expr) -> tirx.Expr:
    """What is computed by division, or without where the scale allows it."""
    return tirx.if_then_else(divides(scale), fast, plain)


def _cast(op: Cast, fused: bool) -> Tensors:
    (x,) = _placeholders(op, {"x": (1, op.size)})

    def element(r, c):
        v, zero = x[r, c], tirx.const(0, op.dtype)
        if op.to == "bool":
            chosen = tirx.any(v < zero, v > zero)  # not where it is no number
            return tirx.Select(chosen, tirx.const(1, "uint8"), tirx.const(0, "uint8"))
        if op.dtype == "float32" and op.to != "float32":
            low, high = (tirx.const(bound, "float32") for bound in (-REACH, LARGEST))
            # By its bits: the simplifier takes v == v for true.
            bits = tirx.reinterpret("int32", v) & tirx.const(0x7FFFFFFF, "int32")
            v = tirx.Select(bits > tirx.const(0x7F800000, "int32"), zero, v)
            v = te.min(te.max(v, low), high).astype("int32")
        return v.astype(op.to)

    return [x, te.compute((1, op.size), element, name="y")]


def quantized(v: tirx.Expr, zero: tirx.Expr, form: Format) -> tirx.Expr:
    """float32 v (a number or a vector) rounded half to even, plus the zero point, saturated; the
    lowest value for NaN."""
    limit = tirx.const(QUANTIZE_LIMIT, "float32")
    v = te.min(te.max(v, -limit), limit)  # NaN is not above -limit
    lanes = int(v.ty.dtype.lanes)
    v = tirx.reinterpret(vector("int32", lanes), v + tirx.const(ROUNDING, "float32"))
    v = v - tirx.const(ROUNDING_BITS, "int32") + zero
    low, high = (tirx.const(bound, "int32") for bound in (form.min, form.max))
    return te.max(te.min(v, high), low).astype(vector(form.dtype, lanes))


def divided(
    v: tirx.Expr, scale: tirx.Expr, zero: tirx.Expr, form: Format, *, late: bool = True
) -> tirx.Expr:
    """`quantized` of float32 v over a scale that `quotient` takes, on a CPU that multiplies and
    adds with one rounding; late: the zero point is added behind the rounding, else before."""
    lanes = int(v.ty.dtype.lanes)
    # Bounds of v are those of the quotient: beyond them it is saturated. NaN is not above low.
    low, high = (
        splat((tirx.const(bound, "int32") - zero).astype("float32") * scale, "float32", lanes)
        for bound in (form.min, form.max)
    )
    v = quotient(te.min(te.max(v, low), high), scale)
    v = v if late else v + splat(zero.astype("float32"), "float32", lanes)
    bits = tirx.reinterpret(vector("int32", lanes), v + tirx.const(ROUNDING, "float32"))
    return (bits + zero if late else bits).astype(vector(form.dtype, lanes))


DEFINITIONS: dict[str, Callable[..., Tensors]] = {
    "quantize": _quantize,
    "dequantize": _dequantize,
    "add": _add,
    "mul": _mul,
    "cast": _cast,
    "binary": _binary,
}
"""For each kind of operator what makes its tensors: the arguments of its signature in order, with
any shape of the same size, but the scales with theirs; the last one is the stage y."""


def define(op: Operator, fused: bool = False) -> Tensors:
    """The tensor expression of `op`; fused: for a CPU that multiplies and adds with one
    rounding."""
    return DEFINITIONS[op.kind](op, fused)


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
