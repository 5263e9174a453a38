"""Sums of products of float32; a * b + c with one rounding in NumPy, which has no function for it.

In float64 the product is exact. A sum rounded to float64 and then to float32 differs from one that
is rounded once only where the first rounding makes a tie for the second one; or where float32 has
fewer bits, below its normal numbers. These few are summed again, rounded to odd: of the two
neighbours of an inexact sum the one whose last bit is 1. Rounded again to float32 it gives what the
exact sum would. A sum rounded as usual is one of them, and what it lacks (Knuth's error of an
addition, exact) says where the other one is.

Source: S. Boldo, G. Melquiond, Emulation of a FMA and correctly rounded sums: proved algorithms
using rounding to odd, IEEE Trans. Computers 57 (2008).
"""

from __future__ import annotations

import numpy as np

SMALLEST = float(np.finfo(np.float32).smallest_normal)

TIED = 1 << 28
"""The bits of float64 that float32 lacks, where they lie in the middle of two numbers."""


def plus(total: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """total + a * b of float32, rounded once, with the rules of NumPy for shapes."""
    return _plus(total, np.asarray(a, np.float64), np.asarray(b, np.float64), careful=True)


class Sums:
    """What adds products to sums, one after the other.

    rounded: of `rounded.ROUNDED`; a, b: all that will be multiplied, float32. `sums(c, a, b)` is
    c + a * b of float32, with the rules of NumPy for shapes; a, b: `sums.a` and `sums.b`, or parts
    of them.
    """

    def __init__(self, rounded: str, a: np.ndarray, b: np.ndarray) -> None:
        self._fused = rounded == "sum"
        self.a, self.b = (v.astype(np.float64) for v in (a, b)) if self._fused else (a, b)
        # All sums are multiples of the last bits of the smallest product: far above SMALLEST.
        self._careful = self._fused and _least(self.a) * _least(self.b) < 2.0**-70

    def __call__(self, c: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return _plus(c, a, b, self._careful) if self._fused else c + a * b


def _plus(c: np.ndarray, a: np.ndarray, b: np.ndarray, careful: bool) -> np.ndarray:
    """c + a * b; a, b: float64 of float32 values; careful: sums may be below SMALLEST."""
    with np.errstate(all="ignore"):
        product = a * b
        total = product + c
        near = total.astype(np.float32)
        doubtful = (total.view(np.int64) & (2 * TIED - 1)) == TIED
        if careful:
            doubtful |= np.abs(total) < SMALLEST
        if doubtful.any():
            at = np.nonzero(doubtful)
            c = np.broadcast_to(c, total.shape)[at].astype(np.float64)
            near[at] = _to_odd(product[at], c).astype(np.float32)
    return near


def _least(values: np.ndarray) -> float:
    """The smallest absolute value but for 0."""
    sizes = np.abs(values[(values != 0) & np.isfinite(values)])
    return float(sizes.min(initial=np.inf))


def _to_odd(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a + b of float64, rounded to odd where it is not exact."""
    total = a + b
    part = total - a
    lacking = (a - (total - part)) + (b - part)
    even = (total.view(np.int64) & 1) == 0
    moved = np.nextafter(total, np.copysign(np.inf, lacking))
    return np.where(even & (np.abs(lacking) > 0), moved, total)
