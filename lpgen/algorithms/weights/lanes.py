"""How groups of channels fall into the lanes of vectors, and the packed weights that follow.

    main[panel][step][kernel row][kernel column][vector][lane][kt]

A vector holds the output channels of several whole groups, or an even part of one group. A panel is
what a register tile computes: vectors whose lanes read the same channels. Weights are stored as
operands, one or two bytes each: a group has few, read again for every tile, and the bits that
narrower codes would save are nothing beside the activations.
"""

from __future__ import annotations

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
    multiplies `kq` input channels in a step."""

    groups: int
    ins: int
    outs: int
    lanes: int
    kq: int

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
        if self.outs <= self.lanes:
            return self.together * self.outs
        return max(width for width in range(1, self.lanes + 1) if self.outs % width == 0)

    def panels(self, vectors: int) -> int:
        """Panels of `vectors` vectors; the last one may lack some groups."""
        return -(-self.groups * self.outs // (vectors * self.width))

    def group(self, panel, lane, vectors: int):
        """The group of a lane; in empty lanes one that may not exist."""
        if self.outs > self.lanes:
            return panel * (vectors * self.width) // self.outs
        return panel * self.together + lane // self.outs


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
