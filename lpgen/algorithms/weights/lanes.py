"""How groups of channels fall into the lanes of vectors, and the packed weights that follow.

    main[panel][step][kernel row][kernel column][vector][lane][kt]

A vector holds the output channels of several whole groups, or an even part of one group, and some
lanes are empty. Or none is: the vectors of a panel hold whole groups together. A panel is what a
register tile computes. Weights are stored as operands, one or two bytes each: a group has few, read
again for every tile, and what narrower codes would save is nothing beside the activations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from lpgen.algorithms.sections import Section, Sectioned, pack_entry
from lpgen.formats import Format

if TYPE_CHECKING:
    from tvm import IRModule


@dataclass(frozen=True)
class Lanes:
    """`groups` of `ins` input and `outs` output channels in vectors of `lanes` lanes, each of which
    multiplies `kq` input channels in a step; dense: without empty lanes, `period` vectors a panel.
    """

    groups: int
    ins: int
    outs: int
    lanes: int
    kq: int
    dense: bool = False

    @property
    def period(self) -> int:
        """Vectors that hold whole groups and have no empty lane."""
        return self.outs // math.gcd(self.outs, self.lanes)

    @property
    def together(self) -> int:
        """Groups of a vector: as many as have their channels of a step within a vector."""
        near = 1 + (self.lanes - 1) * self.kq // self.ins
        return max(1, min(self.lanes // self.outs, near))

    @property
    def steps(self) -> int:
        """Steps that the input channels of a group take."""
        return -(-self.ins // self.kq)

    @cached_property
    def width(self) -> int:
        """Lanes of a vector that are output channels, the first ones."""
        if self.dense:
            return self.lanes
        if self.outs <= self.lanes:
            return self.together * self.outs
        return max(width for width in range(1, self.lanes + 1) if self.outs % width == 0)

    def panels(self, vectors: int) -> int:
        """Panels of `vectors` vectors; the last one may lack some groups."""
        return -(-self.groups * self.outs // (vectors * self.width))

    def group(self, panel, vector, lane, vectors: int):
        """The group of a lane; in empty lanes one that may not exist."""
        if self.dense:
            return ((panel * vectors + vector) * self.lanes + lane) // self.outs
        if self.outs > self.lanes:
            return panel * (vectors * self.width) // self.outs
        return panel * self.together + lane // self.outs

    def groups_of(self, vector: int) -> list[int]:
        """The group of each lane, counted from the panel's first; empty lanes may have any."""
        if self.dense:
            return [(vector * self.lanes + lane) // self.outs for lane in range(self.lanes)]
        return [min(lane // self.outs, self.together - 1) for lane in range(self.lanes)]

    @property
    def near(self) -> bool:
        """Whether each vector's lanes read two groups at most, or what lies within a vector."""
        apart = [
            self.groups_of(vector)[-1] - self.groups_of(vector)[0]
            for vector in range(self.period if self.dense else 1)
        ]
        return all(n < 2 or n * self.ins + self.kq <= self.lanes * self.kq for n in apart)

    def behind(self, vectors: int) -> int:
        """Groups of the last panel that do not exist."""
        of_panel = vectors * self.lanes // self.outs if self.dense else self.together
        return max(0, self.panels(vectors) * of_panel - self.groups) if of_panel > 1 else 0


@dataclass(frozen=True)
class LaneWeights(Sectioned):
    """Packed-weight layout above.

    shape: of the weights, [output channels, kernel rows, kernel columns, ins]; vectors: of a panel,
    a divisor of those of a group; dtype: of the operands ("uint8", "int8" or "int16").
    """

    shape: tuple[int, ...]
    format: Format
    lanes: Lanes
    vectors: int
    dtype: str

    @cached_property
    def sections(self) -> list[Section]:
        """Parts of the packed bytes, in order: name, shape, dtype."""
        outer = (self.lanes.panels(self.vectors), self.lanes.steps, *self.shape[1:3])
        shape = (*outer, self.vectors, self.lanes.lanes, self.lanes.kq)
        return [Section("main", shape, self.dtype)]

    def pack(self, w: np.ndarray) -> np.ndarray:
        """The packed weights (uint8[nbytes]) of the weight values `w` (`shape`)."""
        lanes, (channels, down, across, ins) = self.lanes, self.shape
        panels, columns = lanes.panels(self.vectors), self.vectors * lanes.width
        full = np.zeros((panels * columns, down, across, lanes.steps * lanes.kq), self.dtype)
        full[:channels, :, :, :ins] = w
        full = full.reshape(
            panels, self.vectors, lanes.width, down, across, lanes.steps, lanes.kq
        ).transpose(0, 5, 3, 4, 1, 2, 6)
        main = np.zeros(self.sections[0].shape, self.dtype)
        main[..., : lanes.width, :] = full
        return self.bytes_of([main])

    def te_module(self) -> IRModule:
        """The packer as TIR: "main"(weights, packed), see `Layout`."""
        from tvm import te, tirx

        lanes = self.lanes
        w = te.placeholder(self.shape, self.format.dtype, name="w")

        def weight(panel, step, row, column, vector, lane, kt):
            out = (panel * self.vectors + vector) * lanes.width + lane
            channel = step * lanes.kq + kt
            inside = tirx.all(lane < lanes.width, out < self.shape[0], channel < lanes.ins)
            value = w[out, row, column, channel].astype(self.dtype)
            return te.if_then_else(inside, value, tirx.const(0, self.dtype))

        outputs = [te.compute(self.sections[0].shape, weight, name="main")]
        return pack_entry(w, outputs, self.sections, self.shape, self.format.dtype)
