"""RISC-V's vector extension (V 1.0) as an `Isa`: vectors of one length, 128 or 256 bits.

A multiplication takes a number and a vector, and gives lanes twice as wide (`vwmacc.vx`; `vwmaccus`
and `vwmaccsu` for mixed signs). So the algorithm dot takes one byte a lane (`Isa.kq`), and no byte
is copied to all lanes. A vector is several registers there: those of its sums of 32 bits.

Neighbours are added by narrowing shifts: `vnsrl` takes the even lanes, or the odd ones. LLVM makes
these by itself of a Shuffle; `vrgather`, and `vwmacc.vx` at all times, it has for vectors of any
length alone (`_Scalable`).

Source: The RISC-V Instruction Set Manual, volume I, "V" Standard Extension for Vector Operations.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from tvm import tirx

from lpgen.isa import Isa, dtype_of
from lpgen.target import Target
from lpgen.tir import vectors as vec
from lpgen.tir.vectors import ROUNDING

DOT_BITS = 512
"""A vector of the algorithm dot: its bytes fill a register of 128 bits."""

MULTIPLY = {
    ("int8", "int8"): "vwmacc",
    ("uint8", "int8"): "vwmaccus",
    ("int8", "uint8"): "vwmaccsu",
    ("uint8", "uint8"): "vwmaccu",
}
"""What multiplies a number by a vector of bytes, by their dtypes."""


@dataclass(frozen=True)
class V(Isa):
    """What all levels have. group: registers of a vector."""

    group: int = 1
    kq: ClassVar[int] = 1
    within: ClassVar[int] = 4
    shifts_bytes: ClassVar[bool] = True

    @property
    def level(self) -> str:
        return self.target.level

    @property
    def bits(self) -> int:
        return self._register * self.group

    @property
    def registers(self) -> int:
        """Those for what a tile keeps; products of neighbours take some beside them."""
        return 24 if self.group == 1 else 32 // self.group

    @property
    def has_count_bits(self) -> bool:
        return "zvbb" in self.target.features

    counts_bytes = has_count_bits

    @property
    def _register(self) -> int:
        """Bits of a register that kernels use."""
        return 256 if "zvl256b" in self.target.features else 128

    def serving(self, algorithm: str) -> V:
        return replace(self, group=DOT_BITS // self._register) if algorithm == "dot" else self

    # ---- products and sums of neighbours

    def add_scaled(self, acc, a, b):
        kind, lanes, name = dtype_of(acc), self.lanes, MULTIPLY[dtype_of(a), dtype_of(b)]
        if kind == "int32":
            a, b, name = a.astype("int16"), b.astype(f"int16x{lanes}"), "vwmacc"
        narrow = dtype_of(b).lstrip("u")
        b, any_length = vec.bind(b), _Scalable(self._register, lanes)
        given = any_length.holding(vec.bind(acc)), vec.reinterpret(narrow, a), any_length.holding(b)
        return any_length.call(kind, name, *given, more=(AGNOSTIC,))

    def dot4(self, acc, a, b):
        return acc + self.sum2(self.add_pairs(vec.splat(0, "int16", 2 * self.lanes), a, b))

    def sum2(self, halves):
        return _added_pairs("int32", halves)

    def sum4(self, counts):
        sums = _added_pairs("uint32", _added_pairs("uint16", counts))
        return vec.reinterpret(f"int32x{self.lanes}", sums)

    # ---- lookups and results

    def lookup16(self, table, index):
        if self.bits > 128:
            first = [lane // 16 * 16 for lane in range(self.bits // 8)]
            index = index | vec.constants(first, dtype_of(index))
        return self._gathered(table, index)

    def lookup_within(self, table, index):
        every = vec.joined(table, range(16 * len(table))) if len(table) > 1 else table[0]
        return self._gathered(every, index, zeros=True)

    def narrow4(self, values, low, high, zero, dtype):
        lanes, narrow = self.lanes, []
        for value in values:
            # Of a number and of what is none (NaN) these give the number.
            for name, bound in (("maxnum", low), ("minnum", high)):
                given = value, tirx.Broadcast(tirx.const(bound, "float32"), lanes)
                value = vec.bind(vec.intrinsic(f"float32x{lanes}", f"llvm.{name}", *given))
            rounded = value + tirx.Broadcast(tirx.const(ROUNDING, "float32"), lanes)
            byte = vec.reinterpret(f"int32x{lanes}", rounded).astype(f"{dtype}x{lanes}")
            narrow.append(vec.bind(byte + vec.splat(zero, dtype, lanes) if zero else byte))
        narrow += [narrow[-1]] * (4 - len(narrow))
        return vec.bind(vec.joined(narrow, range(4 * lanes)))

    def _gathered(self, table, index, zeros: bool = False) -> tirx.Expr:
        """table[index], both of bytes; for an index beyond the table 0 with `zeros`, otherwise only
        if it is beyond the registers of the table."""
        dtype, count = dtype_of(table), _lanes(index)
        table, index = (vec.bind(vec.reinterpret(f"uint8x{_lanes(v)}", v)) for v in (table, index))
        any_length = _Scalable(self._register, max(_lanes(table), self._register // 8))
        given = any_length.holding(table, zeros), any_length.holding(index)
        found = any_length.call(
            "uint8", "vrgather.vv", any_length.splat("uint8"), *given, count=count
        )
        return vec.reinterpret(f"{dtype}x{count}", found)


START, AGNOSTIC = vec.const(0, "int64"), vec.const(3, "int64")
"""The first lane; what is left in lanes behind the last one: anything."""


@dataclass(frozen=True)
class _Scalable:
    """Vectors of `lanes` or more, however long a register of `register` bits or more is."""

    register: int
    lanes: int

    def _dtype(self, kind: str) -> str:
        return f"{kind}xvscalex{self._scale}"

    @property
    def _scale(self) -> int:
        """Lanes for every 64 bits of a register."""
        return 64 * self.lanes // self.register

    def splat(self, kind: str, value: int | None = None) -> tirx.Expr:
        """The value in all lanes; None: whatever is there, on which LLVM spends no instruction."""
        number = tirx.const(value or 0, kind)
        if value is None:  # where the lowest bit of 0 is; it says that it does not ask that of 0
            number = vec.intrinsic(kind, "llvm.cttz", number, tirx.const(True, "bool"))
        return tirx.Broadcast(number, tirx.vscale() * self._scale)

    def holding(self, vector: tirx.Expr, zeros: bool = False) -> tirx.Expr:
        """A vector in the first lanes; zeros: and 0 in the others."""
        kind = dtype_of(vector)
        others = self.splat(kind, 0 if zeros else None)
        return vec.intrinsic(self._dtype(kind), "llvm.vector.insert", others, vector, START)

    def call(
        self, kind: str, name: str, *operands: tirx.Expr, count: int = 0, more: tuple = ()
    ) -> tirx.Expr:
        """The first `count` lanes [all] of what an instruction gives."""
        count = count or self.lanes
        given = (*operands, vec.const(count, "int64"), *more)
        found = vec.intrinsic(self._dtype(kind), f"llvm.riscv.{name}", *given)
        return vec.intrinsic(f"{kind}x{count}", "llvm.vector.extract", found, START)


def isa_of(target: Target) -> V | None:
    """The Isa of a target with V, or None."""
    return V(target) if "v" in target.features else None


def _lanes(vector: tirx.Expr) -> int:
    return int(vector.ty.dtype.lanes)


def _added_pairs(dtype: str, values: tirx.Expr) -> tirx.Expr:
    """The sums of neighbours, as lanes of `dtype`."""
    values, lanes = vec.bind(values), _lanes(values)
    even, odd = (vec.bind(vec.shuffle(values, range(i, lanes, 2))) for i in range(2))
    wide = f"{dtype}x{lanes // 2}"
    return even.astype(wide) + odd.astype(wide)
