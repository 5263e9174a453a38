"""Narrowing on 64-bit Arm: from four vectors of float32 to one of bytes.

    bytes = sqxtn(sqxtn(fcvtns(v0)), sqxtn(fcvtns(v1)) + zero), the same of v2 and v3

`fcvtns` rounds half to even and saturates, `sqxtn` (for unsigned bytes `sqxtun`) saturates as well.
`fmaxnm` bounds values from below before: of a number and of what is none (NaN) it gives the number.

Source: Arm Architecture Reference Manual for A-profile (DDI 0487), C7.
"""

from collections.abc import Sequence

from tvm import tirx

from lpgen.tir import vectors


def narrowed(values: Sequence[tirx.Expr], low: int, high: int, zero: int, dtype: str) -> tirx.Expr:
    """Emit what `Isa.narrow4` says."""
    words = [_words(value, low) for value in values]
    words += [words[-1]] * (4 - len(words))
    halves = []
    for pair in (words[:2], words[2:]):
        half = vectors.bind(vectors.joined(pair, range(8)))
        if zero:
            added = (half, vectors.splat(zero, "int16", 8))
            half = vectors.bind(vectors.intrinsic("int16x8", "llvm.sadd.sat", *added))
        name = "sqxtn" if dtype == "int8" else "sqxtun"
        halves.append(vectors.bind(_call(f"{dtype}x8", f"{name}.v8i8", half)))
    packed = vectors.bind(vectors.joined(halves, range(16)))
    if high + zero < (127 if dtype == "int8" else 255):
        packed = tirx.Min(packed, vectors.splat(high + zero, dtype, 16))
    return vectors.bind(packed)


def _words(value: tirx.Expr, low: int) -> tirx.Expr:
    """int16 of four float32, not below `low`."""
    bound = tirx.Broadcast(tirx.const(low, "float32"), 4)
    bounded = vectors.bind(_call("float32x4", "fmaxnm.v4f32", value, bound))
    integers = vectors.bind(_call("int32x4", "fcvtns.v4i32.v4f32", bounded))
    return vectors.bind(_call("int16x4", "sqxtn.v4i16", integers))


def _call(dtype: str, name: str, *arguments: tirx.Expr) -> tirx.Expr:
    return vectors.intrinsic(dtype, f"llvm.aarch64.neon.{name}", *arguments)
