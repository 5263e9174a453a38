"""Calls of the operations of an Isa, with what NumPy says of their results."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from tvm import tirx

from lpgen.isa import Isa
from lpgen.tir import vectors as vec

BOOK = (7, 250, 3, 99, 0, 255, 128, 64, 1, 2, 4, 8, 16, 32, 77, 200)
NARROW = (
    (-128, 127, 0, "int8"),
    (-8, 7, 0, "int8"),
    (0, 255, 0, "uint8"),
    (-10, 245, 10, "uint8"),
    (0, 100, 90, "uint8"),
    (3, 12, 0, "uint8"),
)
RNG = np.random.default_rng(0)


@dataclass(frozen=True)
class Case:
    """One call of an operation. arrays: the operands, vectors; result: what it gives, by NumPy;
    call(isa, operation, *vectors): its TIR."""

    name: str
    arrays: tuple[np.ndarray, ...]
    result: np.ndarray
    call: Callable = lambda isa, operation, *operands: operation(*operands)


def random(dtype: str, count: int, low: int | None = None, high: int | None = None) -> np.ndarray:
    """Numbers of a type, all or those from `low` to `high`."""
    info = np.iinfo(dtype)
    first, last = info.min if low is None else low, info.max if high is None else high
    return RNG.integers(first, last, count, dtype, endpoint=True)


def neighbours(a: np.ndarray, b: np.ndarray, count: int) -> np.ndarray:
    return (a.astype(np.int32) * b).reshape(-1, count).sum(axis=1)


def products(isa: Isa) -> list[Case]:
    """Of bytes; without one instruction the sums of two fit int16."""
    n, cases = isa.lanes, []
    for signs in isa.signs:
        for near in (True, False) if isa.has_dot4 else (True,):
            wide = {"uint8": (0, 255), "int8": (-128, 127)}
            small = {"uint8": (0, 127), "int8": (-64, 63)}
            a, b = (random(d, 4 * n, *(small if near else wide)[d]) for d in signs)
            acc = random("int32", n, -(2**20), 2**20)
            cases.append(Case("dot4", (acc, a, b), acc + neighbours(a, b, 4)))
        a, b = (random(d, 4 * n, *small[d]) for d in signs)
        acc = np.zeros(2 * n, np.int16)
        cases.append(Case("add_pairs", (acc, a, b), neighbours(a, b, 2).astype(np.int16)))
    return cases


def sums(isa: Isa) -> list[Case]:
    n = isa.lanes
    acc, a, b = random("int32", n, -99, 99), random("int16", 2 * n), random("int16", 2 * n, -255)
    ones, counts = np.ones(2 * n, np.int16), random("uint8", 4 * n)
    return [
        Case("dot2", (acc, a, b), acc + neighbours(a, b, 2)),
        Case("dot1", (acc, a[:n], b[:n]), acc + neighbours(a[:n], b[:n], 1)),
        Case("sum2", (a,), neighbours(a, ones, 2)),
        Case("sum4", (counts,), counts.reshape(-1, 4).sum(axis=1, dtype=np.int32)),
    ]


def lookups(isa: Isa) -> list[Case]:
    n = 4 * isa.lanes
    table, index = random("uint8", n), random("uint8", n, 0, 15)
    index[RNG.random(n) < 0.3] += 128
    lane = np.arange(n) // 16 * 16
    found = np.where(index < 128, table[lane + index % 16], 0).astype(np.uint8)
    signed = tuple(array.view(np.int8) for array in (table, index))
    cases = [Case("lookup16", (table, index), found)]
    cases.append(Case("lookup16", signed, found.view(np.int8)))
    if 64 in isa.tables:
        anything = random("uint8", n)
        cases.append(Case("lookup64", (table, anything), table[anything % 64]))
    if isa.has_lookup128:
        both = np.concatenate([table, more := random("uint8", n)])
        cases.append(Case("lookup128", (table, more, anything), both[anything % 128]))
    return cases


def bits(isa: Isa) -> list[Case]:
    n = isa.lanes
    a, b, c = (random("int32", n) for _ in range(3))
    cases = [
        Case("count_bits", (a,), np.array([(int(v) % 2**32).bit_count() for v in a], np.int32))
    ]
    for table in (0x96, 0xE8, 0x78, 0x3A, 0x80, 0x00, 0xFF, *random("uint8", 5)):
        result = np.zeros(n, np.int32)
        for i in range(8):
            if table >> i & 1:
                x, y, z = (v if i >> k & 1 else ~v for v, k in ((a, 2), (b, 1), (c, 0)))
                result |= x & y & z
        cases.append(Case("bit_logic", (a, b, c), result, logic(int(table))))
    for places in (range(8), (2, 3, 0, 1, 6, 7, 4, 5), (7, None, 0, 0, 1, None, 3, 2)):
        given = np.unpackbits(a.view(np.uint8)[:, None], axis=1, bitorder="little")
        moved = [given[:, 0] * 0 if place is None else given[:, place] for place in places]
        result = np.packbits(np.stack(moved, 1), 1, "little").ravel().view(np.int32)
        cases.append(Case("moved_bits", (a,), result, moving(tuple(places))))
    chosen = random("uint8", min(64, 4 * n), 0, 1)
    word = np.packbits(chosen, bitorder="little").view(np.uint16 if chosen.size == 16 else "u4")
    word = word.view(np.uint64) if chosen.size == 64 else word.astype(np.uint32)
    cases.append(Case("bits_to_word", (chosen,), word, to_word))
    return cases


def logic(table: int) -> Callable:
    return lambda isa, operation, *operands: operation(table, *operands)


def moving(places: tuple) -> Callable:
    return lambda isa, operation, words: operation(words, places)


def to_word(isa: Isa, operation: Callable, chosen: tirx.Expr) -> tirx.Expr:
    lanes = int(chosen.ty.dtype.lanes)
    return operation(tirx.NE(chosen, vec.splat(0, "uint8", lanes)), lanes, max(32, lanes))


def narrowing(isa: Isa) -> list[Case]:
    n, cases = isa.lanes, []
    for low, high, zero, dtype in NARROW:
        real = RNG.uniform(2 * low - 9, 2 * high + 9, 4 * n).astype(np.float32)
        real[::5] = np.round(real[::5]) + np.float32(0.5)
        real[1:15:2] = [np.nan, -np.nan, np.inf, -np.inf, 1e30, -1e30, 0.5]
        kept = np.where(np.isnan(real), low, np.clip(np.nan_to_num(real), low, high))
        result = (np.rint(kept) + zero).astype(dtype)
        for count in (4, 2, 1):

            def call(isa, operation, *values, how=(low, high, zero, dtype), count=count):
                return operation(values[:count], *how)

            cases.append(Case("narrow4", tuple(real.reshape(4, n)), result[: count * n], call))
    return cases


MAKERS = {
    **{"dot4": products, "add_pairs": products},
    **dict.fromkeys(("dot1", "dot2", "sum2", "sum4"), sums),
    **{
        "lookup16": lookups,
        "lookup64": lookups,
        "lookup128": lookups,
        "count_bits": bits,
        "bit_logic": bits,
        "moved_bits": bits,
    },
    **{"bits_to_word": bits, "narrow4": narrowing},
}
"""By operation what makes its cases (and others)."""
