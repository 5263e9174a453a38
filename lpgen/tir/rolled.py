"""Loops that LLVM leaves as they are.

LLVM unrolls a short loop over k completely. Between the zeros and the stores of a register tile
there is then nothing but products, and it orders them as it likes: sum after sum, so that each
product waits for the one before and all operands are in memory meanwhile, up to twice the time
(1x1 convolutions of 16 to 32 channels). A number of iterations that it does not know keeps the
order of the schedule.
"""

from __future__ import annotations

from tvm import tirx
from tvm.s_tir import Schedule
from tvm_ffi import structural_map

_ROLLED = "lpgen.rolled"


def keep_rolled(sch: Schedule, loop) -> None:
    """Mark a loop of a schedule."""
    sch.annotate(loop, _ROLLED, 1)


def hide_extents(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """`func`, lowered, with the numbers of iterations of marked loops behind a fence."""

    def hidden(loop: tirx.For) -> tirx.For:
        extent = loop.extent
        if _ROLLED not in loop.annotations or not isinstance(extent, tirx.IntImm):
            return loop
        number = tirx.const(float(int(extent)), "float32")
        fenced = tirx.call_llvm_pure_intrin("float32", "llvm.arithmetic.fence", number)
        # Of at least one: the sums stay in registers.
        count = tirx.max(tirx.Cast("int32", fenced), tirx.const(1, "int32"))
        return tirx.For(loop.loop_var, loop.min, count, loop.kind, loop.body)

    return func.with_body(structural_map(func.body, (tirx.For, hidden)))
