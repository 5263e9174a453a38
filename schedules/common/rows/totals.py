"""Sums of rows in the order of `functions.PARTS`, of one row or of a block of them.

The parts of one row are added to each other in steps that wait for one another, and what is done
with the sum waits for all of them. In a block each step is one for all rows: its vectors hold parts
of several rows, until the last one has the sum of a row in each lane.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tvm import tirx
from tvm.tirx.script import builder as tb

from lpgen.algorithms.functions import Vectors
from lpgen.algorithms.rows import Accumulators, Rows
from lpgen.isa import Isa
from lpgen.ops.functions import PARTS
from lpgen.tir import vectors as vec
from lpgen.tir.strips import Index, parts_of

Combine = Callable[[tirx.Expr, tirx.Expr], tirx.Expr]
Value = Callable[[Vectors, Index, int], tirx.Expr]
"""(arithmetic, place, width): vectors of one or of several rows, one behind the other."""

NEAR = 3 * 2**14
"""Bytes of a block of rows at most: they are gone through several times, out of the L1 cache."""


def plus(a: tirx.Expr, b: tirx.Expr) -> tirx.Expr:
    """a + b"""
    return a + b


def total(columns: int, wide: int, first: float, combine: Combine, value: Value) -> tirx.Expr:
    """Emit the combination of value(arithmetic, place, width) of all columns, from `first` on, in
    vectors of `wide`, a power of two; a scalar."""
    (acc,) = _parts(columns, 1, wide, first, combine, value)
    return _halved(acc, 1, combine)


def totals(
    columns: int,
    isa: Isa,
    wide: int,
    first: float,
    combine: Combine,
    value: Callable[[Sequence[Index]], Value],
) -> tirx.Var:
    """Emit the same for as many rows as a vector has lanes, value(rows) of some; returns memory of
    so many numbers. Where rows are short there are several in a vector of `wide`."""
    count = isa.lanes
    near = max(1, min(count, wide // max(PARTS, 1 << (columns - 1).bit_length())))
    parts, found = vec.scratch((count * count,), "float32"), vec.scratch((count,), "float32")
    with tb.serial(0, count // near) as some:
        rows = [some * near + i for i in range(near)]
        several = _parts(columns, near, wide // near, first, combine, value(rows))
        for row, acc in zip(rows, several, strict=True):
            vec.store(parts, [row * count], _halved(acc, count, combine), count)
    name = vec.Names()
    vectors = [name(vec.load(parts, [row * count], count)) for row in _order(count)]
    while len(vectors) > 1:
        pairs = zip(vectors[::2], vectors[1::2], strict=True)
        vectors = [name(combine(*_sides(a, b, len(vectors) // 2))) for a, b in pairs]
    vec.store(found, [0], vectors[0], count)
    return found


def block(isa: Isa, rows: int, row_bytes: int) -> int:
    """How many rows are worked on together: as many as a vector has lanes, or one."""
    count = isa.lanes
    return count if 1 < count <= min(rows, PARTS) and count * row_bytes <= NEAR else 1


def in_blocks(rows: int, size: int, several: Callable[..., None], one: Callable[..., None]) -> Rows:
    """Rows in blocks of `size`: several(first row, *buffers) emits one, one(row, *buffers) each row
    that is left."""
    whole, rest = divmod(rows, size) if size > 1 else (0, rows)
    if not whole:
        return Rows(rows, one)
    if not rest:
        return Rows(whole, lambda number, *buffers: several(number * size, *buffers))

    def emit(number: Index, *buffers) -> None:
        with tb.If(number < whole):
            with tb.Then():
                several(number * size, *buffers)
            with tb.Else():
                one(number + whole * (size - 1), *buffers)

    return Rows(whole + rest, emit)


def _parts(
    columns: int, rows: int, wide: int, first: float, combine: Combine, value: Value
) -> Sequence[Accumulators]:
    """Emit the parts of each of so many rows."""
    piece = min(PARTS, wide)
    several = [Accumulators("float32", [piece] * (PARTS // piece), first) for _ in range(rows)]

    def combined(place: Index, part: int, width: int) -> None:
        values, each = value(Vectors(), place, width), min(PARTS, width)
        for row, acc in enumerate(several):
            for start in range(row * width, (row + 1) * width, each):
                own = vec.load(acc.memory, [part], each)
                new = vec.shuffle(values, range(start, start + each))
                vec.store(acc.memory, [part], combine(own, new), each)

    done = 0
    for step in (wide, PARTS) if wide > PARTS else (PARTS,):
        whole = (columns - done) // step
        if whole:
            with tb.serial(0, whole) as i:
                for part in range(0, PARTS, piece) if step == PARTS else (0,):
                    combined(done + i * step + part, part, min(step, wide))
        done += whole * step
    part = 0
    for width in parts_of(columns - done, piece):
        combined(done + part, part, width)
        part += width
    return several


def _halved(acc: Accumulators, left: int, combine: Combine) -> tirx.Expr:
    """Emit the combination of the upper half of the parts with the lower one, until so many are
    left: a vector of them."""
    name = vec.Names()
    value, half = name(vec.load(acc.memory, [0], PARTS)), PARTS
    while half > left:
        half //= 2
        sides = [vec.shuffle(value, range(start, start + half)) for start in (0, half)]
        value = name(combine(*sides))
    return value


def _lanes(count: int, each: int) -> Sequence[Sequence[int]]:
    """What lanes of two vectors, counted through, are in the lower halves of parts of rows, and in
    the upper ones, of which each row has 2 `each`: within 128 bits where they fit, in the order in
    which an instruction puts them."""
    near = min(4, count)
    if 2 * each > near:  # vinsertf64x4 and its like
        starts = range(0, 2 * count, 2 * each)
    else:  # vunpcklpd, vshufps
        starts = [
            side + chunk + start
            for chunk in range(0, count, near)
            for side in (0, count)
            for start in range(0, near, 2 * each)
        ]
    return [[start + h + i for start in starts for i in range(each)] for h in (0, each)]


def _sides(a: tirx.Expr, b: tirx.Expr, each: int) -> Sequence[tirx.Expr]:
    """The lower and the upper halves of two vectors whose rows have 2 `each` parts."""
    lanes = _lanes(int(a.ty.dtype.lanes), each)
    return [vec.bind(vec.joined([a, b], some)) for some in lanes]


def _order(count: int) -> Sequence[int]:
    """The order of as many rows as there are lanes, in which each ends in its own lane."""
    vectors = [[row] * count for row in range(count)]
    while len(vectors) > 1:
        low, _ = _lanes(count, len(vectors) // 2)
        pairs = zip(vectors[::2], vectors[1::2], strict=True)
        vectors = [[(a + b)[lane] for lane in low] for a, b in pairs]
    return [vectors[0].index(place) for place in range(count)]
