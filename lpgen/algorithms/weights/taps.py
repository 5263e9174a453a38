"""How the taps of a depthwise kernel fall into windows, and the packed weights that follow.

    main[panel][row][group][s][vector][lane][kt]

A panel is `vectors` x `lanes` output channels; `row` is the place of an output in its tile, whose
kernel begins `row * shift` taps below the tile's first one. So each row has its own copy, with 0
where its kernel has no tap. Weights are stored as operands, one or two bytes each: a kernel has a
few taps a channel, read again for every tile, and the bits that narrower codes would save are
nothing beside the activations.
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
class Window:
    """Windows of `kq` taps below each other, for tiles of outputs.

    taps, stride, dilation: of the kernel, (down, across); tile: outputs (down, across).
    """

    taps: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    tile: tuple[int, int]
    kq: int

    @property
    def shift(self) -> int:
        """Taps by which the kernel of an output lies below that of the output above it.

        A single output needs none; of several, the stride must be a multiple of the dilation.
        """
        return self.stride[0] // self.dilation[0]

    @property
    def span(self) -> int:
        """Taps that the tile's outputs touch, one below the other."""
        return (self.tile[0] - 1) * self.shift + self.taps[0]

    @property
    def count(self) -> int:
        """Windows below each other."""
        return -(-self.span // self.kq)

    def touches(self, row: int, group: int) -> bool:
        """Whether the kernel of outputs in `row` has a tap in window `group`."""
        first = row * self.shift
        return first < (group + 1) * self.kq and first + self.taps[0] > group * self.kq

    @property
    def columns(self) -> dict[int, list[tuple[int, int]]]:
        """Column of the input -> the (output, tap) across that read it, in order."""
        found: dict[int, list[tuple[int, int]]] = {}
        for j in range(self.tile[1]):
            for s in range(self.taps[1]):
                found.setdefault(j * self.stride[1] + s * self.dilation[1], []).append((j, s))
        return dict(sorted(found.items()))

    @property
    def steps(self) -> int:
        """Multiplications of a window with weights in a tile of one vector of channels."""
        touched = [(i, g) for i in range(self.tile[0]) for g in range(self.count)]
        return sum(self.touches(*pair) for pair in touched) * self.taps[1] * self.tile[1]

    @property
    def lane_products(self) -> int:
        """The most products that one int16 lane sums for an output, two of them at a time."""
        most = 0
        for row in range(self.tile[0]):
            halves = [0] * (self.kq // 2)
            for tap in range(row * self.shift, row * self.shift + self.taps[0]):
                halves[tap % self.kq // 2] += 1
            most = max(most, *halves)
        return most * self.taps[1]


@dataclass(frozen=True)
class TapWeights(Sectioned):
    """Packed-weight layout above for weights of `shape` [channels, kernel rows, kernel columns, 1].

    dtype: of the operands ("uint8", "int8" or "int16").
    """

    shape: tuple[int, ...]
    format: Format
    window: Window
    vectors: int
    lanes: int
    dtype: str

    @property
    def channels(self) -> int:
        """Output channels."""
        return self.shape[0]

    @property
    def panel(self) -> int:
        """Channels of a panel."""
        return self.vectors * self.lanes

    @property
    def panels(self) -> int:
        """Panels of all channels."""
        return -(-self.channels // self.panel)

    @cached_property
    def sections(self) -> list[Section]:
        """Parts of the packed bytes, in order: name, shape, dtype."""
        w = self.window
        inner = (w.tile[0], w.count, w.taps[1], self.vectors, self.lanes, w.kq)
        return [Section("main", (self.panels, *inner), self.dtype)]

    def pack(self, w: np.ndarray) -> np.ndarray:
        """The packed weights (uint8[nbytes]) of the weight values `w` (`shape`)."""
        window, whole = self.window, self.panels * self.panel
        rows, (down, across) = window.tile[0], window.taps
        main = np.zeros((rows, whole, window.count * window.kq, across), self.dtype)
        for row in range(rows):
            first = row * window.shift
            taps = w.reshape(self.channels, down, across)
            main[row, : self.channels, first : first + down] = taps
        main = main.reshape(
            rows, self.panels, self.vectors, self.lanes, window.count, window.kq, across
        )
        return self.bytes_of([main.transpose(1, 0, 4, 6, 2, 3, 5)])

    def te_module(self) -> IRModule:
        """The packer as TIR: "main"(weights, packed), see `Layout`."""
        from tvm import te, tirx

        window = self.window
        w = te.placeholder((self.channels, *window.taps), self.format.dtype, name="w")

        def weight(panel, row, group, s, vector, lane, kt):
            channel = panel * self.panel + vector * self.lanes + lane
            tap = group * window.kq + kt - row * window.shift
            inside = tirx.all(channel < self.channels, tap >= 0, tap < window.taps[0])
            value = w[channel, tap, s].astype(self.dtype)
            return te.if_then_else(inside, value, tirx.const(0, self.dtype))

        outputs = [te.compute(self.sections[0].shape, weight, name="main")]
        return pack_entry(w, outputs, self.sections, self.shape, self.format.dtype)
