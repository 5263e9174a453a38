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
with the bias it is the *correction* of a column.

Scales of groups of k, and their zero points, are no part of it: the sums given are scaled already
(`group_dot`).

Parameters lie behind the weights, in sections [group][column] or of one element.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from tvm import te, tirx
from tvm_ffi import structural_walk

from lpgen.algorithms import row_sums
from lpgen.algorithms.entry import Section, joined_packers, joined_sections
from lpgen.algorithms.kernel import Layout
from lpgen.algorithms.quantize import steps_of
from lpgen.ops.epilogue import Bias, Clamp, Quantize, Residual, Scale, find, integer_bounds
from lpgen.ops.inputs import is_dynamic

if TYPE_CHECKING:
    from tvm import IRModule

    from lpgen.ops import Operator
    from lpgen.ops.parameters import Parameter

# The sum f + 1.5 * 2^23 has a unit in the last place of 1: the addition itself rounds f to an
# integer, half to even. Its bits are 0x4b400000 + round(f), so that their low byte is round(f)
# modulo 256: a narrowing, and no rounding or conversion instruction.
_ROUNDING = 1.5 * 2**23


@dataclass(frozen=True)
class Epilogue:
    """The epilogue of `op` behind sums over a left side with `zero` for nothing (0: the sums given
    are those of (x - zero_act) * w).

    groups, columns: the axes of the definition's result y[m, group, column]; a depthwise
    convolution may have its groups as columns.
    rows: the placeholder of `row_sums`, where the definition needs it for itself.
    """

    op: Operator
    zero: int
    groups: int
    columns: int
    rows: te.Tensor | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self.rows is None and self._zero_of_columns:
            object.__setattr__(self, "rows", row_sums.placeholder(self.op))

    @property
    def _zero_of_columns(self) -> bool:
        return not self.op.group and bool(self.op.zero_weight)

    @property
    def prologue(self) -> tirx.PrimFunc | None:
        """What has to run before the kernel (`entry.kernel_entry`)."""
        return None if self.rows is None else row_sums.prologue(self.op)

    def _single(self, parameter: Parameter) -> bool:
        """Whether it is one number for all columns (of which there are several)."""
        return parameter.shape == (1,) and self.groups * self.columns > 1

    @cached_property
    def _parameters(self) -> dict[str, Parameter]:
        """Those of the operator, without what belongs to groups of k."""
        with_groups = ("scale", "zero_weight") if self.op.group else ()
        return {name: p for name, p in self.op.parameters.items() if name not in with_groups}

    @cached_property
    def sections(self) -> list[Section]:
        """What lies behind the packed weights."""
        wide = -(-self.columns // 16) * 16  # rows of groups start on 64-byte boundaries
        found = []
        if self.zero or find(self.op.epilogue, Bias) == Bias("s32"):
            found.append(Section("correction", (self.groups, wide), "int32"))
        for name, parameter in self._parameters.items():
            if name == "bias" and parameter.dtype == "int32":
                continue
            if name == "input_scale":
                found.append(Section("input_inverse", (1,), "float32"))
                continue
            shape = (1,) if self._single(parameter) else (self.groups, wide)
            dtype = "int32" if name == "zero_weight" else parameter.dtype
            found.append(Section(name, shape, dtype))
        return found

    @cached_property
    def _tensors(self) -> dict[str, te.Tensor]:
        return {s.name: te.placeholder(s.shape, s.dtype, name=s.name) for s in self.sections}

    @cached_property
    def _residual(self) -> te.Tensor | None:
        if self.op.residual is None:
            return None
        shape = (self.op.matrix.m, self.groups, self.columns)
        return te.placeholder(shape, self.op.residual.dtype, name="residual")

    @cached_property
    def _step(self) -> te.Tensor | None:
        if not is_dynamic(self.op):
            return None
        return te.placeholder((steps_of(self.op),), "float32", name="input_step")

    @property
    def inputs(self) -> list[te.Tensor]:
        """Arguments of the definition, behind the packed weights and before y."""
        more = (self.rows, self._step, self._residual)
        return [*self._tensors.values(), *(tensor for tensor in more if tensor is not None)]

    def layout(self, weights: Layout) -> Layout:
        """The layout of the weights with the parameters behind them."""
        return FusedLayout(weights, self) if self.sections else weights

    def __call__(self, total: tirx.Expr, m: tirx.Expr, g: tirx.Expr, n: tirx.Expr) -> tirx.Expr:
        """The result at (m, g, n) for the int32 sum `total` (float32 with scales of groups of k),
        in the operator's y_dtype."""

        def parameter(name: str) -> tirx.Expr:
            tensor = self._tensors[name]
            return tensor[g, n] if len(tensor.shape) == 2 else tensor[0]

        v = total + parameter("correction") if "correction" in self._tensors else total
        if self._zero_of_columns:
            v = v - self._zero_weight(g, n) * self.rows[self._group(g, n), m]
        for step in self.op.epilogue:
            match step:
                case Bias("f32"):
                    v = v + parameter("bias")
                case Scale(group=group):
                    v = v if group else product(v.astype("float32"), parameter("scale"))
                    if self._step is not None:
                        v = product(v, self._step[m if self.op.input == "f32:row" else 0])
                case Residual("f32"):
                    v = v + self._residual[m, g, n]
                case Residual(zero=zero):
                    value = self._residual[m, g, n].astype("int32")
                    value = value - tirx.const(zero, "int32") if zero else value
                    v = v + product(value.astype("float32"), parameter("residual_scale"))
                case Clamp("relu6") if "six" in self._tensors:
                    v = te.min(v, parameter("six"))
        return self._bounded(v)

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
        v = v if high is None else te.min(v, tirx.const(high, dtype))
        v = v if low is None else te.max(v, tirx.const(low, dtype))
        quantize = find(self.op.epilogue, Quantize)
        if quantize is None:
            return v
        bits = tirx.reinterpret("int32", v + tirx.const(_ROUNDING, "float32"))
        narrow = bits.astype(self.op.y_dtype)
        return narrow + tirx.const(quantize.zero, self.op.y_dtype) if quantize.zero else narrow

    # ---- parameters into sections, in NumPy and in TIR

    def pack(self, w: np.ndarray, parameters: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """The contents of the sections."""

        def spread(values: np.ndarray, section: Section) -> np.ndarray:
            if section.shape == (1,):
                return values
            wide = np.zeros(section.shape, section.dtype)
            wide[:, : self.columns] = np.reshape(values, (self.groups, self.columns))
            return wide

        values = dict(self.op.legal_parameters(parameters))
        if "input_scale" in values:
            values["input_inverse"] = np.float32(1) / values["input_scale"]
        sums = w.reshape(self.groups * self.columns, -1).sum(axis=1, dtype=np.int64)
        correction = -self.zero * sums
        if self.op.parameters.get("bias", (0, 0))[1] == "int32":
            correction += values.pop("bias")
        values["correction"] = correction.astype(np.int32)  # modulo 2^32, as the sums are
        return [spread(values[section.name], section) for section in self.sections]

    def te_pack(self) -> tuple[list[te.Tensor], list[te.Tensor]]:
        """(w and the parameters, the sections) as tensors."""
        op, columns = self.op, self.columns
        w = te.placeholder((self.groups, columns, op.matrix.k), op.weight.dtype, name="w")
        given = {
            name: te.placeholder(
                (1,) if self._single(p) or name == "input_scale" else (self.groups, columns),
                p.dtype,
                name=f"{name}_in",
            )
            for name, p in self._parameters.items()
        }
        k = te.reduce_axis((0, op.matrix.k), name="k")
        sums = te.compute(
            (self.groups, columns), lambda g, n: te.sum(w[g, n, k].astype("int32"), axis=[k])
        )

        def correction(g, n):
            value = sums[g, n] * tirx.const(-self.zero, "int32")
            integer_bias = "bias" in given and given["bias"].dtype == "int32"
            return value + given["bias"][g, n] if integer_bias else value

        def section(s: Section) -> te.Tensor:
            if s.name == "input_inverse":
                one = tirx.const(1, "float32")
                return te.compute(s.shape, lambda i: one / given["input_scale"][i], name=s.name)
            source = given.get(s.name)

            def element(g, n):
                value = correction(g, n) if source is None else source[g, n].astype(s.dtype)
                return te.if_then_else(n < columns, value, tirx.const(0, s.dtype))

            return te.compute(
                s.shape, element if len(s.shape) == 2 else lambda i: source[i], name=s.name
            )

        outputs = [section(s) for s in self.sections]
        return [w, *given.values()], outputs


@dataclass(frozen=True)
class FusedLayout:
    """Packed weights in the order of `weights`, with an epilogue's parameters behind them."""

    weights: Layout
    epilogue: Epilogue

    @cached_property
    def sections(self) -> list[Section]:
        """Parts of the packed bytes, in order."""
        return [*self.weights.sections, *self.epilogue.sections]

    @property
    def nbytes(self) -> int:
        """Size of the packed weights and parameters."""
        return joined_sections(self.sections)[1]

    def pack(self, w: np.ndarray, **parameters: np.ndarray) -> np.ndarray:
        """The packed bytes of weight values `w` and the parameters."""
        packed = np.zeros(self.nbytes, np.uint8)
        own = parameters if self.epilogue.op.group else {}
        packed[: self.weights.nbytes] = self.weights.pack(w, **own)
        offsets, _ = joined_sections(self.sections)
        first = len(self.weights.sections)
        for data, offset in zip(self.epilogue.pack(w, parameters), offsets[first:], strict=True):
            data = np.ascontiguousarray(data).view(np.uint8).ravel()
            packed[offset : offset + data.size] = data
        return packed

    def te_module(self) -> IRModule:
        """The packer as TIR: "main"(w, packed, *parameters), see `Layout`."""
        op = self.epilogue.op
        inputs, outputs = self.epilogue.te_pack()
        own = te.create_prim_func([*inputs, *outputs])
        return joined_packers(op, self.weights.te_module()["main"], own, self.sections)


def real_value(value: tirx.Expr) -> tirx.Expr | None:
    """The float32 value that a quantized result rounds, before it is bounded; None if `value` is
    not what `Epilogue` makes."""
    sums: list[tirx.Add] = []
    structural_walk(value, (tirx.Add, sums.append))
    for v in sums:
        if isinstance(v.b, tirx.FloatImm) and v.b.value == _ROUNDING:
            bounded = v.a
            if isinstance(bounded, tirx.Max) and isinstance(bounded.a, tirx.Min):
                return bounded.a.a
    return None


def product(a: tirx.Expr, b: tirx.Expr) -> tirx.Expr:
    """a * b, rounded: without the fence LLVM may make one instruction of it and an addition that
    follows (TVM allows that everywhere), which rounds once and gives other results."""
    return tirx.call_llvm_pure_intrin("float32", "llvm.arithmetic.fence", a * b)
