"""From a scheduled function over many tensors to the signature of its operator.

A definition in tensor expressions sees the input with flattened rows, the packed weights as several
arrays and the result as a matrix. A kernel's entry has the arguments of the operator's signature.
The bridge is a buffer declared on another buffer's memory, which costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import tvm
from tvm import tirx
from tvm.ir.expr import TensorLoad
from tvm.s_tir import SBlockRealize
from tvm_ffi import structural_map, structural_walk

from lpgen.algorithms.lhs.narrow import Narrows
from lpgen.algorithms.lhs.quantize import coded_steps, quantize_input
from lpgen.algorithms.lhs.unpack import unpack_input
from lpgen.algorithms.ranged import stored_where_computed
from lpgen.algorithms.result.pack import packed_result
from lpgen.algorithms.sections import Section, argument_buffer, joined_sections
from lpgen.ops.lhs import CODED
from lpgen.ops.signature import Role
from lpgen.tir.rewrite import with_fields
from lpgen.tir.views import view, wrapped

if TYPE_CHECKING:
    from lpgen.ops import Conv2d, Dense


def kernel_entry(
    func: tirx.PrimFunc,
    op: Dense | Conv2d,
    sections: list[Section],
    prologue: Sequence[tirx.PrimFunc] = (),
    height: int = 0,
    isa: Narrows | None = None,
    added: int = 0,
) -> tvm.IRModule:
    """The module with "main" in the operator's signature around `func`(x, *sections, *more, y).

    x is the first input, `more` what else the signature has before y. A float x is quantized first,
    a packed one unpacked, and a result that is packed is so in the tiles that make it. Tensors of
    `func` may have any shape of the same size as op's, and x any 8-bit type, or the words of bit
    planes; scalars are its own variables.
    prologue: functions (x, any sections by their names, result) that run first; `func` has their
    results behind the sections, and behind those the steps of dynamic quantization, if there are
    any.
    height: rows of a tile, where their number is given at each call; isa, added: see
    `quantize_input`.
    """
    func = stored_where_computed(func, op, height)
    offsets, nbytes = joined_sections(sections)
    signature = op.signature.sized(nbytes)
    first, packed_argument = signature.inputs[0], signature.packed
    more = [a for a in signature if a not in (first, packed_argument)]
    scalars = zip(more, func.params[-len(more) :], strict=True)
    own = {a.name: variable for a, variable in scalars if a.role == Role.SCALAR}
    outer = {a.name: own[a.name] if a.name in own else argument_buffer(a) for a in signature}
    x, packed = outer[first.name], packed_argument and outer[packed_argument.name]
    last = [outer[a.name] for a in more]
    inner_x, *inner_sections = func.params[: -len(last)]
    steps = [inner_sections.pop()] if op.lhs.dynamic else []
    views, bodies = [], []
    as_is = op.input in ("act", CODED) or str(inner_x.dtype) == "uint32"  # words of planes
    if as_is:
        views.append((inner_x, x, 0))
        bodies = [part for step in steps for part in (tirx.AllocBuffer(step), coded_steps(x, step))]
    elif op.lhs.layout:
        pixels = (math.prod(op.x_shape[:-1]), op.x_shape[-1])
        codes = tirx.decl_buffer(pixels, "uint8", name="codes")
        views.append((codes, x, 0))
        bodies = [tirx.AllocBuffer(inner_x), unpack_input(op, codes, inner_x)]
    else:
        floats = tirx.decl_buffer(inner_x.shape, "float32", name="floats")
        views.append((floats, x, 0))
        scale = steps[0] if steps else inner_sections[_place(sections, "input_inverse")]
        bodies = [tirx.AllocBuffer(buffer) for buffer in (inner_x, *steps)]
        bodies.append(quantize_input(op, floats, inner_x, scale, isa, added))
    results = inner_sections[len(sections) :]
    del inner_sections[len(sections) :]
    for before, result in zip(prologue, results, strict=True):
        own_x, *own_sections, own_result = before.params
        first = structural_map(before.body, (tirx.Var, _renamed(own_result, result)))
        if as_is:
            bodies.append(view(own_x, x, 0))
        else:
            first = _reading(first, own_x, inner_x)
        views += [(s, packed, offsets[_place(sections, s.name)]) for s in own_sections]
        bodies += [tirx.AllocBuffer(result), first]
    *inner_last, inner_y = func.params[-len(last) :]
    if op.pack is None:
        bodies += _shared_first(func.body)
    else:
        result = packed_result(func, op)
        inner_y = result.y
        bodies += [*result.before, *_shared_first(result.func.body), *result.after]
    views += [(s, packed, o) for s, o in zip(inner_sections, offsets, strict=True)]
    pairs = zip(more, [*inner_last, inner_y], strict=True)
    views += [(inner, outer[a.name], 0) for a, inner in pairs if a.name not in own]
    return wrapped(func, bodies, signature.ordered(outer), views)


def _place(sections: list[Section], name: str) -> int:
    return next(i for i, section in enumerate(sections) if section.name == name)


def _shared_first(root: SBlockRealize) -> list[tirx.Stmt]:
    """The statements of a function: what a stage writes for later ones is allocated in front.

    They write whole buffers, and all blocks read them. In the root block they would be candidates
    for compaction, which spends seconds on the indices of a large microkernel and saves nothing.
    """
    block = root.block
    if not isinstance(block.body, tirx.SeqStmt):
        return [root]
    stages = [_used(stage) for stage in block.body.seq]
    shared = [sum(_among(b, used) for used in stages) > 1 for b in block.alloc_buffers]
    buffers = list(zip(block.alloc_buffers, shared, strict=True))
    block = with_fields(block, alloc_buffers=[b for b, first in buffers if not first])
    realize = SBlockRealize(root.iter_values, root.predicate, block)
    return [*(tirx.AllocBuffer(b) for b, first in buffers if first), realize]


def _used(stage: tirx.Stmt) -> list[tirx.Var]:
    """The buffers that a statement reads or writes."""
    found: list[tirx.Var] = []
    structural_walk(stage, (tirx.BufferStore, lambda store: found.append(store.buffer)))
    structural_walk(stage, (TensorLoad, lambda load: found.append(load.source)))
    return found


def _among(buffer: tirx.Var, others: list[tirx.Var]) -> bool:
    return any(buffer.same_as(other) for other in others)


def _renamed(old: tirx.Var, new: tirx.Var):
    return lambda var: new if var.same_as(old) else var


def _reading(body: tirx.Stmt, old: tirx.Var, new: tirx.Var) -> tirx.Stmt:
    """`body` with what it reads of the matrix `old` read from `new`: the same bytes, perhaps with
    rows of another length, in several axes, or with the other sign.

    A view would not do: LLVM takes it for other memory than the buffer that was just written, and
    moves its loads before the stores.
    """
    *outer, width = (int(extent) for extent in new.shape)
    length = int(old.shape[-1])

    def load(node: TensorLoad) -> tirx.Expr:
        if not node.source.same_as(old):
            return node
        row, column = node.indices
        if length != width:  # the last axis of the first places goes on into the others
            row, column = 0, _moved(column, row * length)
        at = []
        for extent in reversed(outer[1:]):
            at.insert(0, row % extent)
            row = row // extent
        value = new[(row, *at, column)]
        dtype = str(node.ty.dtype)
        return value if str(value.ty.dtype) == dtype else tirx.reinterpret(dtype, value)

    return structural_map(body, (TensorLoad, load))


def _moved(index: tirx.Expr, by: tirx.Expr) -> tirx.Expr:
    """index + by, and still a ramp if it is one."""
    if isinstance(index, tirx.Ramp):
        return tirx.Ramp(index.base + by, index.stride, index.lanes)
    return index + by
