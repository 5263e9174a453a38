"""How far the sums of a product may reach, by its formats alone; they have to fit int32."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lpgen.formats import Format
from lpgen.ops import sparse

INT16_MAX, INT32_MAX = 2**15 - 1, 2**31 - 1


@dataclass(frozen=True)
class Reach:
    """Sums over k of (x - zero_act) * (w - zero_weight), and of as many outliers.

    zero_weight: a number, or a text where each channel or group has its own.
    """

    k: int
    act: Format
    weight: Format
    zero_act: int
    zero_weight: int | str
    outliers: int

    @property
    def factors(self) -> tuple[int, int]:
        """How far values of x and w may be from their zero points."""

        def distance(form: Format, zero: int | str) -> int:
            if isinstance(zero, str):
                return form.max - form.min
            return max(form.max - zero, zero - form.min)

        return distance(self.act, self.zero_act), distance(self.weight, self.zero_weight)

    @property
    def bound(self) -> int:
        """The largest absolute value that a sum could have."""
        act, weight = self.factors
        return self.k * act * weight + sparse.bound(self.outliers, self.k, act)

    @property
    def exact_float(self) -> type:
        """The narrowest float in which every partial sum is an exact integer.

        That makes BLAS exact in whatever order it adds: bound <= 2^24 for float32, and the int32
        limit keeps it below 2^53 for float64.
        """
        return np.float32 if self.bound <= 2**24 else np.float64

    def check(self) -> str | None:
        """Why the sums may leave int32, or None."""
        # Without the zero points, too: kernels add up the values as they are.
        act, weight = self.factors
        largest = max(act * weight, self.act.largest * self.weight.largest)
        beside = sparse.bound(self.outliers, self.k, max(act, self.act.largest))
        reached = self.k * largest + beside
        if reached <= INT32_MAX:
            return None
        outliers = f" outliers={self.outliers}" if beside else ""
        return (
            f"k={self.k} with act={self.act} weight={self.weight}{outliers} may reach {reached}, "
            f"above the int32 limit {INT32_MAX}; "
            f"k may be {INT32_MAX // (largest + beside // self.k)} at most"
        )
