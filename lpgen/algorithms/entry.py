"""From a scheduled function over many tensors to the one signature that all kernels have.

A definition in tensor expressions sees the input with flattened rows, the packed weights as several
arrays and the result as a matrix. A kernel's entry is always (x, packed, y). The bridge is a buffer
declared on another buffer's memory, which costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import tvm
from tvm import te, tirx
from tvm_ffi import structural_map

from lpgen.algorithms.kernel import ALIGNMENT

if TYPE_CHECKING:
    from lpgen.ops import Conv2d, Dense


@dataclass(frozen=True)
class Section:
    """One array inside the packed weights."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def nbytes(self) -> int:
        """Its size in bytes."""
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize


def joined_sections(sections: list[Section]) -> tuple[list[int], int]:
    """(offset of each section, size of all) in bytes, each on an ALIGNMENT boundary."""
    offsets, end = [], 0
    for section in sections:
        offsets.append(end)
        end += -(-section.nbytes // ALIGNMENT) * ALIGNMENT
    return offsets, end


def kernel_entry(
    func: tirx.PrimFunc,
    op: Dense | Conv2d,
    sections: list[Section],
    prologue: tirx.PrimFunc | None = None,
) -> tvm.IRModule:
    """The module with "main"(x, packed, y) around `func`(x, *sections, y).

    x and y of `func` may have any shape and 8-bit type of the same size as op's.
    prologue: a function (x, rows) that runs first; `func` is then (x, *sections, rows, y).
    """
    offsets, nbytes = joined_sections(sections)
    x = tirx.decl_buffer(op.x_shape, op.act.dtype, name="x")
    packed = _packed_buffer(nbytes)
    y = tirx.decl_buffer(op.y_shape, "int32", name="y")
    inner_x, *inner_sections, inner_y = func.params
    views = [(inner_x, x, 0)]
    bodies = [func.body]
    if prologue is not None:
        rows = inner_sections.pop()
        views.append((prologue.params[0], x, 0))
        first = structural_map(prologue.body, (tirx.Var, _renamed(prologue.params[1], rows)))
        bodies = [tirx.AllocBuffer(rows), first, func.body]
    views += [(s, packed, o) for s, o in zip(inner_sections, offsets, strict=True)]
    return _wrapped(func, bodies, [x, packed, y], [*views, (inner_y, y, 0)])


def _renamed(old: tirx.Var, new: tirx.Var):
    return lambda var: new if var.same_as(old) else var


def pack_entry(
    w: te.Tensor,
    outputs: list[te.Tensor],
    sections: list[Section],
    shape: tuple[int, ...],
    dtype: str,
) -> tvm.IRModule:
    """The module with "main"(w, packed) that computes `outputs`, the sections, from `w`."""
    func = te.create_prim_func([w, *outputs])
    offsets, nbytes = joined_sections(sections)
    outer_w, packed = tirx.decl_buffer(shape, dtype, name="w"), _packed_buffer(nbytes)
    inner_w, *inner_sections = func.params
    views = [(s, packed, o) for s, o in zip(inner_sections, offsets, strict=True)]
    return _wrapped(func, [func.body], [outer_w, packed], [(inner_w, outer_w, 0), *views])


def _packed_buffer(nbytes: int):
    return tirx.decl_buffer((nbytes,), "uint8", name="packed", data_alignment=ALIGNMENT)


def _wrapped(func: tirx.PrimFunc, bodies: list, params: list, views: list) -> tvm.IRModule:
    """`func` with new parameters and `bodies` for its own; a view (inner, outer, offset) lies
    `offset` bytes into outer."""
    declarations = []
    for inner, outer, offset in views:
        indices = [0] * (len(outer.shape) - 1) + [offset]
        declarations.append(tirx.DeclBuffer(inner, data=tirx.address_of(outer[tuple(indices)])))
    body = tirx.SeqStmt([*declarations, *bodies])
    wrapped = tirx.PrimFunc(params, body, func.ret_type)
    for key in func.attrs.keys():
        wrapped = wrapped.with_attr(key, func.attrs[key])
    return tvm.IRModule({"main": wrapped.with_attr("global_symbol", "main")})
