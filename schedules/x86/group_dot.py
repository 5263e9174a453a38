"""Products with scales of groups of k on x86: int32 sums of a group in registers, then float32.

| knob    | meaning                                                                                |
|---------|----------------------------------------------------------------------------------------|
| rows    | rows of the register tile                                                              |
| vectors | vectors of output columns in the register tile                                         |
| prefetch| bytes of weights to ask for in advance, 0: none                                        |
| m_block, n_block, outer, inner: see `lpgen.schedules.x86.dot_space`                              |

Inside the blocks, for every register tile:

    tile = 0.0                                        # rows x vectors registers
    for j                                             # groups of k
      partial = the sums of group j                   # as many registers, straight-line code
      tile += float32(partial + corrections) * scale[j]

vpdpbusd adds up in int32. Without it vpmaddubsw adds up in int16 as many steps as fit.
"""

from __future__ import annotations

import math
from functools import cached_property

from tvm import IRModule, te, tirx
from tvm.s_tir import Schedule
from tvm.tirx.script import builder as tb

from lpgen.algorithms import group_dot
from lpgen.algorithms.entry import kernel_entry
from lpgen.algorithms.kernel import Kernel
from lpgen.algorithms.tails import peel_partial_vectors
from lpgen.errors import ScheduleRefused
from lpgen.ops import Conv2d, Dense
from lpgen.schedules.x86 import blocks, intrinsics, vectors
from lpgen.schedules.x86.dot_space import distances, tile_rows
from lpgen.schedules.x86.fields import Registers
from lpgen.schedules.x86.isa import Isa
from lpgen.schedules.x86.microkernel import Site, replace_tile
from lpgen.space import Knobs, Space

BYTES = 4
"""Bytes of a lane: values of k in a step."""

VECTORS = (1, 2, 3, 4, 6, 8)
STRAIGHT = 256
"""Most multiplications in straight-line code; groups with more become loops."""

AXES = ("mo", "no", "j", "mi", "nv", "nl", "step", "kt")


def unfit(op: Dense | Conv2d, isa: Isa) -> str | None:
    """Why the algorithm does not serve `op`; None if it does."""
    if not op.group:
        return "no scale=groupN: the sums over all of k are wanted"
    operands = group_dot.byte_operands(op)
    table = {int(value) - operands.right.base for value in op.weight.values()}
    if 0 not in table and min(op.group, op.k) % BYTES:
        return f"scale=group{op.group}: weight={op.weight.short} has no 0 to fill up steps of 4"
    if not isa.dot and most(op) == 0:
        return f"act={op.act} weight={op.weight}: two products do not fit int16"
    return None


def most(op: Dense) -> int:
    """How many steps of vpmaddubsw an int16 holds the sum of: each adds two products."""
    operands = group_dot.byte_operands(op)
    values = op.weight.values().astype(int) - operands.right.base
    largest = max(abs(int(values.min())), abs(int(values.max())), 1)
    return (2**15 - 1) // (2 * largest * max(operands.left_max, 1))


def space(op: Dense, isa: Isa) -> Space:
    """All knobs with their choices for `op`."""
    return Space(
        {
            "rows": tuple(rows for rows in tile_rows(op.m) if rows < isa.registers),
            "vectors": tuple(_widths(op.n, isa)),
            **blocks.knobs(op.m, op.n, isa.lanes),
            "prefetch": distances(op.m),
        },
        lambda knobs: refusal(op, isa, knobs) is None,
    )


