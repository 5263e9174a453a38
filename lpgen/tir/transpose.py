"""Transposition of 16-bit lanes in every 128 bits of vectors (vpunpcklwd and its like)."""

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
