"""How the k axis of an implicit matrix product is cut into taps, runs and k steps.

A convolution's k axis is (kernel row, kernel column, input channel). Wherever consecutive k are
consecutive bytes of the input they form a *run*: a whole kernel row of kw * ic values if taps are
neighbours in memory (no dilation across, one group), else the channels of one tap. A run is cut
into *k steps* of `kq` values, what one dot-product instruction takes; the last step of a run may
be partly empty.

Few channels leave much of the steps empty. There the kernel rows can be *folded*: the input is
copied so that the pixels of a column of the kernel are neighbours, and the whole kernel is one run
in the order (kernel column, kernel row, channel).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from lpgen.ops import Conv2d, Dense


@dataclass(frozen=True)
class KSplit:
    """Split of the k axis as (r, s, kg, kq): r x s runs of `run` values in `kg` steps of `kq`.

    fold: (kernel rows, channels) of a folded run, else None;
    clean: the left side has to hold 0 in the empty places, which have no neighbours to read.
    """

    r: int
    s: int
    run: int
    kg: int
    kq: int
    fold: tuple[int, int] | None = None
    clean: bool = False

    @cached_property
    def steps(self) -> int:
        """k steps of all runs together."""
        return self.r * self.s * self.kg

    @property
    def exact(self) -> bool:
        """Whether the steps hold exactly the run, with no empty place at its end."""
        return self.kg * self.kq == self.run

    def index(self, run, j):
        """Where value `j` of run number `run` stands on the k axis of the operator's weights.

        Works on numbers, NumPy arrays and TIR expressions.
        """
        j = run * self.run + j
        if self.fold is None:
            return j
        rows, channels = self.fold
        columns = self.run // (rows * channels)
        column, row, channel = j // (rows * channels), j // channels % rows, j % channels
        return (row * columns + column) * channels + channel


FOLDED_CHANNELS = 8
"""Most input channels for which folding the kernel rows pays."""


def foldable(op: Dense | Conv2d, empty: bool | None = None) -> bool:
    """Whether the kernel rows of `op` can be folded into one run, and it may pay (empty: `cut`)."""
    if isinstance(op, Dense) or op.kernel[0] == 1:
        return False
    few = op.groups == 1 and op.ic <= FOLDED_CHANNELS
    return few and op.dilation[1] == 1 and (op.weight.has_zero if empty is None else empty)


def cut(
    op: Dense | Conv2d,
    kq: int,
    multiple: int = 1,
    folded: bool = False,
    empty: bool | None = None,
    split: bool = False,
    taps: bool = False,
) -> KSplit:
    """The k split of `op` for steps of `kq` values, with `kg` a multiple of `multiple`.

    folded: fold the kernel rows (the caller asked `foldable`);
    empty: whether a place without a weight adds nothing, whatever the left side holds there
        (default: as the weights' format has a zero);
    split: every tap is a run whose steps start at the pixel, so that a pixel is whole steps;
    taps: every tap is a run.

    Where an empty place is not free (bipolar weights stored as values), the left side has to hold 0
    in it, and so runs are not joined across taps unless they fill their steps.
    """
    if isinstance(op, Dense):
        return KSplit(1, 1, op.k, _steps(op.k, kq, multiple), kq)
    kh, kw = op.kernel
    channels = op.ic // op.groups
    free = op.weight.has_zero if empty is None else empty
    if folded:
        run = kh * kw * channels
        return KSplit(1, 1, run, _steps(run, kq, multiple), kq, (kh, channels))
    joined = op.groups == 1 and op.dilation[1] == 1 and not taps
    whole = kw * channels % (kq * multiple) == 0 if not split else channels % kq == 0
    if joined and (whole or (free and not split)):
        return KSplit(kh, 1, kw * channels, _steps(kw * channels, kq, multiple), kq)
    kg = _steps(channels, kq, multiple)
    clean = kg * kq > channels and (split or not free)
    return KSplit(kh, kw, channels, kg, kq, clean=clean)


def _steps(run: int, kq: int, multiple: int) -> int:
    steps = -(-run // kq)
    return -(-steps // multiple) * multiple
