"""Counting the bits of many vectors with carry-save adders.

A full adder merges three vectors of weight 2^l, bit by bit, into their sum (weight 2^l) and their
carry (2^(l + 1)). Counters of every level take up the products of bit planes; what leaves the top
level is counted bit by bit, which costs more, but one in 2^levels products comes so far (Harley and
Seal; Mula, Kurz, Lemire, "Faster Population Counts Using AVX2 Instructions", 2018).

With ternary logic two products enter a counter s by three instructions:

    t = s ^ (x0 & w0);  s' = t ^ (x1 & w1);  carry = not s' where t, else s

for the carry is the majority of s, a = x0 & w0 and b = x1 & w1. Where t = s ^ a is 0, s and a agree
and are it; elsewhere b = t ^ s' decides, which is there not s'.

Source of the instructions: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2.
"""

from collections.abc import Callable, Sequence

from tvm import tirx

from lpgen.isa import Isa
from lpgen.tir import vectors as vec

# Truth tables for (a, b, c), a being the highest bit of the index (`Isa.bit_logic`).
_XOR3, _MAJORITY, _XOR_AND, _AND3, _AND_XOR = 0x96, 0xE8, 0x78, 0x80, 0x60
_CARRY = 0x3A
"""Of (t, s', s)."""

Product = tuple[tirx.Expr, tirx.Expr]


class Adders:
    """Adders of one instruction set, for bits of products x & w or, if `xor`, x ^ w.

    Vectors are int32 of isa.lanes. Their methods emit instructions and return names of results.
    """

    def __init__(self, isa: Isa, xor: bool) -> None:
        self.isa, self.xor = isa, xor
        self.ternary = isa.has_bit_logic
        self.names = vec.Names()

    def product(self, x, w) -> tirx.Expr:
        return self.names(x ^ w if self.xor else x & w)

    def add_products(self, s, one: Product, two: Product) -> tuple:
        """(sum, carry) of a counter and two products."""
        if not self.ternary:
            return self.add(s, self.product(*one), self.product(*two))
        join = _XOR3 if self.xor else _XOR_AND
        before = self._logic(join, s, *one)
        after = self._logic(join, before, *two)
        return after, self._logic(_CARRY, before, after, s)

    def add(self, s, a, b) -> tuple:
        """(sum, carry) of three vectors."""
        if self.ternary:
            return self._logic(_XOR3, s, a, b), self._logic(_MAJORITY, s, a, b)
        half = self.names(s ^ a)
        carry = self.names((s & a) | (half & b))
        return self.names(half ^ b), carry

    def add_one(self, s, a) -> tuple:
        """(sum, carry) of two vectors."""
        return self.names(s ^ a), self.names(s & a)

    def add_product(self, s, one: Product) -> tuple:
        """(sum, carry) of a counter and a product."""
        if not self.ternary:
            return self.add_one(s, self.product(*one))
        join, carry = (_XOR3, _AND_XOR) if self.xor else (_XOR_AND, _AND3)
        return self._logic(join, s, *one), self._logic(carry, s, *one)

    def _logic(self, table: int, *operands) -> tirx.Var:
        return self.names(self.isa.bit_logic(table, *operands))


class Tree:
    """The counters of one vector of results while straight-line code is emitted.

    levels: the counters of weight 2^level, None where nothing came yet;
    count(vector): emits the counting of a vector of weight 2^len(levels).
    """

    def __init__(
        self, adders: Adders, levels: Sequence, count: Callable[[tirx.Expr], None]
    ) -> None:
        self.adders, self.levels, self._count = adders, list(levels), count
        self._products: dict[int, Product] = {}
        self._waiting: dict[int, tirx.Expr] = {}

    def push_product(self, level: int, x: tirx.Expr, w: tirx.Expr) -> None:
        """Add a product of weight 2^level, level <= len(levels)."""
        if level == len(self.levels):
            self._count(self.adders.product(x, w))
        elif self.levels[level] is None:
            self.levels[level] = self.adders.product(x, w)
        elif level not in self._products:
            self._products[level] = (x, w)
        else:
            other, old = self._products.pop(level), self.levels[level]
            self.levels[level], carry = self.adders.add_products(old, other, (x, w))
            self._push(level + 1, carry)

    def flush(self) -> None:
        """Add what waits for a partner, so that the counters hold everything."""
        for level in range(len(self.levels)):
            product = self._products.pop(level, None)
            value = self._waiting.pop(level, None)
            if product is not None and value is not None:
                self._waiting[level] = self.adders.product(*product)
                self._push(level, value)
            elif product is not None:
                self.levels[level], carry = self.adders.add_product(self.levels[level], product)
                self._push(level + 1, carry)
            elif value is not None:
                self.levels[level], carry = self.adders.add_one(self.levels[level], value)
                self._push(level + 1, carry)

    def _push(self, level: int, value: tirx.Expr) -> None:
        if level == len(self.levels):
            self._count(value)
        elif self.levels[level] is None:
            self.levels[level] = value
        elif level not in self._waiting:
            self._waiting[level] = value
        else:
            other, old = self._waiting.pop(level), self.levels[level]
            self.levels[level], carry = self.adders.add(old, other, value)
            self._push(level + 1, carry)
