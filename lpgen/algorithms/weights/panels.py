"""Packed weights of the dot algorithm: register-tile panels, exactly `bits` bits a weight.

An 8-bit weight is stored as itself, in the order in which the kernel reads it:

    main[group][panel][k step][vector][lane][kq]

where a panel is `vectors` vectors of `lanes` output columns and a k step `kq` values of k. Codes of
fewer bits are split into *planes* whose widths divide 8 (7 = 4 + 2 + 1) and `8 / width` successive
k steps share a byte as *fields*, so that one vector load gives `8 / width` vectors after a shift
and a mask:

    plane[group][panel][k step / fields][vector][lane][kq]

The codes of a code book become values by looking them up: with `Lookup`, a shuffle instruction of
the CPU, or else by selecting between constants.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from lpgen.algorithms.lhs.k_split import KSplit
from lpgen.algorithms.sections import Section, Sectioned, pack_entry
from lpgen.formats import Format

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tvm import IRModule, te, tirx

    Lookup = Callable[[tuple[int, ...], tirx.Expr], tirx.Expr]

# Codes of so many bits are stored as planes of these widths, low bits first.
PLANES = {1: (1,), 2: (2,), 3: (2, 1), 4: (4,), 5: (4, 1), 6: (4, 2), 7: (4, 2, 1)}


@dataclass(frozen=True)
class PanelWeights(Sectioned):
    """Packed-weight layout above: `groups` x `columns` columns, `panels` panels of vectors x lanes.

    shape: op.w_shape, that of the weights given to `pack`.
    top: a signed or ternary weight is stored in two's complement and unpacked into the top bits of
        its byte, as `2 ** shift` times its value. That takes no addition, and what multiplies it
        can shift its sums back.
    """

    shape: tuple[int, ...]
    format: Format
    cut: KSplit
    groups: int
    columns: int
    panels: int
    vectors: int
    lanes: int
    top: bool = False

    @property
    def shift(self) -> int:
        """How far unpacked values are shifted left."""
        return 8 - self.format.bits if self.top else 0

    @property
    def planes(self) -> tuple[int, ...]:
        """Widths of the planes in bits, low bits first; empty for 8-bit weights."""
        return PLANES.get(self.format.bits, ())

    @property
    def fields(self) -> int:
        """k steps that share a byte of the narrowest plane."""
        return 8 // min(self.planes, default=8)

    @property
    def panel(self) -> int:
        """Columns of a panel."""
        return self.vectors * self.lanes

    @cached_property
    def sections(self) -> list[Section]:
        """Parts of the packed bytes, in order: name, shape, dtype."""
        outer, inner = (self.groups, self.panels), (self.vectors, self.lanes, self.cut.kq)
        if self.planes:
            kgs = -(-self.cut.steps // self.fields) * self.fields
            parts = [
                Section(f"plane{i}", (*outer, kgs * width // 8, *inner), "uint8")
                for i, width in enumerate(self.planes)
            ]
        else:
            parts = [Section("main", (*outer, self.cut.steps, *inner), self.format.dtype)]
        return parts

    # ---- NumPy

    def pack(self, w: np.ndarray) -> np.ndarray:
        """The packed weights (uint8[nbytes]) of the weight values `w` (`shape`)."""
        return self.bytes_of(self.contents(w))

    def contents(self, w: np.ndarray) -> list[np.ndarray]:
        """The contents of each section."""
        cut, kgs = self.cut, self.sections[0].shape[2] * (8 // self.planes[0] if self.planes else 1)
        order = cut.index(np.arange(cut.r * cut.s)[:, None], np.arange(cut.run))
        runs = w.reshape(self.groups, self.columns, -1)[:, :, order]
        codes = self._codes(runs) if self.planes else runs
        empty = self._empty_code
        full = np.full(
            (self.groups, self.panels * self.panel, cut.r * cut.s, cut.kg * cut.kq),
            empty,
            codes.dtype,
        )
        full[:, : self.columns, :, : cut.run] = codes
        full = full.reshape(
            self.groups, self.panels, self.vectors, self.lanes, cut.steps, cut.kq
        ).transpose(0, 1, 4, 2, 3, 5)
        parts = [full]
        if self.planes:
            spare = [(0, 0)] * 6
            spare[2] = (0, kgs - cut.steps)
            parts = self._split_planes(np.pad(full, spare, constant_values=empty))
        return parts

    def _codes(self, values: np.ndarray) -> np.ndarray:
        if self.top:
            return values.astype(np.uint8) & np.uint8((1 << self.format.bits) - 1)
        return self.format.encode(values)

    @property
    def _empty_code(self) -> int:
        """What stands where there is no weight: the code of 0, or code 0 where 0 has none."""
        has_code = self.planes and self.format.has_zero and not self.top
        return int(self.format.encode(0)) if has_code else 0

    def _split_planes(self, codes: np.ndarray) -> list[np.ndarray]:
        planes, low = [], 0
        for width in self.planes:
            bits = codes >> low & (1 << width) - 1
            fields = bits.reshape(*bits.shape[:2], -1, 8 // width, *bits.shape[3:])
            shifts = (np.arange(8 // width, dtype=np.uint8) * width)[:, None, None, None]
            planes.append(np.bitwise_or.reduce(fields << shifts, axis=3).astype(np.uint8))
            low += width
        return planes

    # ---- TIR

    def value(
        self, tensors: list[te.Tensor], dtype: str, index: tuple, lookup: Lookup | None = None
    ) -> tirx.Expr:
        """The weight at (group, panel, k step, vector, lane, kt) in `dtype`, out of the sections.

        Bytes are taken modulo 256, so that one addition and, for bipolar codes, one doubling make
        the value of a code. lookup(bytes, code): the byte of a code, for code books.
        """
        from tvm import tirx

        if not self.planes:
            return tensors[0][index].astype(dtype)
        group, panel, kg, *rest = index
        code, low = None, self.shift
        for width, tensor in zip(self.planes, tensors, strict=False):
            fields = 8 // width
            byte = tensor[(group, panel, kg // fields, *rest)]
            shift = (kg % fields * width).astype("uint8")
            bits = byte >> shift & tirx.const((1 << width) - 1, "uint8")
            bits = bits << tirx.const(low, "uint8") if low else bits
            code = bits if code is None else code | bits
            low += width
        if self.top:
            return code.astype("int8").astype(dtype)
        if self.format.book:
            table = tuple(value % 256 for value in self.format.book)
            code = (lookup or select)(table, code)
            return code.astype("int8").astype(dtype)
        if self.format.step == 2:
            code = code + code
        if self.format.min:
            code = code + tirx.const(self.format.min % 256, "uint8")
        return code if dtype == "uint8" else code.astype("int8").astype(dtype)

    def te_module(self) -> IRModule:
        """The packer as TIR: "main"(weights, packed), see `Layout`."""
        from tvm import te

        cut = self.cut
        shape = (self.groups, self.columns, cut.r * cut.s * cut.run)
        w = te.placeholder(shape, self.format.dtype, name="w")
        outputs = self.te_sections(lambda group, column, k: w[group, column, k])
        return pack_entry(w, outputs, self.sections, self.shape, self.format.dtype)

    def te_sections(self, weight: Callable[..., tirx.Expr]) -> list[te.Tensor]:
        """The sections as tensors; weight(group, column, k): a weight's value."""
        lows = np.cumsum((0, *self.planes))
        return [
            self._te_plane(weight, section, width, int(low))
            for section, width, low in zip(self.sections, self.planes or (8,), lows, strict=False)
        ]

    def _te_plane(
        self, weight: Callable[..., tirx.Expr], section: Section, width: int, low: int
    ) -> te.Tensor:
        from tvm import te, tirx

        cut, fields = self.cut, 8 // width

        def code(group, panel, kg, vector, lane, kt):
            column = panel * self.panel + vector * self.lanes + lane
            run, j = kg // cut.kg, kg % cut.kg * cut.kq + kt
            inside = tirx.all(column < self.columns, kg < cut.steps, j < cut.run)
            if not self.planes:
                zero = tirx.const(0, self.format.dtype)
                return te.if_then_else(inside, weight(group, column, cut.index(run, j)), zero)
            value = weight(group, column, cut.index(run, j))
            if self.top:
                mask = tirx.const((1 << self.format.bits) - 1, "uint8")
                bits = value.astype("uint8") & mask
                return te.if_then_else(inside, bits, tirx.const(0, "uint8"))
            bits = code_of(self.format, value)
            return te.if_then_else(inside, bits, tirx.const(self._empty_code, "uint8"))

        def byte(group, panel, kg, *rest):
            if not self.planes:
                return code(group, panel, kg, *rest)
            parts = None
            for field in range(fields):
                bits = code(group, panel, kg * fields + field, *rest) >> tirx.const(low, "uint8")
                bits = bits & tirx.const((1 << width) - 1, "uint8")
                bits = bits << tirx.const(field * width, "uint8")
                parts = bits if parts is None else parts | bits
            return parts

        return te.compute(section.shape, byte, name=section.name)


def select(table: Sequence[int], code: tirx.Expr, dtype: str = "uint8") -> tirx.Expr:
    """The number table[code] in `dtype` by selecting between constants, bit after bit of code."""
    from tvm import tirx

    level: list = [tirx.const(value, dtype) for value in table]
    bit = 0
    while len(level) > 1:
        high = (code >> bit & 1) != 0
        if len(level) % 2:
            level.append(level[-1])
        level = [tirx.Select(high, odd, even) for even, odd in zip(*[iter(level)] * 2, strict=True)]
        bit += 1
    return level[0]


def code_of(form: Format, value: tirx.Expr) -> tirx.Expr:
    """The uint8 code of a value of the format."""
    from tvm import tirx

    if form.book:  # how many of the other values are not greater
        steps = [(value >= tirx.const(v, "int8")).astype("uint8") for v in form.book[1:]]
        return sum(steps[1:], steps[0])
    code = value.astype("uint8") - tirx.const(form.min % 256, "uint8")
    return code >> tirx.const(1, "uint8") if form.step == 2 else code
