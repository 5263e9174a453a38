"""The code of a register tile of bit layers: for every number of layers the sums of a group.

Which of them runs is decided once for each group and tile (a jump that is always the same within a
call). All of it is straight-line code, or a loop over units of 4 or 8 steps.

With vpdpbusd a code is up to 8 bits, and codes of fewer bits are masked where they are in their
byte, at 1, 4, 16 or 64 times their value; such fields have sums of their own where there are
registers for them (few rows). Otherwise they are shifted down. Without vpdpbusd vpmaddubsw adds up
in int16: codes are at most 4 bits, two slices, and the sums of the first two are shifted before
those of the next are added. So they are where both sides of a product are signed (sdot).

An x without signs is the unsigned side of a product of mixed signs: codes of 8 bits have their top
bit flipped then, which takes 128 off each, and the sums get 128 times that of x.
"""

from __future__ import annotations

from collections.abc import Sequence

from tvm import tirx
from tvm.tirx.script import builder as tb

from lpgen.algorithms.bit_layers import needs_whole_sums
from lpgen.algorithms.definition import Definition
from lpgen.algorithms.ranged import layers_of
from lpgen.isa import Isa
from lpgen.ops.reach import INT16_MAX
from lpgen.schedules.common.bit_fields import Registers
from lpgen.schedules.common.bit_layers.operands import Operands
from lpgen.schedules.common.bit_layers.prefixes import Part, Prefix, prefix
from lpgen.schedules.common.groups import GroupTile
from lpgen.tir import vectors
from lpgen.tir.microkernel import Site
from lpgen.tir.prefetch import hint

STRAIGHT = 32
"""Most multiplications of one number of layers in straight-line code; more become loops. There is
such code for every number, and TVM takes long over all of it."""

CHAINS, TOGETHER = 4, 8
"""Most sums of the same fields, and as many multiplications as hide how long one takes: 4 or 5
cycles, of one or two a cycle."""

MOVING = 2
"""Rows up to which bits are moved by the instruction for it: Zen 4 has it where it multiplies."""

BESIDE = 6
"""Registers beside sums and left values: slices that are joined, and masks."""

MATRICES = 3
"""Those of the matrices by which bits are moved: without room for them a tile of 6 vectors spilled
its sums (two layers of 768x256: 2.19 us, 1.75 with the fields in one sum)."""


