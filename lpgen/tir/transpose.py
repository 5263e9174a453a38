"""Transposition in registers: of 16-bit lanes in every 128 bits of vectors (vpunpcklwd and its
like), and of blocks."""

from collections.abc import Callable

from tvm import tirx

from lpgen.tir import vectors as vec

WORDS = 8
"""16-bit lanes of 128 bits: so many rows and columns are transposed together."""


def transposed(columns: list[tirx.Expr]) -> list[tirx.Expr]:
    """The eight rows of eight columns, in every 128 bits."""
    groups, run = [[column] for column in columns], 1
    while len(groups) > 1:
        groups = [
            [half for pair in zip(*two, strict=True) for half in _interleaved(*pair, run)]
            for two in zip(groups[::2], groups[1::2], strict=True)
        ]
        run *= 2
    return groups[0]


def _interleaved(a: tirx.Expr, b: tirx.Expr, run: int) -> list[tirx.Expr]:
    """In every 128 bits `run` lanes of a, `run` of b, ...: of their low halves, of their high."""
    lanes = int(a.ty.dtype.lanes)
    return [
        vec.bind(
            vec.joined(
                [a, b],
                [
                    start + half + unit + lane + side * lanes
                    for start in range(0, lanes, WORDS)
                    for unit in range(0, WORDS // 2, run)
                    for side in (0, 1)
                    for lane in range(run)
                ],
            )
        )
        for half in (0, WORDS // 2)
    ]


def transposed_block(
    rows: list[tirx.Expr], name: Callable[[tirx.Expr], tirx.Var]
) -> list[tirx.Expr]:
    """The columns of `rows`; of both there is a power of two. name: names the values between.

    Rows that are half of all apart are interleaved until one sequence is left.
    """
    height, lanes = len(rows), int(rows[0].ty.dtype.lanes)
    sequences = [[row] for row in rows]
    while len(sequences) > 1:
        half = len(sequences) // 2
        pairs = zip(sequences[:half], sequences[half:], strict=True)
        sequences = [
            [part for a, b in zip(*pair, strict=True) for part in _zipped(a, b, lanes, name)]
            for pair in pairs
        ]
    (parts,) = sequences
    if lanes == 1:
        return [vec.joined(parts, range(height))] if height > 1 else parts
    if height >= lanes:
        each = height // lanes
        groups = [parts[i * each : (i + 1) * each] for i in range(lanes)]
        return [vec.joined(group, range(height)) if each > 1 else group[0] for group in groups]
    starts = range(0, lanes, height)
    return [vec.shuffle(part, range(at, at + height)) for part in parts for at in starts]


def _zipped(
    a: tirx.Expr, b: tirx.Expr, lanes: int, name: Callable[[tirx.Expr], tirx.Var]
) -> list[tirx.Expr]:
    """The lanes of a and b in turns, in two vectors."""
    if lanes == 1:
        return [a, b]
    order = [lane + side * lanes for lane in range(lanes) for side in (0, 1)]
    return [name(vec.joined([a, b], order[:lanes])), name(vec.joined([a, b], order[lanes:]))]
