"""The operands of bit layers: vectors of codes out of the planes of a prefix, in registers.

Field f of slice s is that of step f ^ s. So where the fields of slice a are chosen in odd places,
and those of b, the next slice, in the even ones, both halves of a field of four bits belong to one
step: one instruction. With the places the other way round they do too, but the halves lie
crosswise. In the same way two vectors of four bits become two of eight. An instruction that moves
bits in a byte puts right what lies crosswise, however often it was joined, and leaves out the other
field of a byte; without it a and b are shifted before they are chosen from.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from tvm import tirx
from tvm.tirx.script import builder as tb

from lpgen.algorithms.weights.bit_layers import LayerWeights
from lpgen.isa import Isa
from lpgen.schedules.common.bit_layers.prefixes import Part
from lpgen.schedules.common.groups import BYTES
from lpgen.tir import vectors
from lpgen.tir.microkernel import Access, Site
from lpgen.tir.prefetch import hint


class Code(NamedTuple):
    """A vector of fields; crossed: bit i of a byte lies in place i ^ crossed."""

    words: tirx.Expr
    crossed: int = 0


_STEPS = {
    1: (tuple(range(8)),),
    2: (tuple(range(4)),),
    4: ((1, 3), (0, 2)),
    8: ((3,), (1,), (2,), (0,)),
}
"""By the bits of a field: for each vector of codes of how many steps it has fields, of a part that
begins with the first slice; of one that begins with slice s, step i is i ^ s."""


def _upper(width: int) -> int:
    """The upper `width` bits of every 2 * width of a byte."""
    return sum(((1 << width) - 1) << at for at in range(width, 8, 2 * width))


class Operands:
    """Emits them; right_type: of the operands; flips: whether the top bit of 8 is flipped; ahead:
    bytes of each plane to ask for in advance, or 0; moves: whether what lies crosswise is put right
    by moving bits; plane: which of those of signs."""

    plane: tirx.Expr | int = 0
    moves = False

    def __init__(
        self, isa: Isa, weights: LayerWeights, right_type: str, flips: bool, ahead: int
    ) -> None:
        self.isa, self.weights, self.ahead, self.lanes = isa, weights, ahead, isa.lanes
        self.right_type, self.flips = right_type, flips

    def size(self, part: Part) -> int:
        """Vectors of bytes of a slice in a unit."""
        return 1 if part.bits == 1 else self.weights.unit // 4

    def order(self, part: Part, place: int) -> Iterator[tuple[int, int, int]]:
        """(vector of `codes`, field, step in the unit) of what a vector of bytes holds."""
        first = part.slices[0]
        for vector, fields in enumerate(_STEPS[part.bits]):
            for field, step in enumerate(fields):
                if part.bits == 1 or self.weights.unit == 4:
                    yield vector, field, step ^ first
                else:
                    yield vector, field, (step ^ first) * 2 + place

    def codes(self, site: Site, part: Part, masked: bool, nv: int, first, place: int) -> list[Code]:
        """Vectors of fields of codes, `order` says of which steps; masked: without the lower bits
        of the last slice, but where `field` leaves them out for nothing."""
        if part.bits == 1:
            return [Code(self._load(site, 0, nv, first))]
        slices = [self._slice(site, number, nv, first, place) for number in part.slices]
        if self.flips and len(slices) > 2:
            slices[0] = vectors.bind(slices[0] ^ self._mask(0xAA))
        if masked and len(slices) == 4:
            slices[-1] = vectors.bind(slices[-1] & self._mask(0xAA))
        codes = [Code(words) for words in slices]
        if len(codes) > 1:
            pairs = [self._pair(*codes[i : i + 2], 2) for i in range(0, len(codes) // 2 * 2, 2)]
            if len(codes) == 3:
                pairs.append(self._alone(codes[2], 0x88 if masked else 0xCC))
            codes = pairs[0]
            if len(pairs) > 1:
                codes = [code for a, b in zip(*pairs, strict=True) for code in self._pair(a, b, 4)]
        return codes

    def _pair(self, high: Code, low: Code, width: int) -> list[Code]:
        """Two vectors with fields of 2 * width bits, the second one with its halves crosswise."""
        upper, by = _upper(width), vectors.splat(width, "int32", self.lanes)
        first = self._chosen(upper, high.words, low.words)
        if self.moves:
            second = self._chosen(upper, low.words, high.words)
        else:
            second = self._chosen(upper, high.words << by, low.words >> by)
        crossed = high.crossed + width if self.moves else 0
        return [
            Code(vectors.bind(first), high.crossed),
            Code(vectors.bind(second), crossed),
        ]

    def _alone(self, code: Code, upper: int) -> list[Code]:
        """`_pair` of a slice and nothing."""
        words, by = code.words, vectors.splat(2, "int32", self.lanes)
        second = words & self._mask(upper >> 2) if self.moves else (words << by) & self._mask(upper)
        return [
            Code(vectors.bind(words & self._mask(upper))),
            Code(vectors.bind(second), 2 if self.moves else 0),
        ]

    def _slice(self, site: Site, number: int, nv: int, first, place: int) -> tirx.Expr:
        """Two bits of the codes of 4 steps."""
        if self.weights.top == 2:
            return self._load(site, number, nv, first)
        even = self.weights.op.weight.bits % 2 == 0
        if number:
            return self._load(site, number + (1 if even else 0), nv, first + place)
        low = self._load(site, 1 if even else 0, nv, first)
        high = self._load(site, 0, nv, first) if even else None
        return self._halves(high, low)[place]

    def _halves(self, high: tirx.Expr | None, low: tirx.Expr) -> list[tirx.Expr]:
        """Vectors with the even and the odd fields of two with fields of a bit, None: 0."""
        one = vectors.splat(1, "int32", self.lanes)
        return [
            vectors.bind(self._chosen(0xAA, None if high is None else high << one, low)),
            vectors.bind(self._chosen(0xAA, high, low >> one)),
        ]

    def _chosen(self, mask: int, a: tirx.Expr | None, b: tirx.Expr) -> tirx.Expr:
        """Bits of a where the mask has them, else of b; None: 0."""
        if a is None:
            return b & self._mask(~mask & 0xFF)
        if self.isa.has_bit_logic:
            return self.isa.bit_logic(0xCA, self._mask(mask), a, b)
        return (a & self._mask(mask)) | (b & self._mask(~mask & 0xFF))

    def field(self, code: Code, part: Part, masked: bool, field: int, down: bool) -> tirx.Expr:
        """Emit the operand of a field: shifted down, or where it is."""
        at, below = field * part.bits, masked and part.bits in (2, 4)
        words, to = code.words, 0 if down else at
        if code.crossed:
            wanted = range(to + below, to + part.bits)
            places = [(i - to + at) ^ code.crossed if i in wanted else None for i in range(8)]
            words = self.isa.moved_bits(words, places)
        else:
            words = words >> vectors.splat(at, "int32", self.lanes) if to != at else words
            mask = (1 << part.bits) - (1 << below)
            words = words if part.bits == 8 else words & self._mask(mask << to)
        words = vectors.bind(words)
        return vectors.bind(tirx.reinterpret(f"{self.right_type}x{BYTES * self.lanes}", words))

    def _mask(self, byte: int) -> tirx.Expr:
        word = int.from_bytes(bytes([byte] * 4), "little", signed=True)
        return vectors.splat(word, "int32", self.lanes)

    def _load(self, site: Site, plane: int, nv: int, step) -> tirx.Expr:
        access, nbytes = site.sources[f"plane{plane}"], BYTES * self.lanes
        packed = vectors.load(access.buffer, self._at(access, nv, step), nbytes)
        return vectors.bind(tirx.reinterpret(f"int32x{self.lanes}", packed))

    def ask(self, site: Site, part: Part, nv: int, first) -> None:
        """Emit prefetches of the vectors of bytes that the part reads in a unit."""
        if not self.ahead:
            return
        for plane in self._planes(part):
            width = self.weights.widths[plane]
            for place in range(self.weights.unit * width // 8):
                access = site.sources[f"plane{plane}"]
                *outer, byte = self._at(access, nv, first + place)
                tb.add_to_parent(hint(access.buffer[(*outer, byte + self.ahead)]))

    def _at(self, access: Access, nv: int, step) -> list:
        return access.at(nv=nv, step=step, i=self.plane)

    def _planes(self, part: Part) -> list[int]:
        """The planes of its slices."""
        if part.bits == 1:
            return [0]
        split = self.weights.top == 1 and self.weights.op.weight.bits % 2 == 0
        shift = 1 if split else 0
        return [
            plane
            for number in part.slices
            for plane in ((0, 1) if split and not number else (number + shift,))
        ]
