"""The sparse part of the weights: planes of the input, and entries that say where to read in them.

`outlier_sums` multiplies them, in vectors of neighbouring rows m of the matrix product. For that
the input lies transposed, in *planes*: a channel's pixels are neighbours, with their padding. With
strides the rows and columns of an image fall into phases, each a plane of its own. There, the rows
of a line of outputs are neighbours for every k, and lie a constant distance behind where the line
starts: an entry is stored as (value, that distance).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from tvm import te

from lpgen.algorithms.lhs.view import is_matrix
from lpgen.algorithms.sections import Section
from lpgen.ops import Conv2d, Dense
from lpgen.ops.sparse import NAMES

LANES = 16
_WIDEST = 4  # vectors of rows whose sums are in registers at the same time
_LINE = 64  # bytes of a cache line


@dataclass(frozen=True)
class Geometry:
    """Where the pixels of an operator's input lie in its planes.

    plane (channel, phase of row, phase of column) of an image: [line][column], `pitch` elements
    from the next one.
    """

    op: Dense | Conv2d

    @cached_property
    def pixels(self) -> tuple[int, int, int, int]:
        """(images, height, width, channels) of the input."""
        op = self.op
        return (1, 1, op.matrix.m, op.matrix.k) if is_matrix(op) else (op.n, op.h, op.w, op.ic)

    @cached_property
    def pad(self) -> tuple[int, int]:
        """(above, left)"""
        return (0, 0) if is_matrix(self.op) else self.op.pad[:2]

    @cached_property
    def phases(self) -> tuple[int, int]:
        """Phases of rows and columns."""
        return (1, 1) if is_matrix(self.op) else self.op.stride

    @cached_property
    def plane(self) -> tuple[int, int]:
        """(lines, columns) of a plane."""
        size = self.pixels[1:3] if is_matrix(self.op) else self.op.padded
        return tuple(-(-n // phases) for n, phases in zip(size, self.phases, strict=True))

    @cached_property
    def lines(self) -> tuple[int, int]:
        """(lines of an image, rows of the matrix in each) of the result."""
        return (1, self.op.matrix.m) if is_matrix(self.op) else (self.op.oh, self.op.ow)

    @cached_property
    def vectors(self) -> int:
        """Vectors of rows in a block, 0: one row."""
        rows = self.lines[1]
        return 0 if rows == 1 else min(_WIDEST, -(-rows // LANES))

    @property
    def block(self) -> int:
        """Rows that are computed at the same time."""
        return max(1, self.vectors * LANES)

    @cached_property
    def pitch(self) -> int:
        """Elements from plane to plane: whole vectors, and an odd number of cache lines, so that
        the planes do not all fall into the same sets of the cache."""
        size = self.plane[0] * self.plane[1]
        if not self.vectors:
            return size
        if size < _LINE:
            return -(-size // LANES) * LANES
        return (-(-size // _LINE) | 1) * _LINE

    @property
    def image(self) -> int:
        """Elements of the planes of an image."""
        return self.pixels[3] * self.phases[0] * self.phases[1] * self.pitch

    @property
    def size(self) -> int:
        """Elements of all planes; the last vectors of the last one reach past it, and distances of
        damaged weights past its group."""
        beyond = max(0, self.pitch + self.furthest - self.group) if self.short else 0
        return self.pixels[0] * self.image + beyond + self.block

    @property
    def group(self) -> int:
        """Elements of the planes of a group's channels."""
        return self.image // self.op.matrix.groups

    def distance(self, k):
        """Elements from where a line starts in the first plane of its group to element k of its
        first row; k: integers or an expression."""
        if is_matrix(self.op):
            return k * self.pitch
        (_, kw), (dh, dw), (ph, pw) = self.op.kernel, self.op.dilation, self.phases
        channels = self.op.ic // self.op.groups
        row, column, c = k // (kw * channels) * dh, k // channels % kw * dw, k % channels
        plane = (c * ph + row % ph) * pw + column % pw
        return plane * self.pitch + row // ph * self.plane[1] + column // pw

    @property
    def short(self) -> bool:
        """Whether 16 bits hold a distance."""
        return self.group <= 2**16

    @cached_property
    def furthest(self) -> int:
        """The largest distance that is followed: any in 16 bits, which need no comparison then, or
        the largest that there is."""
        if self.short:
            return 2**16 - 1
        last = self.op.matrix.k - 1
        return int(np.max(self.distance(last if is_matrix(self.op) else np.arange(last + 1))))

    def sections(self) -> list[Section]:
        """The entries as they lie behind the weights."""
        op = self.op
        dtype = "uint16" if self.short else "int32"
        starts = (padded_channels(op) + 1,)
        shapes = ((op.outliers,), (op.outliers,), starts)
        dtypes = ("int8", dtype, "int32")
        return [Section(*s) for s in zip(NAMES, shapes, dtypes, strict=True)]

    def pack(self, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The contents of the sections."""
        data, indices, indptr = (values[name] for name in NAMES)
        more = padded_channels(self.op) + 1 - indptr.size
        packed = data, self.distance(indices), np.pad(indptr, (0, more), "edge")
        types = (s.dtype for s in self.sections())
        return {n: v.astype(t) for n, v, t in zip(NAMES, packed, types, strict=True)}

    def te_pack(self, given: Mapping[str, te.Tensor]) -> dict[str, te.Tensor]:
        """The contents of the sections, from the parameters."""
        data, indices, indptr = (given[name] for name in NAMES)
        channels = self.op.w_shape[0]
        elements = (
            lambda i: data[i],
            lambda i: self.distance(indices[i]),
            lambda i: indptr[te.min(i, channels)],
        )

        def section(s: Section, element: Callable) -> te.Tensor:
            return te.compute(s.shape, lambda i: element(i).astype(s.dtype), name=s.name)

        return {
            s.name: section(s, element)
            for s, element in zip(self.sections(), elements, strict=True)
        }


def padded_channels(op: Dense | Conv2d) -> int:
    """Output channels, and more up to whole vectors."""
    return -(-op.w_shape[0] // LANES) * LANES


def parameters(op: Dense | Conv2d) -> dict[str, te.Tensor]:
    """Placeholders for the parameters of the operator, by their names."""
    given = {name: op.parameters[name] for name in NAMES}
    return {n: te.placeholder(p.shape, p.dtype, name=f"{n}_in") for n, p in given.items()}
