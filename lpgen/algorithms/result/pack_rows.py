"""Codes of neighbouring columns into the bytes of a packed row, as vector code (`ops.packed`).

A plane of up to 32 codes is one comparison of a vector, whose result is its bits; fields of bytes
are moved together inside of wider lanes, which are then narrowed to a byte each.
"""

from __future__ import annotations

from tvm import tirx
from tvm.sym import Analyzer
from tvm.tirx.script import builder as tb

from lpgen.ops import Operator
from lpgen.ops.packed import WORD, field_bits
from lpgen.tir.vectors import ramp, splat, vector


def pack_columns(op: Operator, codes, at: list, y, row, channel: tirx.Expr, count: int) -> None:
    """Emit: the values codes[*at, 0 .. count] become channels `channel` .. of y[row].

    channel: a multiple of 8, or with `count` of all that the row has.
    """
    size = next(s for s in (WORD, 16, 8) if s == 8 or _is_multiple(channel, s))
    whole = count // size
    if whole:
        with tb.serial(0, whole) as i:
            _vector(op, codes, at, y, row, channel, i * size, size)
    done = whole * size
    while size > 8:
        size //= 2
        if count - done >= size:
            _vector(op, codes, at, y, row, channel, done, size)
            done += size
    if count > done:
        _rest(op, codes, at, y, row, channel, done, count - done)


def zero_behind(op: Operator, y, row) -> None:
    """Emit zeros for the bytes of y[row] that have no channel: those of the last word's planes."""
    first = -(-op.y_extents[-1] // 8) % (WORD // 8)
    if op.pack.layout == "planes" and first:
        last = op.y_shape[-1] - op.y_format.bits * (WORD // 8)
        for p in range(op.y_format.bits):
            for byte in range(first, WORD // 8):
                zero = tirx.const(0, "uint8")
                tb.buffer_store(y, zero, [row, last + p * (WORD // 8) + byte])


def _is_multiple(value: tirx.Expr, of: int) -> bool:
    rest = Analyzer().simplify(tirx.floormod(value, tirx.const(of, "int32")))
    return isinstance(rest, tirx.IntImm) and int(rest) == 0


def _place(op: Operator, channel: tirx.Expr, plane: int = 0) -> tirx.Expr:
    """The byte of a row where the channel (of a plane) begins."""
    if op.pack.layout == "planes":
        word = channel // WORD * op.y_format.bits + plane
        return word * (WORD // 8) + channel % WORD // 8
    return channel // (8 // field_bits(op.y_format))


def _planes(op: Operator) -> range | None:
    """The planes that are stored as bits; None: fields of more than one."""
    if op.pack.layout == "planes" or op.y_format.bits == 1:
        return range(op.y_format.bits)
    return None


def _distance(op: Operator, value: tirx.Expr) -> tirx.Expr:
    """value - min, as uint8 or a vector of it: the code, or for bipolar formats twice the code."""
    lanes = value.ty.dtype.lanes
    value = value.astype(vector("uint8", lanes))
    return value - splat(op.y_format.min % 256, "uint8", lanes) if op.y_format.min else value


def _vector(op: Operator, codes, at: list, y, row, channel, start, size: int) -> None:
    """Emit the packed codes of `size` columns (8, 16 or 32) from `start` on."""
    value = tb.Bind(_distance(op, codes[(*at, ramp(start, size))]))
    low = op.y_format.step - 1
    planes = _planes(op)
    if planes is not None:
        for p in planes:
            bit = value & splat(1 << p + low, "uint8", size)
            mask = tirx.NE(bit, splat(0, "uint8", size)).astype(f"uint1x{size}")
            count = size // 8
            data = tirx.reinterpret(vector("uint8", count), mask)
            _store(y, row, _place(op, channel + start, p), data, count)
        return
    field = field_bits(op.y_format)
    each, count = 8 // field, size * field // 8
    wide = f"uint{8 * each}"
    value = value >> splat(1, "uint8", size) if low else value
    lanes = tb.Bind(tirx.reinterpret(f"{wide}x{count}", value))
    joined = lanes
    for i in range(1, each):
        joined = joined | lanes >> splat((8 - field) * i, wide, count)
    _store(y, row, _place(op, channel + start), joined.astype(f"uint8x{count}"), count)


def _store(y, row, start, data, count: int) -> None:
    tb.buffer_store(y, data, [row, ramp(start, count)])


def _rest(op: Operator, codes, at: list, y, row, channel, start: int, count: int) -> None:
    """Emit the packed codes of fewer than 8 columns."""
    low = op.y_format.step - 1

    def code(i: int) -> tirx.Expr:
        value = _distance(op, codes[(*at, start + i)])
        return value >> tirx.const(1, "uint8") if low else value

    def joined(parts: list) -> tirx.Expr:
        total = parts[0]
        for part in parts[1:]:
            total = total | part
        return total

    def shifted(value: tirx.Expr, by: int) -> tirx.Expr:
        return value << tirx.const(by, "uint8") if by else value

    planes = _planes(op)
    if planes is not None:
        for p in planes:
            one = tirx.const(1, "uint8")
            bits = [shifted(code(i) >> tirx.const(p, "uint8") & one, i) for i in range(count)]
            tb.buffer_store(y, joined(bits), [row, _place(op, channel + start, p)])
        return
    field = field_bits(op.y_format)
    each = 8 // field
    for first in range(0, count, each):
        parts = [shifted(code(first + i), field * i) for i in range(min(each, count - first))]
        tb.buffer_store(y, joined(parts), [row, _place(op, channel + start + first)])
