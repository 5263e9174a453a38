"""The left side from packed activations: one pass that makes values of codes, in front.

The layouts are those of `lpgen.ops.packed`: here as statements in front of a kernel that takes one
value a byte. A pixel (a row of a matrix) at a time, in vectors of 32 codes and the rest one by one.
"""

from __future__ import annotations

import math

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as tb

from lpgen.algorithms.lhs.view import rows_loop
from lpgen.ops import Operator
from lpgen.ops.packed import WORD, field_bits
from lpgen.tir.rewrite import places
from lpgen.tir.vectors import ramp, splat, vector


def unpack_input(op: Operator, x, q) -> tirx.Stmt:
    """Statements that fill q, values in a buffer [..., pixels * channels], from x: uint8[pixels,
    bytes of a pixel]."""
    channels = op.x_extents[-1]
    *outer, count = (int(extent) for extent in q.shape)
    rows, width = math.prod(outer), count // channels

    with IRBuilder() as builder, tb.sblock("unpack"):
        tb.reads([])
        tb.writes([])
        with rows_loop(op, rows, rows * count) as row, tb.serial(0, width) as w:
            _unpack_pixel(op, x, q, row * width + w, places(row, outer), w * channels, channels)
    return builder.get()


def _unpack_pixel(op: Operator, x, q, pixel, row: list, start, channels: int) -> None:
    several = _vector_of_planes if op.lhs.layout == "planes" else _vector_of_fields
    single = _code_of_planes if op.lhs.layout == "planes" else _code_of_fields
    whole = channels // WORD
    if whole:
        with tb.serial(0, whole) as i:
            at = ramp(start + i * WORD, WORD)
            tb.buffer_store(q, _value(op, several(op, x, pixel, i), str(q.dtype)), [*row, at])
    if channels % WORD:
        with tb.serial(0, channels % WORD) as i:
            code = single(op, x, pixel, whole * WORD + i)
            tb.buffer_store(q, _value(op, code, str(q.dtype)), [*row, start + whole * WORD + i])


def _value(op: Operator, codes: tirx.Expr, dtype: str) -> tirx.Expr:
    """Values of codes (uint8, or vectors of it), modulo 2^8."""
    lanes = codes.ty.dtype.lanes
    codes = codes + codes if op.act.step == 2 else codes
    codes = codes + splat(op.act.min % 256, "uint8", lanes) if op.act.min else codes
    return codes.astype(vector(dtype, lanes))


def _bytes(x, pixel, start, count: int) -> tirx.Expr:
    return x[pixel, ramp(start, count)]


def _bits_as_bytes(word: tirx.Expr) -> tirx.Expr:
    """uint8x32 of 0 and 1: the bits of four bytes."""
    return tirx.reinterpret(f"uint1x{WORD}", word).astype(f"uint8x{WORD}")


def _vector_of_planes(op: Operator, x, pixel, word) -> tirx.Expr:
    codes = None
    for p in range(op.act.bits):
        start = (word * op.act.bits + p) * (WORD // 8)
        plane = _bits_as_bytes(tirx.reinterpret("uint32", _bytes(x, pixel, start, WORD // 8)))
        plane = plane << splat(p, "uint8", WORD) if p else plane
        codes = plane if codes is None else codes | plane
    return codes


def _code_of_planes(op: Operator, x, pixel, channel) -> tirx.Expr:
    code = tirx.const(0, "uint8")
    for p in range(op.act.bits):
        byte = x[pixel, (channel // WORD * op.act.bits + p) * (WORD // 8) + channel % WORD // 8]
        bit = byte >> (channel % 8).astype("uint8") & tirx.const(1, "uint8")
        code = code | bit << tirx.const(p, "uint8")
    return code


def _vector_of_fields(op: Operator, x, pixel, word) -> tirx.Expr:
    field = field_bits(op.act)
    if field == 1:
        data = _bytes(x, pixel, word * (WORD // 8), WORD // 8)
        return _bits_as_bytes(tirx.reinterpret("uint32", data))
    # A byte becomes as many bytes as it has fields: its lane is widened, and its fields spread.
    each, count = 8 // field, WORD * field // 8
    wide = f"uint{8 * each}"
    data = _bytes(x, pixel, word * count, count).astype(f"{wide}x{count}")
    spread = data & splat((1 << field) - 1, wide, count)
    for i in range(1, each):
        mask = (1 << field) - 1 << field * i
        spread = spread | (data & splat(mask, wide, count)) << splat((8 - field) * i, wide, count)
    return tirx.reinterpret(f"uint8x{WORD}", spread)


def _code_of_fields(op: Operator, x, pixel, channel) -> tirx.Expr:
    field = field_bits(op.act)
    each = 8 // field
    shift = (channel % each * field).astype("uint8")
    return x[pixel, channel // each] >> shift & tirx.const((1 << field) - 1, "uint8")
