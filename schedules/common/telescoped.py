"""Products of few rows: weights of few bits separated by masks alone.

A byte q holds slices of codes, slice i from bit p_i on: p_0 = 0, p_(i+1) is where slice i ends. y_i
is the sum of x * (slice i), x a signed byte.

* With vpdpbusd the operands are q masked with 2^p_(i+1) - 1, for the last slice q itself. Their
  sums s_i collect sum over j <= i of 2^p_j y_j, so that y_i = (s_i - s_(i-1)) / 2^p_i: one AND for
  each slice but the last, and no shift. Sums wrap modulo 2^32; the difference is exact as long as
  2^p_i y_i fits int32.
* With vpmaddubsw, whose sums of two products have to fit int16, slices lie in a half of a byte. The
  operands are q, or q shifted right by 4, masked with (2^width - 1) 2^(p_i mod 4): at most 15. A
  few steps are added up in int16.

The knobs are those of `lpgen.schedules.common.bit_fields`.
"""

from tvm import tirx

from lpgen.algorithms.kernel import Kernel
from lpgen.algorithms.lhs.k_split import cut
from lpgen.algorithms.weights.bit_fields import Plane, Slice, dense_planes, whole_codes
from lpgen.errors import refuse
from lpgen.isa import Isa
from lpgen.ops import Conv2d, Dense
from lpgen.ops.reach import INT16_MAX, INT32_MAX
from lpgen.schedules.common import bit_fields as fields
from lpgen.schedules.common import blocks
from lpgen.schedules.common.dot import knobs as dot_knobs
from lpgen.schedules.common.dot.knobs import STREAMED, distances, tile_rows
from lpgen.space import Counts, Knobs, Space
from lpgen.tir import vectors

INT16_MIN = -INT16_MAX - 1


def longest_k(isa: Isa) -> int:
    """The k up to which no accumulator wraps: they add up products of a whole byte with a left
    value."""
    return INT32_MAX // (255 * (128 if fields.left_type(isa) == "int8" else 255))


def left_offset(op: Dense | Conv2d, isa: Isa) -> int:
    """What is added to the activations so that they fit the type of the left side."""
    if fields.left_type(isa) == "uint8":
        return max(0, -op.act.min)
    return -128 if op.act.max > 127 else 0


BESIDE = 2
"""Registers of a step beside sums and left values: packed bytes and an operand of them."""


def why_not(op: Dense | Conv2d, isa: Isa) -> str | None:
    """Why the algorithm does not serve `op`; None if it does."""
    if op.weight.bits == 8:
        return f"weight={op.weight}: a byte holds one column"
    if op.weight.book:
        return f"weight={op.weight.short}: the codes of a code book are no multiples of its values"
    if op.matrix.m > STREAMED:
        return f"m={op.matrix.m}: so many rows share weights that are unpacked once"
    if op.matrix.k > longest_k(isa):
        return f"k={op.matrix.k}: sums of masked weights fit int32 up to k={longest_k(isa)}"
    return dot_knobs.why_not(op, isa)


