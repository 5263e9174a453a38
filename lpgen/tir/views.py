"""A function around another: its parameters are views into the new one's buffers.

A view is a buffer declared on the memory of another one, at an offset, which costs nothing.
"""

import tvm
from tvm import tirx


def wrapped(func: tirx.PrimFunc, bodies: list, params: list, views: list) -> tvm.IRModule:
    """`func` with new parameters and `bodies` for its own; a view (inner, outer, offset) lies
    `offset` bytes into outer."""
    declarations = [view(*place) for place in views]
    body = tirx.SeqStmt([*declarations, *bodies])
    wrapped = tirx.PrimFunc(params, body, func.ret_type)
    for key in func.attrs.keys():
        wrapped = wrapped.with_attr(key, func.attrs[key])
    return tvm.IRModule({"main": wrapped.with_attr("global_symbol", "main")})


def view(inner: tirx.Var, outer: tirx.Var, offset: int) -> tirx.Stmt:
    """The declaration of `inner` on the memory of `outer`, `offset` bytes into it."""
    indices = [0] * (len(outer.shape) - 1) + [offset]
    return tirx.DeclBuffer(inner, data=tirx.address_of(outer[tuple(indices)]))
