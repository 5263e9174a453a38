"""Widths of register tiles that go over the columns of an image."""

from collections.abc import Iterator, Sequence


def cuts(size: int, widths: Sequence[int]) -> Iterator[int]:
    """Of the tile `widths`, ascending, those that waste little of the last tile in rows of `size`
    columns, and the even cuts of a short row."""
    even = {-(-size // tiles) for tiles in range(1, 5)}
    for columns in sorted({*widths, *(cut for cut in even if cut <= widths[-1])}):
        waste = -(-size // columns) * columns - size
        if columns in even or (columns < size and waste <= size // 8):
            yield columns
