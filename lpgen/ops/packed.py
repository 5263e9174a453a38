"""Packed tensors: codes of a few bits side by side, between one kernel and the next.

A tensor of values holds one a byte. Packed, each row of its last dimension (a pixel's channels, a
row of k or n) is bytes of its own, so that pixels and rows can still be addressed. A value's place
in them is taken by its code (`Format.encode`: the smallest value has code 0).

| layout | a row of C codes                                                                     |
|--------|--------------------------------------------------------------------------------------|
| packed | fields of 1, 2 or 4 bits, the smallest that holds a code, the first in the lowest    |
|        | bits of a byte: ceil(C * field / 8) bytes. For formats of up to 4 bits               |
| planes | words of 32 codes, and of each word its planes: plane p is 4 bytes, little endian,   |
|        | whose bit i is bit p of code i: ceil(C / 32) * bits * 4 bytes                        |

What is left at the end of a row is 0. `packed` is how ONNX stores UINT4 and UINT2, and
`planes` what the bitserial algorithm reads.
"""

from __future__ import annotations

import numpy as np

from lpgen.errors import FormatError
from lpgen.formats import Format

LAYOUTS = ("packed", "planes")
WORD = 32
"""Codes in a word of a plane."""


def field_bits(form: Format) -> int:
    """The bits that a code takes in layout "packed"."""
    return 1 << (form.bits - 1).bit_length()


def row_bytes(count: int, form: Format, layout: str) -> int:
    """The bytes of a row of `count` codes."""
    if layout == "planes":
        return -(-count // WORD) * form.bits * (WORD // 8)
    return -(-count * field_bits(form) // 8)


def packed_shape(shape: tuple[int, ...], form: Format, layout: str) -> tuple[int, ...]:
    """The shape of the bytes (uint8) of a tensor of `shape`."""
    return (*shape[:-1], row_bytes(shape[-1], form, layout))


def check_layout(what: str, form: Format, layout: str) -> str | None:
    """Why a tensor of the format cannot have the layout, or None; `what` names the word."""
    if layout not in LAYOUTS:
        return f"{what}: layout {layout!r} is unknown; known: {', '.join(LAYOUTS)}"
    if form.book:
        return f"{what}: values of a code book are not packed"
    if layout == "packed" and form.bits > 4:
        return f"{what}: codes of {form.bits} bits are a byte each, packed ones have up to 4"
    return None


def pack(values: np.ndarray, form: Format | str, layout: str) -> np.ndarray:
    """The bytes (uint8, the last dimension packed) of integers in the format.

    Raises FormatError for a value that the format does not have and for a layout that it cannot
    have.
    """
    form, values = _checked(form, layout), np.asarray(values)
    form.check(values, "values")
    codes = form.encode(values)
    *outer, count = codes.shape
    unit = WORD if layout == "planes" else 8 // field_bits(form)
    padded = np.zeros((*outer, -(-count // unit) * unit), np.uint8)
    padded[..., :count] = codes
    groups = padded.reshape(*outer, -1, unit)
    if layout == "planes":
        bits = groups[..., None, :] >> np.arange(form.bits, dtype=np.uint8)[:, None] & 1
        return np.packbits(bits, axis=-1, bitorder="little").reshape(*outer, -1)
    shifts = np.arange(unit, dtype=np.uint8) * np.uint8(field_bits(form))
    return np.bitwise_or.reduce(groups << shifts, axis=-1)


def unpack(data: np.ndarray, form: Format | str, layout: str, count: int) -> np.ndarray:
    """The values, `form.dtype`[..., count], of rows of bytes: what `pack` made them of.

    Raises FormatError for rows of another length, for a code that the format does not have, and for
    bits behind the last code that are not 0.
    """
    form, data = _checked(form, layout), np.asarray(data)
    expected = row_bytes(count, form, layout)
    if data.dtype != np.uint8 or data.shape[-1] != expected:
        raise FormatError(
            f"packed rows are {data.dtype}[{data.shape[-1]}], expected uint8[{expected}] for "
            f"{count} codes of {form}"
        )
    outer = data.shape[:-1]
    if layout == "planes":
        planes = data.reshape(*outer, -1, form.bits, WORD // 8)
        bits = np.unpackbits(planes, axis=-1, bitorder="little")
        weights = (1 << np.arange(form.bits)).astype(np.uint8)[:, None]
        codes = (bits * weights).sum(axis=-2, dtype=np.uint8)
    else:
        field = field_bits(form)
        shifts = np.arange(0, 8, field, dtype=np.uint8)
        codes = data[..., None] >> shifts & np.uint8((1 << field) - 1)
    codes = codes.reshape(*outer, -1)
    if codes[..., count:].any():
        raise FormatError(f"packed rows: bits behind their {count} codes are not 0")
    codes = codes[..., :count]
    if codes.size and codes.max() >= form.levels:
        raise FormatError(f"packed rows: code {codes.max()} is not one of {form}'s {form.levels}")
    return form.decode(codes)


def _checked(form: Format | str, layout: str) -> Format:
    form = Format.parse(form)
    if reason := check_layout(str(form), form, layout):
        raise FormatError(reason)
    return form
