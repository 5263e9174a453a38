"""The levels of x86's vector instruction sets, as an `Isa` each.

Instruction facts: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2.
"""

from __future__ import annotations

from typing import ClassVar

from tvm import tirx

from lpgen.isa import ALL_SIGNS, MIXED, Isa, dtype_of
from lpgen.schedules.x86.narrow import narrowed
from lpgen.target import Target
from lpgen.tir import vectors as vec

# LLVM's names of an instruction, by the bits of a vector.
PMADDUBSW = {
    128: "llvm.x86.ssse3.pmadd.ub.sw.128",
    256: "llvm.x86.avx2.pmadd.ub.sw",
    512: "llvm.x86.avx512.pmaddubs.w.512",
}
"""s16 = u8 * s8 over two neighbours, saturating."""

PMADDWD = {
    128: "llvm.x86.sse2.pmadd.wd",
    256: "llvm.x86.avx2.pmadd.wd",
    512: "llvm.x86.avx512.pmaddw.d.512",
}
"""s32 = s16 * s16 over two neighbours."""

PSHUFB = {
    128: "llvm.x86.ssse3.pshuf.b.128",
    256: "llvm.x86.avx2.pshuf.b",
    512: "llvm.x86.avx512.pshuf.b.512",
}
"""table[index & 15] in every 128-bit lane, 0 if the index's top bit is set."""


AFFINE = {
    128: "llvm.x86.vgf2p8affineqb.128",
    256: "llvm.x86.vgf2p8affineqb.256",
    512: "llvm.x86.vgf2p8affineqb.512",
}
"""A matrix of bits times every byte."""


class X86(Isa):
    """What all levels have. needs: the feature of a target that tells of the level."""

    needs: ClassVar[str]
    signs = MIXED

    @property
    def has_count_bits(self) -> bool:
        return "avx512vpopcntdq" in self.target.features

    @property
    def has_moved_bits(self) -> bool:
        return "gfni" in self.target.features

    def dot4(self, acc, a, b):
        return acc + self.sum2(self._pairs(a, b))

    def dot2(self, acc, a, b):
        return acc + self._halves(a, b)

    def add_pairs(self, acc, a, b):
        return acc + self._pairs(a, b)

    def sum2(self, halves):
        return self._halves(halves, vec.splat(1, "int16", 2 * self.lanes))

    def sum4(self, counts):
        # Two bytes fit int16: nothing saturates.
        return self.sum2(self._pairs(counts, vec.splat(1, "int8", 4 * self.lanes)))

    def moved_bits(self, words, places):
        if not self.has_moved_bits:
            return super().moved_bits(words, places)
        # The rows of the matrix are bytes of 64 bits, that of the highest bit first.
        rows = [0 if place is None else 1 << place for place in reversed(places)]
        nbytes = self.bits // 8
        matrix = vec.splat(int.from_bytes(bytes(rows), "little", signed=True), "int64", nbytes // 8)
        operands = (vec.reinterpret(f"int8x{nbytes}", each) for each in (words, matrix))
        name, none = AFFINE[self.bits], vec.const(0, "int8")
        moved = vec.intrinsic(f"int8x{nbytes}", name, *operands, none)
        return vec.reinterpret(f"int32x{self.lanes}", moved)

    def lookup16(self, table, index):
        nbytes = self.bits // 8
        return vec.intrinsic(f"{dtype_of(table)}x{nbytes}", PSHUFB[self.bits], table, index)

    def lookup_in_loop(self, nbytes: int):
        name = PSHUFB.get(8 * nbytes)
        return vec.lookup_in_loop(name, nbytes) if name else None

    def narrow4(self, values, low, high, zero, dtype):
        return narrowed(values, low, high, zero, dtype)

    def _pairs(self, a, b):
        operands = unsigned_first(a, b)
        return vec.intrinsic(f"int16x{2 * self.lanes}", PMADDUBSW[self.bits], *operands)

    def _halves(self, a, b):
        return vec.intrinsic(f"int32x{self.lanes}", PMADDWD[self.bits], a, b)


class Sse4(X86):
    level, needs = "sse4", "sse4.1"
    bits, registers = 128, 16


class Avx2(X86):
    level, needs = "avx2", "avx2"
    bits, registers = 256, 16


class Avxvnni(Avx2):
    """The dot product of AVX-512 VNNI in 256 bits, for CPUs without AVX-512."""

    level, needs = "avxvnni", "avxvnni"
    has_dot4 = True

    def dot4(self, acc, a, b):
        name = "llvm.x86.avx512.vpdpbusd.256"
        return vec.intrinsic("int32x8", name, acc, *unsigned_first(a, b))

    def dot2(self, acc, a, b):
        return vec.intrinsic("int32x8", "llvm.x86.avx512.vpdpwssd.256", acc, a, b)


class Avxvnniint8(Avxvnni):
    """Bytes of any signedness: nothing has to be added to make one side unsigned."""

    level, needs = "avxvnniint8", "avxvnniint8"
    signs = ALL_SIGNS

    def dot4(self, acc, a, b):
        if dtype_of(a) != dtype_of(b):
            return super().dot4(acc, a, b)
        name = "vpdpbssd" if dtype_of(a) == "int8" else "vpdpbuud"
        return vec.intrinsic("int32x8", f"llvm.x86.avx2.{name}.256", acc, a, b)


class Avx512bw(X86):
    level, needs = "avx512bw", "avx512bw"
    bits, registers = 512, 32
    has_bit_logic = True

    @property
    def tables(self) -> tuple[int, ...]:
        """A vector of 64 bytes is a whole table of vpermb."""
        return (16, 64) if "avx512vbmi" in self.target.features else (16,)

    @property
    def has_lookup128(self) -> bool:
        return "avx512vbmi" in self.target.features

    def lookup64(self, table, index):
        return vec.intrinsic("uint8x64", "llvm.x86.avx512.permvar.qi.512", table, index)

    def lookup128(self, low, high, index):
        return vec.intrinsic("uint8x64", "llvm.x86.avx512.vpermi2var.qi.512", low, index, high)

    def bit_logic(self, table, a, b, c):
        name = "llvm.x86.avx512.pternlog.d.512"
        return vec.intrinsic("int32x16", name, a, b, c, vec.const(table))


class Avx512vnni(Avx512bw):
    level, needs = "avx512vnni", "avx512vnni"
    has_dot4 = True

    @property
    def crosses(self) -> bool:
        """AMD's Zen adds on twice as many units as it multiplies on; Intel's on the same two."""
        return self.target.llvm_cpu in ("znver4", "znver5")

    def dot4(self, acc, a, b):
        name = "llvm.x86.avx512.vpdpbusd.512"
        return vec.intrinsic("int32x16", name, acc, *unsigned_first(a, b))

    def dot2(self, acc, a, b):
        return vec.intrinsic("int32x16", "llvm.x86.avx512.vpdpwssd.512", acc, a, b)


LEVELS = (Avx512vnni, Avx512bw, Avxvnniint8, Avxvnni, Avx2, Sse4)
"""The best first."""


def isa_of(target: Target) -> X86 | None:
    """The best level that the target's features allow, or None without SSE4.1."""
    return next((level(target) for level in LEVELS if level.needs in target.features), None)


def unsigned_first(a: tirx.Expr, b: tirx.Expr) -> tuple[tirx.Expr, tirx.Expr]:
    """The operand order that belongs to vpdpbusd and vpmaddubsw."""
    return (a, b) if dtype_of(a) == "uint8" else (b, a)
