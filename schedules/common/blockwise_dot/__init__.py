"""Products with scales of groups of k: int32 sums of a group in registers, then float32.

| knob    | meaning                                                                                |
|---------|----------------------------------------------------------------------------------------|
| rows    | rows of the register tile                                                              |
| vectors | vectors of output columns in the register tile                                         |
| prefetch| bytes of weights to ask for in advance, 0: none                                        |
| m_block, n_block, outer, inner: see `dot.knobs`                                                  |

Inside the blocks, for every register tile:

    tile = 0.0                                        # rows x vectors registers
    for j                                             # groups of k
      partial = the sums of group j                   # as many registers, straight-line code
      tile += float32(partial) * scale[j] * step[j]

Both are emitted by `lpgen.schedules.common.blockwise_dot.tile`.
"""

from __future__ import annotations

from lpgen.algorithms import blockwise_dot
from lpgen.algorithms.kernel import Kernel
from lpgen.errors import refuse
from lpgen.isa import Isa
from lpgen.ops import Conv2d, Dense
from lpgen.ops.reach import INT16_MAX
from lpgen.schedules.common import blocks, groups, heights
from lpgen.schedules.common.blockwise_dot.tile import BlockwiseTile, FloatBits
from lpgen.schedules.common.finish import finished
from lpgen.schedules.common.groups import BYTES
from lpgen.space import Counts, Knobs, Space

ALONE = 8
"""Rows up to which there is a body for each number of them."""

RANGED = True
SERVES = ("dense", "scale=groupN", "input=f32:groupN")


def why_not(op: Dense | Conv2d, isa: Isa) -> str | None:
    """Why the algorithm does not serve `op`; None if it does."""
    if not op.sum_group:
        return "no scale=groupN or input=f32:groupN: the sums over all of k are wanted"
    operands = _operands(op, isa)
    table = {int(value) - operands.right.base for value in op.weight.values()}
    if 0 not in table and min(op.sum_group, op.k) % BYTES:
        return f"groups of {op.sum_group}: weight={op.weight.short} has no 0 to fill up steps of 4"
    if not isa.has_dot4 and most(op, isa) == 0:
        return f"act={op.act} weight={op.weight}: two products do not fit int16"
    return None


def _operands(op: Dense, isa: Isa) -> blockwise_dot.Operands:
    return blockwise_dot.byte_operands(op, isa.mixes_signs)


def most(op: Dense, isa: Isa) -> int:
    """How many steps of vpmaddubsw an int16 holds the sum of: each adds two products."""
    operands = _operands(op, isa)
    values = op.weight.values().astype(int) - operands.right.base
    largest = max(abs(int(values.min())), abs(int(values.max())), 1)
    return INT16_MAX // (2 * largest * max(operands.left_max, 1))


def space(op: Dense, isa: Isa) -> Space:
    """All knobs with their choices for `op`."""
    return Space(groups.choices(op, isa), lambda knobs: refuses(op, isa, knobs) is None)


def refuses(op: Dense, isa: Isa, knobs: Knobs) -> str | None:
    """Why the combination is not in the space; None if it is."""
    rows, width = knobs["rows"], knobs["vectors"]
    # Sums of a group, a vector of packed weights and an operand of them, a left value. The float32
    # sums are needed once in a group: some of them may be in memory meanwhile.
    sums = rows * width * (1 if isa.has_dot4 else 2)
    if sums + 3 + (not isa.has_dot4) > isa.registers:
        return f"a tile of {rows} x {width} vectors exceeds {isa.registers} registers"
    return blocks.refuses(op, rows, width * isa.lanes, knobs)


def work(op: Dense, isa: Isa, knobs: Knobs) -> Counts:
    """What a kernel with these knobs does (`Template.work`)."""
    t = tiling(op, isa, knobs)
    count = -(-op.k // op.sum_group)
    of_tile = count * -(-min(op.sum_group, op.k) // BYTES)
    tiles, sums = t.row_tiles * t.panels, t.rows * t.vectors
    steps = tiles * of_tile
    panel = t.vectors * isa.lanes * (of_tile * BYTES * op.weight.bits / 8 + 4 * count)
    return {
        "products": steps * sums * (1 if isa.has_dot4 else 2),
        "multiplied": steps * sums * isa.halves,
        "unpack": steps * t.vectors * (op.weight.bits < 8),
        "loads": steps * (t.rows + t.vectors),
        "flush": tiles * count * sums,
        "spilled": tiles * count * max(0, 2 * sums - isa.registers + 4),
        "stall": steps * max(0, 5 - sums / 2) if isa.has_dot4 else 0,
        "tiles": tiles,
        "stores": tiles * sums,
        **blocks.traffic(op, knobs, t.row_tiles, t.panels, t.rows * op.k, panel, isa.target),
    }


def tiling(op: Dense, isa: Isa, knobs: Knobs) -> blockwise_dot.Tiling:
    """The sizes that the knobs mean for this operator."""
    return blockwise_dot.Tiling(**groups.sizes(op, isa, knobs))


def kernel(op: Dense, isa: Isa, knobs: Knobs) -> Kernel:
    """The scheduled kernel. Raises ScheduleRefused for knobs outside of the space."""
    refuse(refuses(op, isa, knobs))
    if op.range:
        plan = heights.even(op.range, knobs["rows"], min(knobs["rows"], ALONE))
        return heights.assembled(
            op, plan, lambda kind, own: _body(own, isa, heights.own(knobs, kind))
        )
    return _body(op, isa, knobs)


def _body(op: Dense, isa: Isa, knobs: Knobs) -> Kernel:
    form = FloatBits if FloatBits.serves(op, isa) else BlockwiseTile
    t = tiling(op, isa, knobs)
    definition = blockwise_dot.define(op, _operands(op, isa), t, form.start)
    sch = definition.schedule()
    groups.schedule(sch, isa, knobs, bool(op.range))
    most_steps = 0 if isa.has_dot4 else most(op, isa)
    func = form(isa, definition, knobs["prefetch"], most_steps).replace(sch.mod["main"], t)
    return finished(func, definition, isa=isa)
