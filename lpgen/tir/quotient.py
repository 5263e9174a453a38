"""Division of many numbers by the same one: a few multiplications each, and the same bits.

With r = 1 / s rounded, and rest what r lacks, v r + v rest is v / s but for 2^-46 of it, so that q,
rounded, is one of the two neighbours of the quotient. v - q s is exact, and its part of 1 / s added
to q gives the quotient as rounded by a division.

Source: P. Markstein, Computation of elementary functions on the IBM RISC System/6000 processor,
IBM J. Res. Dev. 34 (1990), theorem 8.
"""

from __future__ import annotations

from tvm import tirx

from lpgen.tir.fma import fma
from lpgen.tir.vectors import splat

SMALLEST, LARGEST = 2.0**-40, 2.0**63
"""Divisors of which nothing overflows or is rounded as a subnormal number, for quotients that are
0 or from 2^-2 to 2^45."""


def quotient(v: tirx.Expr, divisor: tirx.Expr) -> tirx.Expr:
    """v / divisor for float32, a number from SMALLEST to LARGEST: numbers, or a vector v. Needs a
    CPU that multiplies and adds with one rounding."""
    lanes = int(v.ty.dtype.lanes)
    one = tirx.const(1, "float32")
    inverse = one / divisor
    rest = fma(-inverse, divisor, one) * inverse
    inverse, rest, divisor = (
        splat(number, "float32", lanes) for number in (inverse, rest, divisor)
    )
    near = fma(v, inverse, v * rest)
    return fma(fma(-near, divisor, v), inverse, near)


def divides(divisor: tirx.Expr) -> tirx.Expr:
    """Whether `quotient` takes the divisor."""
    low, high = (tirx.const(bound, "float32") for bound in (SMALLEST, LARGEST))
    return tirx.all(divisor >= low, divisor <= high)