class LayersTile(GroupTile):
    """Emits the code; ahead: bytes of each plane to ask for in advance, or 0."""

    WITHIN = ("i",)

    def __init__(self, isa: Isa, definition: Definition, ahead: int) -> None:
        super().__init__(isa, definition, ahead)
        self.number = layers_of(self.op)
        self.mixed = isa.mixes_signs
        unsigned = self.left_type == "uint8"
        right = "uint8" if self.mixed != unsigned else "int8"
        self.flips = self.mixed and unsigned
        whole_bytes = right == "uint8" or self.flips
        self.most = 4 if isa.has_dot4 and whole_bytes else 2
        self.operands = Operands(isa, self.weights, right, self.flips, ahead)

    # ---- the sums of a group

    def partial(self, site: Site) -> None:
        """Emit the sums of a group, for every number of layers; the registers are the same."""
        self.operands.moves = self.isa.has_moved_bits and self.rows <= MOVING
        counts = list(self.op.bit_layers.all)
        tile, prefixes = self.rows * self.vectors, map(self._prefix, counts)
        most = max(self._apart(p) * self._chains(p) for p in prefixes)
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
        fits = (
            self._fits(tile * fields) and self.isa.has_dot4 and self.operands.right_type == "uint8"
        )
        return fields if fits and not more else 1

    def _chains(self, chosen: Prefix) -> int:
        """How many sums of the same fields there are, for steps in turn: a multiplication waits for
        the one before that adds to the same register, and few tiles are that many."""
        tile = self.rows * self.vectors * self._apart(chosen)
        chains = CHAINS if self.isa.has_dot4 and len(chosen.parts) == 1 else 1
        while chains > 1 and (tile * chains > TOGETHER or not self._fits(tile * chains)):
            chains //= 2
        return chains

    def _fits(self, sums: int) -> bool:
        beside = BESIDE + (MATRICES if self.operands.moves else 0)
        return sums + self.rows + beside <= self.isa.registers

    def _group(self, site: Site, count: int) -> None:
        """Emit the sums with so many layers."""
        chosen = self._prefix(count)
        self.apart, self.chains = self._apart(chosen), self._chains(chosen)
        for number, part in enumerate(chosen.parts):
            if number:
                self._shift(part.bits)
            masked = chosen.masked and number == len(chosen.parts) - 1
            self._part(site, part, masked)
        self._total(chosen, count)

    def _place(self, field: int, mi: int, nv: int, step: int = 0) -> int:
        """Which register has the sums of a field, a row and a vector of columns, of the steps of
        its chain."""
        number = step % self.chains * self.apart + field % self.apart
        return (number * self.rows + mi) * self.vectors + nv

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
            self.operands.ask(site, part, nv, first)
        # One row reads x out of memory as it multiplies: the codes of one vector of columns after
        # the other, so that few of them are in registers. Else a value of x serves all vectors.
        every = range(self.vectors)
        several = [[nv] for nv in every] if self.rows == 1 and not room else [every]
        for place in range(self.operands.size(part)):
            before = used
            for columns in several:
                used = self._columns(site, part, masked, columns, first, steps, place, before)
        self._flush(used)
        self._settle()

    def _columns(
        self,
        site: Site,
        part: Part,
        masked: bool,
        columns: Sequence[int],
        first,
        steps: int,
        place: int,
        used: int,
    ) -> int:
        """Emit the products with a vector of bytes of these vectors of columns; used: how many
        steps of the unit there were before. Returns how many there are then."""
        room = self._room(part)
        codes = {nv: self.operands.codes(site, part, masked, nv, first, place) for nv in columns}
        for vector, field, step in self.operands.order(part, place):
            if step >= steps:
                continue
            if room and used and used % room == 0:
                self._flush(used)
            left = [self.left(site, mi, first + step) for mi in range(self.rows)]
            for nv in columns:
                down = self.apart == 1
                right = self.operands.field(codes[nv][vector], part, masked, field, down)
                for mi, x in enumerate(left):
                    self._multiply(self._place(field, mi, nv, used // self.apart), x, right)
            used += 1
        return used

    def _room(self, part: Part) -> int:
        """How many steps of vpmaddubsw an int16 holds the sum of, 0: sums are int32."""
        if self.isa.has_dot4:
            return 0
        largest = 255 if self.left_type == "uint8" else 128
        return INT16_MAX // (2 * ((1 << part.bits) - 1) * largest)

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

    # ---- results

    def _total(self, chosen: Prefix, count: int) -> None:
        """Emit the sums of a group, of all fields, in the first registers."""
        field = chosen.parts[0].bits
        for mi in range(self.rows):
            for nv in range(self.vectors):
                total = self._of_fields(mi, nv, field)
                if self.flips and field == 8:
                    total = total + vectors.splat(self._row(mi) << 7, "int32", self.lanes)
                if chosen.below:
                    total = total >> vectors.splat(chosen.below, "int32", self.lanes)
                if self.op.weight.min:
                    half = self._row(mi) << (count - 1)
                    total = total - vectors.splat(half, "int32", self.lanes)
                self.sums[self._place(0, mi, nv)] = total

    def _of_fields(self, mi: int, nv: int, bits: int) -> tirx.Expr:
        """The sums of all fields of so many bits, and of all chains."""
        total = None
        for number in range(self.apart):
            of_field = self.sums[self._place(number, mi, nv)]
            for step in range(1, self.chains):
                of_field = of_field + self.sums[self._place(number, mi, nv, step)]
            if number:
                of_field = of_field >> vectors.splat(number * bits, "int32", self.lanes)
            total = of_field if total is None else total + of_field
        return total

    def _row(self, mi: int) -> tirx.Expr:
        """The sum of a row's values of x, int32 or float32."""
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
                row = self._row(mi)
                row = row.astype("float32") if needs_whole_sums(self.op) else row
                row = vectors.splat(row, "float32", lanes)
                total = vectors.load(site.target.buffer, at, lanes)
                scaled = self.rounded(value.astype(f"float32x{lanes}") * scale)
                scaled = scaled + self.rounded(row * offset)
                vectors.store(site.target.buffer, at, total + scaled, lanes)

    def _fit(self, nv: int, which: int) -> tirx.Expr:
        """The scales (0) or offsets (1) of a vector of columns."""
        access = self.terms["fit"]
        at = access.at(nv=nv)
        at[3] = which
        return vectors.bind(self.floats(vectors.load(access.buffer, at, self.lanes)))

    def _ask_for_fits(self) -> None:
        """Emit prefetches of the scales and offsets that belong to the weights asked for."""
        access, columns = self.terms["fit"], self.vectors * self.lanes
        itemsize = 2 if self.weights.float_dtype == "uint16" else 4
        of_group = self.weights.steps * columns  # bytes of a plane of two bits
        groups = -(-self.ahead // of_group)
        for first in range(0, 2 * columns if groups else 0, 64 // itemsize):
            *outer, _, vector, lane = access.at()
            at = (*outer, 0, vector, lane + groups * 2 * columns + first)
            tb.add_to_parent(hint(access.buffer[at]))
