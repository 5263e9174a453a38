"""The left side from float activations: one pass that quantizes them before everything else.

What an operator with input=f32... computes, see `lpgen.ops.lhs`: here as statements in front of
a kernel that takes integers. A row at a time, in vectors of 16 and the rest one by one; with
hadamard= it is rotated first, into memory of its own that a cache holds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as tb

from lpgen.algorithms.lhs.rotate import rotate_row
from lpgen.algorithms.lhs.view import rows_loop
from lpgen.ops import Operator, hadamard
from lpgen.ops.lhs import SMALLEST
from lpgen.tir.rewrite import places
from lpgen.tir.vectors import ROUNDING, ramp, splat, vector

LANES = 16

PARTS = 64
"""In how many parts threads may look for the largest value of a tensor."""

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
            inverse = _step(op, _largest_of_all(op, x, rows, outer), scale, 0)
        with rows_loop(op, rows, rows * count) as row:
            if op.input == "f32":
                inverse = tb.Bind(scale[0])
            if op.input == "f32:row":
                with tb.sblock("row"):
                    tb.reads([])
                    tb.writes([])
                    largest = _zeroed("largest")
                    to = places(row, outer)
                    with _given(op, x, to) as (given, at):
                        _largest(given, at, count, largest)
                        inverse = _step(op, largest, scale, row)
                        _quantize_row(op, given, at, q, to, inverse)
            else:
                to = places(row, outer)
                with _given(op, x, to) as (given, at):
                    _quantize_row(op, given, at, q, to, inverse)
    return builder.get()


@contextmanager
def _given(op: Operator, x, row: list) -> Iterator[tuple]:
    """The row to be quantized as (buffer, indices): x[row], or rotated."""
    if not op.hadamard:
        yield x, row
        return
    count = int(x.shape[-1])
    with tb.sblock("rotated_row"):
        tb.reads([])
        tb.writes([])
        rotated = tb.sblock_alloc_buffer((count,), "float32")
        rotate_row(x, row, count, op.hadamard, rotated)
        yield rotated, []


def _largest_of_all(op: Operator, x, rows: int, outer: list[int]):
    """Emit: the bits of the largest |x| of all rows, in the lanes of the buffer that is returned.
    Threads share the rows in parts, the largest of which is looked for at the end."""
    count = int(x.shape[-1])
    parts = min(rows, PARTS)
    largest = _zeroed("largest")
    found = tb.sblock_alloc_buffer((parts, LANES), "int32")
    with rows_loop(op, parts, rows * count) as part:
        first, end = part * rows // parts, (part + 1) * rows // parts
        tb.buffer_store(found, splat(0, "int32", LANES), [part, ramp(0, LANES)])
        with tb.serial(0, end - first) as i:
            with _given(op, x, places(first + i, outer)) as (given, at):
                _largest(given, at, count, found, [part])
    with tb.serial(0, parts) as part:
        lanes = ramp(0, LANES)
        tb.buffer_store(largest, tirx.Max(largest[lanes], found[part, lanes]), [lanes])
    return largest


def _zeroed(name: str):
    """A vector of sixteen int32, all 0."""
    buffer = tb.sblock_alloc_buffer((LANES,), "int32")
    tb.buffer_store(buffer, splat(0, "int32", LANES), [ramp(0, LANES)])
    return buffer


def _largest(x, row: list, count: int, largest, place: list = ()) -> None:
    """Emit: the bits of the largest |x| of a row, into the lanes of `largest`, at a place of it."""
    lanes = ramp(0, LANES)
    mask = tirx.const(_MAGNITUDE, "int32")
    if count >= LANES:
        with tb.serial(0, count // LANES) as i:
            bits = tirx.reinterpret(f"int32x{LANES}", x[(*row, ramp(i * LANES, LANES))])
            bits = bits & tirx.Broadcast(mask, LANES)
            known = largest[(*place, lanes)]
            tb.buffer_store(largest, tirx.Max(known, bits), [*place, lanes])
    if count % LANES:
        with tb.serial(0, count % LANES) as i:
            bits = tirx.reinterpret("int32", x[(*row, count // LANES * LANES + i)]) & mask
            tb.buffer_store(largest, tirx.Max(largest[(*place, 0)], bits), [*place, 0])


def _step(op: Operator, largest, steps, place) -> tirx.Expr:
    """Emit the step behind the largest values, steps[place]; returns what x is multiplied with."""
    with tb.serial(1, LANES) as lane:
        tb.buffer_store(largest, tirx.Max(largest[0], largest[lane]), [0])
    value = tb.Bind(tirx.reinterpret("float32", largest[0]))
    top = tirx.const(op.lhs.levels, "float32")
    step = value / top
    if op.hadamard:
        step = step * tirx.const(hadamard.factor(op.hadamard), "float32")
    tb.buffer_store(steps, step, [place])
    some = value > tirx.const(SMALLEST, "float32")
    one, zero = tirx.const(1, "float32"), tirx.const(0, "float32")
    return tb.Bind(tirx.Select(some, top / tirx.Select(some, value, one), zero))


def _quantize_row(op: Operator, x, row: list, q, to: list, inverse: tirx.Expr) -> None:
    """Emit q[to] = the quantized values of x[row]."""
    dtype, count = str(q.dtype), int(q.shape[-1])

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
            lanes = ramp(i * LANES, LANES)
            tb.buffer_store(q, rounded(x[(*row, lanes)], LANES), [*to, lanes])
    if count % LANES:
        with tb.serial(0, count % LANES) as i:
            last = count // LANES * LANES + i
            tb.buffer_store(q, rounded(x[(*row, last)], 1), [*to, last])
