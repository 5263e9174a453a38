"""The levels of Arm's vector instruction set NEON, as an `Isa` each.

A product of bytes is 16 bits wide, and eight of them fill a vector. So without `sdot` the algorithm
dot takes two bytes for each lane (`Isa.kq`): `smull` makes eight products, and `sadalp` adds their
pairs to four int32; or `smlal` adds them up in int16 as they are. Of int16 it makes four products
and adds them to int32. Others take four bytes: `smull`
and `smull2` for both halves, and `addp`, which adds neighbours. Signs do not mix before `usdot`.

Instruction facts: Arm Architecture Reference Manual for A-profile (DDI 0487), C7; for 32 bits
DDI 0406, A8.8.
"""

from __future__ import annotations

from typing import ClassVar

from tvm import tirx

from lpgen.isa import ALL_SIGNS, Isa, Signs, dtype_of
from lpgen.schedules.arm.narrow import narrowed
from lpgen.target import Target
from lpgen.tir import vectors as vec

ALIKE: tuple[Signs, ...] = (("int8", "int8"), ("uint8", "uint8"))


TBL = "llvm.aarch64.neon.tbl1.v16i8"
"""table[index] of 16 bytes, 0 for an index beyond."""


class Neon(Isa):
    """What all levels have, on 32 bits, too. needs: the feature of a target that tells of it."""

    level: ClassVar[str] = "neon"
    needs: ClassVar[str] = "neon"
    bits = 128
    registers = 32
    signs = ALIKE
    within = 4
    kq = 2
    kq_words = 1
    halves = 2
    counts_bytes = True
    shifts_bytes = True

    def dot4(self, acc, a, b):
        return acc + self.sum2(self._sums(a, b))

    def dot2(self, acc, a, b):
        low, high = (vec.bind(part) for part in _products("int32", a, b))
        return acc + self._added_pairs(low, high)

    def add_pairs(self, acc, a, b):
        return acc + self._sums(a, b)

    def add_twos(self, acc, a, b):
        product = _converted("int16", a) * _converted("int16", b)
        if dtype_of(a) == dtype_of(b) == "uint8":
            product = vec.reinterpret("uint16x8", product)
        sums = self._widened_pairs(vec.bind(product))
        return acc + vec.reinterpret("int32x4", sums)

    def sum4(self, counts):
        return vec.reinterpret("int32x4", self._widened_pairs(self._widened_pairs(counts)))

    def sum2(self, halves):
        return self._widened_pairs(halves)

    def add_counts(self, acc, counts):
        return acc + self._widened_pairs(counts)

    def narrow4(self, values, low, high, zero, dtype):
        return narrowed(values, low, high, zero, dtype)

    def lookup16(self, table, index):
        return vec.intrinsic(f"{dtype_of(table)}x16", TBL, table, index)

    def lookup_within(self, table, index):
        name = f"llvm.aarch64.neon.tbl{len(table)}.v16i8"
        return vec.intrinsic("uint8x16", name, *table, index)

    def lookup_in_loop(self, nbytes: int):
        return vec.lookup_in_loop(TBL, nbytes) if nbytes == 16 else None

    def _sums(self, a, b) -> tirx.Expr:
        """The sums (int16) of two neighbouring products of bytes."""
        return self._added_pairs(*(vec.bind(part) for part in _products("int16", a, b)))

    def _added_pairs(self, low, high) -> tirx.Expr:
        """The sums of neighbours, of two vectors in one."""
        dtype = str(low.ty.dtype)
        return vec.intrinsic(dtype, f"llvm.aarch64.neon.addp.{_llvm(dtype)}", low, high)

    def _widened_pairs(self, values) -> tirx.Expr:
        """The sums of neighbours, twice as wide."""
        wide, narrow, sign = _twice_as_wide(values)
        name = f"llvm.aarch64.neon.{sign}addlp.{_llvm(wide)}.{_llvm(narrow)}"
        return vec.intrinsic(wide, name, values)


