"""Functions of float32, each a fixed sequence of operations of IEEE 754: the same bits everywhere.

A function is written once, on an arithmetic `m`: `Numbers` here is NumPy's, the oracle; kernels
have one of vectors (`lpgen.algorithms.functions`) whose operations round in the same way. Sums and
quotients are Python's operators, products are `m.mul`, so that no CPU makes one rounding of a
product and a sum but where it is asked to: `m.plus`. Coefficients are those of Cephes (S. Moshier, https://www.netlib.org/cephes,
single/), for tanh and erf those of Eigen, for gelu our own. Largest relative errors, on all
exponents: exp, log 1e-7, sigmoid 2e-7, erf 5e-7, tanh 5e-7, gelu 3e-7 of |x|, gelu_tanh 5e-7.
Results below 2^-125 may be 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from lpgen.ops import fused

Value = Any

EXP = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 0.5)
LOG = (
    *(7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1),
    *(-1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1),
)
TANH_ABOVE = (
    *(-2.76076847742355e-16, 2.00018790482477e-13, -8.60467152213735e-11, 5.12229709037114e-08),
    *(1.48572235717979e-05, 6.37261928875436e-04, 4.89352455891786e-03),
)
TANH_BELOW = (
    *(1.19825839466702e-06, 1.18534705686654e-04, 2.26843463243900e-03, 4.89352518554385e-03),
)
_ERF_ABOVE = (
    *(2.72614225801306e-10, -2.77068142495902e-08, 2.10102402082508e-06, 5.69250639462346e-05),
    *(7.34990630326855e-04, 2.95459980854025e-03, 1.60960333262415e-02),
)
_ERF_BELOW = (
    *(1.45660718464996e-05, 2.13374055278905e-04, 1.68282697438203e-03, 7.37332916720468e-03),
    1.42647390514189e-02,
)
ERF_ABOVE, ERF_BELOW = (tuple(64 * c for c in one) for one in (_ERF_ABOVE, _ERF_BELOW))
"""64 times both: x times the last number is no smaller than x."""

GELU_ABOVE = (
    *(-0.00012183350190753117, 0.039307981729507446, 2.980983257293701),
    *(46.97575759887695, 455.00640869140625, 3235.425537109375),
)
GELU_BELOW = (1, 24.29141616821289, 330.4646911621094, 2492.144775390625, 8110.01806640625)
"""erf(x / sqrt(2)) / 2 is x P(x^2) / Q(x^2) up to 5.1, less than 7e-8 from it: the best of these
degrees in the sense of Chebyshev, with fewer products than there are in erf."""

LN2_HIGH, LN2_LOW = 0.693359375, -2.12194440e-4
LOG2_E = 1.44269504088896341
ROUNDING, ROUNDING_BITS = 1.5 * 2**23, 0x4B400000
"""A number whose last bit is 1, and its bits."""

LOWEST = -88.0
"""Below it exp is as there: 0, since 2^-126 is less than half of what it is computed with."""


class Numbers:
    """NumPy's float32."""

    @staticmethod
    def const(value: float, like: np.ndarray) -> np.float32:
        """A number."""
        return np.float32(value)

    @staticmethod
    def name(value: np.ndarray) -> np.ndarray:
        """The value, computed once."""
        return value

    @staticmethod
    def mul(a: Value, b: Value) -> Value:
        """a * b, rounded."""
        return a * b

    @staticmethod
    def plus(total: Value, a: Value, b: Value) -> Value:
        """total + a * b, the product rounded, too."""
        return total + a * b

    @staticmethod
    def rounding(rounded: str) -> type[Numbers]:
        """The arithmetic that rounds of products and sums what this says (`rounded.ROUNDED`)."""
        return FusedNumbers if rounded == "sum" else Numbers

    @staticmethod
    def neg(value: Value) -> Value:
        """The value with the other sign."""
        return -value

    @staticmethod
    def where(chosen: Value, a: Value, b: Value) -> Value:
        """a where it is chosen, else b."""
        return np.where(chosen, a, b)

    @staticmethod
    def sqrt(value: Value) -> Value:
        """The square root, rounded."""
        return np.sqrt(value)

    @staticmethod
    def to_float(value: Value) -> Value:
        """float32 of an int32."""
        return value.astype(np.float32)

    @staticmethod
    def not_negative(value: Value) -> Value:
        """int32, 0 where it is less."""
        return np.maximum(value, 0)

    @staticmethod
    def bits(value: Value) -> Value:
        """The int32 of the bits of a float32."""
        return np.asarray(value, np.float32).view(np.int32)

    @staticmethod
    def of_bits(value: Value) -> Value:
        """The float32 of these bits."""
        return np.asarray(value, np.int32).view(np.float32)


