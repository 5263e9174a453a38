"""The vector instruction sets of x86 that algorithms are scheduled for.

Instruction facts: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2.
"""

from dataclasses import dataclass, replace

from lpgen.target import Target


@dataclass(frozen=True)
class Isa:
    """A vector instruction set.

    bits: width of a vector; registers: how many vectors the register file holds;
    dot: LLVM's name of acc32 += u8 * s8 over four neighbours, or None;
    pairs: of s16 = u8 * s8 over two neighbours, saturating (vpmaddubsw);
    widen: of s32 = s16 * s16 over two neighbours (vpmaddwd);
    lookup: of table[index & 15] in every 128-bit lane, 0 if the index's top bit is set (vpshufb);
    permute: of table[index & 63] (vpermb of AVX512_VBMI), or None.
    """

    name: str
    bits: int
    registers: int
    dot: str | None
    pairs: str
    widen: str
    lookup: str
    permute: str | None = None

    @property
    def lanes(self) -> int:
        """32-bit lanes of a vector: output columns."""
        return self.bits // 32


SSE4 = Isa(
    "sse4",
    128,
    16,
    None,
    "llvm.x86.ssse3.pmadd.ub.sw.128",
    "llvm.x86.sse2.pmadd.wd",
    "llvm.x86.ssse3.pshuf.b.128",
)
AVX2 = Isa(
    "avx2",
    256,
    16,
    None,
    "llvm.x86.avx2.pmadd.ub.sw",
    "llvm.x86.avx2.pmadd.wd",
    "llvm.x86.avx2.pshuf.b",
)
AVX512BW = Isa(
    "avx512bw",
    512,
    32,
    None,
    "llvm.x86.avx512.pmaddubs.w.512",
    "llvm.x86.avx512.pmaddw.d.512",
    "llvm.x86.avx512.pshuf.b.512",
)
AVX512VNNI = replace(AVX512BW, name="avx512vnni", dot="llvm.x86.avx512.vpdpbusd.512")


def with_extensions(isa: Isa, target: Target) -> Isa:
    """`isa` with what else the target has at its width: only vectors of 64 bytes are whole tables
    of vpermb."""
    wide = isa.bits == 512 and "avx512vbmi" in target.features
    return replace(isa, permute="llvm.x86.avx512.permvar.qi.512" if wide else None)
