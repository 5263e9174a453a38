"""How the groups of a convolution fall into the lanes of vectors, and the packed weights that follow.

    main[bundle][panel][step][kernel row][kernel column][vector][lane][kt]

A vector holds the columns of several whole groups, or a part of one group. A panel is what a
register tile computes: the vectors whose lanes read the same channels. Weights are stored as
operands, one or two bytes each: a group has few, read again for every tile, and the bits that
narrower codes would save are nothing beside the activations.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from lpgen.algorithms.entry import Section, joined_sections, pack_entry
from lpgen.formats import Format

if TYPE_CHECKING:
    from tvm import IRModule


@dataclass(frozen=True)
class Lanes:
    """`groups` of `ins` input and `outs` output channels in vectors of `lanes` lanes."""

    groups: int
    ins: int
    outs: int
    lanes: int

    @property
    def together(self) -> int:
        """Groups of a vector."""
        return max(1, self.lanes // self.outs)

    @property
    def width(self) -> int:
        """Lanes of a vector that are output channels, the first ones."""
        return min(self.lanes, self.together * self.outs)

    @property
    def bundles(self) -> int:
        """Parts of the output channels that begin with a vector of their own: groups, unless a
        vector holds several."""
        return self.groups if self.outs > self.lanes else 1

    @property
    def columns(self) -> int:
        """Output channels of a bundle."""
        return self.groups * self.outs // self.bundles

    def panels(self, vectors: int) -> int:
        """Panels of `vectors` vectors in a bundle; the last one may be partly empty."""
        return -(-self.columns // (vectors * self.width))

    def group(self, bundle, panel, lane):
        """The group of a lane; in empty lanes one that may not exist."""
        if self.outs > self.lanes:
            return bundle
        return panel * self.together + lane // self.outs


@dataclass(frozen=True)
class LaneWeights:
    """The layout above for weights of `shape` [output channels, kernel rows, kernel columns, ins].

    vectors: of a panel, 1 where a vector holds several groups; kq: input channels of a step;
    dtype: of the operands ("uint8", "int8" or "int16").
    """

    shape: tuple[int, ...]
    format: Format
    lanes: Lanes
    vectors: int
    kq: int
    dtype: str

    @property
    def steps(self) -> int:
        """Steps that the input channels of a group take."""
        return -(-self.lanes.ins // self.kq)

    @cached_property
    def sections(self) -> list[Section]:
        """Parts of the packed bytes, in order: name, shape, dtype."""
        outer = (self.lanes.bundles, self.lanes.panels(self.vectors))
        inner = (self.vectors, self.lanes.lanes, self.kq)
        return [Section("main", (*outer, self.steps, *self.shape[1:3], *inner), self.dtype)]

    @property
    def nbytes(self) -> int:
        """Size of the packed weights, every section on a 64-byte boundary."""
        return joined_sections(self.sections)[1]

    def pack(self, w: np.ndarray) -> np.ndarray:
        """The packed weights (uint8[nbytes]) of the weight values `w` (`shape`)."""
        lanes, (_, down, across, ins) = self.lanes, self.shape
        panels = lanes.panels(self.vectors)
        whole = panels * self.vectors * lanes.width
        full = np.zeros((lanes.bundles, whole, down, across, self.steps * self.kq), self.dtype)
        full[:, : lanes.columns, :, :, :ins] = w.reshape(
            lanes.bundles, lanes.columns, down, across, ins
        )
        full = full.reshape(
            lanes.bundles, panels, self.vectors, lanes.width, down, across, self.steps, self.kq
        )
        main = np.zeros(self.sections[0].shape, self.dtype)
        main[..., : lanes.width, :] = full.transpose(0, 1, 6, 4, 5, 2, 3, 7)
        packed = np.zeros(self.nbytes, np.uint8)
        packed[: main.nbytes] = main.view(np.uint8).ravel()
        return packed

    def te_module(self) -> IRModule:
        """The packer as TIR: "main"(w, packed), see `Layout`."""
        from tvm import te, tirx

        lanes = self.lanes
        shape = (lanes.bundles, lanes.columns, *self.shape[1:])
        w = te.placeholder(shape, self.format.dtype, name="w")

        def weight(bundle, panel, step, row, column, vector, lane, kt):
            place = (panel * self.vectors + vector) * lanes.width + lane
            channel = step * self.kq + kt
            inside = tirx.all(lane < lanes.width, place < lanes.columns, channel < lanes.ins)
            value = w[bundle, place, row, column, channel].astype(self.dtype)
            return te.if_then_else(inside, value, tirx.const(0, self.dtype))

        outputs = [te.compute(self.sections[0].shape, weight, name="main")]
        return pack_entry(w, outputs, self.sections, self.shape, self.format.dtype)
