"""Where the scratch memory of a lowered kernel lies: on the stack, or in the caller's workspace."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tvm
from tvm import tirx
from tvm_ffi import structural_map, structural_walk

from lpgen.ops.signature import ALIGNMENT, Signature

STACK_LIMIT = 32 * 1024
"""Largest scratch buffer kept on the stack, in bytes. The arena in the caller's workspace takes
the larger ones: the stacks of other people's threads can be small. Half as much was too little for
`winograd` of 3 x 4 outputs by 24 vectors: beside results that may lie anywhere LLVM writes the sums
of each step to memory (512 channels at 7x7, u2 x s2, Zen 4: 547 us, now 213)."""

STACK_TOTAL = 64 * 1024
"""All scratch buffers of one kernel on the stack, in bytes."""


@dataclass(frozen=True)
class Scratch:
    """Workspace a function needs, in bytes: `serial` once, `per_thread` for each thread."""

    serial: int
    per_thread: int

    def nbytes(self, threads: int) -> int:
        """Bytes of workspace for a call on `threads` threads."""
        return self.serial + threads * self.per_thread


def place_scratch(func: tirx.PrimFunc, signature: Signature) -> tuple[tirx.PrimFunc, Scratch]:
    """Put small scratch buffers on the stack and count the bytes of the others."""
    buffers = _allocations(func.body)
    on_stack = _fitting_the_stack(buffers)
    workspace = {b: _rounded(b) for b in buffers if b not in on_stack}
    parallel = [set(_allocations(loop.body)) for loop in _parallel_loops(func.body)]
    # Sums, not the peak: StorageRewrite has already let buffers share what they can.
    scratch = Scratch(
        serial=sum(n for b, n in workspace.items() if not any(b in loop for loop in parallel)),
        per_thread=max((sum(workspace.get(b, 0) for b in loop) for loop in parallel), default=0),
    )

    def place(alloc: tirx.AllocBuffer) -> tirx.Stmt:
        return _on_stack(alloc.buffer) if alloc.buffer in on_stack else alloc

    body = structural_map(func.body, (tirx.AllocBuffer, place))
    pairs = zip(signature, func.params, strict=False)  # threads come behind
    promised = {var: a.alignment for a, var in pairs if a.alignment > 1}
    for var, alignment in {**promised, **dict.fromkeys(workspace, ALIGNMENT)}.items():
        body = tirx.AttrStmt(var, "storage_alignment", tirx.const(alignment, "int32"), body)
    # A workspace call names its device, which MakePackedAPI would have supplied; 1 is the CPU.
    # Not earlier than here: the lowering moves allocations out of an AttrStmt.
    body = tirx.AttrStmt(tirx.const(0, "int32"), "device_type", tirx.const(1, "int32"), body)
    body = tirx.AttrStmt(tirx.const(0, "int32"), "device_id", tirx.const(0, "int32"), body)
    return func.with_body(body), scratch


def _on_stack(buffer: tirx.Var) -> tirx.Stmt:
    """An allocation that no later pass turns into a call, on a 64-byte boundary.

    TVM's code generation aligns an array of scalars to at most 16 bytes, and vectors read from it
    would then straddle cache lines: the memory is allocated as 64-byte vectors.
    """
    keep = {"disable_lower_builtin": tirx.const(1, "int32")}
    nbytes = _nbytes(buffer)
    if nbytes <= ALIGNMENT or tvm.DataType(str(buffer.dtype)).lanes > 1:
        return tirx.AllocBuffer(buffer, keep)
    lines = [-(-nbytes // ALIGNMENT)]
    memory = tirx.decl_buffer(lines, f"uint8x{ALIGNMENT}", f"{buffer.name}_memory")
    return tirx.SeqStmt([tirx.AllocBuffer(memory, keep), tirx.DeclBuffer(buffer, data=memory.data)])


def _fitting_the_stack(buffers: list[tirx.Var]) -> set[tirx.Var]:
    fitting, total = set(), 0
    for buffer in sorted(buffers, key=_nbytes):  # the small ones are the register tiles
        size = _nbytes(buffer)
        if size <= STACK_LIMIT and total + size <= STACK_TOTAL:
            fitting.add(buffer)
            total += size
    return fitting


def _allocations(body: tirx.Stmt) -> list[tirx.Var]:
    found: list[tirx.Var] = []
    structural_walk(body, (tirx.AllocBuffer, lambda alloc: found.append(alloc.buffer)))
    return found


def _parallel_loops(body: tirx.Stmt) -> list[tirx.For]:
    found: list[tirx.For] = []
    structural_walk(body, (tirx.For, found.append))
    return [loop for loop in found if loop.kind == tirx.ForKind.PARALLEL]


def _rounded(buffer: tirx.Var) -> int:
    return -(-_nbytes(buffer) // ALIGNMENT) * ALIGNMENT


def _nbytes(buffer: tirx.Var) -> int:
    dtype = tvm.DataType(str(buffer.dtype))  # StorageRewrite makes vector types: int32x16
    elements = int(np.prod([int(extent) for extent in buffer.shape]))
    return elements * dtype.bits * dtype.lanes // 8
