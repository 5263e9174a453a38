"""The operands of bit layers: vectors of codes out of the planes of a prefix, in registers."""

from __future__ import annotations

from collections.abc import Iterator

from tvm import tirx
from tvm.tirx.script import builder as tb

from lpgen.algorithms.weights.bit_layers import LayerWeights
from lpgen.isa import Isa
from lpgen.schedules.common.bit_layers.prefixes import Part
from lpgen.schedules.common.groups import BYTES
from lpgen.tir import vectors
from lpgen.tir.microkernel import Access, Site
from lpgen.tir.prefetch import hint


class Operands:
    """Emits them; right_type: of the operands; flips: whether the top bit of 8 is flipped; ahead:
    bytes of each plane to ask for in advance, or 0; plane: which of those of signs."""

    plane: tirx.Expr | int = 0

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
        count = {1: 1, 2: 1, 4: 2, 8: 4}[part.bits]  # vectors
        for vector in range(count):
            # Joining takes even and odd fields apart: the bits of the vector's number, mirrored.
            base = {1: (0,), 2: (0, 1), 4: (0, 2, 1, 3)}[count][vector]
            for field in range(8 // part.bits):
                number = field * count + base
                if part.bits == 1 or self.weights.unit == 4:
                    yield vector, field, number
                else:
                    yield vector, field, number * 2 + place

    def codes(self, site: Site, part: Part, masked: bool, nv: int, first, place: int) -> list:
        """Vectors of fields of codes, `order` says of which steps; masked: without the lower bits
        of the last slice, but where `field` leaves them out for nothing."""
        if part.bits == 1:
            return [self._load(site, 0, nv, first)]
        slices = [self._slice(site, number, nv, first, place) for number in part.slices]
        if self.flips and len(slices) > 2:
            slices[0] = vectors.bind(slices[0] ^ self._mask(0xAA))
        if masked and len(slices) == 4:
            slices[-1] = vectors.bind(slices[-1] & self._mask(0xAA))
        if len(slices) == 1:
            return slices
        pairs = [self._joined(*slices[i : i + 2], 2) for i in range(0, len(slices) // 2 * 2, 2)]
        if len(slices) == 3:
            pairs.append(self._joined(slices[2], None, 2, 0x88 if masked else 0xCC))
        if len(pairs) == 1:
            return pairs[0]
        high, low = pairs
        return [code for a, b in zip(high, low, strict=True) for code in self._joined(a, b, 4)]

    def _slice(self, site: Site, number: int, nv: int, first, place: int) -> tirx.Expr:
        """Two bits of the codes of 4 steps."""
        if self.weights.top == 2:
            return self._load(site, number, nv, first)
        even = self.weights.op.weight.bits % 2 == 0
        if number:
            return self._load(site, number + (1 if even else 0), nv, first + place)
        low = self._load(site, 1 if even else 0, nv, first)
        high = self._load(site, 0, nv, first) if even else None
        return self._joined(high, low, 1)[place]

    def _joined(self, high, low, width: int, upper: int | None = None) -> list[tirx.Expr]:
        """Vectors with the even and the odd fields of two with fields of `width` bits, None: 0;
        upper: the bits that are those of `high`."""
        if upper is None:
            upper = sum(((1 << width) - 1) << at for at in range(width, 8, 2 * width))
        by = vectors.splat(width, "int32", self.lanes)
        return [
            vectors.bind(self._chosen(upper, high if high is None else high << by, low)),
            vectors.bind(self._chosen(upper, high, low if low is None else low >> by)),
        ]

    def _chosen(self, mask: int, a: tirx.Expr | None, b: tirx.Expr | None) -> tirx.Expr:
        """Bits of a where the mask has them, else of b."""
        if b is None:
            return a & self._mask(mask)
        if a is None:
            return b & self._mask(~mask & 0xFF)
        if self.isa.has_bit_logic:
            return self.isa.bit_logic(0xCA, self._mask(mask), a, b)
        return (a & self._mask(mask)) | (b & self._mask(~mask & 0xFF))

    def field(self, code: tirx.Expr, part: Part, masked: bool, field: int, down: bool) -> tirx.Expr:
        """Emit the operand of a field: shifted down, or where it is."""
        mask, at = (1 << part.bits) - 1, field * part.bits
        mask -= masked and part.bits in (2, 4)
        if down and at:
            code = code >> vectors.splat(at, "int32", self.lanes)
            at = 0
        code = code if part.bits == 8 else code & self._mask(mask << at)
        return vectors.bind(tirx.reinterpret(f"{self.right_type}x{BYTES * self.lanes}", code))

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
