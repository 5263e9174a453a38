"""Tables of up to 256 bytes, looked up in registers.

Where a shuffle takes 16 bytes, a table of 256 is 16 of them, T0 to T15. A shuffle gives 0 for an
index with its top bit set, and otherwise looks at its low four bits alone. So for a code below 128

    table[code] = D0[code] ^ D1[code - 16] ^ ... ^ D7[code - 112],   D0 = T0, Dt = Tt ^ T(t-1)

since the terms up to its own T are there and all others 0, and what they have too much cancels. For
codes from 128 on, which as signed bytes are negative, all these are 0, and the same is done with
code - 128 and D8 = T8. The subtractions saturate: what is negative stays so.

A lookup that gives 0 for every index beyond its table (`Isa.lookup_within`) needs none of that: the
parts of the table are looked up with the code less where they begin, and put together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tvm import tirx
from tvm.tirx.script import builder as tb

from lpgen.algorithms.rows import Rows, cast, chunks
from lpgen.formats import REAL
from lpgen.tir import vectors as vec
from lpgen.tir.strips import Index, side_by_side, strips

if TYPE_CHECKING:
    from lpgen.isa import Isa
    from lpgen.ops.lookup import Lookup

CHUNK = 8192
PART = 16
"""Bytes of the table of one shuffle."""


def lookup(op: Lookup, isa: Isa, vectors: int) -> Rows:
    """Chunks of the tensor."""
    if op.out == REAL:
        return _reals(op)
    nbytes = isa.bits // 8

    def chunk(start: Index, count: int, x, table, y) -> None:
        memory = vec.scratch((256,), "uint8")
        with tb.serial(0, op.act.levels) as i:
            tb.buffer_store(memory, table[i].astype("uint8"), [i])
        find = _finder(op, isa, memory)

        def step(at: Index, widths) -> None:
            for place, lanes in side_by_side(start + at, widths):
                code = cast("uint8", vec.load(x, [place], lanes))
                code = code - vec.splat(op.act.min % 256, "uint8", lanes)
                vec.store(y, [place], cast(op.out.dtype, find(vec.bind(code))), lanes)

        strips(count, nbytes, vectors, step)

    return chunks(op.size, CHUNK, chunk)


def _reals(op: Lookup) -> Rows:
    """One after the other: entries of 4 bytes do not fit the registers."""

    def chunk(start: Index, count: int, x, table, y) -> None:
        with tb.serial(0, count) as i:
            code = x[start + i].astype("int32") - op.act.min
            tb.buffer_store(y, table[code], [start + i])

    return chunks(op.size, CHUNK, chunk)


def _finder(op: Lookup, isa: Isa, memory: tirx.Var):
    """What looks up a vector of codes; emits what it needs beforehand."""
    parts = -(-op.act.levels // PART)
    if isa.has_lookup128:
        pieces = [vec.bind(vec.load(memory, [64 * i], 64)) for i in range(-(-parts // 4))]
        return lambda code: _padded(code, 64, lambda codes: _by_permutes(isa, pieces, codes))
    if not isa.tables:
        return lambda code: _one_by_one(memory, code)
    if isa.within:
        pieces = [vec.bind(vec.load(memory, [PART * i], PART)) for i in range(parts)]
        return lambda code: _padded(
            code, isa.bits // 8, lambda codes: _by_parts(isa, pieces, codes)
        )
    before = vec.bind(vec.load(memory, [0], PART))
    for i in range(1, parts):
        own = vec.bind(vec.load(memory, [PART * i], PART))
        if i != 8:
            vec.store(memory, [PART * i], own ^ before, PART)
        before = own
    times = isa.bits // 8 // PART

    def shuffled(codes: tirx.Expr) -> tirx.Expr:
        found = None
        for i in range(parts):
            table = vec.repeat(vec.load(memory, [PART * i], PART), PART, times)
            index = codes if i % 8 == 0 else _less(codes, PART * (i % 8))
            if i == 8:
                codes = index = vec.bind(codes - vec.splat(128, "uint8", PART * times))
            each = isa.lookup16(table, index)
            found = each if found is None else found ^ each
        return vec.bind(found)

    return lambda code: _padded(code, PART * times, shuffled)


def _by_parts(isa: Isa, pieces: list, codes: tirx.Expr) -> tirx.Expr:
    found = None
    for first in range(0, len(pieces), isa.within):
        lanes = int(codes.ty.dtype.lanes)
        index = codes - vec.splat(PART * first, "uint8", lanes) if first else codes
        each = isa.lookup_within(pieces[first : first + isa.within], index)
        found = each if found is None else found | each
    return vec.bind(found)


def _by_permutes(isa: Isa, pieces: list, codes: tirx.Expr) -> tirx.Expr:
    if len(pieces) == 1:
        return isa.lookup64(pieces[0], codes)
    low = isa.lookup128(pieces[0], pieces[1], codes)
    if len(pieces) == 2:
        return low
    high = isa.lookup128(pieces[2], pieces[3], codes)
    return tirx.Select(codes >= vec.splat(128, "uint8", 64), high, low)


def _less(codes: tirx.Expr, amount: int) -> tirx.Expr:
    """codes - amount as signed bytes, not below -128."""
    lanes = int(codes.ty.dtype.lanes)
    signed = vec.reinterpret(f"int8x{lanes}", codes)
    given = (signed, vec.splat(amount, "int8", lanes))
    value = vec.intrinsic(f"int8x{lanes}", f"llvm.ssub.sat.v{lanes}i8", *given)
    return vec.reinterpret(f"uint8x{lanes}", value)


def _padded(code: tirx.Expr, lanes: int, find) -> tirx.Expr:
    """find(codes) of a whole vector, for one that may be shorter."""
    own = int(code.ty.dtype.lanes)
    if own == lanes:
        return find(code)
    memory = vec.scratch((lanes,), "uint8")
    vec.store(memory, [0], code, own)
    found = find(vec.bind(vec.load(memory, [0], lanes)))
    vec.store(memory, [0], found, lanes)
    return vec.load(memory, [0], own)


def _one_by_one(memory: tirx.Var, code: tirx.Expr) -> tirx.Expr:
    lanes = int(code.ty.dtype.lanes)
    places = vec.scratch((lanes,), "uint8")
    vec.store(places, [0], code, lanes)
    with tb.serial(0, lanes) as lane:
        tb.buffer_store(places, memory[places[lane].astype("int32")], [lane])
    return vec.load(places, [0], lanes)
