"""Products with as many bit layers of the weights as a call says (`ops.layers`).

| knob    | meaning                                                                                |
|---------|----------------------------------------------------------------------------------------|
| rows    | rows of the register tile                                                              |
| vectors | vectors of output columns in the register tile                                         |
| top     | bits of the first plane: of 1, a single layer is half the bytes to read                |
| prefetch| bytes of each plane to ask for in advance, 0: none                                     |
| m_block, n_block, outer, inner: see `dot.knobs`                                                  |

Inside the blocks, for every register tile:

    tile = 0.0                                        # rows x vectors registers
    for j                                             # groups of k
      partial = the sums of group j                   # for each number of layers its own code
      tile += float32(partial) * scale[layers, j] + float32(sum of x in j) * offset[layers, j]

Both are emitted by `lpgen.schedules.common.bit_layers.tile`.
"""

from __future__ import annotations

from lpgen.algorithms import bit_layers
from lpgen.algorithms.kernel import Kernel
from lpgen.algorithms.weights.bit_layers import tops
from lpgen.errors import refuse
from lpgen.isa import Isa
from lpgen.ops import Conv2d, Dense
from lpgen.ops.rows import Range
from lpgen.schedules.common import blocks, groups, heights
from lpgen.schedules.common.bit_layers.signs import SignsTile
from lpgen.schedules.common.bit_layers.tile import BESIDE, CHAINS, TOGETHER, LayersTile
from lpgen.schedules.common.finish import finished
from lpgen.schedules.common.groups import BYTES
from lpgen.space import Counts, Knobs, Space

RANGED = True
SERVES = ("dense", "conv2d", "scale=groupN", "layers=LOW..HIGH")


def why_not(op: Dense | Conv2d, isa: Isa) -> str | None:
    """Why the algorithm does not serve `op`; None if it does."""
    return None if op.layers else "no layers=LOW..HIGH: all bits of the weights are wanted"


def space(op: Dense | Conv2d, isa: Isa) -> Space:
    """All knobs with their choices for `op`."""
    return Space(
        groups.choices(op, isa, top=tops(op.weight.bits)),
        lambda knobs: refuses(op, isa, knobs) is None,
    )


def refuses(op: Dense | Conv2d, isa: Isa, knobs: Knobs) -> str | None:
    """Why the combination is not in the space; None if it is."""
    rows, width = knobs["rows"], knobs["vectors"]
    sums = rows * width * (1 if isa.has_dot4 else 2)
    if sums + BESIDE > isa.registers:
        return f"a tile of {rows} x {width} vectors exceeds {isa.registers} registers"
    return blocks.refuses(op, rows, width * isa.lanes, knobs)


def work(op: Dense | Conv2d, isa: Isa, knobs: Knobs) -> Counts:
    """What a kernel with these knobs does (`Template.work`), with all layers."""
    t = tiling(op, isa, knobs)
    groups, _, _, k = op.matrix
    planes = op.planes
    count = -(-k // op.group_size)
    steps = count * -(-min(op.group_size, k) // BYTES)
    sums, bits = t.rows * t.vectors, op.weight.bits * planes
    panel = t.vectors * isa.lanes * (steps * BYTES * bits / 8 + 4 * (planes + 1) * count)
    many = min(max(sums, TOGETHER), CHAINS * sums)
    tiles, near = groups * t.row_tiles * t.panels, (t.row_tiles, t.panels, t.rows * k)
    return {
        "products": tiles * steps * planes * sums * (1 if isa.has_dot4 else 4),
        "multiplied": tiles * steps * planes * sums * isa.halves,
        "unpack": tiles * steps * t.vectors * bits / 2,
        "loads": tiles * steps * planes * (t.rows + t.vectors),
        "flush": tiles * count * planes * sums * 2,
        "stall": tiles * steps * planes * max(0, 5 - many / 2) if isa.has_dot4 else 0,
        "tiles": tiles,
        "stores": tiles * sums,
        **blocks.traffic(op, knobs, *near, panel, isa.target),
    }


def tiling(op: Dense | Conv2d, isa: Isa, knobs: Knobs) -> bit_layers.Tiling:
    """The sizes that the knobs mean for this operator."""
    return bit_layers.Tiling(**groups.sizes(op, isa, knobs), top=knobs["top"])


def kernel(op: Dense | Conv2d, isa: Isa, knobs: Knobs) -> Kernel:
    """The scheduled kernel. Raises ScheduleRefused for knobs outside of the space."""
    refuse(refuses(op, isa, knobs))
    if op.range:
        plan = _plan(op.range, knobs["rows"])
        return heights.assembled(
            op, plan, lambda kind, own: _body(own, isa, heights.own(knobs, kind))
        )
    return _body(op, isa, knobs)


def _plan(rows: Range, highest: int) -> heights.Plan:
    """Tiles of `highest` rows, of half of them and so on down to one, the highest that there are
    rows for: each body has code for every number of layers, so there are few."""
    tiles = [highest]
    while tiles[-1] > 1:
        tiles.append(tiles[-1] // 2)

    def kind(count: int) -> heights.Kind:
        height = next(tile for tile in tiles if tile <= count)
        return heights.Kind(height, count == 1)

    return heights.Plan.of(rows, kind, heights.Kind(highest, False))


def _body(op: Dense | Conv2d, isa: Isa, knobs: Knobs) -> Kernel:
    t = tiling(op, isa, knobs)
    definition = bit_layers.define(op, t)
    sch = definition.schedule()
    groups.schedule(sch, isa, knobs, bool(op.range))
    form = SignsTile if op.bit_layers.of_signs else LayersTile
    func = form(isa, definition, knobs["prefetch"]).replace(sch.mod["main"], t)
    return finished(func, definition)
