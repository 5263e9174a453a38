"""What the code of a tile of the bitserial algorithm depends on.

How much a counter of bytes has to hold follows from the operator. The vectors that reach it at
level l weigh 2^l; W words bring at most W * (2^a - 1) * (2^w - 1) / 2^l of them that have a bit at
any one place. Where that is too much for all of k, the counters are added to wider ones at the end
of every piece.
"""

from dataclasses import dataclass

from lpgen.algorithms.lhs.k_split import KSplit
from lpgen.schedules.common.bitserial.counts import Counting


@dataclass(frozen=True)
class Plan:
    """What the code of a tile depends on.

    planes: (left, right) bit planes, of weight 2^(p + q); low: weight of the result, 2^low;
    direct: whether the left side lies as the input does, else by tile;
    inside: whether taps in the padding are left out;
    levels: of carry-save adders; words: of one piece of straight-line code.
    """

    counting: Counting
    cut: KSplit
    planes: tuple[int, int]
    low: int
    xor: bool
    direct: bool
    inside: bool
    rows: int
    vectors: int
    levels: int
    words: int

    def most(self, words: int, carried: bool) -> int:
        """Vectors with a bit at one place that `words` words bring to the counter; carried: the
        adders may hold something before."""
        p, q = self.planes
        weight = words * ((1 << p) - 1) * ((1 << q) - 1)
        return (weight + carried * ((1 << self.levels) - 1)) >> self.levels

    @property
    def piece(self) -> int:
        """Words of the longest piece."""
        return min(self.words, self.cut.steps)

    @property
    def straight(self) -> int:
        """Words in straight-line code: all pieces that do not share a loop's body."""
        c, size = self.cut, self.words
        if self.inside:
            return c.s * min(c.kg, size + c.kg % size)
        if c.kg >= size or c.r * c.s == 1:
            return min(c.kg, size + c.kg % size)
        return c.s * c.kg if c.s * c.kg >= size or c.r == 1 else c.steps

    @property
    def products(self) -> int:
        """Products in straight-line code."""
        return self.straight * self.planes[0] * self.planes[1] * self.rows * self.vectors

    @property
    def single(self) -> bool:
        """Whether all of k is one piece."""
        return self.cut.steps <= self.words and not self.inside

    @property
    def widening(self) -> bool:
        """Whether counters are too small for all of k."""
        holds = self.counting.holds
        return holds is not None and self.most(self.cut.steps, False) > holds

    def overflow(self) -> str | None:
        """Why the counters cannot hold a piece."""
        most = self.most(self.piece, not self.single)
        if self.widening and most > self.counting.holds:
            counter = "16 bits" if self.counting.halves else "a byte"
            return f"{most} counts of up to 8 overflow {counter} within {self.piece} words"
        return None

    @property
    def largest(self) -> int:
        """What a result is at most."""
        p, q = self.planes
        return self.cut.steps * self.counting.word * ((1 << p) - 1) * ((1 << q) - 1)
