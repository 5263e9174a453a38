"""The vector instruction sets of x86 that algorithms are scheduled for.

Instruction facts: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2.
"""

from dataclasses import dataclass, replace

from lpgen.target import Target


@dataclass(frozen=True)
class Isa:
    """A vector instruction set, and the CPU that has it.

    level: its name; needs: the feature of a target that tells of it; bits: width of a vector;
    registers: how many vectors the register file holds;
    dot: LLVM's name of acc32 += u8 * s8 over four neighbours, or None;
    pairs: of s16 = u8 * s8 over two neighbours, saturating (vpmaddubsw);
    widen: of s32 = s16 * s16 over two neighbours (vpmaddwd);
    lookup: of table[index & 15] in every 128-bit lane, 0 if the index's top bit is set (vpshufb);
    permute: of table[index & 63] (vpermb of AVX512_VBMI), or None;
    count: whether an instruction counts the bits of words (AVX512_VPOPCNTDQ);
    target: the CPU with its caches.
    """

    level: str
    needs: str
    bits: int
    registers: int
    dot: str | None
    pairs: str
    widen: str
    lookup: str
    permute: str | None = None
    count: bool = False
    target: Target | None = None

    @property
    def lanes(self) -> int:
        """32-bit lanes of a vector: output columns."""
        return self.bits // 32


SSE4 = Isa(
    level="sse4",
    needs="sse4.1",
    bits=128,
    registers=16,
    dot=None,
    pairs="llvm.x86.ssse3.pmadd.ub.sw.128",
    widen="llvm.x86.sse2.pmadd.wd",
    lookup="llvm.x86.ssse3.pshuf.b.128",
)
AVX2 = Isa(
    level="avx2",
    needs="avx2",
    bits=256,
    registers=16,
    dot=None,
    pairs="llvm.x86.avx2.pmadd.ub.sw",
    widen="llvm.x86.avx2.pmadd.wd",
    lookup="llvm.x86.avx2.pshuf.b",
)
AVX512BW = Isa(
    level="avx512bw",
    needs="avx512bw",
    bits=512,
    registers=32,
    dot=None,
    pairs="llvm.x86.avx512.pmaddubs.w.512",
    widen="llvm.x86.avx512.pmaddw.d.512",
    lookup="llvm.x86.avx512.pshuf.b.512",
)
AVX512VNNI = replace(
    AVX512BW, level="avx512vnni", needs="avx512vnni", dot="llvm.x86.avx512.vpdpbusd.512"
)
LEVELS = (AVX512VNNI, AVX512BW, AVX2, SSE4)
"""The best first."""


def isa_of(target: Target) -> Isa | None:
    """The best level that the target's features allow, or None without SSE4.1.

    Only vectors of 64 bytes are whole tables of vpermb.
    """
    for isa in LEVELS:
        if isa.needs in target.features:
            wide = isa.bits == 512 and "avx512vbmi" in target.features
            permute = "llvm.x86.avx512.permvar.qi.512" if wide else None
            count = "avx512vpopcntdq" in target.features
            return replace(isa, permute=permute, count=count, target=target)
    return None
