"""Scheduled kernels to machine code: one way for measuring and for exporting.

A kernel becomes a plain C function, `int32_t f(x, packed, y, threads)` or whatever its signature
is, 0 on success: a pointer for each tensor, an int32 for each scalar. What TVM would leave to its
runtime is settled here:

* Tensors may have any address. TVM would tell LLVM that every parameter starts on a 64-byte
  boundary, and does not check it; a raw pointer carries no such promise, and only the arguments
  whose alignment the signature states (packed weights, which lpgen allocates) get it back.
* Scratch memory up to `stack.STACK_LIMIT` bytes lies on the stack, where LLVM turns a register tile
  into registers; the rest is asked for through TVMBackendAllocWorkspace, and `Lowered` says how
  much.
* Parallel loops call TVMBackendParallelLaunch. Tiles are shared among as many threads as the last
  argument says (`threads.share_tiles`).

When measuring, libtvm answers these two calls; in a library, support.c does.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tvm
from tvm import IRModule, tirx
from tvm.ir import PointerType, PrimType, StringImm

from lpgen.algorithms.kernel import Function, Kernel, RangedKernel
from lpgen.build import sizes
from lpgen.build.passes import to_plain_code
from lpgen.build.stack import Scratch, place_scratch
from lpgen.ops.rows import entry_at
from lpgen.ops.signature import Argument, Role, Signature
from lpgen.tir.ranges import bound_loops
from lpgen.tir.rolled import hide_extents
from lpgen.tir.threads import share_tiles

if TYPE_CHECKING:
    from lpgen.target import Target

_ENTRY = entry_at(0)
"""The tvm-ffi function in front of a kernel that is only measured."""


@dataclass(frozen=True)
class Lowered:
    """PrimFuncs after every pass of TVM's pipeline, and what is known of each symbol."""

    module: IRModule
    target: tvm.target.Target
    scratch: dict[str, Scratch]
    pieces: dict[str, int]
    """Into how many pieces each function's work can be shared among threads."""

    def compile(self) -> tvm.runtime.Module:
        """Machine code: a module that can be called, written as an object or read as assembly."""
        return tvm.get_global_func("target.build.llvm")(self.module, self.target)


def lower(functions: Mapping[str, Function], target: Target) -> Lowered:
    """Lower every function to a plain C function named by its key.

    Tensors are where their signature says, and do not overlap. Raises TooLarge where a buffer
    leaves int32.
    """
    raw = {symbol: _raw(function, symbol) for symbol, function in functions.items()}
    return _lower(raw, {symbol: f.signature for symbol, f in functions.items()}, target)


def write_object(module: tvm.runtime.Module, path: Path) -> None:
    """Write machine code as an object file. Raises OSError where it cannot be.

    LLVM ends the process when the disk is full: it writes to memory.
    """
    memory = os.memfd_create(path.name)
    try:
        module.write_to_file(f"/proc/self/fd/{memory}", "o")
        with open(memory, "rb", closefd=False) as written:
            path.write_bytes(written.read())
    finally:
        os.close(memory)


def jit(
    kernel: Kernel | Function | IRModule, target: Target, threads: int = 1, rows: int = 0
) -> Callable:
    """Compile for this machine: a function of tvm-ffi tensors, and integers for scalars, in the
    order of the signature; of a bare module the tensors may have any address.

    It is the code of the exported library, with libtvm's workspace and thread pool, on `threads`
    threads; of a kernel with a range of rows, for `rows` of them. TVM checks shapes and types.
    Nobody checks that a tensor starts on the boundary that its argument states
    (`lpgen.runtime.memory`); the function may crash where it does not.
    """
    if isinstance(kernel, RangedKernel):
        return ranged_module(kernel, target, threads, [rows])[entry_at(rows)]
    return jit_module(kernel, target, threads)[_ENTRY]


def jit_module(
    kernel: Kernel | Function | IRModule, target: Target, threads: int = 1
) -> tvm.runtime.Module:
    """The module of `jit`; its `inspect_source("asm")` shows the assembly."""
    if isinstance(kernel, IRModule):
        kernel = Function.of_module(kernel)
    function = kernel.function if isinstance(kernel, Kernel) else kernel
    entry = _entry(function.signature, [("kernel", function.signature, 0, 0)], threads, _ENTRY)
    raw = {"kernel": _raw(function, "kernel"), _ENTRY: entry}
    return _lower(raw, {"kernel": function.signature}, target).compile()


