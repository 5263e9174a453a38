"""Counting the bits of words in vectors, and the sums of such counts.

Two ways to count:

* instruction: vpopcntd (AVX512_VPOPCNTDQ) for words of 32 bits, vpopcntb (AVX512_BITALG) of 8;
* shuffle: vpshufb looks up the counts of the nibbles of every byte (Mula, Kurz, Lemire, "Faster
  Population Counts Using AVX2 Instructions", 2018).

Counts of bytes are kept in bytes, so each counter holds at most 255 // 8 = 31 vectors of bits
before it is added to wider ones.

Source of the instructions: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tvm import tirx

from lpgen.schedules.x86 import vectors as vec
from lpgen.schedules.x86.intrinsics import SHUFFLES
from lpgen.schedules.x86.isa import Isa

BYTE_HOLDS = 255 // 8
"""Vectors whose bits one counter of bytes takes."""

_JOINED = 5
"""Counters of so many levels, weighted 1, 2, 4, ..., fit one byte: 8 * 31 = 248."""


@dataclass(frozen=True)
class Counting:
    """How bits are counted: in words of `word` bits (8 or 32), by the instruction or by shuffles.

    Vectors of bits are int32 of isa.lanes; vectors of counts `dtype`.
    """

    isa: Isa
    word: int
    instruction: bool
    names: vec.Names = field(default_factory=vec.Names, compare=False)

    @property
    def bytewise(self) -> bool:
        """Whether counts are bytes; else they are int32 and never too small."""
        return not (self.instruction and self.word == 32)

    @property
    def repeat(self) -> int:
        """Words of a 32-bit lane."""
        return 32 // self.word

    @property
    def dtype(self) -> str:
        return f"uint8x{self.isa.lanes * 4}" if self.bytewise else f"int32x{self.isa.lanes}"

    def zero(self) -> tirx.Expr:
        kind, lanes = self.dtype.split("x")
        return vec.splat(0, kind, int(lanes))

    def add(self, counts, bits, weight: int = 1) -> tirx.Expr:
        """`counts` (None: zero) plus weight * the counts of `bits`; weight * 8 < 256 in bytes."""
        new = (
            self._by_instruction(bits, weight) if self.instruction else self._shuffled(bits, weight)
        )
        return self.names(new if counts is None else counts + new)

    def _by_instruction(self, bits, weight: int) -> tirx.Expr:
        lanes = self.isa.lanes * self.repeat
        if self.repeat == 1:
            counts = vec.intrinsic(f"int32x{lanes}", f"llvm.ctpop.v{lanes}i32", bits)
        else:
            bits = vec.reinterpret(f"uint8x{lanes}", bits)
            counts = vec.intrinsic(f"uint8x{lanes}", f"llvm.ctpop.v{lanes}i8", bits)
        for _ in range(weight.bit_length() - 1):
            counts = self.names(counts)
            counts = counts + counts
        return counts

    def _shuffled(self, bits, weight: int) -> tirx.Expr:
        lanes = self.isa.lanes * 4
        table = [weight * i.bit_count() for i in range(16)] * (lanes // 16)
        counts, nibble = vec.constants(table, "uint8"), vec.splat(15, "uint8", lanes)
        low = vec.reinterpret(f"uint8x{lanes}", bits)
        # There is no shift of bytes: the mask removes what comes from above.
        pairs = vec.reinterpret(f"uint16x{lanes // 2}", bits) >> vec.splat(4, "uint16", lanes // 2)
        high = vec.reinterpret(f"uint8x{lanes}", pairs)
        name = SHUFFLES[lanes]
        low, high = (
            vec.intrinsic(f"uint8x{lanes}", name, counts, half & nibble) for half in (low, high)
        )
        return low + high

    def total(
        self, levels: Sequence, counts: Mapping[int, tirx.Expr], most: int
    ) -> list[tirx.Expr]:
        """The sums of all, int32 vectors: result number b is of word b of every lane.

        levels: vectors of bits weighing 2^index (None: no bits); counts: weighing 2^key;
        most: what a result is at most.
        """
        parts = dict(counts)
        if not self.bytewise:
            return [self._total_of_words(levels, parts)]
        sums: list[tuple[int, tirx.Expr]] = list(parts.items())
        for first in range(0, len(levels), _JOINED):
            joined = None
            for i, bits in enumerate(levels[first : first + _JOINED]):
                if bits is not None:
                    joined = self.add(joined, bits, 1 << i)
            if joined is not None:
                sums.append((first, joined))
        return self.widened(sums, most)

    def _total_of_words(self, levels: Sequence, counts: Mapping) -> tirx.Expr:
        lanes = self.isa.lanes
        values = [(level, value) for level, value in counts.items()]
        values += [(i, self.add(None, bits)) for i, bits in enumerate(levels) if bits is not None]
        return _added([_shifted(value, level, "int32", lanes) for level, value in values])

    def widened(self, sums: Sequence[tuple[int, tirx.Expr]], most: int) -> list[tirx.Expr]:
        """sum of 2^shift * bytes, as `repeat` vectors of int32; sums: pairs (shift, bytes)."""
        lanes = self.isa.lanes
        if not sums:
            return [vec.splat(0, "int32", lanes)] * self.repeat
        if self.repeat == 1:
            return [_added([self._across(value, shift) for shift, value in sums])]
        if most < 2**16:
            return self._by_halves(sums)
        parts = []
        for b in range(4):
            of_byte = []
            for shift, value in sums:
                word = vec.reinterpret(f"uint32x{lanes}", value)
                word = word >> vec.splat(8 * b, "uint32", lanes) if b else word
                word = word & vec.splat(255, "uint32", lanes) if b < 3 else word
                of_byte.append(_shifted(word, shift, "uint32", lanes))
            parts.append(vec.reinterpret(f"int32x{lanes}", _added(of_byte)))
        return parts

    def _by_halves(self, sums) -> list[tirx.Expr]:
        """As `widened`, adding up in 16 bits."""
        lanes = self.isa.lanes
        even, odd = [], []
        for shift, value in sums:
            pairs = vec.reinterpret(f"uint16x{lanes * 2}", value)
            low, high = (
                pairs & vec.splat(255, "uint16", lanes * 2),
                pairs >> vec.splat(8, "uint16", lanes * 2),
            )
            even.append(_shifted(low, shift, "uint16", lanes * 2))
            odd.append(_shifted(high, shift, "uint16", lanes * 2))
        even, odd = (
            vec.bind(vec.reinterpret(f"uint32x{lanes}", _added(side))) for side in (even, odd)
        )
        low, high = vec.splat(0xFFFF, "uint32", lanes), vec.splat(16, "uint32", lanes)
        parts = [even & low, odd & low, even >> high, odd >> high]
        return [vec.reinterpret(f"int32x{lanes}", part) for part in parts]

    def _across(self, value, shift: int) -> tirx.Expr:
        """The four bytes of a lane added up, times 2^shift."""
        lanes = self.isa.lanes
        ones = vec.splat(1, "int8", lanes * 4)
        if self.isa.dot and shift < 7:
            weights = vec.splat(1 << shift, "int8", lanes * 4)
            zero = vec.splat(0, "int32", lanes)
            return vec.intrinsic(f"int32x{lanes}", self.isa.dot, zero, value, weights)
        # vpmaddubsw saturates, but two bytes fit.
        pairs = vec.intrinsic(f"int16x{lanes * 2}", self.isa.pairs, value, ones)
        ones = vec.splat(1, "int16", lanes * 2)
        words = vec.intrinsic(f"int32x{lanes}", self.isa.widen, pairs, ones)
        return _shifted(words, shift, "int32", lanes)


def _shifted(value, shift: int, dtype: str, lanes: int) -> tirx.Expr:
    return value << vec.splat(shift, dtype, lanes) if shift else value


def _added(values: Sequence) -> tirx.Expr:
    total = values[0]
    for value in values[1:]:
        total = total + value
    return total
