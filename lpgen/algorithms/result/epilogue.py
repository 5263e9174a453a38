"""The epilogue inside a kernel: from the int32 sum of an element to what is stored.

Every definition ends in a stage `y` that reads the sums of a register tile. Its expression is made
here, so that all algorithms have all epilogues, and a schedule that vectorizes `y` right behind the
tile fuses them: the sums never go to memory.

Zero points, and the offset that a left side may have got so that its values fit the instruction,
are undone at the end. Where it holds X = x - zero_act + zero (`zero`: what stands for nothing, and
so also in its padding),

    sum of (x - zero_act) * (w - zero_weight)
        = sum of X * w  -  zero * (sum of w)  -  zero_weight * (sum of (x - zero_act))

The last sum is that of a row (`row_sums`). The middle term is known when the weights are packed:
with the bias it is the *compensation* of a column. Where taps in the padding are left out all sums
are those of the taps inside, and each class of rows has a compensation of its own (`inside`).

Scales of groups of k, of weights or activations, are no part of it, and zero points of such groups
neither: the sums given are scaled already (`blockwise_dot`).

Parameters lie behind the weights, in sections [group][column] or of one element.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from tvm import te, tirx

from lpgen.algorithms.kernel import Layout
from lpgen.algorithms.prologue import Prologue
from lpgen.algorithms.result import sparse_sums
from lpgen.algorithms.result.fused import FusedLayout
from lpgen.algorithms.sections import Section, placeholders
from lpgen.algorithms.weights import sparse as outliers
from lpgen.ops.epilogue import (
    Bias,
    Clamp,
    Middle,
    Quantize,
    Residual,
    Scale,
    Threshold,
    dtype_of,
    find,
    integer_bounds,
)
from lpgen.tir.vectors import ROUNDING

if TYPE_CHECKING:
    from lpgen.algorithms.lhs.inside import Inside
    from lpgen.formats import Format
    from lpgen.ops import Operator
    from lpgen.ops.parameter import Parameter


@dataclass(frozen=True)
class Epilogue:
    """The epilogue of `op` behind sums over a left side with `zero` for nothing (0: the sums given
    are those of (x - zero_act) * w).

    groups, columns: the axes of the definition's result y[m, group, column]; a depthwise
    convolution may have its groups as columns.
    rows: what is computed for each row beforehand: `row_sums`, if they are needed;
    inside: the taps that the sums are of, if not all and if that makes a difference;
    steps: those of dynamic scales of x, with which sums over all of k are multiplied.
    """

    op: Operator
    zero: int
    groups: int
    columns: int
    rows: Prologue | None = field(default=None, compare=False)
    inside: Inside | None = None
    steps: te.Tensor | None = field(default=None, compare=False)

    @staticmethod
    def needs_row_sums(op: Operator) -> bool:
        """Whether the columns of `op` have zero points, which the sums of rows multiply."""
        return not op.sum_group and bool(op.zero_weight)

    @cached_property
    def _before(self) -> list[Prologue]:
        found = [] if self.rows is None else [self.rows]
        return [*found, self._outliers] if self.op.outliers else found

    @property
    def prologue(self) -> list[tirx.PrimFunc]:
        """What has to run before the kernel (`entry.kernel_entry`)."""
        return [before.function for before in self._before]

    @property
    def integer_bias(self) -> bool:
        """Whether the bias is added to the sums, and so is part of the compensation."""
        return find(self.op.epilogue, Bias) == Bias("s32")

    def single(self, name: str) -> bool:
        """Whether the parameter is one number for all columns (of which there are several)."""
        several = self.groups * self.columns > 1 or name == "input_scale"
        return self.op.parameters[name].shape == (1,) and several

    @cached_property
    def own_parameters(self) -> dict[str, Parameter]:
        """Those of the operator's channels, without what belongs to groups of k and outliers."""
        grouped = ("scale", "zero_weight", "offset") if self.op.group_size else ()
        others = outliers.NAMES + grouped
        return {name: p for name, p in self.op.parameters.items() if name not in others}

    @cached_property
    def sections(self) -> list[Section]:
        """What lies behind the packed weights."""
        wide = -(-self.columns // 16) * 16  # rows of groups start on 64-byte boundaries
        found = []
        if self.zero or self.integer_bias:
            classes = () if self.inside is None else (self.inside.classes,)
            found.append(Section("compensation", (*classes, self.groups, wide), "int32"))
        for name, parameter in self.own_parameters.items():
            shape = (1,) if self.single(name) else (self.groups, wide)
            if name == "bias" and self.integer_bias:
                continue
            if name == "thresholds":
                names = [f"threshold{i}" for i in range(parameter.shape[1])]
                found += [Section(name, shape, "int32") for name in names]
                continue
            stored = {"input_scale": "input_inverse", "direction": "flip"}.get(name, name)
            found.append(Section(stored, shape, "float32" if parameter.real else "int32"))
        return [*found, *outliers.Geometry(self.op).sections()] if self.op.outliers else found

    @cached_property
    def _tensors(self) -> dict[str, te.Tensor]:
        names = (section.name for section in self.sections)
        return dict(zip(names, placeholders(self.sections), strict=True))

    @cached_property
    def _outliers(self) -> Prologue | None:
        return sparse_sums.prologue(self.op) if self.op.outliers else None

    @cached_property
    def _residual(self) -> te.Tensor | None:
        if self.op.residual is None:
            return None
        shape = (self.op.matrix.m, self.groups, self.columns)
        return te.placeholder(shape, self.op.residual.dtype, name="residual")

    @property
    def inputs(self) -> list[te.Tensor]:
        """Arguments of the definition, behind the packed weights and before y."""
        before = [before.tensor for before in self._before]
        last = [tensor for tensor in (self.steps, self._residual) if tensor is not None]
        return [*self._tensors.values(), *before, *last]

    def layout(self, weights: Layout) -> Layout:
        """The layout of the weights with the parameters behind them."""
        return FusedLayout(weights, self) if self.sections else weights

    def __call__(self, total: tirx.Expr, m: tirx.Expr, g: tirx.Expr, n: tirx.Expr) -> tirx.Expr:
        """The result at (m, g, n) for the int32 sum `total` (float32 with scales of groups of k),
        in the dtype of the epilogue's values."""

        def parameter(name: str) -> tirx.Expr:
            tensor = self._tensors[name]
            return tensor[g, n] if len(tensor.shape) == 2 else tensor[0]

        v = total
        if "compensation" in self._tensors:
            place = (g, n) if self.inside is None else (self.inside.class_at(m), g, n)
            v = v + self._tensors["compensation"][place]
        if self.needs_row_sums(self.op):
            v = v - self._zero_weight(g, n) * self.rows.tensor[self._group(g, n), m]
        if self._outliers is not None:
            v = v + self._outliers.tensor[m, g * self.columns + n]
        for step in self.op.epilogue:
            match step:
                case Bias("f32"):
                    v = v + parameter("bias")
                case Scale(group_size=group):
                    v = v if group else product(v.astype("float32"), parameter("scale"))
                    if self.steps is not None and not self.op.lhs.group:
                        v = product(v, self.steps[m if self.op.lhs.by_row else 0])
                case Middle(integers=(low, high)):
                    low, high = tirx.const(low, "float32"), tirx.const(high, "float32")
                    v = te.min(te.max(v, low), high)
                    v = product(rounded(v), parameter("middle_scale"))
                case Residual("f32"):
                    v = v + self._residual[m, g, n]
                case Residual(zero=zero):
                    value = self._residual[m, g, n].astype("int32")
                    value = value - tirx.const(zero, "int32") if zero else value
                    v = v + product(value.astype("float32"), parameter("residual_scale"))
                    v = v / parameter("output_scale") if "output_scale" in self._tensors else v
                case Threshold(form):
                    return self._counted(v, form, parameter)
                case Clamp("relu6") if "six" in self._tensors:
                    v = te.min(parameter("six"), v)
        return self._bounded(v)

    def _counted(self, v: tirx.Expr, form: Format, parameter: Callable) -> tirx.Expr:
        """Flipped sums, ~v, rise where v falls: v <= t is ~v >= ~t."""
        v = v ^ parameter("flip")
        one, zero = tirx.const(1, "int32"), tirx.const(0, "int32")
        count = zero
        for i in range(form.levels - 1):
            count = count + tirx.Select(v >= parameter(f"threshold{i}"), one, zero)
        return (count * form.step + form.min).astype(dtype_of(self.op.epilogue))

    def _group(self, g: tirx.Expr, n: tirx.Expr) -> tirx.Expr:
        if self.groups == self.op.matrix.groups:
            return g
        return (g * self.columns + n) // self.op.matrix.n

    def _zero_weight(self, g: tirx.Expr, n: tirx.Expr) -> tirx.Expr:
        if self.op.zero_weight == "channel":
            return self._tensors["zero_weight"][g, n]
        return tirx.const(self.op.zero_weight, "int32")

    def _bounded(self, v: tirx.Expr) -> tirx.Expr:
        dtype = "float32" if find(self.op.epilogue, Scale) else "int32"
        low, high = integer_bounds(self.op.epilogue)
        # Min and Max compare, and give their second operand where one is no number (NaN).
        quantize = find(self.op.epilogue, Quantize)
        if quantize is None:
            v = v if low is None else te.max(tirx.const(low, dtype), v)
            return v if high is None else te.min(tirx.const(high, dtype), v)
        v = te.min(te.max(v, tirx.const(low, dtype)), tirx.const(high, dtype))
        bits = tirx.reinterpret("int32", v + tirx.const(ROUNDING, "float32"))
        narrow = bits.astype(dtype_of(self.op.epilogue))
        return (
            narrow + tirx.const(quantize.zero, dtype_of(self.op.epilogue))
            if quantize.zero
            else narrow
        )


def real_value(result: tirx.Expr, quantize: Quantize) -> tirx.Expr:
    """The float32 value in a result that `Epilogue` quantizes: what it bounds and rounds."""
    narrow = result.a if quantize.zero else result  # + zero
    bits = narrow.value  # as bytes
    (shifted,) = bits.args  # reinterpreted
    bounded = shifted.a  # + ROUNDING
    return bounded.a.a  # Min(Max(value, low), high)


def rounded(v: tirx.Expr) -> tirx.Expr:
    """A float32 within +-2^22 rounded half to even, as float32: behind the fence, or LLVM might see
    that a sum and a difference cancel."""
    magic = tirx.const(ROUNDING, "float32")
    return fence(v + magic) - magic


def fence(value: tirx.Expr) -> tirx.Expr:
    """The float32, rounded as it is here."""
    return tirx.call_llvm_pure_intrin(str(value.ty.dtype), "llvm.arithmetic.fence", value)


def product(a: tirx.Expr, b: tirx.Expr) -> tirx.Expr:
    """a * b, rounded: without the fence LLVM may make one instruction of it and an addition that
    follows (TVM allows that everywhere), which rounds once and gives other results."""
    return fence(a * b)
