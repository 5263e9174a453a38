"""Sizes of winograd's stages: register tiles over the output, and what they read of the input."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from tvm import te

from lpgen.algorithms.winograd.tile import Tile
from lpgen.algorithms.winograd.weights import KQ

if TYPE_CHECKING:
    from lpgen.algorithms.weights.panels import Lookup


@dataclass(frozen=True)
class Tiling:
    """Sizes that shape the definition.

    rows, columns: transformed tiles of a register tile; vectors, lanes: of output channels;
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
        (down, across), tiling = self.tile.direct, self.tiling
        return tiling.rows + down - 1, tiling.columns + across - 1

    @property
    def read(self) -> tuple[int, int]:
        """Rows and columns of the padded input."""
        (kh, kw), outputs = self.tile.op.kernel, self.outputs
        return self.tiles[0] * outputs[0] + kh - 1, self.tiles[1] * outputs[1] + kw - 1

    @property
    def steps(self) -> int:
        """Steps of the input channels, filled up to whole chunks."""
        chunk = self.tiling.chunk or 1
        return -(-self.tile.op.ic // (KQ * chunk)) * chunk
