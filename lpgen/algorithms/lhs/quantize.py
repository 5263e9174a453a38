"""The left side from float activations: one pass that quantizes them before everything else.

What an operator with input=f32... computes, see `lpgen.ops.lhs`: here as statements in front of
a kernel that takes integers. A row at a time, in vectors of 16 and the rest one by one; with
hadamard= it is rotated first, into memory of its own that a cache holds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tvm import te, tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as tb

from lpgen.algorithms.lhs.narrow import LANES, Narrow, Narrows, moved, pieces, same
from lpgen.algorithms.lhs.rotate import rotate_row
from lpgen.algorithms.lhs.view import rows_loop
from lpgen.ops import Operator, hadamard, scales
from lpgen.ops.lhs import SMALLEST
from lpgen.tir.rewrite import places
from lpgen.tir.vectors import intrinsic, load, ramp, reinterpret, scratch, splat, store, vector

PARTS = 64
"""In how many parts threads may look for the largest value of a tensor."""

MAGNITUDE = 2**31 - 1
"""The bits of a float32 without its sign: the larger, the larger the number."""


def step_tensor(op: Operator) -> te.Tensor | None:
    """Placeholder of the steps that a call finds: [1], [rows] or [rows, groups]; None: the scale is
    static."""
    if not op.lhs.dynamic:
        return None
    rows = op.matrix.m
    if op.lhs.group:
        shape = (rows, scales.count(op.matrix.k, op.lhs.group))
    else:
        shape = (rows if op.lhs.by_row else 1,)
    return te.placeholder(shape, "float32", name="input_step")


def quantize_input(
    op: Operator, x, q, scale, isa: Narrows | None = None, added: int = 0
) -> tirx.Stmt:
    """Statements that fill q from x, buffers of one shape [..., values].

    scale: the buffer with 1 / input_scale, or, for a dynamic scale, the one to fill with the steps;
    isa: whose vectors of results are narrowed together, None: each for itself; added: to all
    values, which fit q then.
    """
    *outer, count = (int(extent) for extent in x.shape)
    rows = math.prod(outer)
    narrow = Narrow(op, isa, str(q.dtype) if added else op.act.dtype, op.zero_act + added)

    with IRBuilder() as builder, _block("quantize"):
        if op.input == "f32:tensor":
            inverse = _step(op, _largest_of_all(op, x, rows, outer), scale, 0)
        with rows_loop(op, rows, rows * count) as row:
            to = [*places(row, outer), 0]
            if op.input == "f32":
                inverse = tb.Bind(scale[0])
            if op.lhs.group:
                with _given(op, x, to[:-1]) as (given, at):
                    _quantize_groups(narrow, given, at, q, to, scale)
            elif op.input == "f32:row":
                with _block("row"):
                    largest = zeroed("largest")
                    with _given(op, x, to[:-1]) as (given, at):
                        _largest(given, at, count, largest)
                        inverse = _step(op, largest, scale, row)
                        narrow.all(given, at, q, to, count, same(inverse))
            else:
                with _given(op, x, to[:-1]) as (given, at):
                    narrow.all(given, at, q, to, count, same(inverse))
    return builder.get()


def coded_steps(x, steps) -> tirx.Stmt:
    """Statements that fill the steps from those at the end of x (`ops.lhs`), whose bytes may be at
    any address."""
    rows, nbytes = int(steps.shape[0]), int(x.shape[0])
    with IRBuilder() as builder, tb.serial(0, rows) as row:
        number = load(x, [nbytes - 4 * rows + 4 * row], 4)
        tb.buffer_store(steps, reinterpret("float32", number), [row])
    return builder.get()


@contextmanager
def _block(name: str) -> Iterator[None]:
    """A block, which memory belongs to; nobody asks what it reads and writes."""
    with tb.sblock(name):
        tb.reads([])
        tb.writes([])
        yield


@contextmanager
def _given(op: Operator, x, row: list) -> Iterator[tuple]:
    """The row to be quantized as (buffer, indices of its first value): that of x, or rotated."""
    if not op.hadamard:
        yield x, [*row, 0]
        return
    count = int(x.shape[-1])
    with _block("rotated_row"):
        rotated = scratch((count,), "float32")
        rotate_row(x, row, count, op.hadamard, rotated)
        yield rotated, [0]


def _quantize_groups(narrow: Narrow, x, at: list, q, to: list, steps) -> None:
    """Emit the quantized values of the row of x at `at`, and the steps of its groups."""
    op, count = narrow.op, int(q.shape[-1])
    size, groups = op.lhs.group, int(steps.shape[-1])
    with _block("groups"):
        largest, inverses = scratch((groups,), "int32"), scratch((groups,), "float32")
        for j, many in _groups(count, size):
            with _block("group"):
                values = zeroed("values")
                _largest(x, moved(at, j * size), many, values)
                tb.buffer_store(largest, largest_lane(values), [j])
        # Divisions take long: those of several groups are done at once.
        for first, lanes in pieces(groups, LANES):
            tops = load(largest, [first], lanes)
            step, inverse = steps_of(
                op, tb.Bind(reinterpret(vector("float32", lanes), tops)), lanes
            )
            store(steps, [*to[:-1], first], step, lanes)
            store(inverses, [first], inverse, lanes)
        if narrow.spans(size):
            narrow.all(x, at, q, to, count, lambda place: inverses[place // size])
            return
        for j, many in _groups(count, size):
            inverse = tb.Bind(inverses[j])
            narrow.all(x, moved(at, j * size), q, moved(to, j * size), many, same(inverse))


def _groups(count: int, size: int) -> Iterator[tuple[tirx.Expr, int]]:
    """Loops over groups of so many places: (group, its places)."""
    if count >= size:
        with tb.serial(0, count // size) as j:
            yield j, size
    if count % size:
        yield tirx.const(count // size, "int32"), count % size


def largest_lane(values) -> tirx.Expr:
    """The largest of the lanes of such a vector."""
    name = f"llvm.vector.reduce.smax.v{LANES}i32"
    return intrinsic("int32", name, load(values, [0], LANES))


def _largest_of_all(op: Operator, x, rows: int, outer: list[int]):
    """Emit: the bits of the largest |x| of all rows, in the lanes of the buffer that is returned.

    Threads share the rows in parts, the largest of which is looked for at the end; rows whose
    number is given at each call are one part.
    """
    count = int(x.shape[-1])
    largest = zeroed("largest")
    if op.range:
        with rows_loop(op, rows, 0) as row, _given(op, x, places(row, outer)) as (given, at):
            _largest(given, at, count, largest)
        return largest
    parts = min(rows, PARTS)
    found = scratch((parts, LANES), "int32")
    with rows_loop(op, parts, rows * count) as part:
        first, end = part * rows // parts, (part + 1) * rows // parts
        store(found, [part, 0], splat(0, "int32", LANES), LANES)
        with tb.serial(0, end - first) as i:
            with _given(op, x, places(first + i, outer)) as (given, at):
                _largest(given, at, count, found, [part])
    with tb.serial(0, parts) as part:
        both = tirx.Max(load(largest, [0], LANES), load(found, [part, 0], LANES))
        store(largest, [0], both, LANES)
    return largest


def zeroed(name: str):
    """A vector of sixteen int32, all 0."""
    buffer = tb.sblock_alloc_buffer((LANES,), "int32")
    tb.buffer_store(buffer, splat(0, "int32", LANES), [ramp(0, LANES)])
    return buffer


def _largest(x, at: list, count: int, largest, place: Sequence = ()) -> None:
    """Emit: the bits of the largest |x| of `count` values, into the lanes of largest[place]."""
    for first, lanes in pieces(count, LANES):
        bits = reinterpret(vector("int32", lanes), load(x, moved(at, first), lanes))
        bits = bits & splat(MAGNITUDE, "int32", lanes)
        known = load(largest, [*place, 0], lanes)
        store(largest, [*place, 0], tirx.Max(known, bits), lanes)


def _step(op: Operator, largest, steps, place) -> tirx.Expr:
    """Emit the step behind the largest values, steps[place]; returns what x is multiplied with."""
    with tb.serial(1, LANES) as lane:
        tb.buffer_store(largest, tirx.Max(largest[0], largest[lane]), [0])
    step, inverse = steps_of(op, tb.Bind(reinterpret("float32", largest[0])), 1)
    tb.buffer_store(steps, step, [place])
    return tb.Bind(inverse)


def steps_of(op: Operator, largest: tirx.Expr, lanes: int) -> tuple[tirx.Expr, tirx.Expr]:
    """The step behind the largest values, and what x is multiplied with."""
    top, one, zero = (splat(float(v), "float32", lanes) for v in (op.lhs.levels, 1, 0))
    step = largest / top
    if op.hadamard:
        step = step * splat(float(hadamard.factor(op.hadamard)), "float32", lanes)
    some = largest > splat(SMALLEST, "float32", lanes)
    return step, tirx.Select(some, top / tirx.Select(some, largest, one), zero)
