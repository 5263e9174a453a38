"""Narrowing on x86: from four vectors of float32 to one of bytes.

The vectors are converted to int32 (rounding half to even) and packed twice with saturation:

    bytes = packswb(packssdw(v0, v1) + zero, packssdw(v2, v3) + zero)

Packing works on 128-bit lanes, so that one permutation of 32-bit words puts the columns in order.
A value above int32 converts to the smallest int32: float32 values are bounded from above before.
What is no number (NaN) is not bounded, and becomes the lowest result by the same conversion.

Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2: CVTPS2DQ, PACKSSDW,
PACKSSWB/PACKUSWB.
"""

from collections.abc import Sequence

from tvm import tirx

from lpgen.tir import vectors

# By the bits of a vector: conversion, packing to int16, to int8 and to uint8.
_INSTRUCTIONS = {
    128: ("sse2.cvtps2dq", "sse2.packssdw.128", "sse2.packsswb.128", "sse2.packuswb.128"),
    256: ("avx.cvt.ps2dq.256", "avx2.packssdw", "avx2.packsswb", "avx2.packuswb"),
    512: (
        "avx512.mask.cvtps2dq.512",
        "avx512.packssdw.512",
        "avx512.packsswb.512",
        "avx512.packuswb.512",
    ),
}


def narrowed(values: Sequence[tirx.Expr], low: int, high: int, zero: int, dtype: str) -> tirx.Expr:
    """Emit what `Isa.narrow4` says."""
    words = [_integers(value, high) for value in values]
    words += [words[-1]] * (4 - len(words))
    lanes = int(values[0].ty.dtype.lanes)
    _, to_words, to_signed, to_unsigned = _INSTRUCTIONS[32 * lanes]
    # Saturation may cut off at 0 what is to be cut off there before zero is added.
    late = low >= 0 and dtype == "uint8"
    halves = []
    for pair in (words[:2], words[2:]):
        half = _call(f"int16x{2 * lanes}", to_words, *pair)
        if zero and not late:
            half = _added(half, zero, "int16", 2 * lanes)
        halves.append(vectors.bind(half))
    count = 4 * lanes
    packed = _call(f"int8x{count}", to_signed if dtype == "int8" else to_unsigned, *halves)
    if lanes > 4:
        order = [4 * part + j for j in range(4) for part in range(lanes // 4)]
        in_order = vectors.reinterpret(f"int32x{lanes}", vectors.bind(packed))
        packed = vectors.shuffle(in_order, order)
    packed = vectors.reinterpret(f"{dtype}x{count}", packed)
    if zero and late:
        packed = _added(packed, zero, dtype, count)
    lowest = -128 if dtype == "int8" else zero if late else 0
    return vectors.bind(_clamped(packed, low + zero, high + zero, dtype, lowest))


def _integers(value: tirx.Expr, high: int) -> tirx.Expr:
    lanes = int(value.ty.dtype.lanes)
    bound = tirx.Broadcast(tirx.const(high, "float32"), lanes)
    value = tirx.Min(bound, value)
    convert, *_ = _INSTRUCTIONS[32 * lanes]
    if lanes < 16:
        return vectors.bind(_call(f"int32x{lanes}", convert, value))
    everywhere, as_set = tirx.const(-1, "int16"), tirx.const(4, "int32")
    zero = vectors.splat(0, "int32", lanes)
    return vectors.bind(_call(f"int32x{lanes}", convert, value, zero, everywhere, as_set))


def _clamped(value: tirx.Expr, low: int, high: int, dtype: str, lowest: int) -> tirx.Expr:
    """Bounds that saturation, at `lowest`, does not give."""
    count = int(value.ty.dtype.lanes)
    if low > lowest:
        value = tirx.Max(value, vectors.splat(low, dtype, count))
    if high < (127 if dtype == "int8" else 255):
        value = tirx.Min(value, vectors.splat(high, dtype, count))
    return value


def _call(dtype: str, name: str, *arguments: tirx.Expr) -> tirx.Expr:
    return vectors.intrinsic(dtype, f"llvm.x86.{name}", *arguments)


def _added(value: tirx.Expr, number: int, dtype: str, lanes: int) -> tirx.Expr:
    """value + number, saturated."""
    name = {"int16": "llvm.sadd.sat", "uint8": "llvm.uadd.sat"}[dtype]
    return vectors.intrinsic(f"{dtype}x{lanes}", name, value, vectors.splat(number, dtype, lanes))
