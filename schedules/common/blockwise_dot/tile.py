"""The code of a register tile of `group_dot`: the sums of a group, and their part of the result.

The int32 sums start from what a row and a column add to them (zero points, offsets), so that this
costs no addition. vpdpbusd adds up in int32; without it vpmaddubsw adds up in int16, as many steps
as fit.
"""

from __future__ import annotations

from tvm import tirx
from tvm.tirx.script import builder as tb

from lpgen.algorithms.definition import Definition
from lpgen.isa import Isa
from lpgen.ops import Dense
from lpgen.schedules.common.bit_fields import Registers
from lpgen.schedules.common.groups import BYTES, GroupTile
from lpgen.tir import vectors
from lpgen.tir.microkernel import Site
from lpgen.tir.prefetch import hint

STRAIGHT = 256
"""Most multiplications in straight-line code; groups with more become loops."""


class BlockwiseTile(GroupTile):
    """Emits the code. most: steps whose sum an int16 holds (of vpmaddubsw); ahead: bytes of weights
    to ask for in advance, or 0."""

    start = 0
    """What all sums of a group start from."""

    def __init__(self, isa: Isa, definition: Definition, ahead: int, most: int) -> None:
        super().__init__(isa, definition, ahead)
        self.most = most
        self.unit = 8 // min(self.weights.planes)

    # ---- the sums of a group

    def partial(self, site: Site) -> None:
        """Emit the sums of a group."""
        self.sums = Registers(self.rows * self.vectors, "int32", self.isa.lanes)
        self._begin()
        for first, count, times in self._chunks():
            if times > 1:
                with tb.serial(0, times) as i:
                    self._chunk(site, i * count + first, count)
            else:
                self._chunk(site, first, count)
        for i in range(self.sums.count):
            mi, nv = divmod(i, self.vectors)
            at = site.target.at(mi=mi, nv=nv)
            vectors.store(site.target.buffer, at, self.sums[i], self.isa.lanes)

    def _begin(self) -> None:
        """Emit what the sums start from."""
        lanes = self.isa.lanes
        for nv in range(self.vectors):
            first = vectors.splat(self.start, "int32", lanes)
            if "compensation" in self.terms:
                first = first + self._column("compensation", nv)
            if "zero" in self.terms:
                zero = vectors.bind(self._column("zero", nv).astype(f"int32x{lanes}"))
            for mi in range(self.rows):
                value = first
                if "row_terms" in self.terms:
                    access = self.terms["row_terms"]
                    term = access.buffer[tuple(access.at(mi=mi))]
                    if "zero" in self.terms:
                        value = zero * vectors.splat(term, "int32", lanes) + first
                    elif "compensation" in self.terms:
                        value = vectors.splat(term, "int32", lanes) + self._column(
                            "compensation", nv
                        )
                    else:  # the start is in it
                        value = vectors.splat(term, "int32", lanes)
                self.sums[mi * self.vectors + nv] = value

    def _column(self, name: str, nv: int) -> tirx.Expr:
        """A vector of what belongs to the columns."""
        access = self.terms[name]
        return vectors.load(access.buffer, access.at(nv=nv), self.isa.lanes)

    def _chunks(self):
        """(first step, steps, how often) of the pieces of straight-line code."""
        steps, per_step = self.weights.steps, self.rows * self.vectors
        length = min(self.most or steps, steps)
        if length < steps:
            length = max(length // self.unit * self.unit, 1)
        if length * per_step > STRAIGHT:
            length = min(length, max(STRAIGHT // per_step // self.unit, 1) * self.unit)
        whole = steps // length
        if length % self.unit == 0:
            yield 0, length, whole
        else:  # a loop would start within a byte
            for i in range(whole):
                yield i * length, length, 1
        if steps % length:
            yield whole * length, steps % length, 1

    def _chunk(self, site: Site, first, count: int) -> None:
        """Steps first .. first + count: without vpdpbusd what an int16 holds the sum of."""
        halves = None
        if self.most > 1 and count > 1:
            halves = Registers(self.rows * self.vectors, "int16", 2 * self.isa.lanes)
            halves.zero()
        bytes_: dict[tuple, tirx.Expr] = {}
        for i in range(count):
            left = [self.left(site, mi, first + i) for mi in range(self.rows)]
            for nv in range(self.vectors):
                right = self._right(site, first, i, nv, bytes_)
                for mi, x in enumerate(left):
                    self._multiply(mi * self.vectors + nv, x, right, halves)
        if halves is not None:
            for i in range(halves.count):
                self.sums[i] = self.sums[i] + self.isa.sum2(halves[i])

    def _multiply(self, i: int, left, right, halves: Registers | None) -> None:
        if halves is None:
            self.sums[i] = self.isa.dot4(self.sums[i], left, right)
        else:
            halves[i] = self.isa.add_pairs(halves[i], left, right)

    def _right(self, site: Site, first, i: int, nv: int, bytes_: dict) -> tirx.Expr:
        """The operands of step first + i; bytes_: the packed vectors that were loaded before."""
        count = BYTES * self.isa.lanes
        code, low = None, 0
        for plane, width in enumerate(self.weights.planes):
            fields = 8 // width
            start = first if isinstance(first, int) else 0  # a loop starts with whole bytes
            byte, field = divmod(start + i, fields)
            if (plane, nv, byte) not in bytes_:
                bytes_[plane, nv, byte] = self._load(site, plane, nv, first + i)
            packed, shift = bytes_[plane, nv, byte], field * width
            bits = packed >> vectors.splat(shift, "uint8", count) if shift else packed
            if shift + width < 8:
                bits = bits & vectors.splat((1 << width) - 1, "uint8", count)
            bits = bits << vectors.splat(low, "uint8", count) if low else bits
            code = bits if code is None else code | bits
            low += width
        return vectors.bind(self._unpacked(code))

    def _load(self, site: Site, plane: int, nv: int, step) -> tirx.Expr:
        access = site.sources[f"plane{plane}"]
        *outer, first = access.at(nv=nv, step=step)
        if self.ahead:
            tb.add_to_parent(hint(access.buffer[(*outer, first + self.ahead)]))
        return vectors.bind(vectors.load(access.buffer, [*outer, first], BYTES * self.isa.lanes))

    def _unpacked(self, code: tirx.Expr) -> tirx.Expr:
        """The operands of a vector of codes."""
        count, form = BYTES * self.isa.lanes, self.weights.op.weight
        if form.book:
            table = [*self.weights.table, *[0] * (16 - form.levels)]
            values = vectors.constants(table * (count // 16), "uint8")
            code = self.isa.lookup16(values, code)
        else:
            code = code + code if form.step == 2 else code
            lowest = self.weights.table[0]
            code = code + vectors.splat(lowest, "uint8", count) if lowest else code
        dtype = self.weights.operand_of.dtype
        return code if dtype == "uint8" else tirx.reinterpret(f"{dtype}x{count}", code)

    # ---- their part of the result

    def update(self, site: Site) -> None:
        """Emit tile += float32(sums), times the scales that there are."""
        sums, lanes = site.sources["partial"], self.isa.lanes
        if "scale" in self.terms:
            self._ask_for_scales()
        for nv in range(self.vectors):
            scale = self._scale(nv) if "scale" in self.terms else None
            for mi in range(self.rows):
                at = site.target.at(mi=mi, nv=nv)
                value = vectors.bind(vectors.load(sums.buffer, sums.at(mi=mi, nv=nv), lanes))
                total = vectors.load(site.target.buffer, at, lanes)
                value = (
                    value.astype(f"float32x{lanes}") if scale is None else self.scaled(value, scale)
                )
                value = self._times_step(value, mi)
                vectors.store(site.target.buffer, at, total + value, lanes)

    def _times_step(self, value: tirx.Expr, mi: int) -> tirx.Expr:
        """Times the step of the row's group, rounded, if it has one."""
        if "input_step" not in self.terms:
            return value
        access = self.terms["input_step"]
        step = tirx.Broadcast(access.buffer[tuple(access.at(mi=mi))], self.isa.lanes)
        return self.rounded(vectors.bind(value) * step)

    def _ask_for_scales(self) -> None:
        """Emit a prefetch of the scales that belong to the weights that are asked for."""
        nbytes = sum(self.weights.planes) * self.weights.steps * self.vectors * self.isa.lanes // 2
        groups = -(-self.ahead // nbytes)
        access = self.terms["scale"]
        itemsize = 2 if self.weights.float_dtype == "uint16" else 4
        columns = self.vectors * self.isa.lanes
        for first in range(0, columns if groups else 0, 64 // itemsize):
            *outer, lane = access.at()
            tb.add_to_parent(hint(access.buffer[(*outer, lane + groups * columns + first)]))

    def _scale(self, nv: int):
        """The scales of a vector of columns, as `scaled` wants them."""
        return vectors.bind(self.floats(self._column("scale", nv)))

    def scaled(self, sums: tirx.Expr, scale: tirx.Expr) -> tirx.Expr:
        """float32(sums) * scale, rounded."""
        return self.rounded(sums.astype(f"float32x{self.isa.lanes}") * scale)


class FloatBits(BlockwiseTile):
    """The form for scales in bfloat16: conversion and multiplication in one instruction.

    The sums start from the bits of M = 1.5 * 2^23 (`vectors.ROUNDING`), so that as float32 they are
    M + S, exactly, for |S| < 2^22. And (M + S) * scale - M * scale, rounded once at its end (fused
    multiply-add), is S * scale rounded: M * scale has no more than 9 bits and is exact.
    """

    start = vectors.ROUNDING_BITS

    @staticmethod
    def serves(op: Dense, isa: Isa) -> bool:
        """Whether it is exact for `op`, and the instruction exists."""
        largest = op.bound // op.k * min(op.sum_group, op.k)
        columns = op.zero_weight != "group"
        return isa.target.has_fma and op.parameters["scale"].short and largest < 2**22 and columns

    def _scale(self, nv: int):
        scale, lanes = super()._scale(nv), self.isa.lanes
        less = tirx.Broadcast(tirx.const(-vectors.ROUNDING, "float32"), lanes)
        return scale, vectors.bind(scale * less)

    def scaled(self, sums: tirx.Expr, scale: tuple[tirx.Expr, tirx.Expr]) -> tirx.Expr:
        dtype = f"float32x{self.isa.lanes}"
        return vectors.intrinsic(dtype, "llvm.fma", tirx.reinterpret(dtype, sums), *scale)
