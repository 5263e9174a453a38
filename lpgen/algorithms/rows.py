"""Kernels that are a loop over rows which know nothing of each other: the frame of them all.

A row is whatever a definition cuts the result into, such as a line of an image: threads share them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as tb

from lpgen.algorithms.result.epilogue import product
from lpgen.algorithms.sections import argument_buffer
from lpgen.tir import vectors as vec
from lpgen.tir.fma import fma
from lpgen.tir.views import wrapped

if TYPE_CHECKING:
    from tvm import IRModule

    from lpgen.ops import Operator

Index = int | tirx.Expr

PARALLEL = 2**15
"""Bytes of all tensors from which several threads are asked."""


@dataclass(frozen=True)
class Rows:
    """What a kernel does.

    count: how many rows there are; emit(row, *buffers) emits one, which may be a number where it is
    the only one: buffers are those of the signature in order, each of one axis.
    """

    count: int
    emit: Callable[..., None]


def entry(op: Operator, rows: Rows) -> IRModule:
    """The module with "main" in the operator's signature."""
    outer = [argument_buffer(argument) for argument in op.signature]
    inner = [
        tirx.decl_buffer((math.prod(a.shape),), a.dtype, name=f"{a.name}_flat")
        for a in op.signature
    ]
    large = sum(argument.nbytes for argument in op.signature) >= PARALLEL
    with IRBuilder() as builder, _block("all"):
        if rows.count == 1:
            rows.emit(0, *inner)
        else:
            loop = tb.parallel if large else tb.serial
            with loop(0, rows.count) as row, _block("row"):
                rows.emit(row, *inner)
    body = builder.get()
    func = tirx.PrimFunc(outer, body)
    views = [(i, o, 0) for i, o in zip(inner, outer, strict=True)]
    return wrapped(func, [body], outer, views)


def _block(name: str):
    """A block that says nothing of what it reads and writes; scratch memory emitted in it is that
    of the thread."""
    frame = tb.sblock(name)
    return _Said(frame)


class _Said:
    def __init__(self, frame) -> None:
        self._frame = frame

    def __enter__(self):
        self._frame.__enter__()
        tb.reads([])
        tb.writes([])

    def __exit__(self, *error):
        return self._frame.__exit__(*error)


def cast(dtype: str, value: tirx.Expr) -> tirx.Expr:
    """Each lane as another dtype."""
    return value.astype(vec.vector(dtype, int(value.ty.dtype.lanes)))


def spread(value: tirx.Expr, lanes: int) -> tirx.Expr:
    """A scalar expression in every lane."""
    return value if lanes == 1 else tirx.Broadcast(value, lanes)


def with_product(total: tirx.Expr, a: tirx.Expr, b: tirx.Expr, rounded: str) -> tirx.Expr:
    """total + a * b of float32; rounded: as the operators that sum products say."""
    return fma(a, b, total) if rounded == "sum" else total + product(a, b)


def real(value: float, lanes: int) -> tirx.Expr:
    """A float32 in every lane."""
    return spread(tirx.const(value, "float32"), lanes)


class Accumulators:
    """Vectors that loops change, in registers: memory of constant places."""

    def __init__(self, dtype: str, widths: Sequence[int], first: tirx.Expr | float) -> None:
        """Emit vectors of `widths` lanes, each filled with `first`."""
        self.widths, self.memory = widths, vec.scratch((sum(widths),), dtype)
        for number, lanes in enumerate(widths):
            self[number] = spread(
                tirx.const(first, dtype) if isinstance(first, int | float) else first, lanes
            )

    def _start(self, number: int) -> int:
        return sum(self.widths[:number])

    def __getitem__(self, number: int) -> tirx.Expr:
        return vec.load(self.memory, [self._start(number)], self.widths[number])

    def __setitem__(self, number: int, value: tirx.Expr) -> None:
        vec.store(self.memory, [self._start(number)], value, self.widths[number])


def chunks(size: int, chunk: int, emit: Callable[..., None]) -> Rows:
    """Rows of `chunk` neighbouring elements, the last one of what is left: emit(start, how many,
    *buffers) emits one."""
    whole, rest = divmod(size, chunk)
    if not rest:
        return Rows(whole, lambda row, *buffers: emit(row * chunk, chunk, *buffers))
    if not whole:
        return Rows(1, lambda row, *buffers: emit(0, rest, *buffers))

    def row(number: Index, *buffers) -> None:
        with tb.If(number < whole):
            with tb.Then():
                emit(number * chunk, chunk, *buffers)
            with tb.Else():
                emit(whole * chunk, rest, *buffers)

    return Rows(whole + 1, row)
