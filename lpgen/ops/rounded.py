"""Operators of float32 that add products up, and what they say of rounding."""

from __future__ import annotations

from dataclasses import dataclass

from lpgen.ops.unweighted import Unweighted
from lpgen.ops.words import Word, one_of

ROUNDED = ("product", "sum")
"""What is rounded: each product and each sum; or sums alone, of a product that is exact (`fused`),
for which a CPU needs an instruction (`Target.has_fma`)."""

ROUNDED_WORD = Word(one_of(*ROUNDED), str, quiet=True)


@dataclass(frozen=True, kw_only=True)
class Rounded(Unweighted):
    """One that says which of ROUNDED it does, in its words as `rounded`."""

    rounded: str = "product"

    def _take_rounded(self) -> None:
        if self.rounded not in ROUNDED:
            self._fail(f"rounded={self.rounded} is unknown; known: {', '.join(ROUNDED)}")
