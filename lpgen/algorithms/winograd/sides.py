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

With stride s, tap k of output i reads d[s i + k]. The taps k = f, f + s, f + 2 s, ... of a phase f
read the values f, f + s, ... alone, and neighbouring outputs read neighbours of these: a filter of
stride 1 for each phase, whose results are added up. Three taps of stride 2 are F(m, 2) beside a
single tap: 2 m + 1 products instead of 3 m. Products that go into the same outputs with the same
factors, equal columns of A^T, are added up before they are transformed back: they share a place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import accumulate, groupby

import numpy as np

Matrix = tuple[tuple[int, ...], ...]

_POINTS = (0, 1, -1, 2, -2, 3)


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
def side(outputs: int, taps: int, stride: int = 1) -> Side:
    """F(outputs, taps) for outputs that are `stride` values apart; one output is `DIRECT`. Raises
    ValueError where there are too few points whose powers are small."""
    if outputs == 1:
        return DIRECT
    phases = [_neighbours(outputs, len(range(f, taps, stride))) for f in range(min(stride, taps))]
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


def _neighbours(outputs: int, taps: int) -> Side:
    """F(outputs, taps) of neighbouring outputs."""
    if taps == 1:
        one = tuple(tuple(int(i == j) for j in range(outputs)) for i in range(outputs))
        return Side(((1,),) * outputs, one, one, 1)
    products = outputs + taps - 1
    if products - 1 > len(_POINTS):
        raise ValueError(f"F({outputs}, {taps}) needs {products - 1} finite points")
    points = _POINTS[: products - 1]
    others = [[p - q for q in points if q != p] for p in points]
    divisors = [math.prod(differences) for differences in others]
    scale = math.lcm(*divisors)
    rows = [[point**k for k in range(taps)] for point in points]
    rows.append([0] * (taps - 1) + [1])
    inputs = [_polynomial([q for q in points if q != p], products) for p in points]
    inputs.append(_polynomial(points, products))
    columns = [[point**i for i in range(outputs)] for point in points]
    columns.append([0] * (outputs - 1) + [1])
    factors = [scale // divisor for divisor in divisors] + [scale]
    largest = max(sum(map(abs, row)) for row in rows)
    for j, factor in enumerate(factors):
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


def _polynomial(roots: list[int] | tuple[int, ...], length: int) -> list[int]:
    """Coefficients of the product of (x - root), the constant first, filled up with 0."""
    coefficients = [1]
    for root in roots:
        shifted = [0, *coefficients]
        coefficients = [
            high - root * low for high, low in zip(shifted, [*coefficients, 0], strict=True)
        ]
    return coefficients + [0] * (length - len(coefficients))


def limits(high: Matrix, wide: Matrix, low: int, top: int) -> tuple[np.ndarray, np.ndarray]:
    """(least, greatest) transformed value at each place of a tile, int64[rows of high][rows of
    wide], of values that are low to top."""
    both = np.einsum("pi,qj->pqij", np.array(high), np.array(wide)).astype(np.int64)
    plus, minus = np.maximum(both, 0).sum((2, 3)), np.minimum(both, 0).sum((2, 3))
    return plus * low + minus * top, plus * top + minus * low
