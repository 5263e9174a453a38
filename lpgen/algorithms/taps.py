"""Packed weights of the depthwise algorithm: taps interleaved in the lanes of their channels.

    main[panel][output][group][s][lane][kt]

A panel is `lanes` output channels; `output` is the place of an output in its tile along the axis of
the taps in a lane, whose kernel begins `output * shift` taps behind the tile's first one. So each
output has its own copy, with 0 where its kernel has no tap. Weights are stored as operands, one or
two bytes each: a kernel has a few taps a channel, read again for every tile, and the bits that
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

    from lpgen.algorithms.depthwise import Window


@dataclass(frozen=True)
class TapWeights:
    """The layout above for weights of `shape` [channels, kernel rows, kernel columns, 1].

    along: "rows" or "columns", the axis of the taps in a lane; dtype: of the operands ("uint8",
    "int8" or "int16").
    """

    shape: tuple[int, ...]
    format: Format
    window: Window
    along: str
    lanes: int
    dtype: str

    @property
    def channels(self) -> int:
        """Output channels."""
        return self.shape[0]

    @property
    def panels(self) -> int:
        """Vectors of channels."""
        return -(-self.channels // self.lanes)

    @cached_property
    def sections(self) -> list[Section]:
        """Parts of the packed bytes, in order: name, shape, dtype."""
        w = self.window
        shape = (self.panels, w.tile_a, w.groups, w.taps_b, self.lanes, w.kq)
        return [Section("main", shape, self.dtype)]

    @property
    def nbytes(self) -> int:
        """Size of the packed weights, every section on a 64-byte boundary."""
        return joined_sections(self.sections)[1]

    def pack(self, w: np.ndarray) -> np.ndarray:
        """The packed weights (uint8[nbytes]) of the weight values `w` (`shape`)."""
        window, whole = self.window, self.panels * self.lanes
        taps = w[..., 0] if self.along == "rows" else w[..., 0].transpose(0, 2, 1)
        main = np.zeros(
            (window.tile_a, whole, window.groups * window.kq, window.taps_b), self.dtype
        )
        for output in range(window.tile_a):
            first = output * window.shift
            main[output, : self.channels, first : first + window.taps_a] = taps
        main = main.reshape(
            window.tile_a, self.panels, self.lanes, window.groups, window.kq, window.taps_b
        )
        data = np.ascontiguousarray(main.transpose(1, 0, 3, 5, 2, 4)).view(np.uint8).ravel()
        packed = np.zeros(self.nbytes, np.uint8)
        packed[: data.size] = data
        return packed

    def te_module(self) -> IRModule:
        """The packer as TIR: "main"(w, packed), see `Layout`."""
        from tvm import te, tirx

        window = self.window
        w = te.placeholder(self.shape, self.format.dtype, name="w")

        def weight(panel, output, group, s, lane, kt):
            channel = panel * self.lanes + lane
            tap = group * window.kq + kt - output * window.shift
            at = (tap, s) if self.along == "rows" else (s, tap)
            inside = tirx.all(channel < self.channels, tap >= 0, tap < window.taps_a)
            value = w[(channel, *at, 0)].astype(self.dtype)
            return te.if_then_else(inside, value, tirx.const(0, self.dtype))

        outputs = [te.compute(self.sections[0].shape, weight, name="main")]
        return pack_entry(w, outputs, self.sections, self.shape, self.format.dtype)
