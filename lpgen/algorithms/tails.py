"""Partial vectors: a vectorized loop whose last iterations fall outside becomes two cases.

A store of `lanes` columns has a predicate where the columns do not fill the last vector. TVM would
turn the whole loop into scalar code, everywhere. Here the loop keeps its vector form wherever the
whole vector is inside, and only a partial vector is stored lane by lane.
"""

from tvm import tirx
from tvm.s_tir import SBlockRealize
from tvm_ffi import structural_map, structural_walk


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
    if not _uses(body.predicate, loop.loop_var):
        return loop
    last = tirx.const(int(loop.extent) - 1, "int32")
    all_inside = structural_map(
        body.predicate, (tirx.Var, lambda var: last if var.same_as(loop.loop_var) else var)
    )
    everywhere = SBlockRealize(body.iter_values, tirx.const(True, "bool"), body.block)
    whole = tirx.For(loop.loop_var, 0, loop.extent, tirx.ForKind.VECTORIZED, everywhere)
    lane = tirx.Var("lane", "int32")
    by_lane = structural_map(
        body, (tirx.Var, lambda var: lane if var.same_as(loop.loop_var) else var)
    )
    # Unrolled, so that every lane of the register tile is read at a constant place: a variable
    # one would keep the whole tile in memory.
    single = tirx.For(lane, 0, loop.extent, tirx.ForKind.UNROLLED, by_lane)
    return tirx.IfThenElse(all_inside, whole, single)


def _uses(expression: tirx.Expr, var: tirx.Var) -> bool:
    found = []
    structural_walk(expression, (tirx.Var, lambda v: found.append(v.same_as(var))))
    return any(found)
