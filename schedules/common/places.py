"""Places of the elements that a tile's rows read where the left side lies as the input does.

A row's place takes divisions: which line, which pixel. It is computed once for a tile, into memory,
and what lies between it and an element depends on the k step alone, so that one register addresses
all elements of a row.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from tvm import tirx
from tvm.tirx.script import builder as tb

from lpgen.tir import vectors as vec
from lpgen.tir.microkernel import Access, Index


def flat(shape: Sequence, indices: Sequence) -> tirx.Expr:
    """The indices of a tensor of this shape as one, that of its elements in a row."""
    place = indices[0]
    for extent, index in zip(shape[1:], indices[1:], strict=True):
        place = place * extent + index
    return place


class RowPlaces:
    """Indices of `access` for the rows `rows` of a tile; tail: the last indices of a row's place,
    where they are given at each access (`Access.at`).

    That the largest of an index and 0 is the index, LLVM knows; TVM does not look into the call,
    and is spared the comparison of all places with each other when it asks which part of a buffer
    is in use.
    """

    def __init__(self, access: Access, rows: Iterable[int], tail: Sequence[Index] = ()) -> None:
        rows = list(rows)
        self.shape = access.buffer.shape
        self._bare = replace(access, outer={})
        self._origin = flat(self.shape, self._bare.at(tail))
        self._number = {mi: i for i, mi in enumerate(rows)}
        self._places = vec.scratch((len(rows),), "int32")
        for mi, number in self._number.items():
            tb.buffer_store(self._places, flat(self.shape, access.at(tail, mi=mi)), [number])

    def at(self, mi: int, tail: Sequence[Index] = (), **values: Index) -> list:
        """The indices of row `mi` at these values of the other axes (`Access.at`)."""
        distance = flat(self.shape, self._bare.at(tail, **values)) - self._origin
        place = self._places[self._number[mi]] + distance
        opaque = vec.intrinsic("int32", "llvm.umax.i32", place, vec.const(0))
        return [0] * (len(self.shape) - 1) + [opaque]
