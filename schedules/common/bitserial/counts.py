"""Counting the bits of words in vectors, and the sums of such counts.

Two ways to count:

* instruction: vpopcntd (AVX512_VPOPCNTDQ), for words of 32 bits;
* shuffle: vpshufb looks up the counts of the nibbles of every byte (Mula, Kurz, Lemire, "Faster
  Population Counts Using AVX2 Instructions", 2018), or `cnt` counts those of bytes, for words of 32
  or of 8 bits.

Counts of bytes are kept in bytes, so each counter holds at most 255 // 8 = 31 vectors of bits
before it is added to wider ones. Where bytes are counted by an instruction, those of 32-bit words
are kept in 16 bits at once (`uadalp` adds two neighbours), which holds 2,047 vectors.

Source of the instructions: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tvm import tirx

from lpgen.algorithms.bitserial import ELEMENT
from lpgen.isa import Isa
from lpgen.tir import vectors as vec

BYTE_HOLDS = 255 // 8
"""Vectors whose bits one counter of bytes takes."""

HALF_HOLDS = 32767 // 16
"""The same of one of 16 bits, which counts those of two bytes."""

_JOINED = 5
"""Counts of so many levels, weighted 1, 2, 4, ..., fit one byte: 8 * 31 = 248."""


@dataclass(frozen=True)
class Counting:
    """How bits are counted, in words of `word` bits (8 or 32).

    Vectors of bits are int32 of isa.lanes, vectors of counts `dtype`: int32 by `instruction`, else
    uint8.
    """

    isa: Isa
    word: int
    instruction: bool

    @property
    def repeat(self) -> int:
        """Words of a 32-bit lane."""
        return ELEMENT // self.word

    @property
    def halves(self) -> bool:
        """Whether counts are kept in 16 bits."""
        return self.word == ELEMENT and self.isa.counts_bytes and not self.instruction

    @property
    def dtype(self) -> str:
        return "int32" if self.instruction else "uint16" if self.halves else "uint8"

    @property
    def lanes(self) -> int:
        """Lanes of a vector of counts."""
        return self.isa.lanes * (1 if self.instruction else 2 if self.halves else 4)

    @property
    def holds(self) -> int | None:
        """Vectors whose bits a counter takes; None: as many as there are."""
        return None if self.instruction else HALF_HOLDS if self.halves else BYTE_HOLDS

    def added(self, counts: tirx.Expr | None, bits: tirx.Expr) -> tirx.Expr:
        """The counts of `bits`, and what was counted."""
        if self.halves:
            start = vec.splat(0, "uint16", self.lanes) if counts is None else counts
            return self.isa.add_counts(start, vec.bind(self.of(bits)))
        return self.of(bits) if counts is None else counts + self.of(bits)

    def of(self, bits: tirx.Expr, weight: int = 1) -> tirx.Expr:
        """The counts of `bits`, times a power of two (of bytes, of at most 16)."""
        if self.instruction:
            counts = self.isa.count_bits(bits)
            return _shifted(counts, weight.bit_length() - 1, "int32", self.lanes)
        return self.isa.count_bytes(bits, weight)

    def total(
        self, levels: Sequence, counts: tirx.Expr | None, most: int, names: vec.Names
    ) -> list[tirx.Expr]:
        """The sums of all as int32 vectors: result number b is of word b of every lane.

        levels: vectors of bits weighing 2^index (None: no bits); counts: weighing 2^len(levels);
        most: what a result is at most.
        """
        top = [] if counts is None else [(len(levels), counts)]
        weighted = [(level, bits) for level, bits in enumerate(levels) if bits is not None]
        if self.instruction:
            parts = [_shifted(value, level, "int32", self.lanes) for level, value in top]
            return [_added([*parts, *(self.of(bits, 1 << level) for level, bits in weighted)])]
        joined: dict[int, tirx.Expr] = {}
        for level, bits in weighted:
            first = level - level % _JOINED
            new = self.of(bits, 1 << level - first)
            joined[first] = names(joined[first] + new if first in joined else new)
        if self.halves:  # what is left of the adders is counted in bytes still
            sums = [
                _shifted(self.isa.sum4(v), n, "int32", self.isa.lanes) for n, v in joined.items()
            ]
            return [_added([*sums, *self.widened(top, most)])] if top else [_added(sums)]
        return self.widened([*joined.items(), *top], most)

    def widened(self, sums: Sequence[tuple[int, tirx.Expr]], most: int) -> list[tirx.Expr]:
        """sum of 2^shift * counts, as `repeat` vectors of int32; sums: pairs (shift, counts)."""
        lanes = self.isa.lanes
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

    def _by_halves(self, sums: Sequence[tuple[int, tirx.Expr]]) -> list[tirx.Expr]:
        """As `widened`, adding up in 16 bits."""
        lanes, wide = self.isa.lanes, self.isa.lanes * 2
        even, odd = [], []
        for shift, value in sums:
            pairs = vec.reinterpret(f"uint16x{wide}", value)
            even.append(_shifted(pairs & vec.splat(255, "uint16", wide), shift, "uint16", wide))
            odd.append(_shifted(pairs >> vec.splat(8, "uint16", wide), shift, "uint16", wide))
        even, odd = (
            vec.bind(vec.reinterpret(f"uint32x{lanes}", _added(side))) for side in (even, odd)
        )
        low, high = vec.splat(0xFFFF, "uint32", lanes), vec.splat(16, "uint32", lanes)
        parts = [even & low, odd & low, even >> high, odd >> high]
        return [vec.reinterpret(f"int32x{lanes}", part) for part in parts]

    def _across(self, value: tirx.Expr, shift: int) -> tirx.Expr:
        """The counts of a lane added up, times 2^shift."""
        added = self.isa.sum2 if self.halves else self.isa.sum4
        value = vec.reinterpret(f"int16x{self.lanes}", value) if self.halves else value
        return _shifted(added(value), shift, "int32", self.isa.lanes)


def _shifted(value: tirx.Expr, shift: int, dtype: str, lanes: int) -> tirx.Expr:
    return value << vec.splat(shift, dtype, lanes) if shift else value


def _added(values: Sequence[tirx.Expr]) -> tirx.Expr:
    total = values[0]
    for value in values[1:]:
        total = total + value
    return total
