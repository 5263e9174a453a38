"""How the k axis of an implicit matrix product is cut into taps, runs and k groups.

A convolution's k axis is (kernel row, kernel column, input channel). Wherever consecutive k are
consecutive bytes of the input they form a *run*: a whole kernel row of kw * ic values if taps are
neighbours in memory (no dilation across, one group), else the channels of one tap. A run is cut
into *k groups* of `kq` values, what one dot-product instruction takes; the last group of a run may
be partly empty.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from lpgen.ops import Conv2d, Dense


@dataclass(frozen=True)
class Reduction:
    """The k axis as (r, s, kg, kq): `r` x `s` runs of `run` values in `kg` groups of `kq`."""

    r: int
    s: int
    run: int
    kg: int
    kq: int

    @cached_property
    def groups(self) -> int:
        """k groups of all runs together."""
        return self.r * self.s * self.kg

    @property
    def exact(self) -> bool:
        """Whether the groups hold exactly the run, with no empty place at its end."""
        return self.kg * self.kq == self.run


def cut(op: Dense | Conv2d, kq: int, multiple: int = 1) -> Reduction:
    """The reduction of `op` for steps of `kq` values, with `kg` a multiple of `multiple`.

    Empty places at the end of a run have weight 0 and therefore may hold anything on the left
    side. Bipolar weights have no 0: there the left side has to hold 0, and so runs are not joined
    across taps unless they fill their groups.
    """
    if isinstance(op, Dense):
        return Reduction(1, 1, op.k, _groups(op.k, kq, multiple), kq)
    kh, kw = op.kernel
    channels = op.ic // op.groups
    joined = op.groups == 1 and op.dilation[1] == 1
    if joined and (op.weight.has_zero or kw * channels % (kq * multiple) == 0):
        return Reduction(kh, 1, kw * channels, _groups(kw * channels, kq, multiple), kq)
    return Reduction(kh, kw, channels, _groups(channels, kq, multiple), kq)


def _groups(run: int, kq: int, multiple: int) -> int:
    groups = -(-run // kq)
    return -(-groups // multiple) * multiple
