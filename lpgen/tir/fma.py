"""a * b + c of float32 with one rounding, by the instruction that a CPU has for it."""

from __future__ import annotations

from tvm import tirx


def fma(a: tirx.Expr, b: tirx.Expr, c: tirx.Expr) -> tirx.Expr:
    """a * b + c: numbers or vectors. For targets with `Target.has_fma`."""
    return tirx.call_llvm_pure_intrin(str(a.ty.dtype), "llvm.fma", a, b, c)
