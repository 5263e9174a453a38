"""Several products in one multiplication: two columns of small codes in one byte.

The unsigned operand u = c0 + 2^S c1 holds the codes of two columns. Its products with x >= 0 add up
to L + 2^S H, L and H the sums of the two columns, which are apart as long as L < 2^S.

* With vpdpbusd the accumulators are int32: every T = (2^S - 1) / (4 max(c x)) steps the low part
  t = acc & (2^S - 1) moves to a sum of its own, L += t, acc ^= t, and at the end H = acc >> S.
* With vpmaddubsw they are int16, two products each: every T steps, T such that L < 2^S and the
  whole fits, both parts move to int32 sums.

The knobs are those of `lpgen.schedules.common.bit_fields`.
"""

from tvm import tirx

from lpgen.algorithms.kernel import Kernel
from lpgen.algorithms.lhs.k_split import cut
from lpgen.algorithms.weights.bit_fields import spread_planes
from lpgen.errors import refuse
from lpgen.isa import Isa
from lpgen.ops import Conv2d, Dense
from lpgen.ops.reach import INT16_MAX, INT32_MAX
from lpgen.schedules.common import bit_fields as fields
from lpgen.schedules.common import blocks
from lpgen.schedules.common.dot import knobs as dot_knobs
from lpgen.space import Counts, Knobs, Space
from lpgen.tir import vectors

INT8_MAX = 2**7 - 1
SHORTEST = 3
"""Steps between two splits below which they cost more than the second column saves."""


def left_offset(op: Dense | Conv2d) -> int:
    """What is added to the activations, and to the 0 of padding, so that none is negative."""
    return -min(op.act.min, 0)


def largest_product(op: Dense | Conv2d) -> int:
    """The largest product of a code of the weights and an activation with its offset."""
    return (op.weight.levels - 1) * (max(op.act.max, 0) + left_offset(op))


def spacing(op: Dense | Conv2d) -> int:
    """The bit at which the second code of a byte begins."""
    return spread_planes(op.weight)[0].slices[1].at