class FusedNumbers(Numbers):
    """The same with one rounding for a product and the sum that it is added to."""

    @staticmethod
    def plus(total: Value, a: Value, b: Value) -> Value:
        """total + a * b, rounded once."""
        return fused.plus(total, a, b)


def polynomial(m: Any, x: Value, coefficients: Sequence[float]) -> Value:
    """Horner's scheme, the highest power first."""
    total = m.const(coefficients[0], x)
    for number in coefficients[1:]:
        total = m.name(m.plus(m.const(number, x), total, x))
    return total


def exp(m: Any, x: Value) -> Value:
    """e^x = 2^n e^r with |r| <= ln(2) / 2; inf above 88.72, 0 where n is below -125."""
    high = m.const(89, x)
    return exp_below(m, m.name(m.where(high < x, high, x)))  # what is no number stays


def exp_below(m: Any, x: Value) -> Value:
    """The same up to 89; above it may be anything."""
    low = m.const(LOWEST, x)
    bounded = m.name(m.where(low > x, low, x))
    # The sum with ROUNDING is rounded to an integer, which its lowest bits are.
    sum_ = m.name(m.plus(m.const(ROUNDING, x), bounded, m.const(LOG2_E, x)))
    real = m.name(sum_ - m.const(ROUNDING, x))
    r = bounded - real * m.const(LN2_HIGH, x)  # a product of few bits, which is exact
    r = m.name(m.plus(r, real, m.const(-LN2_LOW, x)))
    less, two = m.plus(r, polynomial(m, r, EXP), m.mul(r, r)), m.const(2, x)
    twice = m.plus(two, less, two)  # 2^128 is no float32, 2^127 is
    # Bits of n = -126 and below are those of 0.
    n = m.bits(sum_) - (ROUNDING_BITS - 126)
    return m.name(m.mul(twice, m.of_bits(m.not_negative(n) << 23)))


def log(m: Any, x: Value) -> Value:
    """ln(x) = e ln(2) + ln(f) with f from sqrt(1/2) to sqrt(2)."""
    small = x < m.const(2.0**-126, x)
    scaled = m.name(m.where(small, m.mul(x, m.const(2.0**23, x)), x))
    # Bits of f: those of x, less e; the constant is that of sqrt(1/2).
    bits = m.bits(scaled)
    e = m.name((bits - 0x3F3504F3) >> 23)
    z = m.name(m.of_bits(bits - (e << 23)) - m.const(1, x))
    squares = m.name(m.mul(z, z))
    real = m.name(m.to_float(e) - m.where(small, m.const(23, x), m.const(0, x)))
    y = m.mul(m.mul(z, squares), polynomial(m, z, LOG))
    y = m.plus(y, real, m.const(LN2_LOW, x))
    y = z + m.plus(y, squares, m.const(-0.5, x))
    y = m.plus(y, real, m.const(LN2_HIGH, x))
    zero = m.const(0, x)
    y = m.where(x == zero, m.const(-np.inf, x), m.where(x < zero, m.const(np.nan, x), y))
    return m.name(m.where(x < m.const(np.inf, x), y, x + x))


def sigmoid(m: Any, x: Value) -> Value:
    """1 / (1 + e^-x)"""
    return m.name(m.const(1, x) / (m.const(1, x) + exp(m, m.neg(x))))


def tanh(m: Any, x: Value) -> Value:
    """x P(x^2) / Q(x^2) up to 7.905, where it is 1."""
    most = m.const(7.90531110763549805, x)
    bounded = m.where(most < x, most, x)
    bounded = m.name(m.where(m.neg(most) > bounded, m.neg(most), bounded))
    squares = m.name(m.mul(bounded, bounded))
    above = m.mul(bounded, polynomial(m, squares, TANH_ABOVE))
    near = above / polynomial(m, squares, TANH_BELOW)
    size = m.of_bits(m.bits(x) & 0x7FFFFFFF)
    return m.name(m.where(size < m.const(4e-4, x), x, near))


def erf(m: Any, x: Value) -> Value:
    """x P(x^2) / Q(x^2) up to 4, and 1 where that is more."""
    most, one = m.const(4, x), m.const(1, x)
    bounded = m.where(most < x, most, x)  # what is no number stays
    bounded = m.name(m.where(m.neg(most) > bounded, m.neg(most), bounded))
    squares = m.name(m.mul(bounded, bounded))
    above = m.mul(bounded, polynomial(m, squares, ERF_ABOVE))
    y = m.name(above / polynomial(m, squares, ERF_BELOW))
    y = m.where(one < y, one, y)
    return m.name(m.where(m.neg(one) > y, m.neg(one), y))