def _widths(n: int, isa: Isa):
    """Tile widths that waste little of the last panel, and the narrowest."""
    whole = -(-n // isa.lanes)
    for width in VECTORS:
        if width == 1 or -(-whole // width) * width <= whole * (1 + 1 / blocks.WASTE):
            yield width


def refusal(op: Dense, isa: Isa, knobs: Knobs) -> str | None:
    """Why the combination is not in the space; None if it is."""
    rows, width = knobs["rows"], knobs["vectors"]
    # Sums of a group, a vector of packed weights and an operand of them, a left value. The float32
    # sums are needed once in a group: some of them may be in memory meanwhile.
    sums = rows * width * (1 if isa.dot else 2)
    if sums + 3 + (not isa.dot) > isa.registers:
        return f"a tile of {rows} x {width} vectors exceeds {isa.registers} registers"
    return blocks.refusal(op, rows, width * isa.lanes, knobs)


def default(op: Dense, isa: Isa) -> Knobs:
    """Knobs for an operator that nobody has tuned."""
    return min(space(op, isa).enumerate(), key=lambda knobs: cost(op, isa, knobs))


def cost(op: Dense, isa: Isa, knobs: Knobs) -> tuple:
    """What a first guess keeps small: empty places, loads, panels beyond a part of the L2 cache."""
    t = tiling(op, isa, knobs)
    computed = t.row_tiles * t.rows * t.panels * t.vectors * isa.lanes / op.m / op.n
    loads = (t.rows + t.vectors) / (t.rows * t.vectors)
    spilled = max(0, 2 * t.rows * t.vectors - isa.registers + 4) / isa.registers
    block = (knobs["n_block"] or t.panels) * t.panels * op.k
    return (
        knobs["prefetch"] != distances(op.m)[-1],
        round(computed * (1 + loads + spilled), 3),
        abs(math.log2(block / 2**18)),
        -(knobs["m_block"] or t.row_tiles),
    )


def tiling(op: Dense, isa: Isa, knobs: Knobs) -> group_dot.Tiling:
    """The sizes that the knobs mean for this operator."""
    rows, width = knobs["rows"], knobs["vectors"]
    return group_dot.Tiling(
        rows=rows,
        vectors=width,
        lanes=isa.lanes,
        kq=BYTES,
        row_tiles=blocks.rounded(-(-op.m // rows), knobs["m_block"]),
        panels=blocks.rounded(-(-op.n // (width * isa.lanes)), knobs["n_block"]),
    )


def kernel(op: Dense, isa: Isa, knobs: Knobs) -> Kernel:
    """The scheduled kernel. Raises ScheduleRefused for knobs outside of the space."""
    reason = refusal(op, isa, knobs)
    if reason:
        raise ScheduleRefused(reason)
    definition = group_dot.define(op, group_dot.byte_operands(op), tiling(op, isa, knobs))
    sch = Schedule(IRModule({"main": te.create_prim_func(definition.args)}))
    _schedule(sch, isa, knobs)
    func = replace_tile(sch.mod["main"], GroupTile(isa, definition, knobs).emit, "partial", AXES)
    sections, prologue = definition.layout.sections, definition.prologue
    entry = kernel_entry(peel_partial_vectors(func), op, sections, prologue)
    return Kernel(op, entry, definition.layout)


def _schedule(sch: Schedule, isa: Isa, knobs: Knobs) -> None:
    tile = sch.get_sblock("tile")
    order = blocks.order_blocks(sch, tile, knobs, copied=False, panels=False)
    first, _, j = order.reduction
    sch.compute_at(sch.get_sblock("partial"), j)
    sch.reverse_compute_at(sch.get_sblock("y"), order.tile, preserve_unit_loops=True)
    sch.unroll(order.row)
    sch.unroll(order.vector)
    sch.vectorize(order.lane)
    sch.decompose_reduction(tile, first)
    blocks.copy_out(sch, order, isa.lanes, unroll_rows=True)


class GroupTile:
    """The code that computes the sums of a group in a register tile."""

    def __init__(self, isa: Isa, definition: group_dot.Definition, knobs: Knobs) -> None:
        self.isa, self.weights = isa, definition.weights
        self.left_type = definition.operands.left
        self.rows, self.vectors, self.ahead = knobs["rows"], knobs["vectors"], knobs["prefetch"]
        self.chunk = 0 if isa.dot else min(most(definition.op), self.weights.steps)

    @cached_property
    def unit(self) -> int:
        """Steps that share the bytes of every plane."""
        return 8 // min(self.weights.planes)

    def emit(self, site: Site) -> None:
        """The whole group."""
        self.sums = Registers(self.rows * self.vectors, "int32", self.isa.lanes)
        self.sums.zero()
        steps = self.weights.steps
        length = self.chunk or steps
        if length < steps:
            length = max(length // self.unit * self.unit, 1)
        per_step = self.rows * self.vectors
        if steps * per_step > STRAIGHT and steps > self.unit:
            most_steps = max(STRAIGHT // per_step // self.unit, 1) * self.unit
            length = min(length, most_steps)
        whole = steps // length
        if length % self.unit == 0 and whole > 1:
            with tb.serial(0, whole) as i:
                self._chunk(site, i * length, length)
        else:
            for i in range(whole):
                self._chunk(site, i * length, length)
        if steps % length:
            self._chunk(site, whole * length, steps % length)
        for mi in range(self.rows):
            for nv in range(self.vectors):
                at = site.target.at(mi=mi, nv=nv)
                vectors.store(
                    site.target.buffer, at, self.sums[mi * self.vectors + nv], self.isa.lanes
                )

    def _chunk(self, site: Site, first, count: int) -> None:
        """Steps first .. first + count: without vpdpbusd what an int16 holds the sum of."""
        halves = None
        if self.chunk > 1 and count > 1:
            halves = Registers(self.rows * self.vectors, "int16", 2 * self.isa.lanes)
            halves.zero()
        bytes_: dict[tuple, tirx.Expr] = {}
        for i in range(count):
            left = [self._left(site, mi, first + i) for mi in range(self.rows)]
            for nv in range(self.vectors):
                right = self._right(site, first, i, nv, bytes_)
                for mi, x in enumerate(left):
                    self._multiply(mi * self.vectors + nv, x, right, halves)
        if halves is not None:
            for i in range(halves.count):
                self.sums[i] = self.sums[i] + intrinsics.widened(self.isa, halves[i])

    def _multiply(self, i: int, left, right, halves: Registers | None) -> None:
        pair = (right, left) if self.left_type == "int8" else (left, right)
        if self.isa.dot:
            words = f"int32x{self.isa.lanes}"
            self.sums[i] = vectors.intrinsic(words, self.isa.dot, self.sums[i], *pair)
            return
        products = vectors.intrinsic(f"int16x{2 * self.isa.lanes}", self.isa.pairs, *pair)
        if halves is None:
            self.sums[i] = self.sums[i] + intrinsics.widened(self.isa, products)
        else:
            halves[i] = halves[i] + products

    def _left(self, site: Site, mi: int, step) -> tirx.Expr:
        (access,) = (a for name, a in site.sources.items() if not name.startswith("plane"))
        four = vectors.load(access.buffer, access.at(mi=mi, step=step), BYTES)
        word = vectors.bind(tirx.reinterpret("int32", four))
        lanes = self.isa.lanes
        splat = tirx.Broadcast(word, lanes)
        return vectors.bind(tirx.reinterpret(f"{self.left_type}x{BYTES * lanes}", splat))

    def _right(self, site: Site, first, i: int, nv: int, bytes_: dict) -> tirx.Expr:
        """The operands of step first + i; bytes_: the packed vectors that were loaded before."""
        count = BYTES * self.isa.lanes
        code, low = None, 0
        for plane, width in enumerate(self.weights.planes):
            fields = 8 // width
            start = first if isinstance(first, int) else 0  # a loop starts with whole bytes
            byte, field = divmod(start + i, fields)
            if (plane, nv, byte) not in bytes_:
                bytes_[plane, nv, byte] = self._load(site, plane, nv, first + i)
            packed, shift = bytes_[plane, nv, byte], field * width
            bits = packed >> vectors.splat(shift, "uint8", count) if shift else packed
            if shift + width < 8:
                bits = bits & vectors.splat((1 << width) - 1, "uint8", count)
            bits = bits << vectors.splat(low, "uint8", count) if low else bits
            code = bits if code is None else code | bits
            low += width
        return vectors.bind(self._expanded(code))

    def _load(self, site: Site, plane: int, nv: int, step) -> tirx.Expr:
        access = site.sources[f"plane{plane}"]
        *outer, first = access.at(nv=nv, step=step)
        if self.ahead:
            hint = tirx.address_of(access.buffer[(*outer, first + self.ahead)])
            flags = [vectors.const(value) for value in (0, 3, 1)]
            tb.evaluate(tirx.call_llvm_intrin("void", "llvm.prefetch.p0", hint, *flags))
        return vectors.bind(vectors.load(access.buffer, [*outer, first], BYTES * self.isa.lanes))

    def _expanded(self, code: tirx.Expr) -> tirx.Expr:
        """The operands of a vector of codes."""
        count, form = BYTES * self.isa.lanes, self.weights.op.weight
        if form.book:
            table = [*self.weights.table, *[0] * (16 - form.levels)]
            values = vectors.constants(table * (count // 16), "uint8")
            code = vectors.intrinsic(f"uint8x{count}", self.isa.lookup, values, code)
        else:
            code = code + code if form.step == 2 else code
            lowest = self.weights.table[0]
            code = code + vectors.splat(lowest, "uint8", count) if lowest else code
        dtype = self.weights.operand_of.dtype
        return code if dtype == "uint8" else tirx.reinterpret(f"{dtype}x{count}", code)
