"""Register tiles of the winograd algorithm over the output, and what of the input they read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from tvm import te

from lpgen.algorithms.winograd.sides import Side
from lpgen.algorithms.winograd.tile import Tile

if TYPE_CHECKING:
    from lpgen.algorithms.weights.panels import Lookup


FEWEST = 4
"""Channels of a vector that is transformed, at least."""


@dataclass(frozen=True)
class Tiling:
    """Sizes that shape the definition.

    rows, columns: transformed tiles of a register tile; vectors, lanes: of output channels;
    crossed: whether products are of sums of both sides (`winograd.crossed`);
    chunk: steps summed in int16 before they are widened to int32, 0 for int32 throughout;
    codes: weights are stored as the kernel's codes and transformed panel by panel; lookup: how
    bytes of a code book are looked up (`PanelWeights.value`).
    """

    rows: int
    columns: int
    vectors: int
    lanes: int
    chunk: int = 0
    codes: bool = False
    lookup: Lookup | None = None
    crossed: bool = False


@dataclass(frozen=True)
class Geometry:
    """Register tiles over the output, and the view of the input that they read."""

    tile: Tile
    tiling: Tiling

    @cached_property
    def x(self) -> te.Tensor:
        """Placeholder of the input; signed values are bytes modulo 256."""
        op = self.tile.op
        return te.placeholder((op.n, op.h, op.w, op.ic), "uint8", name="x")

    @property
    def sides(self) -> tuple[Side, Side]:
        """The transformations down and across."""
        return self.tile.high, self.tile.wide

    @property
    def outputs(self) -> tuple[int, int]:
        """Outputs of a register tile, down and across."""
        t, tiling = self.tile, self.tiling
        return tiling.rows * t.high.outputs, tiling.columns * t.wide.outputs

    @property
    def tiles(self) -> tuple[int, int]:
        """Register tiles, down and across."""
        sizes = zip((self.tile.op.oh, self.tile.op.ow), self.outputs, strict=True)
        return tuple(-(-size // outputs) for size, outputs in sizes)

    @property
    def patches(self) -> tuple[int, int]:
        """Transformed patches of a register tile; neighbours share those of a direct side."""
        (down, across), tiling, (high, wide) = self.tile.direct, self.tiling, self.advance
        return (tiling.rows - 1) * high + down, (tiling.columns - 1) * wide + across

    @property
    def added(self) -> tuple[int, int]:
        """Steps of the loops over what is summed for a place besides the channels, down and across:
        taps, or all products where some share a place."""
        sides = zip(self.sides, self.tile.direct, strict=True)
        return tuple(s.products if s.places < s.products else taps for s, taps in sides)

    @property
    def advance(self) -> tuple[int, int]:
        """Transformed patches, down and across, from one transformed tile to the next: on a direct
        side each value read is one."""
        pairs = zip(self.sides, self.tile.op.stride, strict=True)
        return tuple(stride if side.outputs == 1 else 1 for side, stride in pairs)

    @property
    def steps_of_patches(self) -> tuple[int, int]:
        """Values of the input from one transformed patch to the next."""
        sides = zip(self.sides, self.tile.op.stride, strict=True)
        return tuple(1 if side.outputs == 1 else side.outputs * stride for side, stride in sides)

    @property
    def steps_of_tiles(self) -> tuple[int, int]:
        """Values of the input from one register tile to the next."""
        sides = zip(self.outputs, self.tile.op.stride, strict=True)
        return tuple(outputs * stride for outputs, stride in sides)

    @property
    def read(self) -> tuple[int, int]:
        """Rows and columns of the padded input."""
        op = self.tile.op
        sizes = zip(self.tiles, self.outputs, op.stride, op.kernel, strict=True)
        return tuple((tiles * each - 1) * stride + taps for tiles, each, stride, taps in sizes)

    @property
    def steps(self) -> int:
        """Steps of the input channels, filled up to whole chunks, to two halves, and to four
        channels, so that vectors of them can be transformed."""
        chunk = self.tiling.chunk or (2 if self.tiling.crossed else FEWEST // self.tile.kq)
        return -(-self.tile.op.ic // (self.tile.kq * chunk)) * chunk
