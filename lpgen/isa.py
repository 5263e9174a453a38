"""Instruction sets as values: vectors, and the operations on them that kernels consist of.

Every operation has a meaning in portable TIR, which is also its fallback: an Isa that says no more
than the width and the number of its registers has all algorithms of `lpgen.schedules.common`. A
level of a family overrides what it has an instruction for, and says so where schedules do better
knowing it (`has_dot4` and the like).

Operands are TIR vectors, named first where they are not cheap (`vectors.bind`). "Neighbours" are
lanes 0 and 1, 2 and 3 and so on, or 0 to 3, 4 to 7. What only moves lanes is no operation: LLVM
finds the instructions of a Shuffle on every CPU (`lpgen.tir.vectors`). So it does of a prefetch
(`lpgen.tir.prefetch.hint`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

from tvm import IRModule, tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as tb

from lpgen.tir import vectors as vec
from lpgen.tir.vectors import ROUNDING

if TYPE_CHECKING:
    from lpgen.algorithms.weights.panels import Lookup
    from lpgen.target import Target

Signs = tuple[str, str]
"""The dtypes of two bytes that are multiplied, such as ("uint8", "int8")."""

MIXED: tuple[Signs, ...] = (("uint8", "int8"), ("int8", "uint8"))
ALL_SIGNS: tuple[Signs, ...] = (*MIXED, ("int8", "int8"), ("uint8", "uint8"))


@dataclass(frozen=True)
class Isa:
    """A level of an instruction set on the CPU `target`, whose features and caches it knows.

    level: its name; bits: width of a vector; registers: vectors that the register file holds;
    signs: pairs of bytes that `dot4` and `add_pairs` multiply, see `lpgen.algorithms.dot`;
    tables: sizes of tables that a lookup takes: 16 (`lookup16`), perhaps 64 (`lookup64`); none
    where it is no instruction;
    has_lookup128: whether a lookup takes a table of two vectors of 64 bytes;
    within: of how many vectors of 16 bytes a table may be that `lookup_within` takes, 0: of none;
    kq: bytes of a lane that the algorithm dot multiplies at a time: 4 (`dot4`, `add_pairs`), 2
    (`add_twos`, `add_each`), or 1 (`add_scaled`); kq_words: int16 likewise, 2 (`dot2`) or 1
    (`dot1`);
    has_dot4: whether `dot4` is one instruction, and so exact for all bytes;
    crosses: whether two additions of bytes and a product of the sums take less time than two
    products (`lpgen.algorithms.crossed`), as where additions start beside products;
    halves: how many multiplications `dot4` and `add_pairs` take for a vector;
    has_bit_logic: whether any function of three bits is one instruction;
    has_moved_bits: whether the bits of every byte are moved, or cleared, by one instruction;
    has_count_bits: whether an instruction counts the bits of 32-bit words; counts_bytes: of bytes;
    shifts_bytes: whether bytes are shifted by an instruction.
    """

    target: Target

    level: ClassVar[str]
    bits: ClassVar[int]
    registers: ClassVar[int]
    signs: ClassVar[tuple[Signs, ...]] = ALL_SIGNS
    tables: ClassVar[tuple[int, ...]] = (16,)
    has_lookup128: ClassVar[bool] = False
    within: ClassVar[int] = 0
    kq: ClassVar[int] = 4
    kq_words: ClassVar[int] = 2
    has_dot4: ClassVar[bool] = False
    crosses: ClassVar[bool] = False
    halves: ClassVar[int] = 1
    has_bit_logic: ClassVar[bool] = False
    has_moved_bits: ClassVar[bool] = False
    has_count_bits: ClassVar[bool] = False
    counts_bytes: ClassVar[bool] = False
    shifts_bytes: ClassVar[bool] = False

    def serving(self, algorithm: str) -> Self:
        """The Isa as an algorithm is given it: its vectors may be several registers there."""
        return self

    @property
    def lanes(self) -> int:
        """32-bit lanes of a vector: output columns."""
        return self.bits // 32

    @property
    def mixes_signs(self) -> bool:
        """Whether `dot4` and `add_pairs` multiply an unsigned byte with a signed one."""
        return MIXED[0] in self.signs

    # ---- products and sums of neighbours

    def dot4(self, acc: tirx.Expr, a: tirx.Expr, b: tirx.Expr) -> tirx.Expr:
        """acc (int32) + the products of the bytes of a and b, four to a lane.

        Without `has_dot4` it is exact while the sums of two neighbours' products fit int16.
        """
        return acc + _neighbours(_product("int32", a, b), 4)

    def dot2(self, acc: tirx.Expr, a: tirx.Expr, b: tirx.Expr) -> tirx.Expr:
        """acc (int32) + the products of the int16 of a and b, two to a lane."""
        return acc + _neighbours(_product("int32", a, b), 2)

    def dot1(self, acc: tirx.Expr, a: tirx.Expr, b: tirx.Expr) -> tirx.Expr:
        """acc (int32) + the products of the int16 of a and b, one to a lane."""
        return acc + _product("int32", a, b)

    def add_pairs(self, acc: tirx.Expr, a: tirx.Expr, b: tirx.Expr) -> tirx.Expr:
        """acc (int16) + the products of the bytes of a and b, two to a lane; exact while the sums
        of two products fit int16."""
        return acc + _neighbours(_product("int16", a, b), 2)

    def add_twos(self, acc: tirx.Expr, a: tirx.Expr, b: tirx.Expr) -> tirx.Expr:
        """acc (int32) + the products of the bytes of a and b, two to a lane; exact for all bytes of
        the same sign."""
        return acc + _neighbours(_product("int32", a, b), 2)

    def add_each(self, acc: tirx.Expr, a: tirx.Expr, b: tirx.Expr) -> tirx.Expr:
        """acc (int16) + the products of the bytes of a and b, one to a lane."""
        return acc + _product("int16", a, b)

    def add_scaled(self, acc: tirx.Expr, a: tirx.Expr, b: tirx.Expr) -> tirx.Expr:
        """acc (int32 or int16) + the bytes of b, one to a lane, times the number a, a byte."""
        kind = dtype_of(acc)
        return acc + vec.splat(a.astype(kind), kind, _lanes(b)) * _converted(kind, b)

    def sum2(self, halves: tirx.Expr) -> tirx.Expr:
        """The sums (int32) of two neighbouring int16, or uint16 up to 32767."""
        return _neighbours(_converted("int32", halves), 2)

    def sum4(self, counts: tirx.Expr) -> tirx.Expr:
        """The sums (int32) of four neighbouring uint8."""
        return _neighbours(_converted("int32", counts), 4)

    # ---- lookups

    def lookup16(self, table: tirx.Expr, index: tirx.Expr) -> tirx.Expr:
        """In every 128-bit lane table[index], for bytes index < 16 (or 0 for index >= 128)."""
        return _looked_up(table, index, 16)

    def lookup64(self, table: tirx.Expr, index: tirx.Expr) -> tirx.Expr:
        """table[index & 63] of 64 bytes; where `tables` has it."""
        return _looked_up(table, index & vec.splat(63, "uint8", _lanes(index)), 64)

    def lookup128(self, low: tirx.Expr, high: tirx.Expr, index: tirx.Expr) -> tirx.Expr:
        """(low, high)[index & 127] of two times 64 bytes; where `has_lookup128`."""
        table = vec.joined([low, high], range(128))
        return _looked_up(table, index & vec.splat(127, "uint8", _lanes(index)), 128)

    def lookup_within(self, table: Sequence[tirx.Expr], index: tirx.Expr) -> tirx.Expr:
        """table[index] of some times 16 bytes, 0 for every index beyond; where `within` has it."""
        every = vec.joined(table, range(16 * len(table))) if len(table) > 1 else table[0]
        return _looked_up(every, index, 16 * len(table))

    def lookup_in_loop(self, nbytes: int) -> Lookup | None:
        """What looks up table[code], both uint8 and up to 16 of them, in a loop that is vectorized
        to `nbytes` codes; None: constants are selected instead."""
        return None

    # ---- bits

    def bit_logic(self, table: int, a: tirx.Expr, b: tirx.Expr, c: tirx.Expr) -> tirx.Expr:
        """Bit table >> (4 a + 2 b + c) & 1 for all bits a, b, c of three int32 vectors."""
        operands = [vec.bind(value) for value in (a, b, c)]
        total = vec.splat(0, "int32", _lanes(operands[0]))
        for i in range(8):
            if table >> i & 1:
                first, *rest = (v if i & 4 >> k else ~v for k, v in enumerate(operands))
                total = total | (first & rest[0] & rest[1])
        return total

    def moved_bits(self, words: tirx.Expr, places: Sequence[int | None]) -> tirx.Expr:
        """int32 whose bytes have bit places[i] of the same byte of `words` in place i; None: 0."""
        words, lanes = vec.bind(words), _lanes(words)
        total = vec.splat(0, "int32", lanes)
        moves = [(i, i - place) for i, place in enumerate(places) if place is not None]
        for by in sorted({move for _, move in moves}):
            byte = sum(1 << i for i, move in moves if move == by)
            mask = int.from_bytes(bytes([byte] * 4), "little", signed=True)
            shift = vec.splat(abs(by), "int32", lanes)
            moved = words << shift if by > 0 else words >> shift if by else words
            total = total | (moved & vec.splat(mask, "int32", lanes))
        return total

    def count_bits(self, words: tirx.Expr) -> tirx.Expr:
        """How many bits of each int32 are set."""
        lanes = _lanes(words)
        return vec.intrinsic(f"int32x{lanes}", f"llvm.ctpop.v{lanes}i32", words)

    def count_bytes(self, words: tirx.Expr, weight: int = 1) -> tirx.Expr:
        """How many bits of each byte of int32 are set, times a power of two up to 16, as uint8."""
        lanes = 4 * self.lanes
        if self.counts_bytes:
            given, shift = vec.reinterpret(f"uint8x{lanes}", words), weight.bit_length() - 1
            counts = vec.intrinsic(f"uint8x{lanes}", f"llvm.ctpop.v{lanes}i8", given)
            return counts << vec.splat(shift, "uint8", lanes) if shift else counts
        table = [weight * i.bit_count() for i in range(16)] * (lanes // 16)
        counts, nibble = vec.constants(table, "uint8"), vec.splat(15, "uint8", lanes)
        low = vec.reinterpret(f"uint8x{lanes}", words)
        # There is no shift of bytes: the mask removes what comes from above.
        pairs = vec.reinterpret(f"uint16x{lanes // 2}", words) >> vec.splat(4, "uint16", lanes // 2)
        high = vec.reinterpret(f"uint8x{lanes}", pairs)
        return self.lookup16(counts, low & nibble) + self.lookup16(counts, high & nibble)

    def add_counts(self, acc: tirx.Expr, counts: tirx.Expr) -> tirx.Expr:
        """acc (uint16) + the sums of two neighbouring uint8."""
        return acc + _neighbours(_converted("uint16", counts), 2)

    def bits_to_word(self, bools: tirx.Expr, lanes: int, bits: int) -> tirx.Var:
        """Emit the lanes of a vector of bools as the bits of an unsigned integer of 32 or 64."""
        return vec.mask(bools, lanes, bits)

    # ---- results

    def narrow4(
        self, values: Sequence[tirx.Expr], low: int, high: int, zero: int, dtype: str
    ) -> tirx.Expr:
        """Emit bytes of up to four vectors of float32, side by side: each value rounded half to
        even, between `low` and `high` (NaN: `low`), plus `zero`, as `dtype` ("int8" or "uint8").
        What belongs to vectors that are not given may be anything."""
        lanes = _lanes(values[0])
        narrow = []
        for value in values:
            # Min and Max compare, and give their second operand where one is no number.
            bounded = tirx.Max(value, _splat_real(low, lanes))
            bounded = tirx.Min(bounded, _splat_real(high, lanes))
            bits = vec.reinterpret(f"int32x{lanes}", bounded + _splat_real(ROUNDING, lanes))
            byte = bits.astype(f"{dtype}x{lanes}")
            narrow.append(vec.bind(byte + vec.splat(zero, dtype, lanes) if zero else byte))
        narrow += [narrow[-1]] * (4 - len(narrow))
        return vec.bind(vec.joined(narrow, range(4 * lanes)))


@dataclass(frozen=True)
class Peak:
    """A loop that does nothing but multiply and add, as fast as an ISA family can.

    instruction: what it repeats, in words, such as "vpdpbusd zmm"; ops: operations of one call;
    module: an IRModule whose PrimFunc "main" has the buffers (x, packed, y): uint8[64] twice, the
    operands, and int32[outputs], where the sums end.
    """

    instruction: str
    ops: int
    outputs: int
    module: IRModule

    @classmethod
    def of(cls, instruction: str, ops: int, outputs: int, loop: Callable[..., None]) -> Self:
        """The peak of the loop that `loop`(x, packed, y) emits."""
        with IRBuilder() as builder:
            with tb.prim_func(s_tir=True):
                tb.func_name("main")
                tb.func_attr({"tirx.noalias": True, "global_symbol": "main"})
                x = tb.arg("x", tb.buffer((64,), "uint8"))
                packed = tb.arg("packed", tb.buffer((64,), "uint8"))
                y = tb.arg("y", tb.buffer((outputs,), "int32"))
                with tb.sblock("root"):
                    tb.reads([])
                    tb.writes([])
                    loop(x, packed, y)
        return cls(instruction, ops, outputs, IRModule({"main": builder.get()}))


def dtype_of(vector: tirx.Expr) -> str:
    """The dtype of a vector's lanes."""
    return str(vector.ty.dtype).split("x")[0]


