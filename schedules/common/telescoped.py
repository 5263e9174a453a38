"""Products of few rows: weights of few bits separated by masks alone.

A byte q holds a code of b bits for each of 8 / b vectors of columns. y_f is the sum of x * (field
f), x a signed byte.

* With vpdpbusd the operands are q masked with 2^((f + 1) b) - 1, for the last field q itself. Their
  sums s_f collect sum over g <= f of 2^(g b) y_g, so that y_f = (s_f - s_(f-1)) / 2^(f b): one AND
  for each field but the last, and no shift. Sums wrap modulo 2^32; the difference is exact as long
  as 2^(f b) y_f fits int32.
* With vpmaddubsw, whose sums of two products have to fit int16, the operands are q, or q shifted
  right by 4, masked with (2^b - 1) 2^(f b mod 4): at most 15. A few steps are added up in int16.

The knobs are those of `lpgen.schedules.common.bit_fields`.
"""

from tvm import tirx

from lpgen.algorithms.kernel import Kernel
from lpgen.algorithms.lhs.k_split import cut
from lpgen.algorithms.weights.bit_fields import Plane, dense_planes
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
    largest = max(
        nibble_mask(p, field) for p in dense_planes(op.weight) for field in range(p.fields)
    )
    # Padding adds the value 0 to those of the format; at least 1 stands for no values at all.
    low = min(op.act.min, 0) + left_offset(op, isa)
    high = max(max(op.act.max, 0) + left_offset(op, isa), 1)
    room = INT16_MAX // (2 * largest * high)
    return min(room, INT16_MIN // (2 * largest * low)) if low < 0 else room


def nibble_mask(plane: Plane, field: int) -> int:
    """What separates a field from the others of its nibble."""
    return ((1 << plane.width) - 1) << field * plane.width % 4


class Telescoped(fields.FieldTile):
    """The form for dot4: int32 sums of all planes in registers."""

    def start(self) -> None:
        count = self.rows * self.vectors * len(self.layout.planes)
        self.sums = fields.Registers(count, "int32", self.isa.lanes)
        self.sums.zero()

    def place(self, plane: int, vector: int, mi: int) -> int:
        """Which accumulator belongs to a plane, a vector of columns and a row."""
        return (plane * self.vectors + vector) * self.rows + mi

    def multiply(self, site, place: dict, planes) -> None:
        left = [self.left(site, mi, place) for mi in range(self.rows)]
        for number in planes:
            for vector in range(0, self.vectors, self.layout.planes[number].fields):
                weights = self.weights(site, number, {**place, "nv": vector})
                self.step(number, vector, weights, left)

    def step(self, plane: int, vector: int, weights: tirx.Expr, left: list[tirx.Expr]) -> None:
        """Multiply packed weights, whose first field is that of `vector`, with the left values."""
        p = self.layout.planes[plane]
        for field in range(p.fields):
            operand = weights
            if field < p.fields - 1:
                mask = (1 << (field + 1) * p.width) - 1
                operand = vectors.bind(weights & vectors.splat(mask, "uint8", 4 * self.isa.lanes))
            for mi, x in enumerate(left):
                i = self.place(plane, vector + field, mi)
                self.sums[i] = self.isa.dot4(self.sums[i], operand, x)

    def finish(self, site) -> None:
        for mi in range(self.rows):
            for nv in range(self.vectors):
                parts = [self._field(plane, nv, mi) for plane in range(len(self.layout.planes))]
                self.store(site, mi, nv, sum(parts[1:], parts[0]))

    def _field(self, plane: int, nv: int, mi: int) -> tirx.Expr:
        """The sum of products with a plane of codes, at its weight."""
        p, lanes = self.layout.planes[plane], self.isa.lanes
        value = self.sums[self.place(plane, nv, mi)]
        field = nv % p.fields
        if field:
            value = value - self.sums[self.place(plane, nv - 1, mi)]
            value = value >> vectors.splat(field * p.width, "int32", lanes)
        return value << vectors.splat(p.low, "int32", lanes) if p.low else value


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

    def step(self, plane: int, vector: int, weights: tirx.Expr, left: list[tirx.Expr]) -> None:
        p, count = self.layout.planes[plane], 4 * self.isa.lanes
        high = vectors.bind(weights >> vectors.splat(4, "uint8", count))
        for field in range(p.fields):
            nibble = high if field * p.width >= 4 else weights
            mask = vectors.splat(nibble_mask(p, field), "uint8", count)
            operand = vectors.bind(nibble & mask)
            for mi, x in enumerate(left):
                i = self.place(0, vector + field, mi)
                self.halves[i] = self.isa.add_pairs(self.halves[i], operand, x)

    def end(self, plane: int) -> None:
        first = self.place(plane, 0, 0)
        for i in range(self.halves.count):
            self.sums[first + i] = self.sums[first + i] + self.isa.sum2(self.halves[i])

    def _field(self, plane: int, nv: int, mi: int) -> tirx.Expr:
        p = self.layout.planes[plane]
        value = self.sums[self.place(plane, nv, mi)]
        shift = p.low - nv % p.fields * p.width % 4
        amount = vectors.splat(abs(shift), "int32", self.isa.lanes)
        return value << amount if shift > 0 else value >> amount


def in_one_pass(op: Dense | Conv2d, isa: Isa) -> bool:
    """Whether dot4 sums all planes at once: one instruction does it, and the narrowest tile has
    registers for the sums of each plane."""
    planes = dense_planes(op.weight)
    sums = max(plane.fields for plane in planes) * len(planes)
    return isa.has_dot4 and sums + 1 + BESIDE <= isa.registers


def space(op: Dense | Conv2d, isa: Isa) -> Space:
    """All knobs with their choices for `op`."""
    m, n = op.matrix.m, op.matrix.n
    return Space(
        {
            "rows": tuple(rows for rows in tile_rows(m) if rows < isa.registers),
            "vectors": fields.vector_choices(n, isa, dense_planes(op.weight)),
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
    planes = dense_planes(op.weight) if one_pass else (None,)
    # The left values of all rows, and what a step holds; else also the bytes shifted.
    if rows * width * len(planes) + rows + BESIDE + (not one_pass) > isa.registers:
        return f"a tile of {rows} x {width} vectors exceeds {isa.registers} registers"
    return blocks.refuses(op, rows, width * isa.lanes, knobs)


def work(op: Dense | Conv2d, isa: Isa, knobs: Knobs) -> Counts:
    """What a kernel with these knobs does (`Template.work`)."""
    t, planes, one_pass = (
        fields.tiling(op, isa, knobs),
        dense_planes(op.weight),
        in_one_pass(op, isa),
    )
    c = cut(op, t.kq, 1, t.folded)
    tiles = op.matrix.groups * t.row_tiles * t.panels
    steps = tiles * c.steps
    bytes_ = sum(t.vectors // plane.fields for plane in planes)  # vectors of packed weights
    operands = len(planes) * t.vectors
    chunks = c.r * c.s * (1 if one_pass else -(-c.kg // min(chunk(op, isa), c.kg)))
    sums = t.rows * t.vectors * len(planes)
    return {
        "products": steps * sums * (1 if one_pass else 2),
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
    return fields.scheduled(op, isa, knobs, dense_planes(op.weight), left_offset(op, isa), form)
