"""Loops over a part of their range, which is computed when the kernel runs.

TVM would count such a loop from 0 and add its start to every index inside, and LLVM, which then
does not know the range of the sum, computes addresses anew in the innermost loops. So TVM lowers
the whole loop, with its bounds in a call in front of it; `bound_loops` rewrites what comes out.
"""

from __future__ import annotations

from tvm import tirx
from tvm.ir.expr import Call, StringImm
from tvm.tirx.script import builder as tb
from tvm_ffi import structural_map

_BOUNDED = "lpgen.bounded"
"""Loop of which a part runs, as the call in front of it says."""

_BOUNDS = "lpgen_bounds"
"""What is called: (first iteration, how many)."""


def bounded(loop: tirx.For, first: tirx.Expr, count: tirx.Expr) -> tirx.Stmt:
    """The loop, with only the iterations from `first` on when it runs."""
    marked = tirx.For(
        loop.loop_var, loop.min, loop.extent, loop.kind, loop.body, annotations={_BOUNDED: 1}
    )
    return tirx.SeqStmt([tirx.Evaluate(_bounds(first, count)), marked])


def serial(extent: int, first: tirx.Expr, count: tirx.Expr):
    """The same of a loop that is emitted: `with serial(...) as variable`."""
    tb.evaluate(_bounds(first, count))
    return tb.serial(0, extent, annotations={_BOUNDED: 1})


def _bounds(first: tirx.Expr, count: tirx.Expr) -> tirx.Expr:
    return tirx.call_extern("int32", _BOUNDS, first, count)


def bound_loops(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """`func`, lowered, with the loops of `bounded` bounded."""
    body = structural_map(func.body, (tirx.SeqStmt, _bound_loops))
    return func.with_body(structural_map(body, (tirx.Evaluate, _without_bounds)))


def _bound_loops(sequence: tirx.SeqStmt) -> tirx.Stmt:
    statements, bounds = [], None
    for stmt in sequence.seq:
        if (found := _bounds_of(stmt)) is not None:
            bounds = found
        elif bounds is not None and isinstance(stmt, tirx.For) and _BOUNDED in stmt.annotations:
            statements.append(part_of(stmt, *bounds))
            bounds = None
        else:
            statements.append(stmt)
    if len(statements) == len(sequence.seq):
        return sequence
    return tirx.SeqStmt(statements) if len(statements) > 1 else statements[0]


def _without_bounds(stmt: tirx.Evaluate) -> tirx.Stmt:
    """Nothing, where no loop was left for the bounds."""
    return stmt if _bounds_of(stmt) is None else tirx.Evaluate(0)


def _bounds_of(stmt: tirx.Stmt) -> list[tirx.Expr] | None:
    call = stmt.value if isinstance(stmt, tirx.Evaluate) else None
    if not isinstance(call, Call) or len(call.args) != 3:
        return None
    name, *bounds = call.args
    return bounds if isinstance(name, StringImm) and name.value == _BOUNDS else None


def part_of(loop: tirx.For, first: tirx.Expr, count: tirx.Expr) -> tirx.For:
    """The loop over a part of its range. LLVM is told what it saw before: without these bounds of
    the variable it computes addresses anew in the innermost loops."""
    known = tirx.all(loop.loop_var >= 0, loop.loop_var < loop.extent)
    told = tirx.Evaluate(tirx.call_llvm_intrin("void", "llvm.assume", known))
    return tirx.For(loop.loop_var, first, count, loop.kind, tirx.SeqStmt([told, loop.body]))
