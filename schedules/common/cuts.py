"""Sizes of register tiles and blocks that waste little of the last one."""

from collections.abc import Iterator, Sequence

WASTE = 8
"""Empty places may be one in so many."""


def rounded(count: int, size: int) -> int:
    """`count` in whole tiles of `size`: as many or a little more."""
    return -(-count // size) * size


def fits(count: int, size: int) -> bool:
    """Whether tiles of `size` leave little of the last one empty."""
    return rounded(count, size) - count <= count // WASTE


def cuts(count: int, sizes: Sequence[int]) -> Iterator[int]:
    """Of `sizes`, ascending, those that fit `count`, and the even cuts of a small one."""
    even = {-(-count // tiles) for tiles in range(1, 5)}
    for size in sorted({*sizes, *(cut for cut in even if cut <= sizes[-1])}):
        if size in even or (size < count and fits(count, size)):
            yield size


def refuses_block(name: str, block: int, count: int) -> str | None:
    """Why blocks of `block` of `count` tiles (0: all of them) are no good; None if they may be."""
    if block and (block >= count or not fits(count, block)):
        return f"{name}={block} does not divide {count} well"
    return None
