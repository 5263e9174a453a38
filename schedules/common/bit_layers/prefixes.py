"""What a number of layers reads: slices of two bits, joined to parts.

The planes of a prefix are *slices* of two bits. Two slices become two vectors of fields of four
bits, and two times two of these four vectors of codes of 8 bits (`operands`). An odd number of
layers leaves out the lower bits of the last slice: codes are twice as large, and so are the sums.
"""

from __future__ import annotations

from typing import NamedTuple


class Part(NamedTuple):
    """Slices that are joined: their numbers, and the bits of a field of them: 1, 2, 4 or 8."""

    slices: tuple[int, ...]
    bits: int


class Prefix(NamedTuple):
    """What a number of layers reads: the parts, the highest first; below: how far the sums are
    shifted left; masked: whether the lower bits of the last slice are left out."""

    parts: tuple[Part, ...]
    below: int
    masked: bool


def prefix(bits: int, top: int, count: int, most: int) -> Prefix:
    """The first `count` layers of codes of so many bits whose first plane has `top`; most: slices
    of a part."""
    if count == 1 and top == 1:
        return Prefix((Part((0,), 1),), 0, False)
    filled = count + bits % 2  # the first slice of an odd number of bits has an upper bit of 0
    slices = tuple(range(-(-filled // 2)))
    pieces = [slices[i : i + most] for i in range(0, len(slices), most)]
    parts = tuple(Part(piece, {1: 2, 2: 4, 3: 8, 4: 8}[len(piece)]) for piece in pieces)
    spare = 2 * (parts[-1].bits // 2 - len(pieces[-1]))
    return Prefix(parts, spare + filled % 2, bool(filled % 2))
