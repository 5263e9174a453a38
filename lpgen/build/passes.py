"""The passes between a scheduled TIR function and code that LLVM takes: TVM's, for CPUs.

They are those of `tvm.s_tir.pipeline.default_s_tir_pipeline` that do anything here, in its order;
the others are about the threads, memories and types of GPUs. One is kept from work it has not to
do: CompactBufferAllocation finds out how much of each buffer is used, a proof for every access, and
each proof goes through all names that are integers. Registers, whose size is what the code that
uses them says, are most of the accesses, and the words that are read to be multiplied most of the
names, which are no place in any buffer.
"""

from __future__ import annotations

from tvm import IRModule, s_tir, tirx
from tvm.ir import Call, Op
from tvm.ir.transform import PassContext, Sequential, module_pass
from tvm.s_tir import SBlock
from tvm_ffi import structural_map

from lpgen.tir.rewrite import with_fields
from lpgen.tir.vectors import OWN

_REGISTERS = "lpgen.registers"
_NAME = "lpgen.name"
_REINTERPRET = Op.get("tirx.reinterpret")


def to_plain_code() -> Sequential:
    """The passes up to functions of loops, flat buffers and vectors."""
    return Sequential(
        [
            s_tir.transform.CanonicalizeLoop(),
            s_tir.transform.LowerInitBlock(),
            s_tir.transform.PlanAndUpdateBufferAllocationLocation(),
            s_tir.transform.ConvertBlocksToOpaque(),
            _hide_numbers,
            s_tir.transform.CompactBufferAllocation(),
            _show_numbers,
            s_tir.transform.LowerMatchBuffer(),
            s_tir.transform.StmtSimplify(),
            s_tir.transform.LowerOpaqueBlock(),
            tirx.transform.FlattenBuffer(),
            tirx.transform.NarrowDataType(32),
            s_tir.transform.LoopPartition(),
            tirx.transform.VectorizeLoop(),
            tirx.transform.StorageRewrite(),
            s_tir.transform.HoistIfThenElse(),
            tirx.transform.UnrollLoop(),
            s_tir.transform.RenormalizeSplitPattern(),
            tirx.transform.StmtSimplify(),
            tirx.transform.RemoveNoOp(),
            s_tir.transform.RewriteUnsafeSelect(),
            tirx.transform.CommonSubexprElim(),
            tirx.transform.AnnotateEntryFunc(),
            tirx.transform.SplitHostDevice(),
            tirx.transform.MakePackedAPI(),
        ]
    )


@module_pass(opt_level=0, name="lpgen.HideNumbers")
def _hide_numbers(mod: IRModule, _context: PassContext) -> IRModule:
    """Allocations of registers as annotations of their blocks, names of words as attributes."""

    def block(node: SBlock) -> SBlock:
        registers = [b for b in node.alloc_buffers if b.name == OWN]
        if not registers:
            return node
        others = [b for b in node.alloc_buffers if b.name != OWN]
        notes = {**node.annotations, _REGISTERS: registers}
        return with_fields(node, alloc_buffers=others, annotations=notes)

    def bind(node: tirx.Bind) -> tirx.Stmt:
        if not _word(node.value):
            return node
        return tirx.AttrStmt(node.var, _NAME, node.value, tirx.Evaluate(tirx.const(0)))

    return _changed(mod, (SBlock, block), (tirx.Bind, bind))


def _word(value: tirx.Expr) -> bool:
    """Whether it is the bits of something else: a number to be computed with, no place."""
    return isinstance(value, Call) and value.op.same_as(_REINTERPRET)


@module_pass(opt_level=0, name="lpgen.ShowNumbers")
def _show_numbers(mod: IRModule, _context: PassContext) -> IRModule:
    """Allocations and names again."""

    def block(node: SBlock) -> SBlock:
        notes = dict(node.annotations)
        registers = notes.pop(_REGISTERS, [])
        if not registers:
            return node
        return with_fields(node, alloc_buffers=[*node.alloc_buffers, *registers], annotations=notes)

    def bind(node: tirx.AttrStmt) -> tirx.Stmt:
        return tirx.Bind(node.node, node.value) if node.attr_key == _NAME else node

    return _changed(mod, (SBlock, block), (tirx.AttrStmt, bind))


def _changed(mod: IRModule, *changes) -> IRModule:
    functions = {
        var: func.with_body(structural_map(func.body, changes))
        for var, func in mod.functions.items()
    }
    return IRModule(functions, attrs=mod.attrs)