def chunk(op: Dense | Conv2d, isa: Isa) -> int:
    """How many steps the two sums of a lane stay apart, and in int16."""
    largest, low = largest_product(op), (1 << spacing(op)) - 1
    if isa.has_dot4:
        return low // (4 * largest)
    return min(low, INT16_MAX // (1 + (1 << spacing(op)))) // (2 * largest)


def why_not(op: Dense | Conv2d, isa: Isa) -> str | None:
    """Why the algorithm does not serve `op`; None if it does."""
    if op.weight.bits > 4 or op.weight.book:
        return f"weight={op.weight.short}: a byte does not hold two such codes"
    if op.act.max + left_offset(op) > INT8_MAX:
        return f"act={op.act.short}: its codes do not fit int8"
    if chunk(op, isa) < SHORTEST:
        return f"sums of {op.weight.short} x {op.act.short} overlap after {chunk(op, isa)} steps"
    longest = (INT32_MAX >> spacing(op)) // largest_product(op)
    if op.matrix.k > longest:
        return f"k={op.matrix.k}: the sums of two columns fit int32 up to k={longest}"
    return dot_knobs.why_not(op, isa)


class LanePack(fields.FieldTile):
    """The form for vpdpbusd."""

    def __init__(self, isa: Isa, definition, knobs: Knobs) -> None:
        super().__init__(isa, definition, knobs)
        self.chunk = chunk(definition.op, isa)
        self.shift = spacing(definition.op)
        self.bytes = self.vectors // 2

    def start(self) -> None:
        count, lanes = self.rows * self.bytes, self.isa.lanes
        self.low, self.both = (fields.Registers(count, "int32", lanes) for _ in range(2))
        self.low.zero()
        self.both.zero()

    def multiply(self, site, place: dict, planes) -> None:
        # All weights of a step in registers, and one left value after the other.
        weights = [self.weights(site, 0, 0, {**place, "nv": 2 * i}) for i in range(self.bytes)]
        for mi in range(self.rows):
            x = self.left(site, mi, place)
            for i, packed in enumerate(weights):
                self.add(i * self.rows + mi, packed, x)

    def add(self, i: int, packed: tirx.Expr, x: tirx.Expr) -> None:
        """Add the products to accumulator `i`."""
        self.both[i] = self.isa.dot4(self.both[i], packed, x)

    def end(self, plane: int) -> None:
        mask = vectors.splat((1 << self.shift) - 1, "int32", self.isa.lanes)
        for i in range(self.both.count):
            low = vectors.bind(self.both[i] & mask)
            self.low[i] = self.low[i] + low
            self.both[i] = self.both[i] ^ low

    def finish(self, site) -> None:
        shift = vectors.splat(self.shift, "int32", self.isa.lanes)
        for mi in range(self.rows):
            for byte in range(self.bytes):
                i = byte * self.rows + mi
                self.store(site, mi, 2 * byte, self.low[i])
                self.store(site, mi, 2 * byte + 1, self.both[i] >> shift)


class HalfLanePack(LanePack):
    """The form for vpmaddubsw: int16 sums in registers, int32 sums in memory."""

    def start(self) -> None:
        count, lanes = self.rows * self.bytes, self.isa.lanes
        self.low, self.high = (fields.Registers(count, "int32", lanes) for _ in range(2))
        self.low.zero()
        self.high.zero()
        self.both = fields.Registers(count, "int16", 2 * lanes)

    def begin(self) -> None:
        self.both.zero()

    def add(self, i: int, packed: tirx.Expr, x: tirx.Expr) -> None:
        self.both[i] = self.isa.add_pairs(self.both[i], packed, x)

    def end(self, plane: int) -> None:
        lanes = 2 * self.isa.lanes
        for i in range(self.both.count):
            both = vectors.bind(self.both[i])
            low = both & vectors.splat((1 << self.shift) - 1, "int16", lanes)
            self.low[i] = self.low[i] + self.isa.sum2(low)
            high = both >> vectors.splat(self.shift, "int16", lanes)
            self.high[i] = self.high[i] + self.isa.sum2(high)

    def finish(self, site) -> None:
        for mi in range(self.rows):
            for byte in range(self.bytes):
                i = byte * self.rows + mi
                self.store(site, mi, 2 * byte, self.low[i])
                self.store(site, mi, 2 * byte + 1, self.high[i])


def space(op: Dense | Conv2d, isa: Isa) -> Space:
    """All knobs with their choices for `op`."""
    m, n = op.matrix.m, op.matrix.n
    return Space(
        {
            "rows": tuple(rows for rows in dot_knobs.tile_rows(m) if rows < isa.registers),
            "vectors": fields.vector_choices(n, isa, spread_planes(op.weight)),
            **blocks.knobs(m, n, isa.lanes),
            "left": blocks.left_choices(op),
            "prefetch": dot_knobs.distances(m),
        },
        lambda knobs: refuses(op, isa, knobs) is None,
    )


def refuses(op: Dense | Conv2d, isa: Isa, knobs: Knobs) -> str | None:
    """Why the combination is not in the space; None if it is."""
    rows, width = knobs["rows"], knobs["vectors"] // 2
    # Both sums where they are int32; the weights of a step; a left value and a mask or products.
    if rows * width * (2 if isa.has_dot4 else 1) + width + 2 > isa.registers:
        return f"a tile of {rows} x {2 * width} vectors exceeds {isa.registers} registers"
    return blocks.refuses(op, rows, 2 * width * isa.lanes, knobs)


def work(op: Dense | Conv2d, isa: Isa, knobs: Knobs) -> Counts:
    """What a kernel with these knobs does (`Template.work`)."""
    t = fields.tiling(op, isa, knobs)
    c = cut(op, t.kq, 1, t.folded)
    packed = t.vectors // 2
    tiles = op.matrix.groups * t.row_tiles * t.panels
    steps, sums = tiles * c.steps, t.rows * packed
    chunks = c.r * c.s * -(-c.kg // min(chunk(op, isa), c.kg))
    return {
        "products": steps * sums * (1 if isa.has_dot4 else 2),
        "multiplied": steps * sums * isa.halves,
        "loads": steps * (t.rows + packed),
        "flush": tiles * chunks * sums,
        "stall": steps * max(0, 5 - sums / 2) if isa.has_dot4 else 0,
        **fields.work(op, isa, knobs, packed * isa.lanes * c.steps * t.kq),
        "runs": tiles * chunks,
    }


def kernel(op: Dense | Conv2d, isa: Isa, knobs: Knobs) -> Kernel:
    """The scheduled kernel. Raises ScheduleRefused for knobs outside of the space."""
    refuse(refuses(op, isa, knobs))
    form = LanePack if isa.has_dot4 else HalfLanePack
    return fields.scheduled(op, isa, knobs, spread_planes(op.weight), left_offset(op), form)