def ranged_module(
    kernel: RangedKernel, target: Target, threads: int, sizes: Sequence[int]
) -> tvm.runtime.Module:
    """The module with a function of tvm-ffi tensors for each of some sizes (`entry_at`), in the
    order of that operator's signature."""
    used = {step.body for rows in sizes for step in kernel.steps(rows)}
    bodies = {f"body_{i}": kernel.functions[i] for i in sorted(used)}
    raw = {symbol: _raw(function, symbol) for symbol, function in bodies.items()}
    for rows in sizes:
        signature = kernel.op.at(rows).signature.sized(kernel.packed_bytes)
        calls = [
            (f"body_{step.body}", bodies[f"body_{step.body}"].signature, step.first, step.rows)
            for step in kernel.steps(rows)
        ]
        raw[entry_at(rows)] = _entry(signature, calls, threads, entry_at(rows))
    return _lower(raw, {symbol: f.signature for symbol, f in bodies.items()}, target).compile()


def _lower(
    functions: dict[str, tirx.PrimFunc], signatures: dict[str, Signature], target: Target
) -> Lowered:
    tvm_target = target.tvm()
    # For RISC-V's V TVM has predicates for what is stored at the end of a row, and fails later
    # where these are vectors of any length.
    config = {"tirx.enable_buffer_level_predication": False}
    with (
        sizes.checked() as instruments,
        tvm.transform.PassContext(3, instruments=instruments, config=config),
    ):
        mod = tirx.transform.BindTarget(tvm_target.with_host(tvm_target))(IRModule(functions))
        mod = to_plain_code()(mod)
        # Before the tiles are shared: the ranges of loops are constants, and its proofs are quick.
        mod = tirx.transform.LowerIntrin()(mod)
        scratch, pieces = {}, {}
        for var, func in mod.functions.items():
            if signature := signatures.get(symbol := var.name_hint):
                pairs = zip(signature, func.params, strict=False)  # threads come behind
                rows = next((var for a, var in pairs if a is signature.rows), None)
                func = hide_extents(bound_loops(func))
                shared, pieces[symbol] = share_tiles(func, func.params[-1], rows)
                mod[var], scratch[symbol] = place_scratch(shared, signature)
        mod = tirx.transform.LowerTVMBuiltin()(mod)
    return Lowered(mod, tvm_target, scratch, pieces)


def _raw(function: Function, symbol: str) -> tirx.PrimFunc:
    """The function with a pointer for each tensor, its buffer declared on top of it, the scalars
    as they are, and then `threads`.

    calling_conv 1 (C) makes MakePackedAPI leave the function and its symbol alone.
    """
    func = function.module["main"]
    parameters, declarations = [], []
    for argument, own in zip(function.signature, func.params, strict=True):
        if argument.role == Role.SCALAR:
            parameters.append(own)
            continue
        parameters.append(tirx.Var(f"{own.name}_ptr", PointerType(own.ty.dtype)))
        declarations.append(tirx.DeclBuffer(own, data=parameters[-1]))
    body = tirx.SeqStmt([*declarations, func.body])
    # It returns int because the check behind every workspace call returns -1. Code generation
    # ends it with `return 0`; a Return here would come before the release of the workspace.
    raw = tirx.PrimFunc([*parameters, tirx.Var("threads", "int32")], body, PrimType("int32"))
    return raw.with_attr(
        {"global_symbol": symbol, "calling_conv": 1, "tirx.noalias": True, "s_tir": True}
    )


def _entry(
    signature: Signature, calls: Sequence[tuple], threads: int, symbol: str
) -> tirx.PrimFunc:
    """A tvm-ffi function that checks the tensors of `signature`, and makes calls on `threads`
    threads: (function, its signature, which row it begins with, how many rows it computes)."""
    given = {}
    for a in signature:
        if a.role == Role.SCALAR:
            given[a.name] = tirx.Var(a.name, a.dtype)
        else:
            given[a.name] = tirx.decl_buffer(a.shape, a.dtype, a.name, data_alignment=a.alignment)
    statements = []
    error, message = StringImm("RuntimeError"), StringImm("the kernel failed: out of memory?")
    for function, own, first, rows in calls:
        arguments = [_passed(a, given.get(a.name), first, rows) for a in own]
        call = tirx.call_extern("int32", function, *arguments, _int32(threads))
        statements.append(tirx.AssertStmt(call == _int32(0), error, [message]))
    body = tirx.SeqStmt(statements) if len(statements) > 1 else statements[0]
    entry = tirx.PrimFunc([*given.values()], body)
    return entry.with_attr({"global_symbol": symbol, "s_tir": True})


def _passed(argument: Argument, given: tirx.Var | None, first: int, rows: int) -> tirx.Expr:
    """What a call that begins with row `first` gets for an argument; none is given: the rows."""
    if given is None:
        return _int32(rows)
    if argument.role == Role.SCALAR:
        return given
    if not first or argument.role == Role.PACKED:
        return given.data
    return tirx.address_of(given[(first, *[0] * (len(argument.shape) - 1))])


def _int32(value: int) -> tirx.IntImm:
    return tirx.IntImm("int32", value)