def _lanes(vector: tirx.Expr) -> int:
    return int(vector.ty.dtype.lanes)


def _converted(dtype: str, vector: tirx.Expr) -> tirx.Expr:
    return vector.astype(f"{dtype}x{_lanes(vector)}")


def _product(dtype: str, a: tirx.Expr, b: tirx.Expr) -> tirx.Expr:
    return _converted(dtype, a) * _converted(dtype, b)


def _neighbours(values: tirx.Expr, count: int) -> tirx.Expr:
    """The sums of `count` neighbouring lanes."""
    values, lanes = vec.bind(values), _lanes(values)
    parts = [vec.shuffle(values, range(first, lanes, count)) for first in range(count)]
    return sum(parts[1:], parts[0])


def _looked_up(table: tirx.Expr, index: tirx.Expr, size: int) -> tirx.Expr:
    """table[index] within pieces of `size` bytes, as many as the index has (one piece for an index
    of fewer bytes), 0 for an index beyond: a loop over bytes."""
    dtype, lanes, entries = dtype_of(table), _lanes(index), _lanes(table)
    values = vec.scratch((entries,), dtype)
    places, found = (vec.scratch((lanes,), d) for d in (dtype_of(index), dtype))
    vec.store(values, [0], table, entries)
    vec.store(places, [0], index, lanes)
    with tb.serial(0, lanes) as lane:
        place = places[lane].astype("uint8").astype("int32")
        value = values[lane // size * size + place % size]
        tb.buffer_store(found, tirx.Select(place < size, value, tirx.const(0, dtype)), [lane])
    return vec.bind(vec.load(found, [0], lanes))


def _splat_real(value: float, lanes: int) -> tirx.Expr:
    return tirx.Broadcast(tirx.const(value, "float32"), lanes)
