"""Small steps of rewriting scheduled TIR, shared by what no schedule primitive offers."""

from collections.abc import Callable, Mapping, Sequence

from tvm import tirx
from tvm.ir.expr import TensorLoad
from tvm.s_tir import SBlock, SBlockRealize
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as tb
from tvm_ffi import WalkOrder, structural_map, structural_walk


def substitute(expression: tirx.Expr, values: Mapping[tirx.Var, tirx.Expr | int]) -> tirx.Expr:
    """`expression` with variables replaced; numbers stand for int32 constants."""

    def replace(var: tirx.Var) -> tirx.Expr:
        for known, value in values.items():
            if var.same_as(known):
                return tirx.const(value, "int32") if isinstance(value, int) else value
        return var

    return structural_map(expression, (tirx.Var, replace))


def uses(expression: tirx.Expr, var: tirx.Var) -> bool:
    """Whether the variable is in the expression."""
    found = []
    structural_walk(expression, (tirx.Var, lambda v: found.append(v.same_as(var))))
    return any(found)


def with_fields(block: SBlock, **fields) -> SBlock:
    """The block with other `writes`, `alloc_buffers` or the like."""
    names = (
        *("iter_vars", "reads", "writes", "name_hint", "body"),
        *("init", "alloc_buffers", "match_buffers", "annotations"),
    )
    return SBlock(*(fields.get(name, getattr(block, name)) for name in names))


def places(number: tirx.Expr, extents: Sequence[int]) -> list[tirx.Expr]:
    """The indices of element `number` of an array with these extents, row after row."""
    found: list[tirx.Expr] = []
    for extent in reversed(extents):
        found.insert(0, number % extent)
        number = number // extent
    return found


def like(loop: tirx.For, body: tirx.Stmt) -> tirx.For:
    """The loop around another body; what the schedule noted of it (`annotations`) stays."""
    return tirx.For(
        loop.loop_var, loop.min, loop.extent, loop.kind, body, annotations=loop.annotations
    )


def axis_values(realize: SBlockRealize) -> dict[tirx.Var, tirx.Expr]:
    """What the block's axes stand for, in terms of the loops around it."""
    axes = zip(realize.block.iter_vars, realize.iter_values, strict=True)
    return {axis.var: value for axis, value in axes}


def replace_nest(body: tirx.Stmt, block: str, make: Callable) -> tirx.Stmt:
    """Replace the outermost loop that has only `block` inside by make(its loops, the block)."""

    def visit(loop: tirx.For) -> tirx.Stmt:
        loops, inner = [loop], loop.body
        while isinstance(inner, tirx.For):
            loops.append(inner)
            inner = inner.body
        if isinstance(inner, SBlockRealize) and inner.block.name_hint == block:
            return make(loops, inner)
        return loop

    return structural_map(body, (tirx.For, visit), order=WalkOrder.PREORDER)


def generated(emit: Callable[[], None]) -> tirx.Stmt:
    """What `emit` emits, as a statement for the place of a nest."""
    with IRBuilder() as builder:
        with tb.sblock("generated"):
            tb.reads([])
            tb.writes([])
            emit()
    return builder.get()


def loads(store: tirx.BufferStore) -> list[TensorLoad]:
    """What a store reads, but for the buffer that it writes."""
    found: list[TensorLoad] = []
    structural_walk(store.value, (TensorLoad, found.append))
    return [load for load in found if not load.source.same_as(store.buffer)]
