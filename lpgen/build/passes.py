"""The passes between a scheduled TIR function and code that LLVM takes: TVM's, for CPUs.

They are those of `tvm.s_tir.pipeline.default_s_tir_pipeline` that do anything here, in its order;
the others are about the threads, memories and types of GPUs. One is kept from work it has not to
do: CompactBufferAllocation finds out how much of each buffer is used, a proof for every access, and
registers, whose size is what the code that uses them says, are most of the accesses.
"""

from __future__ import annotations

from tvm import IRModule, s_tir, tirx
from tvm.ir.transform import PassContext, Sequential, module_pass
from tvm.s_tir import SBlock
from tvm_ffi import structural_map

from lpgen.tir.rewrite import with_fields
from lpgen.tir.vectors import OWN

_HIDDEN = "lpgen.registers"


def to_plain_code() -> Sequential:
    """The passes up to functions of loops, flat buffers and vectors."""
    return Sequential(
        [
            s_tir.transform.CanonicalizeLoop(),
            s_tir.transform.LowerInitBlock(),
            s_tir.transform.PlanAndUpdateBufferAllocationLocation(),
            s_tir.transform.ConvertBlocksToOpaque(),
            _hide_registers,
            s_tir.transform.CompactBufferAllocation(),
            _show_registers,
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


@module_pass(opt_level=0, name="lpgen.HideRegisters")
def _hide_registers(mod: IRModule, _context: PassContext) -> IRModule:
    """Allocations of registers as annotations of their blocks."""

    def hidden(block: SBlock) -> SBlock:
        registers = [b for b in block.alloc_buffers if b.name == OWN]
        if not registers:
            return block
        others = [b for b in block.alloc_buffers if b.name != OWN]
        notes = {**block.annotations, _HIDDEN: registers}
        return with_fields(block, alloc_buffers=others, annotations=notes)

    return _of_blocks(mod, hidden)


@module_pass(opt_level=0, name="lpgen.ShowRegisters")
def _show_registers(mod: IRModule, _context: PassContext) -> IRModule:
    """Allocations again."""

    def shown(block: SBlock) -> SBlock:
        notes = dict(block.annotations)
        registers = notes.pop(_HIDDEN, [])
        if not registers:
            return block
        return with_fields(
            block, alloc_buffers=[*block.alloc_buffers, *registers], annotations=notes
        )

    return _of_blocks(mod, shown)


def _of_blocks(mod: IRModule, change) -> IRModule:
    functions = {
        var: func.with_body(structural_map(func.body, (SBlock, change)))
        for var, func in mod.functions.items()
    }
    return IRModule(functions, attrs=mod.attrs)
