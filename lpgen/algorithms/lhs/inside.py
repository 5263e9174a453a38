"""Which taps of a convolution lie inside of its input: the others add nothing to a sum.

Along one axis, tap t of output o reads position o * stride + t * dilation - before. That grows with
both, so what is inside is one range of taps for each output, and one range of outputs for each tap.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from tvm import tirx

if TYPE_CHECKING:
    from lpgen.ops import Conv2d


@dataclass(frozen=True)
class Axis:
    """One axis of a convolution: positions of the input, of the output, taps of the kernel.

    before: positions of padding in front of the input.
    """

    size: int
    out: int
    taps: int
    stride: int
    dilation: int
    before: int

    def inside(self, output: int) -> tuple[int, int]:
        """The taps first <= t < stop of an output that lie inside."""
        first, stop = (
            -(-(edge - output * self.stride) // self.dilation)
            for edge in (self.before, self.before + self.size)
        )
        first = min(max(first, 0), self.taps)
        return first, min(max(stop, first), self.taps)

    def inside_at(self, output: tirx.Expr) -> tuple[tirx.Expr, tirx.Expr]:
        """The same of an output that is an expression: (first, how many)."""
        ranges = [self.inside(start) for start in self.starts]
        first = self._by_class(output, [first for first, _ in ranges])
        return first, self._by_class(output, [stop - first for first, stop in ranges])

    def reached(self, tap: int, start: int, count: int) -> tuple[int, int]:
        """Of `count` outputs from `start` on those, first <= i < stop, whose tap is inside."""
        inside = [i for i in range(count) if tap in range(*self.inside(start + i))]
        return (inside[0], inside[-1] + 1) if inside else (0, 0)

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """The first output of each class of neighbours with the same taps inside."""
        return tuple(o for o in range(self.out) if not o or self.inside(o) != self.inside(o - 1))

    def class_at(self, output: tirx.Expr) -> tirx.Expr:
        """The number of an output's class."""
        return self._by_class(output, range(len(self.starts)))

    def _by_class(self, output: tirx.Expr, values: Sequence[int]) -> tirx.Expr:
        """The value of the output's class: a sum of steps."""
        total = tirx.const(values[0], "int32")
        for start, before, after in zip(self.starts[1:], values, values[1:], strict=False):
            if after != before:
                total = total + (output >= start).astype("int32") * (after - before)
        return total

    @property
    def share(self) -> float:
        """Of all pairs of an output and a tap the part whose tap is inside."""
        inside = sum(stop - first for first, stop in map(self.inside, range(self.out)))
        return inside / (self.out * self.taps)


@dataclass(frozen=True)
class Inside:
    """Taps inside of a padded convolution's input. rows, columns: its two axes."""

    rows: Axis
    columns: Axis

    @classmethod
    def of(cls, op: Conv2d) -> Inside:
        """Those of `op`."""
        sizes = (op.h, op.w), (op.oh, op.ow), op.kernel, op.stride, op.dilation, op.pad[:2]
        return cls(*(Axis(*axis) for axis in zip(*sizes, strict=True)))

    @property
    def classes(self) -> int:
        """Classes of outputs with the same taps inside."""
        return len(self.rows.starts) * len(self.columns.starts)

    def class_at(self, m: tirx.Expr) -> tirx.Expr:
        """The number of the class of row m of the matrix."""
        row, column = m // self.columns.out % self.rows.out, m % self.columns.out
        return self.rows.class_at(row) * len(self.columns.starts) + self.columns.class_at(column)

    def ranges(self) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
        """The kernel's rows and columns inside, (first, stop) each, of every class in turn."""
        for row in self.rows.starts:
            for column in self.columns.starts:
                yield self.rows.inside(row), self.columns.inside(column)
