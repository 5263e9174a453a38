"""The code of a register tile of bit layers: for every number of layers the sums of a group.

Which of them runs is decided once for each group and tile (a jump that is always the same within a
call). All of it is straight-line code, or a loop over units of 4 or 8 steps.

The planes of a prefix are *slices* of two bits. Slices a over b, with fields of w bits in the same
order, become two vectors of fields of 2 w bits by a shift and a choice of bits each (`_joined`):

    even fields:  upper half ? a << w : b            odd fields:  upper half ? a : b >> w

so that four slices, whose bytes hold 4 steps each, become four vectors of codes of 8 bits by four
such joints, 4 instructions a vector. An odd number of layers leaves out the lower bits of the last
slice: codes are twice as large, and so are the sums.

With vpdpbusd a code is up to 8 bits, and codes of fewer bits are masked where they are in their
byte, at 1, 4, 16 or 64 times their value; such fields have sums of their own where there are
registers for them (few rows). Otherwise they are shifted down. Without vpdpbusd vpmaddubsw adds up
in int16: codes are at most 4 bits, two slices, and the sums of the first two are shifted before
those of the next are added. So they are where both sides of a product are signed (sdot).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from tvm import tirx
from tvm.tirx.script import builder as tb

from lpgen.algorithms.bit_layers import Tiling
from lpgen.algorithms.definition import Definition
from lpgen.algorithms.ranged import layers_of
from lpgen.isa import Isa
from lpgen.ops.reach import INT16_MAX
from lpgen.schedules.common.bit_fields import Registers
from lpgen.tir import vectors
from lpgen.tir.microkernel import Site, replace_tile, site_of
from lpgen.tir.prefetch import hint

BYTES = 4
"""Bytes of a lane: values of k in a step."""

STRAIGHT = 32
"""Most multiplications of one number of layers in straight-line code; more become loops. There is
such code for every number, and TVM takes long over all of it."""

BESIDE = 6
"""Registers beside sums and left values: slices that are joined, and masks."""

_PARTIAL = (("mo", "no", "j", "mi", "nv", "nl", "step", "kt"), ("mo", "no", "j"))
_UPDATE = (("g", "mo", "no", "mi", "nv", "nl", "r", "s", "j"), ("g", "mo", "no", "j"))


class Part(NamedTuple):
    """Slices that are joined: their numbers, and the bits of a field of them: 1, 2, 4 or 8."""

    slices: tuple[int, ...]
    bits: int


class Prefix(NamedTuple):
    """What a number of layers reads: the parts, the highest first; below: how far the sums are
    shifted left; masked: whether the lower bits of the last slice are left out."""

    parts: tuple[Part, ...]
    below: int
    masked: bool


def prefix(bits: int, top: int, count: int, most: int) -> Prefix:
    """The first `count` layers of codes of so many bits whose first plane has `top`; most: slices
    of a part."""
    if count == 1 and top == 1:
        return Prefix((Part((0,), 1),), 0, False)
    filled = count + bits % 2  # the first slice of an odd number of bits has an upper bit of 0
    slices = tuple(range(-(-filled // 2)))
    pieces = [slices[i : i + most] for i in range(0, len(slices), most)]
    parts = tuple(Part(piece, {1: 2, 2: 4, 3: 8, 4: 8}[len(piece)]) for piece in pieces)
    spare = 2 * (parts[-1].bits // 2 - len(pieces[-1]))
    return Prefix(parts, spare + filled % 2, bool(filled % 2))


class LayersTile:
    """Emits the code; ahead: bytes of each plane to ask for in advance, or 0."""

    def __init__(self, isa: Isa, definition: Definition, ahead: int) -> None:
        self.isa, self.weights, self.ahead = isa, definition.weights, ahead
        self.op = definition.op
        self.number = layers_of(self.op)
        self.mixed = isa.mixes_signs
        self.right_type = "uint8" if self.mixed else "int8"
        self.most = 4 if isa.has_dot4 and self.mixed else 2
        self.lanes = isa.lanes

    def replace(self, func: tirx.PrimFunc, tiling: Tiling) -> tirx.PrimFunc:
        """`func` with generated code for the blocks "partial" and "tile_update"."""
        self.rows, self.vectors = tiling.rows, tiling.vectors
        self.terms = site_of(func, "tile_update", *_UPDATE).sources
        func = replace_tile(func, self.partial, "partial", *_PARTIAL)
        return replace_tile(func, self.update, "tile_update", *_UPDATE)

    # ---- the sums of a group

    def partial(self, site: Site) -> None:
        """Emit the sums of a group, for every number of layers; the registers are the same."""
        counts = list(self.op.bit_layers.all)
        tile = self.rows * self.vectors
        most = max(self._apart(self._prefix(count)) for count in counts)
        self.sums = Registers(most * tile, "int32", self.lanes)
        self.halves = None
        self.sums.zero()
        if not self.isa.has_dot4:
            self.halves = Registers(tile, "int16", 2 * self.lanes)
            self.halves.zero()
        self._one_of(site, counts)
        for mi in range(self.rows):
            for nv in range(self.vectors):
                at = site.target.at(mi=mi, nv=nv)
                total = self.sums[mi * self.vectors + nv]
                vectors.store(site.target.buffer, at, total, self.lanes)

    def _one_of(self, site: Site, counts: list[int]) -> None:
        count, *others = counts
        if not others:
            self._group(site, count)
            return
        with tb.If(self.number == count):
            with tb.Then():
                self._group(site, count)
            with tb.Else():
                self._one_of(site, others)

    def _prefix(self, count: int) -> Prefix:
        return prefix(self.op.weight.bits, self.weights.top, count, self.most)

    def _apart(self, chosen: Prefix) -> int:
        """How many fields of a code have sums of their own: all where there is room for them."""
        (first, *more), tile = chosen.parts, self.rows * self.vectors
        fields = 8 // first.bits
        fits = tile * fields + self.rows + BESIDE <= self.isa.registers
        return fields if fits and self.isa.has_dot4 and self.mixed and not more else 1

    def _group(self, site: Site, count: int) -> None:
        """Emit the sums with so many layers."""
        chosen = self._prefix(count)
        self.apart = self._apart(chosen)
        for number, part in enumerate(chosen.parts):
            if number:
                self._shift(part.bits)
            masked = chosen.masked and number == len(chosen.parts) - 1
            self._part(site, part, masked)
        self._total(chosen, count)

    def _place(self, field: int, mi: int, nv: int) -> int:
        """Which register has the sums of a field, a row and a vector of columns."""
        return (field % self.apart * self.rows + mi) * self.vectors + nv

    def _shift(self, by: int) -> None:
        for i in range(self.rows * self.vectors):
            self.sums[i] = self.sums[i] << vectors.splat(by, "int32", self.lanes)

    def _part(self, site: Site, part: Part, masked: bool) -> None:
        """Emit the products with a part."""
        unit, steps = self.weights.unit, self.weights.steps
        chunk = max(1, STRAIGHT // (self.rows * self.vectors * unit))
        whole, rest = divmod(steps, unit)
        loops = whole // chunk if whole > chunk else 0
        if loops:
            with tb.serial(0, loops) as i:
                for u in range(chunk):
                    self._unit(site, part, masked, (i * chunk + u) * unit, unit)
        for u in range(loops * chunk, whole):
            self._unit(site, part, masked, u * unit, unit)
        if rest:
            self._unit(site, part, masked, whole * unit, rest)

    def _unit(self, site: Site, part: Part, masked: bool, first, steps: int) -> None:
        """Emit the products of up to a unit of steps from `first` on."""
        room, used = self._room(part), 0
        self.named: dict[int, tirx.Expr] = {}
        for nv in range(self.vectors):
            self._ask(site, part, nv, first)
        for place in range(self._bytes(part)):
            codes = [
                self._codes(site, part, masked, nv, first, place) for nv in range(self.vectors)
            ]
            for vector, field, step in self._order(part, place):
                if step >= steps:
                    continue
                if room and used and used % room == 0:
                    self._flush(used)
                left = [self._left(site, mi, first + step) for mi in range(self.rows)]
                for nv in range(self.vectors):
                    right = self._field(codes[nv][vector], part, field)
                    for mi, x in enumerate(left):
                        self._multiply(self._place(field, mi, nv), x, right)
                used += 1
        self._flush(used)
        self._settle()

    def _room(self, part: Part) -> int:
        """How many steps of vpmaddubsw an int16 holds the sum of, 0: sums are int32."""
        if self.isa.has_dot4:
            return 0
        return INT16_MAX // (2 * ((1 << part.bits) - 1) * 128)

    def _flush(self, used: int) -> None:
        """Emit the addition of what `used` steps have left in int16, if any."""
        if self.halves and used:
            self._settle()
            for i in range(self.halves.count):
                self.sums[i] = self.sums[i] + self.isa.sum2(self.halves[i])
                self.halves[i] = vectors.splat(0, "int16", 2 * self.lanes)

    def _multiply(self, i: int, left: tirx.Expr, right: tirx.Expr) -> None:
        registers, add = self.sums, self.isa.dot4
        if self.halves is not None:
            registers, add = self.halves, self.isa.add_pairs
        before = self.named[i] if i in self.named else registers[i]
        self.named[i] = vectors.bind(add(before, left, right))

    def _settle(self) -> None:
        """Emit the stores of the sums that have names: TVM takes long over uses of memory."""
        registers = self.sums if self.halves is None else self.halves
        for i, value in self.named.items():
            registers[i] = value
        self.named = {}

    # ---- operands

    def _left(self, site: Site, mi: int, step) -> tirx.Expr:
        (access,) = (a for name, a in site.sources.items() if not name.startswith("plane"))
        four = vectors.load(access.buffer, access.at(mi=mi, step=step), BYTES)
        word = vectors.bind(tirx.reinterpret("int32", four))
        splat = tirx.Broadcast(word, self.lanes)
        return vectors.bind(tirx.reinterpret(f"int8x{BYTES * self.lanes}", splat))

    def _bytes(self, part: Part) -> int:
        """Vectors of bytes of a slice in a unit."""
        return 1 if part.bits == 1 else self.weights.unit // 4

    def _order(self, part: Part, place: int) -> Iterator[tuple[int, int, int]]:
        """(vector of `_codes`, field, step in the unit) of what a vector of bytes holds."""
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

    def _codes(self, site: Site, part: Part, masked: bool, nv: int, first, place: int) -> list:
        """Vectors of fields of codes, `_order` says of which steps."""
        if part.bits == 1:
            return [self._load(site, 0, nv, first)]
        slices = [self._slice(site, number, nv, first, place) for number in part.slices]
        if masked:
            slices[-1] = vectors.bind(slices[-1] & self._mask(0xAA))
        if len(slices) == 1:
            return slices
        slices += [None] * (len(slices) % 2)
        pairs = [self._joined(*slices[i : i + 2], 2) for i in range(0, len(slices), 2)]
        if len(pairs) == 1:
            return pairs[0]
        high, low = pairs
        return [code for a, b in zip(high, low, strict=True) for code in self._joined(a, b, 4)]

    def _slice(self, site: Site, number: int, nv: int, first, place: int) -> tirx.Expr:
        """Two bits of the codes of 4 steps."""
        if self.weights.top == 2:
            return self._load(site, number, nv, first)
        even = self.op.weight.bits % 2 == 0
        if number:
            return self._load(site, number + (1 if even else 0), nv, first + place)
        low = self._load(site, 1 if even else 0, nv, first)
        high = self._load(site, 0, nv, first) if even else None
        return self._joined(high, low, 1)[place]

    def _joined(self, high, low, width: int) -> list[tirx.Expr]:
        """Vectors with the even and the odd fields of two with fields of `width` bits, None: 0."""
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

    def _field(self, code: tirx.Expr, part: Part, field: int) -> tirx.Expr:
        """The operand of a field: where it is if it has sums of its own, else shifted down."""
        mask, at = (1 << part.bits) - 1, field * part.bits
        if self.apart == 1 and at:
            code = code >> vectors.splat(at, "int32", self.lanes)
            at = 0
        code = code if part.bits == 8 else code & self._mask(mask << at)
        return vectors.bind(tirx.reinterpret(f"{self.right_type}x{BYTES * self.lanes}", code))

    def _mask(self, byte: int) -> tirx.Expr:
        word = int.from_bytes(bytes([byte] * 4), "little", signed=True)
        return vectors.splat(word, "int32", self.lanes)

    def _load(self, site: Site, plane: int, nv: int, step) -> tirx.Expr:
        access, nbytes = site.sources[f"plane{plane}"], BYTES * self.lanes
        packed = vectors.load(access.buffer, access.at(nv=nv, step=step), nbytes)
        return vectors.bind(tirx.reinterpret(f"int32x{self.lanes}", packed))

    def _ask(self, site: Site, part: Part, nv: int, first) -> None:
        """Emit prefetches of the vectors of bytes that the part reads in a unit."""
        if not self.ahead:
            return
        for plane in self._planes(part):
            width = self.weights.widths[plane]
            for place in range(self.weights.unit * width // 8):
                access = site.sources[f"plane{plane}"]
                *outer, byte = access.at(nv=nv, step=first + place)
                tb.add_to_parent(hint(access.buffer[(*outer, byte + self.ahead)]))

    def _planes(self, part: Part) -> list[int]:
        """The planes of its slices."""
        if part.bits == 1:
            return [0]
        split = self.weights.top == 1 and self.op.weight.bits % 2 == 0
        shift = 1 if split else 0
        return [
            plane
            for number in part.slices
            for plane in ((0, 1) if split and not number else (number + shift,))
        ]

    # ---- results

    def _total(self, chosen: Prefix, count: int) -> None:
        """Emit the sums of a group, of all fields, in the first registers."""
        field = chosen.parts[0].bits
        for mi in range(self.rows):
            for nv in range(self.vectors):
                total = self.sums[self._place(0, mi, nv)]
                for number in range(1, self.apart):
                    by = vectors.splat(number * field, "int32", self.lanes)
                    total = total + (self.sums[self._place(number, mi, nv)] >> by)
                if chosen.below:
                    total = total >> vectors.splat(chosen.below, "int32", self.lanes)
                if self.op.weight.min:
                    half = self._row(mi) << (count - 1)
                    total = total - vectors.splat(half, "int32", self.lanes)
                self.sums[self._place(0, mi, nv)] = total

    def _row(self, mi: int) -> tirx.Expr:
        """The sum of a row's values of x."""
        access = self.terms["group_sums"]
        return access.buffer[tuple(access.at(mi=mi))]

    def update(self, site: Site) -> None:
        """Emit tile += float32(sums) * scale + float32(row) * offset."""
        sums, lanes = site.sources["partial"], self.lanes
        self._ask_for_fits()
        for nv in range(self.vectors):
            scale, offset = (self._fit(nv, which) for which in (0, 1))
            for mi in range(self.rows):
                at = site.target.at(mi=mi, nv=nv)
                value = vectors.load(sums.buffer, sums.at(mi=mi, nv=nv), lanes)
                row = vectors.splat(self._row(mi).astype("float32"), "float32", lanes)
                total = vectors.load(site.target.buffer, at, lanes)
                scaled = self._product(value.astype(f"float32x{lanes}"), scale)
                scaled = scaled + self._product(row, offset)
                vectors.store(site.target.buffer, at, total + scaled, lanes)

    def _product(self, a: tirx.Expr, b: tirx.Expr) -> tirx.Expr:
        """The product, rounded (see `lpgen.algorithms.result.epilogue.product`)."""
        return vectors.intrinsic(f"float32x{self.lanes}", "llvm.arithmetic.fence", a * b)

    def _fit(self, nv: int, which: int) -> tirx.Expr:
        """The scales (0) or offsets (1) of a vector of columns."""
        access, lanes = self.terms["fit"], self.lanes
        at = access.at(nv=nv)
        at[3] = which
        value = vectors.load(access.buffer, at, lanes)
        if str(access.buffer.dtype) == "uint16":
            bits = value.astype(f"uint32x{lanes}") << vectors.splat(16, "uint32", lanes)
            value = tirx.reinterpret(f"float32x{lanes}", bits)
        return vectors.bind(value)

    def _ask_for_fits(self) -> None:
        """Emit prefetches of the scales and offsets that belong to the weights asked for."""
        access, columns = self.terms["fit"], self.vectors * self.lanes
        itemsize = 2 if str(access.buffer.dtype) == "uint16" else 4
        of_group = self.weights.steps * columns  # bytes of a plane of two bits
        groups = -(-self.ahead // of_group)
        for first in range(0, 2 * columns if groups else 0, 64 // itemsize):
            *outer, _, vector, lane = access.at()
            at = (*outer, 0, vector, lane + groups * 2 * columns + first)
            tb.add_to_parent(hint(access.buffer[at]))
