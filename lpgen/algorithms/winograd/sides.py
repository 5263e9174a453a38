"""Minimal filtering in one dimension, in integers: the matrices, and what their values need.

F(m, r) computes m outputs of a filter of r taps, y[i] = sum over k of d[i + k] * g[k], with
n = m + r - 1 products instead of m * r (Winograd, Arithmetic Complexity of Computations, 1980;
Toom-Cook on the points 0, 1, -1, 2, ... and infinity). With finite points p[j] and
N[j] = product over l != j of (p[j] - p[l]),

    y = A^T ((G g) * (B^T d)),   A^T[i][j] = p[j]^i     G[j][k] = p[j]^k / N[j]
    B^T[j] = coefficients of product over l != j of (x - p[l])

and for the point at infinity A^T[m-1] = 1, G[r-1] = 1, B^T = coefficients of product of (x - p[l]).
Everything times the least common multiple of the N[j] is an integer: `scale * y`. The factor of a
point goes into its row of G where that makes no weight larger than the others' are, else into its
column of A^T, which works on int32 sums.

The points i and -i, as one factor x^2 + 1, keep numbers small that 2 and -2 make large (Meng and
Brothers, Efficient Winograd Convolution via Integer Arithmetic, arXiv 1901.01965). Modulo x^2 + 1
the filter is a + b x, the outputs' polynomial c + d x and their product three products:

    (a + b x) (c + d x) = (k1 - k3) + (k1 + k2) x    k1 = (a + b) c, k2 = a (d - c), k3 = b (c + d)

With the product Q of all (x - p[j]) and Q = u + v x modulo x^2 + 1, the rows of B^T belonging to
1 and x of that are Q (u - v x) and Q (v + u x), and their N is u^2 + v^2.

With stride s, tap k of output i reads d[s i + k]. The taps k = f, f + s, f + 2 s, ... of a phase f
read the values f, f + s, ... alone, and neighbouring outputs read neighbours of these: a filter of
stride 1 for each phase, whose results are added up. Three taps of stride 2 are F(m, 2) beside a
single tap: 2 m + 1 products instead of 3 m. Products that go into the same outputs with the same
factors, equal columns of A^T, are added up before they are transformed back: they share a place.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import accumulate, groupby

import numpy as np

Matrix = tuple[tuple[int, ...], ...]

_POINTS = (0, 1, -1, 2, -2, 3)

FEWEST_BESIDE = 3
"""Finite points beside i and -i: with fewer, 2 and -2 would not be among the points either."""


@dataclass(frozen=True)
class Side:
    """One dimension of a tile: scale * (taps of `reach` values) = output @ ((weight @ g) *
    (input @ d)).

    weight: int[products][taps]; input: int[products][values read]; output: int[outputs][products].
    Products that share a place are neighbours.
    """

    weight: Matrix
    input: Matrix
    output: Matrix
    scale: int

    @property
    def products(self) -> int:
        """Multiplications for all outputs."""
        return len(self.input)

    @property
    def outputs(self) -> int:
        return len(self.output)

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """Products of each place."""
        return tuple(len(list(same)) for _, same in groupby(zip(*self.output, strict=True)))

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """The first product of each place."""
        return tuple(accumulate(self.counts[:-1], initial=0))

    @property
    def places(self) -> int:
        """Sums that are transformed back."""
        return len(self.counts)

    @cached_property
    def back(self) -> Matrix:
        """`output` for the sums of the places: int[outputs][places]."""
        return tuple(tuple(row[start] for start in self.starts) for row in self.output)

    @property
    def taps(self) -> int:
        """Taps of the filter that the transformation takes in: 1 where there is none."""
        return len(self.weight[0])


DIRECT = Side(((1,),), ((1,),), ((1,),), 1)
"""No transformation: the taps are summed one by one."""


@cache
def side(outputs: int, taps: int, stride: int = 1, imaginary: bool = False) -> Side:
    """F(outputs, taps) for outputs that are `stride` values apart; one output is `DIRECT`.

    imaginary: with i and -i among the points. Raises ValueError where there are too few points
    whose powers are small, or so few that i and -i make no number smaller.
    """
    if outputs == 1:
        return DIRECT
    starts = range(min(stride, taps))
    phases = [_neighbours(outputs, len(range(f, taps, stride)), imaginary) for f in starts]
    scale = math.lcm(*(phase.scale for phase in phases))
    largest = max(sum(map(abs, row)) for phase in phases for row in phase.weight)
    reach = (outputs - 1) * stride + taps
    weight, inputs, columns = [], [], []
    for first, phase in enumerate(phases):
        factor = scale // phase.scale
        for row, values, column in zip(
            phase.weight, phase.input, zip(*phase.output, strict=True), strict=True
        ):
            small = factor * sum(map(abs, row)) <= largest
            row, column = (_times(factor, row), column) if small else (row, _times(factor, column))
            weight.append(_spread(row, first, stride, taps))
            inputs.append(_spread(values, first, stride, reach))
            columns.append(column)
    order = sorted(range(len(columns)), key=lambda j: columns.index(columns[j]))
    weight, inputs, columns = ([some[j] for j in order] for some in (weight, inputs, columns))
    return Side(tuple(weight), tuple(inputs), tuple(zip(*columns, strict=True)), scale)


def _times(factor: int, row: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(factor * value for value in row)


def _spread(row: tuple[int, ...], first: int, stride: int, length: int) -> tuple[int, ...]:
    """`row` at the places first, first + stride, ... of `length`, the others 0."""
    spread = [0] * length
    spread[first::stride] = row
    return tuple(spread)


def _neighbours(outputs: int, taps: int, imaginary: bool) -> Side:
    """F(outputs, taps) of neighbouring outputs."""
    if taps == 1:
        one = tuple(tuple(int(i == j) for j in range(outputs)) for i in range(outputs))
        return Side(((1,),) * outputs, one, one, 1)
    degree = outputs + taps - 2
    count = degree - 2 * imaginary
    if count > len(_POINTS):
        raise ValueError(f"F({outputs}, {taps}) needs {count} finite points")
    if imaginary and count < FEWEST_BESIDE:
        raise ValueError(f"F({outputs}, {taps}) has {degree} finite points, none of them large")
    points, length = _POINTS[:count], degree + 1
    square = [1, 0, 1] if imaginary else [1]
    rows, inputs, columns, divisors = [], [], [], []
    for p in points:
        rows.append([p**k for k in range(taps)])
        columns.append([p**i for i in range(outputs)])
        others = _product([-q, 1] for q in points if q != p)
        inputs.append(_filled(_product([others, square]), length))
        divisors.append(sum(c * p**k for k, c in enumerate(inputs[-1])))
    if imaginary:
        for row, values, column, divisor in _imaginary(points, taps, outputs):
            rows.append(row)
            inputs.append(_filled(values, length))
            columns.append(column)
            divisors.append(divisor)
    rows.append([0] * (taps - 1) + [1])
    inputs.append(_filled(_product([*([-p, 1] for p in points), square]), length))
    columns.append([0] * (outputs - 1) + [1])
    divisors.append(1)
    scale = math.lcm(*divisors)
    largest = max(sum(map(abs, row)) for row in rows)
    for j, factor in enumerate(scale // divisor for divisor in divisors):
        if factor < 0:
            inputs[j] = [-value for value in inputs[j]]
        magnitude = abs(factor)
        side = rows if magnitude * sum(map(abs, rows[j])) <= largest else columns
        side[j] = [magnitude * value for value in side[j]]
    return Side(
        weight=tuple(map(tuple, rows)),
        input=tuple(map(tuple, inputs)),
        output=tuple(zip(*columns, strict=True)),
        scale=scale,
    )


def _imaginary(points: tuple[int, ...], taps: int, outputs: int) -> Iterator[tuple]:
    """(row of G, row of B^T, column of A^T, N) of the three products modulo x^2 + 1."""
    others = _product([-p, 1] for p in points)
    u, v = _parts(len(others), others)
    norm = u * u + v * v
    a, b = ([_parts(taps, _unit(taps, k))[part] for k in range(taps)] for part in (0, 1))
    c, d = ([_parts(outputs, _unit(outputs, k))[part] for k in range(outputs)] for part in (0, 1))
    rows = (_sum(a, b), a, b)
    columns = (c, _sum(d, [-value for value in c]), _sum(c, d))
    factors = ([u + v, u - v], [v, u], [-u, v])
    for row, factor, column in zip(rows, factors, columns, strict=True):
        values = _product([others, factor])
        common = math.gcd(norm, *values)
        yield row, [value // common for value in values], column, norm // common


def _parts(length: int, coefficients: list[int]) -> tuple[int, int]:
    """The polynomial modulo x^2 + 1: (its constant, its factor of x)."""
    signs = [1 - 2 * (k // 2 % 2) for k in range(length)]
    terms = [sign * c for sign, c in zip(signs, coefficients, strict=True)]
    return sum(terms[::2]), sum(terms[1::2])


def _unit(length: int, place: int) -> list[int]:
    return [int(k == place) for k in range(length)]


def _sum(a: list[int], b: list[int]) -> list[int]:
    return [x + y for x, y in zip(a, b, strict=True)]


def _product(factors: Iterable[Sequence[int]]) -> list[int]:
    """Coefficients of the product of polynomials, the constant first."""
    total = [1]
    for factor in factors:
        total = np.convolve(total, factor).tolist()
    return total


def _filled(coefficients: list[int], length: int) -> list[int]:
    return coefficients + [0] * (length - len(coefficients))


def limits(high: Matrix, wide: Matrix, low: int, top: int) -> tuple[np.ndarray, np.ndarray]:
    """(least, greatest) transformed value at each place of a tile, int64[rows of high][rows of
    wide], of values that are low to top."""
    both = np.einsum("pi,qj->pqij", np.array(high), np.array(wide)).astype(np.int64)
    plus, minus = np.maximum(both, 0).sum((2, 3)), np.minimum(both, 0).sum((2, 3))
    return plus * low + minus * top, plus * top + minus * low
