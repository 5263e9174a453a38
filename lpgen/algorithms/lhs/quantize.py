"""The left side from float activations: one pass that quantizes them before everything else.

What an operator with input=f32... computes, see `lpgen.ops.lhs`: here as statements in front of
a kernel that takes integers. A row at a time, in vectors of 16 and the rest one by one.
"""

from __future__ import annotations

import math

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as tb

from lpgen.algorithms.lhs.view import rows_loop
from lpgen.ops import Operator
from lpgen.ops.lhs import SMALLEST
from lpgen.tir.rewrite import places
from lpgen.tir.vectors import ROUNDING, ramp, splat, vector

LANES = 16
_MAGNITUDE = 2**31 - 1
"""The bits of a float32 without its sign: the larger, the larger the number."""


def steps_of(op: Operator) -> int:
    """How many steps a call finds: one for each row, or one."""
    return op.matrix.m if op.input == "f32:row" else 1


def quantize_input(op: Operator, x, q, scale) -> tirx.Stmt:
    """Statements that fill q from x, buffers of one shape [..., values].

    scale: the buffer with 1 / input_scale, or, for a dynamic scale, the one to fill with the steps.
    """
    *outer, count = (int(extent) for extent in x.shape)
    rows = math.prod(outer)

    with IRBuilder() as builder, tb.sblock("quantize"):
        tb.reads([])
        tb.writes([])
        if op.input == "f32:tensor":
            largest = _zeroed("largest")
            with rows_loop(op, rows, 0) as row:
                _largest(x, places(row, outer), count, largest)
            inverse = _step(op, largest, scale, 0)
        with rows_loop(op, rows, rows * count) as row:
            if op.input == "f32":
                inverse = tb.Bind(scale[0])
            if op.input == "f32:row":
                with tb.sblock("row"):
                    tb.reads([])
                    tb.writes([])
                    largest = _zeroed("largest")
                    at = places(row, outer)
                    _largest(x, at, count, largest)
                    _quantize_row(op, x, q, at, count, _step(op, largest, scale, row))
            else:
                _quantize_row(op, x, q, places(row, outer), count, inverse)
    return builder.get()


def _zeroed(name: str):
    """A vector of sixteen int32, all 0."""
    buffer = tb.sblock_alloc_buffer((LANES,), "int32")
    tb.buffer_store(buffer, splat(0, "int32", LANES), [ramp(0, LANES)])
    return buffer


def _largest(x, row: list, count: int, largest) -> None:
    """Emit: the bits of the largest |x| of a row, into the lanes of `largest`."""
    lanes = ramp(0, LANES)
    mask = tirx.const(_MAGNITUDE, "int32")
    if count >= LANES:
        with tb.serial(0, count // LANES) as i:
            bits = tirx.reinterpret(f"int32x{LANES}", x[(*row, ramp(i * LANES, LANES))])
            bits = bits & tirx.Broadcast(mask, LANES)
            tb.buffer_store(largest, tirx.Max(largest[lanes], bits), [lanes])
    if count % LANES:
        with tb.serial(0, count % LANES) as i:
            bits = tirx.reinterpret("int32", x[(*row, count // LANES * LANES + i)]) & mask
            tb.buffer_store(largest, tirx.Max(largest[0], bits), [0])


def _step(op: Operator, largest, steps, place) -> tirx.Expr:
    """Emit the step behind the largest values, steps[place]; returns what x is multiplied with."""
    with tb.serial(1, LANES) as lane:
        tb.buffer_store(largest, tirx.Max(largest[0], largest[lane]), [0])
    value = tb.Bind(tirx.reinterpret("float32", largest[0]))
    top = tirx.const(op.lhs.levels, "float32")
    tb.buffer_store(steps, value / top, [place])
    some = value > tirx.const(SMALLEST, "float32")
    one, zero = tirx.const(1, "float32"), tirx.const(0, "float32")
    return tb.Bind(tirx.Select(some, top / tirx.Select(some, value, one), zero))


def _quantize_row(op: Operator, x, q, row: list, count: int, inverse: tirx.Expr) -> None:
    dtype = str(q.dtype)

    def rounded(value, lanes: int) -> tirx.Expr:
        low, high = (splat(bound, "float32", lanes) for bound in op.lhs.bounds)
        factor = splat(inverse, "float32", lanes)
        # Max gives its second operand where the first is no number (NaN): the lowest value.
        value = tirx.Min(tirx.Max(value * factor, low), high)
        bits = tirx.reinterpret(vector("int32", lanes), value + splat(ROUNDING, "float32", lanes))
        zero = op.zero_act % 256 if dtype == "uint8" else op.zero_act
        return bits.astype(vector(dtype, lanes)) + splat(zero, dtype, lanes)

    if count >= LANES:
        with tb.serial(0, count // LANES) as i:
            at = (*row, ramp(i * LANES, LANES))
            tb.buffer_store(q, rounded(x[at], LANES), list(at))
    if count % LANES:
        with tb.serial(0, count % LANES) as i:
            at = (*row, count // LANES * LANES + i)
            tb.buffer_store(q, rounded(x[at], 1), list(at))
