"""The arithmetic of vectors that `lpgen.ops.functions` are written on, and their kernels need."""

from __future__ import annotations

from typing import Any

from tvm import tirx

from lpgen.algorithms.result.epilogue import product
from lpgen.algorithms.rows import cast, spread, with_product
from lpgen.tir import vectors as vec


class Vectors:
    """Vectors of float32 in TIR, as `ops.functions.Numbers`; one for a piece of straight-line
    code, in which it emits the values that are named."""

    def __init__(self, rounded: str = "product", names: vec.Names | None = None) -> None:
        self._rounded, self._names = rounded, names or vec.Names()

    def rounding(self, rounded: str) -> Vectors:
        return Vectors(rounded, self._names)

    def plus(self, total: tirx.Expr, a: tirx.Expr, b: tirx.Expr) -> tirx.Expr:
        return with_product(total, a, b, self._rounded)

    @staticmethod
    def const(value: float, like: tirx.Expr) -> tirx.Expr:
        return spread(tirx.const(value, "float32"), int(like.ty.dtype.lanes))

    def name(self, value: tirx.Expr) -> tirx.Expr:
        return self._names(value)

    @staticmethod
    def mul(a: tirx.Expr, b: tirx.Expr) -> tirx.Expr:
        return product(a, b)

    @staticmethod
    def neg(value: tirx.Expr) -> tirx.Expr:
        return value * spread(tirx.const(-1, "float32"), int(value.ty.dtype.lanes))

    @staticmethod
    def where(chosen: tirx.Expr, a: tirx.Expr, b: tirx.Expr) -> tirx.Expr:
        return tirx.Select(chosen, a, b)

    @staticmethod
    def sqrt(value: tirx.Expr) -> tirx.Expr:
        return tirx.call_llvm_pure_intrin(str(value.ty.dtype), _of_type("sqrt", value), value)

    @staticmethod
    def to_float(value: tirx.Expr) -> tirx.Expr:
        return cast("float32", value)

    @staticmethod
    def not_negative(value: tirx.Expr) -> tirx.Expr:
        return tirx.Max(value, vec.splat(0, "int32", int(value.ty.dtype.lanes)))

    @staticmethod
    def bits(value: tirx.Expr) -> tirx.Expr:
        return vec.reinterpret(vec.vector("int32", int(value.ty.dtype.lanes)), value)

    @staticmethod
    def of_bits(value: tirx.Expr) -> tirx.Expr:
        return vec.reinterpret(vec.vector("float32", int(value.ty.dtype.lanes)), value)


def _of_type(name: str, value: Any) -> str:
    """The LLVM intrinsic for a vector of float32."""
    lanes = int(value.ty.dtype.lanes)
    return f"llvm.{name}.f32" if lanes == 1 else f"llvm.{name}.v{lanes}f32"
