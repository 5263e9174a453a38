"""Register tiles over weights with several columns in a byte: what telescoped and lane_pack share.

| knob    | meaning                                                                                |
|---------|----------------------------------------------------------------------------------------|
| rows    | rows of the register tile                                                              |
| vectors | vectors of output columns in the register tile: whole bytes of every plane             |
| prefetch| bytes of weights to ask for in advance, 0: none                                        |
| m_block, n_block, outer, inner, left: see `dot.knobs`                                            |

Inside the blocks, for every register tile, in straight-line code for all rows and vectors:

    for r, s, chunk                                   # taps, chunks of k steps
      begin
      for kg: step                                    # what an accumulator holds without loss
      end
    finish
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from tvm import tirx
from tvm.tirx.script import builder as tb

from lpgen.algorithms.bit_fields import define
from lpgen.algorithms.definition import Definition
from lpgen.algorithms.dot import Tiling
from lpgen.algorithms.kernel import Kernel
from lpgen.algorithms.lhs.k_split import cut
from lpgen.algorithms.weights.bit_fields import Plane
from lpgen.isa import Isa
from lpgen.ops import Conv2d, Dense
from lpgen.schedules.common import blocks
from lpgen.schedules.common.cuts import fits
from lpgen.schedules.common.finish import finished
from lpgen.space import Counts, Knobs
from lpgen.tir import vectors
from lpgen.tir.microkernel import Site, replace_tile
from lpgen.tir.prefetch import hint

BYTES = 4
"""Bytes of a lane: values of k in a k step."""


def vector_choices(n: int, isa: Isa, planes: Sequence[Plane]) -> tuple[int, ...]:
    """Tile widths of whole bytes that waste little of the last panel, and the narrowest."""
    unit = max(plane.fields for plane in planes)
    whole = -(-n // (unit * isa.lanes))
    wide = range(2, min(whole, isa.registers // unit) + 1)
    good = [j for j in wide if fits(whole, j)]
    return tuple(unit * j for j in (1, *good))


def tiling(op: Dense | Conv2d, isa: Isa, knobs: Knobs) -> Tiling:
    """The sizes that the knobs mean for this operator."""
    rows, width = knobs["rows"], knobs["vectors"]
    return Tiling(
        rows=rows,
        vectors=width,
        lanes=isa.lanes,
        kq=BYTES,
        **blocks.counts(op, rows, width * isa.lanes, knobs),
        copied=knobs["left"] == "copied",
        folded=knobs["left"] == "folded",
    )


def left_type(isa: Isa) -> str:
    """The type of the left side: signed, unless the instruction takes unsigned bytes alone beside
    those of the weights."""
    return "uint8" if isa.has_dot4 and not isa.mixes_signs else "int8"


class Registers:
    """Vectors that LLVM keeps in registers, as long as there are enough."""

    def __init__(self, count: int, dtype: str, lanes: int) -> None:
        self.count, self.lanes, self.dtype = count, lanes, dtype
        self.memory = vectors.scratch((count * lanes,), dtype)

    def __getitem__(self, i: int) -> tirx.Expr:
        return vectors.load(self.memory, [i * self.lanes], self.lanes)

    def __setitem__(self, i: int, value: tirx.Expr) -> None:
        vectors.store(self.memory, [i * self.lanes], value, self.lanes)

    def zero(self) -> None:
        """Emit the zeros."""
        for i in range(self.count):
            self[i] = vectors.splat(0, self.dtype, self.lanes)


class FieldTile(ABC):
    """The code of a register tile. A form of the algorithm derives from it; each method emits.

    chunk: k steps from `begin` to `end`, 0: all of a run; apart: one plane after the other in each
    chunk, not all planes in each step.
    """

    chunk, apart = 0, False

    def __init__(self, isa: Isa, definition: Definition, knobs: Knobs) -> None:
        self.isa, self.cut, self.layout = isa, definition.weights.cut, definition.weights
        self.rows, self.vectors, self.ahead = knobs["rows"], knobs["vectors"], knobs["prefetch"]

    def emit(self, site: Site) -> None:
        """The whole tile."""
        self.start()
        kg = self.cut.kg
        length = min(self.chunk or kg, kg)
        with tb.serial(0, self.cut.r) as r, tb.serial(0, self.cut.s) as s:
            if kg // length > 1:
                with tb.serial(0, kg // length) as chunk:
                    self._chunk(site, r, s, chunk * length, length)
            else:
                self._chunk(site, r, s, vectors.const(0), length)
            if kg % length:
                self._chunk(site, r, s, vectors.const(kg - kg % length), kg % length)
        self.finish(site)

    def _chunk(self, site: Site, r, s, first, count: int) -> None:
        planes = range(len(self.layout.planes))
        for together in [(plane,) for plane in planes] if self.apart else [planes]:
            self.begin()
            with tb.serial(0, count) as i:
                self.multiply(site, {"r": r, "s": s, "kg": first + i}, together)
            for plane in together:
                self.end(plane)

    @abstractmethod
    def start(self) -> None:
        """Before everything: accumulators and their zeros."""

    def begin(self) -> None:  # noqa: B027, some forms have nothing to do here
        """Before a chunk."""

    @abstractmethod
    def multiply(self, site: Site, place: dict, planes: Sequence[int]) -> None:
        """The products of a k step with some planes."""

    def end(self, plane: int) -> None:  # noqa: B027
        """Behind a chunk of a plane."""

    @abstractmethod
    def finish(self, site: Site) -> None:
        """Behind everything: `store` every vector of the tile."""

    def store(self, site: Site, mi: int, nv: int, value: tirx.Expr) -> None:
        """The sums with codes of a row and a vector of columns."""
        vectors.store(site.target.buffer, site.target.at(mi=mi, nv=nv), value, self.isa.lanes)

    def left(self, site: Site, mi: int, place: dict) -> tirx.Expr:
        (access,) = (a for name, a in site.sources.items() if not name.startswith("plane"))
        four = vectors.load(access.buffer, access.at(mi=mi, **place), BYTES)
        word = vectors.bind(tirx.reinterpret("int32", four))
        lanes = self.isa.lanes
        dtype = f"{left_type(self.isa)}x{4 * lanes}"
        return vectors.bind(tirx.reinterpret(dtype, tirx.Broadcast(word, lanes)))

    def weights(self, site: Site, plane: int, byte: int, place: dict) -> tirx.Expr:
        access = site.sources[f"plane{plane}"]
        *outer, first = access.at((byte, 0, 0), **place)
        if self.ahead:
            tb.add_to_parent(hint(access.buffer[(*outer, first + self.ahead)]))
        return vectors.bind(vectors.load(access.buffer, [*outer, first], 4 * self.isa.lanes))


def scheduled(
    op: Dense | Conv2d,
    isa: Isa,
    knobs: Knobs,
    planes: tuple[Plane, ...],
    offset: int,
    tile: type[FieldTile],
) -> Kernel:
    """The kernel with tiles of that form; offset: what is added to the left side."""
    definition = define(op, tiling(op, isa, knobs), planes, left_type(isa), offset)
    sch = definition.schedule()
    copied = knobs["left"] == "copied"
    order = blocks.order_blocks(sch, sch.get_sblock("tile"), knobs, copied=copied, panels=False)
    if copied:
        blocks.place_copy(sch, order)
    sch.reverse_compute_at(sch.get_sblock("y"), order.tile, preserve_unit_loops=True)
    blocks.copy_out(sch, order, isa.lanes, unroll_rows=True)
    func = replace_tile(sch.mod["main"], tile(isa, definition, knobs).emit)
    return finished(func, definition, isa=isa)


def work(op: Dense | Conv2d, isa: Isa, knobs: Knobs, panel: float) -> Counts:
    """What all forms do beside products (`Template.work`); panel: bytes of a panel of weights."""
    t, matrix = tiling(op, isa, knobs), op.matrix
    c = cut(op, t.kq, 1, t.folded)
    tiles = matrix.groups * t.row_tiles * t.panels
    return {
        "copy": matrix.groups * t.row_tiles * t.rows * c.steps * t.kq * t.copied,
        "fold": matrix.m * matrix.k * t.folded,
        "tiles": tiles,
        "wraps": tiles * c.r * c.s * blocks.wraps(op, t.rows, knobs["left"]),
        "stores": tiles * t.rows * t.vectors,
        **blocks.traffic(op, knobs, t.row_tiles, t.panels, t.rows * matrix.k, panel, isa.target),
    }
