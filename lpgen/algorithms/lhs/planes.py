"""Bit planes that are given: a packed input (`lpgen.ops.packed`) in place of the stage "encode".

The words of a packed input are those that the bitserial algorithm makes at the source. Without
padding they are read where they lie. With padding one pass copies them, far fewer bytes than values
have, into lines that hold what padding is: the bits of the value that adds nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tvm import te, tirx
from tvm.tirx.script import builder as tb

from lpgen.algorithms.lhs.encode import AT_SOURCE
from lpgen.algorithms.lhs.view import Lhs, is_matrix, rows_loop
from lpgen.ops import Conv2d, Dense
from lpgen.ops.packed import WORD
from lpgen.tir.extern import extern


def reads_planes(op: Dense | Conv2d, word: int, left: str) -> bool:
    """Whether words of `word` values that are made at the source (`left`) are those of the input:
    a pixel has whole ones for each group. Outliers are multiplied with values."""
    whole = op.matrix.groups == 1 or op.x_extents[-1] // op.matrix.groups % WORD == 0
    made = word == WORD and left in AT_SOURCE
    return op.input == "planes" and made and whole and not op.outliers


def given_words(
    op: Dense | Conv2d, lhs: Lhs, planes: int, pad_value: int
) -> tuple[Lhs, Callable[..., tirx.Expr]]:
    """(the left side with the input as words, at(g, mo, mi, m, r, s, kg, plane)).

    lhs: the left side as values; planes: how many of them are read (one more than codes have,
    where padding makes the lowest one of bipolar values); pad_value: what padding is read as.
    """
    *rows, width = (int(extent) for extent in lhs.source.shape)
    shape = (*rows, width // WORD, planes)
    if not any(getattr(op, "pad", ())):
        words = x = te.placeholder(shape, "uint32", name="encode")
    else:
        pixel = lhs.pixel // WORD
        x = te.placeholder((op.n, op.h, op.w * pixel, op.act.bits), "uint32", name="x")
        words = extern("encode", shape, "uint32", [x], _padded(op, shape, pixel, pad_value))

    def at(g, mo, mi, m, r, s, kg, plane):
        *row, start = lhs.place(g, m, r, s, 1 if is_matrix(op) else WORD)
        return words[(*row, start + kg, plane)]

    return replace(lhs, x=x), at


def _padded(op: Conv2d, shape: tuple[int, ...], pixel: int, pad_value: int):
    """The body of the copy: lines of pixels of `pixel` words."""
    images, height, width, planes = shape
    top, before = op.pad[:2]
    empty = planes - op.act.bits

    def fill(words, row: list, start: int, stop: int) -> None:
        if start < stop:
            with tb.serial(0, stop - start) as i:
                for p in range(planes):
                    bits = 2**WORD - 1 if pad_value >> p & 1 else 0
                    tb.buffer_store(words, tirx.const(bits, "uint32"), [*row, start + i, p])

    def copy(x, words, row: list, line) -> None:
        with tb.serial(0, op.w * pixel) as i:
            for p in range(planes):
                own = x[(row[0], line, i, p - empty)] if p >= empty else tirx.const(0, "uint32")
                tb.buffer_store(words, own, [*row, before * pixel + i, p])

    def body(x, words) -> None:
        nbytes = images * height * width * planes * (WORD // 8)
        with tb.serial(0, images) as image, rows_loop(op, height, nbytes) as row:
            with tb.If(tirx.all(row >= top, row < top + op.h)):
                with tb.Then():
                    fill(words, [image, row], 0, before * pixel)
                    copy(x, words, [image, row], row - top)
                    fill(words, [image, row], (before + op.w) * pixel, width)
                with tb.Else():
                    fill(words, [image, row], 0, width)

    return body