def chunk(op: Dense | Conv2d, isa: Isa) -> int:
    """How many steps of vpmaddubsw an int16 holds the sum of: each adds two products of a masked
    weight and an activation. Negative sums have room for one more than positive ones."""
    largest = max(nibble_mask(s) for p in dense_planes(op.weight) for s in p.slices)
    # Padding adds the value 0 to those of the format; at least 1 stands for no values at all.
    low = min(op.act.min, 0) + left_offset(op, isa)
    high = max(max(op.act.max, 0) + left_offset(op, isa), 1)
    room = INT16_MAX // (2 * largest * high)
    return min(room, INT16_MIN // (2 * largest * low)) if low < 0 else room


def nibble_mask(part: Slice) -> int:
    """What separates a slice from the others of its half of a byte."""
    return ((1 << part.width) - 1) << part.at % 4


class Telescoped(fields.FieldTile):
    """The form for dot4: int32 sums of all slices in registers."""

    def start(self) -> None:
        counts = [self.rows * self.slices(plane) for plane in range(len(self.layout.planes))]
        self.first = [sum(counts[:plane]) for plane in range(len(counts))]
        self.sums = fields.Registers(sum(counts), "int32", self.isa.lanes)
        self.sums.zero()

    def slices(self, plane: int) -> int:
        """How many slices of a plane the vectors of a step have."""
        p = self.layout.planes[plane]
        return self.vectors // p.fields * len(p.slices)

    def place(self, plane: int, vector: int, number: int, mi: int) -> int:
        """Which accumulator belongs to a slice, by its number among those of `vector`'s bytes."""
        p = self.layout.planes[plane]
        slot = vector // p.fields * len(p.slices) + number
        return self.first[plane] + slot * self.rows + mi

    def multiply(self, site, place: dict, planes) -> None:
        left = [self.left(site, mi, place) for mi in range(self.rows)]
        for number in planes:
            p = self.layout.planes[number]
            for vector in range(0, self.vectors, p.fields):
                slot = 0
                for i, byte in enumerate(p.bytes):
                    weights = self.weights(site, number, i, {**place, "nv": vector})
                    self.step(byte, weights, left, self.place(number, vector, slot, 0))
                    slot += len(byte)

    def step(self, byte: tuple[Slice, ...], weights: tirx.Expr, left: list, first: int) -> None:
        """Multiply packed weights with the left values; first: the accumulator of the first."""
        for number, part in enumerate(byte):
            operand = weights
            if number < len(byte) - 1:
                mask = (1 << part.at + part.width) - 1
                operand = vectors.bind(weights & vectors.splat(mask, "uint8", 4 * self.isa.lanes))
            for mi, x in enumerate(left):
                i = first + number * self.rows + mi
                self.sums[i] = self.isa.dot4(self.sums[i], operand, x)

    def finish(self, site) -> None:
        for mi in range(self.rows):
            for nv in range(self.vectors):
                parts = [
                    self._slice(plane, nv, number, mi)
                    for plane, p in enumerate(self.layout.planes)
                    for number, part in enumerate(p.slices)
                    if part.field == nv % p.fields
                ]
                self.store(site, mi, nv, sum(parts[1:], parts[0]))

    def _slice(self, plane: int, nv: int, number: int, mi: int) -> tirx.Expr:
        """The sum of products with a slice, at its weight in the code."""
        part, lanes = self.layout.planes[plane].slices[number], self.isa.lanes
        value = self.sums[self.place(plane, nv, number, mi)]
        if part.at:
            value = value - self.sums[self.place(plane, nv, number - 1, mi)]
            value = value >> vectors.splat(part.at, "int32", lanes)
        return value << vectors.splat(part.low, "int32", lanes) if part.low else value


class Nibbles(Telescoped):
    """The form for add_pairs: int16 sums of one plane in registers, int32 sums in memory."""

    apart = True

    def __init__(self, isa: Isa, definition, knobs: Knobs) -> None:
        super().__init__(isa, definition, knobs)
        self.chunk = chunk(definition.op, isa)

    def start(self) -> None:
        super().start()
        self.halves = fields.Registers(self.rows * self.vectors, "int16", 2 * self.isa.lanes)

    def begin(self) -> None:
        self.halves.zero()

    def multiply(self, site, place: dict, planes) -> None:
        (plane,) = planes
        self.base = self.first[plane]
        super().multiply(site, place, planes)

    def step(self, byte: tuple[Slice, ...], weights: tirx.Expr, left: list, first: int) -> None:
        count = 4 * self.isa.lanes
        high = vectors.bind(weights >> vectors.splat(4, "uint8", count))
        for number, part in enumerate(byte):
            mask = vectors.splat(nibble_mask(part), "uint8", count)
            operand = vectors.bind((high if part.at >= 4 else weights) & mask)
            for mi, x in enumerate(left):
                i = first - self.base + number * self.rows + mi
                self.halves[i] = self.isa.add_pairs(self.halves[i], operand, x)

    def end(self, plane: int) -> None:
        first = self.first[plane]
        for i in range(self.halves.count):
            self.sums[first + i] = self.sums[first + i] + self.isa.sum2(self.halves[i])

    def _slice(self, plane: int, nv: int, number: int, mi: int) -> tirx.Expr:
        part = self.layout.planes[plane].slices[number]
        value = self.sums[self.place(plane, nv, number, mi)]
        shift = part.low - part.at % 4
        amount = vectors.splat(abs(shift), "int32", self.isa.lanes)
        return value << amount if shift > 0 else value >> amount


def in_one_pass(op: Dense | Conv2d, isa: Isa) -> bool:
    """Whether dot4 sums all slices at once: one instruction does it, and the narrowest tile has
    registers for the sums of each slice."""
    (plane,) = whole_codes(op.weight)
    return isa.has_dot4 and len(plane.slices) + 1 + BESIDE <= isa.registers


def planes_of(op: Dense | Conv2d, isa: Isa) -> tuple[Plane, ...]:
    """What the bytes of the weights hold: whole codes, or halves of bytes in each plane."""
    return whole_codes(op.weight) if in_one_pass(op, isa) else dense_planes(op.weight)


def space(op: Dense | Conv2d, isa: Isa) -> Space:
    """All knobs with their choices for `op`."""
    m, n = op.matrix.m, op.matrix.n
    return Space(
        {
            "rows": tuple(rows for rows in tile_rows(m) if rows < isa.registers),
            "vectors": fields.vector_choices(n, isa, planes_of(op, isa)),
            **blocks.knobs(m, n, isa.lanes),
            "left": blocks.left_choices(op),
            "prefetch": distances(m),
        },
        lambda knobs: refuses(op, isa, knobs) is None,
    )


def refuses(op: Dense | Conv2d, isa: Isa, knobs: Knobs) -> str | None:
    """Why the combination is not in the space; None if it is."""
    rows, width = knobs["rows"], knobs["vectors"]
    one_pass = in_one_pass(op, isa)
    (plane,) = whole_codes(op.weight)
    sums = width // plane.fields * len(plane.slices) if one_pass else width
    # The left values of all rows, and what a step holds; else also the bytes shifted.
    if rows * sums + rows + BESIDE + (not one_pass) > isa.registers:
        return f"a tile of {rows} x {width} vectors exceeds {isa.registers} registers"
    return blocks.refuses(op, rows, width * isa.lanes, knobs)


def work(op: Dense | Conv2d, isa: Isa, knobs: Knobs) -> Counts:
    """What a kernel with these knobs does (`Template.work`)."""
    t, planes, one_pass = fields.tiling(op, isa, knobs), planes_of(op, isa), in_one_pass(op, isa)
    c = cut(op, t.kq, 1, t.folded)
    tiles = op.matrix.groups * t.row_tiles * t.panels
    steps = tiles * c.steps
    # Vectors of packed weights, and operands of the products with them.
    bytes_ = sum(t.vectors // plane.fields * len(plane.bytes) for plane in planes)
    operands = sum(t.vectors // plane.fields * len(plane.slices) for plane in planes)
    chunks = c.r * c.s * (1 if one_pass else -(-c.kg // min(chunk(op, isa), c.kg)))
    sums = t.rows * operands
    return {
        "products": steps * sums * (1 if one_pass else 2),
        "multiplied": steps * sums * isa.halves,
        "unpack": steps * (operands - bytes_ if one_pass else operands + bytes_),
        "loads": steps * (t.rows * (1 if one_pass else len(planes)) + bytes_),
        "flush": tiles * chunks * sums * (not one_pass),
        "stall": steps * max(0, 5 - sums / 2) if one_pass else 0,
        **fields.work(op, isa, knobs, bytes_ * isa.lanes * c.steps * t.kq),
        "runs": tiles * chunks * (1 if one_pass else len(planes)),
    }


def kernel(op: Dense | Conv2d, isa: Isa, knobs: Knobs) -> Kernel:
    """The scheduled kernel. Raises ScheduleRefused for knobs outside of the space."""
    refuse(refuses(op, isa, knobs))
    form = Telescoped if in_one_pass(op, isa) else Nibbles
    return fields.scheduled(op, isa, knobs, planes_of(op, isa), left_offset(op, isa), form)