def gelu(m: Any, x: Value) -> Value:
    """x (1 + erf(x / sqrt(2))) / 2 as x (1/2 + x P(x^2) / Q(x^2)), of which the second term is no
    more than 1/2: it is that from 5.1 on."""
    most, half = m.const(26.01, x), m.const(0.5, x)
    squares = m.mul(x, x)
    squares = m.name(m.where(most < squares, most, squares))  # what is no number stays
    above = m.mul(x, polynomial(m, squares, GELU_ABOVE))
    y = m.name(above / polynomial(m, squares, GELU_BELOW))
    y = m.where(half < y, half, y)
    y = m.name(m.where(m.neg(half) > y, m.neg(half), y))
    return m.name(m.mul(x, half + y))


def gelu_tanh(m: Any, x: Value) -> Value:
    """x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))"""
    sum_ = m.name(m.plus(x, m.mul(m.mul(x, x), x), m.const(0.044715, x)))
    inner = tanh(m, m.mul(sum_, m.const((2 / np.pi) ** 0.5, x)))
    return m.name(m.mul(m.mul(x, m.const(0.5, x)), m.const(1, x) + inner))


def clip(m: Any, x: Value, low: float, high: float) -> Value:
    """x between low and high; low for what is no number."""
    bounded = m.where(x > m.const(low, x), x, m.const(low, x))
    return m.name(m.where(bounded < m.const(high, x), bounded, m.const(high, x)))


def hard_sigmoid(m: Any, x: Value, alpha: float, beta: float) -> Value:
    """alpha x + beta between 0 and 1."""
    return clip(m, m.name(m.plus(m.const(beta, x), x, m.const(alpha, x))), 0, 1)


def leaky_relu(m: Any, x: Value, alpha: float) -> Value:
    """x, and alpha x below 0."""
    return m.where(x < m.const(0, x), m.mul(x, m.const(alpha, x)), x)


FUNCTIONS: dict[str, tuple[Callable[..., Value], tuple[float, ...]]] = {
    "abs": (lambda m, x: m.of_bits(m.bits(x) & 0x7FFFFFFF), ()),
    "clip": (clip, (0.0, 6.0)),
    "erf": (erf, ()),
    "exp": (exp, ()),
    "gelu": (gelu, ()),
    "gelu_tanh": (gelu_tanh, ()),
    "hard_sigmoid": (hard_sigmoid, (0.2, 0.5)),
    "hard_swish": (lambda m, x: m.mul(x, hard_sigmoid(m, x, 1 / 6, 0.5)), ()),
    "leaky_relu": (leaky_relu, (0.01,)),
    "log": (log, ()),
    "neg": (lambda m, x: m.neg(x), ()),
    "reciprocal": (lambda m, x: m.const(1, x) / x, ()),
    "relu": (lambda m, x: m.where(x < m.const(0, x), m.const(0, x), x), ()),
    "replace_nan": (lambda m, x, a: m.where(x >= m.const(-np.inf, x), x, m.const(a, x)), (0.0,)),
    "sigmoid": (sigmoid, ()),
    "sqrt": (lambda m, x: m.sqrt(x), ()),
    "square": (lambda m, x: m.mul(x, x), ()),
    "swish": (lambda m, x: m.mul(x, sigmoid(m, x)), ()),
    "tanh": (tanh, ()),
}
"""For each name f(m, x, *parameters) and the usual parameters: of clip its bounds, else alpha and
beta of ONNX."""


@cache
def adds_products(name: str) -> bool:
    """Whether a function adds a product to something: it has two ways to round."""
    function, parameters = FUNCTIONS[name]
    found = []

    class Watched(Numbers):
        @staticmethod
        def plus(total: Value, a: Value, b: Value) -> Value:
            found.append(name)
            return Numbers.plus(total, a, b)

    function(Watched, np.ones(1, np.float32), *parameters)
    return bool(found)


PARTS = 32
"""Partial sums of a row: element i is part of number i % 32, and in the end the upper half of them
is added to the lower one, and so on. So sums are the same whatever the width of vectors."""


def row_totals(
    values: np.ndarray, combine: Callable[[Value, Value], Value], first: float
) -> np.ndarray:
    """float32[rows, 1]: all values[rows, columns] of each row combined, from `first` on, in the
    order of PARTS."""
    rows, columns = values.shape
    parts = np.full((rows, PARTS), first, np.float32)
    for start in range(0, columns, PARTS):
        some = values[:, start : start + PARTS]
        count = some.shape[1]
        parts[:, :count] = combine(parts[:, :count], some)
    while parts.shape[1] > 1:
        half = parts.shape[1] // 2
        parts = combine(parts[:, :half], parts[:, half:])
    return parts


def larger(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The larger one; b where one is no number."""
    return np.where(a > b, a, b)