class Neon32(Neon):
    """NEON of 32-bit CPUs: half the registers, and pairs are added in half a vector."""

    level, needs = "neon32", "neon"
    registers = 16
    within = 1
    narrow4 = Isa.narrow4

    def lookup16(self, table, index):
        halves, dtype = (range(8), range(8, 16)), dtype_of(table)
        entries = [vec.bind(vec.shuffle(table, half)) for half in halves]
        places = [vec.bind(vec.shuffle(index, half)) for half in halves]
        found = [_call32(f"{dtype}x8", "vtbl2", *entries, part) for part in places]
        return vec.joined(found, range(16))

    def lookup_within(self, table, index):
        return self.lookup16(*table, index)

    def lookup_in_loop(self, nbytes: int):
        return None

    def _added_pairs(self, low, high):
        dtype, lanes = dtype_of(low), int(low.ty.dtype.lanes)
        half = f"{dtype}x{lanes // 2}"
        halves = (range(lanes // 2), range(lanes // 2, lanes))
        added = [
            _call32(half, f"vpadd.{_llvm(half)}", *(vec.shuffle(value, h) for h in halves))
            for value in (low, high)
        ]
        return vec.joined([vec.bind(value) for value in added], range(lanes))

    def _widened_pairs(self, values):
        wide, narrow, sign = _twice_as_wide(values)
        return _call32(wide, f"vpaddl{sign}.{_llvm(wide)}.{_llvm(narrow)}", values)


class Dotprod(Neon):
    """Sums of four products of bytes in one instruction, `sdot` or `udot` (Armv8.2)."""

    level, needs = "dotprod", "dotprod"
    has_dot4 = True
    halves = 1
    kq = 4

    def dot4(self, acc, a, b):
        if dtype_of(a) == dtype_of(b):
            return self._dot("sdot" if dtype_of(a) == "int8" else "udot", acc, a, b)
        # u = (u as a signed byte) + 256 * (its top bit); the bit alone is -128 as a signed byte.
        a, b = (vec.bind(v) for v in ((a, b) if dtype_of(a) == "uint8" else (b, a)))
        signed = vec.reinterpret("int8x16", a)
        top = vec.reinterpret("int8x16", vec.bind(a & vec.splat(128, "uint8", 16)))
        tops = vec.bind(self._dot("sdot", vec.splat(0, "int32", 4), top, b))
        return self._dot("sdot", acc, signed, b) - tops - tops

    def _dot(self, name: str, acc, a, b) -> tirx.Expr:
        return vec.intrinsic("int32x4", f"llvm.aarch64.neon.{name}.v4i32.v16i8", acc, a, b)


class I8mm(Dotprod):
    """Bytes of any signedness: `usdot`; two rows and two columns at a time (Armv8.6)."""

    level, needs = "i8mm", "i8mm"
    signs = ALL_SIGNS

    def dot4(self, acc, a, b):
        if dtype_of(a) == dtype_of(b):
            return super().dot4(acc, a, b)
        return self._dot("usdot", acc, *((a, b) if dtype_of(a) == "uint8" else (b, a)))

    def mmla(self, acc, a, b) -> tirx.Expr:
        """acc (int32) + the products of two rows of eight bytes with two others, all four pairs;
        of mixed signs `a` is the unsigned side."""
        signs = dtype_of(a), dtype_of(b)
        name = {("int8", "int8"): "smmla", ("uint8", "uint8"): "ummla"}.get(signs, "usmmla")
        return vec.intrinsic("int32x4", f"llvm.aarch64.neon.{name}.v4i32.v16i8", acc, a, b)


LEVELS = (I8mm, Dotprod, Neon)
"""The best first."""


def isa_of(target: Target) -> Neon | None:
    """The best level that the target's features allow, or None without NEON."""
    if target.architecture == "armv7":
        return Neon32(target)
    return next((level(target) for level in LEVELS if level.needs in target.features), None)


def _products(dtype: str, a, b) -> list[tirx.Expr]:
    """The products of two vectors, those of the lower half and those of the upper one."""
    a, b = vec.bind(a), vec.bind(b)
    lanes = int(a.ty.dtype.lanes)
    halves = (range(lanes // 2), range(lanes // 2, lanes))
    a, b = ([_converted(dtype, vec.shuffle(v, h)) for h in halves] for v in (a, b))
    return [left * right for left, right in zip(a, b, strict=True)]


def _converted(dtype: str, vector: tirx.Expr) -> tirx.Expr:
    return vector.astype(f"{dtype}x{int(vector.ty.dtype.lanes)}")


def _llvm(dtype: str) -> str:
    """LLVM's name of a vector's type: "v8i16"."""
    kind, _, lanes = dtype.lstrip("u").partition("x")
    return f"v{lanes}i{kind.removeprefix('int')}"


def _twice_as_wide(values: tirx.Expr) -> tuple[str, str, str]:
    """Of a vector: the type of half as many lanes, twice as wide; its own; "s" or "u"."""
    dtype, lanes = dtype_of(values), int(values.ty.dtype.lanes)
    kind, bits = dtype.rstrip("0123456789"), int(dtype.lstrip("uint"))
    return f"{kind}{2 * bits}x{lanes // 2}", f"{dtype}x{lanes}", "u" if kind == "uint" else "s"


def _call32(dtype: str, name: str, *arguments: tirx.Expr) -> tirx.Expr:
    return vec.intrinsic(dtype, f"llvm.arm.neon.{name}", *arguments)
