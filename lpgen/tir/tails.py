"""Partial vectors: a vectorized loop whose last iterations fall outside becomes two cases.

A store of `lanes` columns has a predicate where the columns do not fill the last vector. TVM would
turn the whole loop into scalar code, everywhere. Here the loop keeps its vector form wherever the
whole vector is inside, and a partial vector is stored in halves, their halves, and so on.
"""

from tvm import tirx
from tvm.s_tir import SBlockRealize
from tvm_ffi import structural_map

from lpgen.tir.rewrite import substitute, uses


def peel_partial_vectors(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """`func` with each vectorized loop over a block with a predicate on its variable split in two.

    The predicate must be monotone, as `column + lane < columns` is: what holds in the last lane
    holds in all.
    """
    return func.with_body(structural_map(func.body, (tirx.For, _peel)))


def _peel(loop: tirx.For) -> tirx.Stmt:
    body = loop.body
    if loop.kind != tirx.ForKind.VECTORIZED or not isinstance(body, SBlockRealize):
        return loop
    if not uses(body.predicate, loop.loop_var):
        return loop
    all_inside = substitute(body.predicate, {loop.loop_var: int(loop.extent) - 1})
    everywhere = _everywhere(body)
    whole = tirx.For(loop.loop_var, 0, loop.extent, tirx.ForKind.VECTORIZED, everywhere)
    return tirx.IfThenElse(all_inside, whole, _halves(loop, 0, int(loop.extent)))


def _everywhere(realize: SBlockRealize) -> SBlockRealize:
    """The block without its predicate."""
    return SBlockRealize(realize.iter_values, tirx.const(True, "bool"), realize.block)


def _halves(loop: tirx.For, start: int, size: int) -> tirx.Stmt:
    """Lanes `start` .. `start + size` of a vector that is not whole: each half as a vector if it is
    whole, else its halves in turn."""
    parts = [_part(loop, start, size // 2), _part(loop, start + size // 2, size - size // 2)]
    return tirx.SeqStmt(parts)


def _part(loop: tirx.For, start: int, size: int) -> tirx.Stmt:
    realize = loop.body
    if size == 1:
        return substitute(realize, {loop.loop_var: start})
    inside = substitute(realize.predicate, {loop.loop_var: start + size - 1})
    lane = tirx.Var("lane", "int32")
    # Every lane of the register tile is read at a constant place: a variable one would keep the
    # whole tile in memory.
    part = substitute(_everywhere(realize), {loop.loop_var: lane + start})
    part = tirx.For(lane, 0, size, tirx.ForKind.VECTORIZED, part)
    return tirx.IfThenElse(inside, part, _halves(loop, start, size))
