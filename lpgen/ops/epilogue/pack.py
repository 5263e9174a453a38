"""Pack: the result as the next kernel takes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lpgen.ops import packed
from lpgen.ops.epilogue.quantize import Quantize
from lpgen.ops.epilogue.step import Chain, Given, Place, Step, find
from lpgen.ops.epilogue.threshold import Threshold


@dataclass(frozen=True)
class Pack(Step):
    """Stores codes of the format packed, as the next kernel takes them with input=LAYOUT."""

    layout: str
    place: ClassVar[Place] = Place.PACK

    def check(self) -> str | None:
        known = self.layout in packed.LAYOUTS
        return None if known else f"out: layout {self.layout!r} is none of packed, planes"

    def check_within(self, chain: Chain) -> str | None:
        """Why the result of the chain cannot be packed like this, or None."""
        last = find(chain, Quantize | Threshold)
        if last is None:
            return f"epilogue: Pack({self.layout!r}) needs out=FORMAT"
        return packed.check_layout(f"out={last.format}:{self.layout}", last.format, self.layout)

    def apply(self, v: np.ndarray, chain: Chain, given: Given) -> np.ndarray:
        return packed.pack(v, find(chain, Quantize | Threshold).format, self.layout)
