"""DequantizeLinear, QuantizeLinear and max pooling between them.

A tensor that is dequantized stays as codes: what comes behind decides what becomes of it. Where
nothing can be done with codes, a step makes real numbers of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from lpgen.errors import OnnxError
from lpgen.formats import Format
from lpgen.onnx import checks
from lpgen.onnx.linear import FORMATS
from lpgen.onnx.nodes import import_node
from lpgen.onnx.rules.attributes import attributes
from lpgen.onnx.rules.bounds import bounded_real
from lpgen.onnx.rules.structure import known
from lpgen.onnx.values import (
    Blocks,
    Constant,
    Mapped,
    Pending,
    Recoded,
    Scale,
    Stored,
    Target,
    Value,
)
from lpgen.ops import QuantizeLinear
from lpgen.ops.tensor_type import TensorType

if TYPE_CHECKING:
    import onnx

    from lpgen.onnx.lowering import Lowering


def dequantize(lowering: Lowering, node: onnx.NodeProto) -> Sequence[Value] | None:
    """DequantizeLinear: of a constant, the numbers with their codes; of a tensor with one scale, a
    function of its codes."""
    value = lowering.inputs(node)[0]
    scale = known(lowering, node, 1, "the scale")
    zero = known(lowering, node, 2, "the zero point")
    given = attributes(node, axis=1, block_size=0, output_dtype=0)
    checks.check_type("the scale", scale, "float32")
    codes = isinstance(value, Stored | Recoded)
    form = value.form if codes else FORMATS.get(value.type.dtype)
    dtypes = {value.type.dtype, *(name for name, f in FORMATS.items() if f == form)}
    if zero is None:
        zero = np.zeros(scale.shape, form.dtype if form else "int32")
    else:
        checks.check_type("the zero point", zero, *sorted(dtypes))
    if not np.isfinite(scale).all():
        raise OnnxError(f"the scale has values that are not finite ({scale.ravel()[:3].tolist()})")
    if isinstance(value, Constant):
        return [_constant(value, scale, zero, given)]
    if scale.size == 1 and zero.size == 1 and codes and value.form:
        return [Mapped.of(value, Scale(scale.reshape(1), zero.reshape(1)))]
    return None


def _constant(value: Constant, scale: np.ndarray, zero: np.ndarray, given: dict) -> Constant:
    """(code - zero) * scale in float32, and what it was made of."""
    codes, axes = value.array, value.array.ndim
    axis, single = given["axis"], scale.size == 1 and not given["block_size"]
    if single:
        axis = 0  # of one number it says nothing
    elif not -axes <= axis < axes:
        raise OnnxError(f"axis={axis}, but x has {axes} axes")
    axis %= max(1, axes)
    if block := given["block_size"]:
        scales, zeros = (np.repeat(v, block, axis) for v in (scale, zero))
        places = np.arange(codes.shape[axis])
        scales, zeros = scales.take(places, axis), zeros.take(places, axis)
    elif single:
        scales, zeros = scale.reshape(()), zero.reshape(())
    else:
        checks.check_shape("the scale", scale, (codes.shape[axis],))
        along = tuple(-1 if other == axis else 1 for other in range(axes))
        scales, zeros = scale.reshape(along), zero.reshape(along)
    wide = np.int64 if codes.dtype == np.int32 else np.int32
    array = (codes.astype(wide) - zeros.astype(wide)).astype(np.float32) * scales
    form = FORMATS.get(value.type.dtype)
    if block:
        return Constant(array, blocks=_blocks(codes, scale, zero, axis, block, form))
    if form is not None:
        codes, zero = codes.astype(form.dtype), zero.astype(form.dtype)
    return Constant(array, codes, Scale(scale.reshape(-1), zero.reshape(-1), axis), form)


def _blocks(
    codes: np.ndarray,
    scale: np.ndarray,
    zero: np.ndarray,
    axis: int,
    size: int,
    form: Format | None,
) -> Blocks | None:
    """The codes of a matrix with scales of blocks along one axis, which is last; None where there
    is no format."""
    if codes.ndim != 2 or form is None:
        return None
    codes, scale, zero = (v if axis else v.T for v in (codes, scale, zero))
    codes, scale = np.ascontiguousarray(codes), np.ascontiguousarray(scale, np.float32)
    made = Blocks(codes.astype(form.dtype), scale, size, form, axis)
    return made.less(np.broadcast_to(zero.astype(np.int32), scale.shape))


def target(lowering: Lowering, node: onnx.NodeProto) -> Target | None:
    """What a QuantizeLinear makes, None where places on an axis have scales of their own."""
    scale = known(lowering, node, 1, "the scale")
    zero = known(lowering, node, 2, "the zero point")
    given = attributes(node, axis=1, block_size=0, output_dtype=0, saturate=1, precision=0)
    dtype = "uint8" if zero is None else zero.dtype.name
    if zero is None and given["output_dtype"]:
        return None
    form = checks.format_of("y", dtype, FORMATS)
    if scale.size != 1 or (zero is not None and zero.size != 1):
        return None
    if not np.isfinite(scale).all() or scale.ravel()[0] <= 0:
        raise OnnxError(f"the scale is {scale.ravel()[0]}, expected a positive number")
    number = 0 if zero is None else int(zero.astype(np.int32).ravel()[0])
    return Target(form, dtype, np.float32(scale.ravel()[0]), np.int32(number))


def quantize(lowering: Lowering, node: onnx.NodeProto) -> Sequence[Value] | None:
    """QuantizeLinear: the last step of what waits for it, or a table of codes."""
    value = lowering.inputs(node)[0]
    to = target(lowering, node)
    if to is None:
        return None
    return [coded(lowering, node.output[0], value, to)]


def coded(lowering: Lowering, name: str, value: Value, to: Target) -> Stored | Recoded:
    """As `codes_of`, in the format of the fewest bits that its bounds leave."""
    if isinstance(value, Pending):
        to = to.within(to.code(value.low), to.code(value.high))
    elif isinstance(value, Mapped):
        codes = value.quantized(to)
        to = to.within(int(codes.min()), int(codes.max()))
    return codes_of(lowering, name, value, to)


def codes_of(lowering: Lowering, name: str, value: Value, to: Target) -> Stored | Recoded:
    """A float32 value as codes, in the tensor `name` where a step has to make them."""
    key = (str(to.form), float(to.scale), int(to.zero))
    if isinstance(value, Pending):
        return lowering.once(value, key, lambda: value.quantized(lowering, name, to))
    if isinstance(value, Mapped):
        return recoded(name, value, to)
    return _of_real(lowering, name, lowering.tensor(value), to)


def _of_real(lowering: Lowering, name: str, x: Stored, to: Target) -> Stored:
    """float32 as codes; on the way to another order in memory, where all that read them want it
    (`Lowering.ordered`)."""
    op = QuantizeLinear(axis=math.prod(x.type.shape), format=to.form)
    constants = {"scale": to.of_codes.scale, "zero": to.of_codes.zero}
    made = lowering.step(name, op, {"x": x}, constants=constants)
    codes = Stored(made, TensorType(x.type.shape, to.form.dtype), x.order, to.form)
    lowering.quantized[made] = (x, to)
    return codes


def recoded(name: str, value: Mapped, to: Target) -> Stored | Recoded:
    """A function of codes as codes of another scale or format: a table, or nothing to do."""
    table = value.quantized(to)
    if value.made_of:
        codes, form = value.made_of[0], to.form
        if codes.form == form and np.array_equal(codes.table, table):
            return codes
    same = np.arange(value.form.min, value.form.max + 1)
    if value.form == to.form and np.array_equal(table, same):
        return value.codes
    return Recoded(value.codes, table, to.form, name)


def bounded(lowering: Lowering, tensor: Stored, to: Target, bounds: Pending) -> Stored:
    """Codes with the bounds of what they stand for."""
    if (bounds.low, bounds.high) == (-np.inf, np.inf):
        return tensor
    value = Mapped.of(tensor, to.of_codes)
    table = np.clip(value.table, np.float32(bounds.low), np.float32(bounds.high))
    return lowering.tensor(recoded(tensor.name, replace(value, table=table, scale=None), to))


@dataclass(frozen=True)
class Bounded(Pending):
    """A tensor of float32 behind Relu or Clip."""

    x: Stored

    def quantized(self, lowering: Lowering, name: str, to: Target) -> Stored:
        """Codes; bounds that are those of the format cost nothing."""
        return bounded(lowering, _of_real(lowering, name, self.x, to), to, self)

    def real(self, lowering: Lowering, name: str) -> Stored:
        """float32."""
        return bounded_real(lowering, self.x, self, name)


@dataclass(frozen=True)
class Largest(Pending):
    """The largest of a function of codes, or of what waits, in windows of an image; node: the
    MaxPool."""

    x: Mapped | Pending
    node: onnx.NodeProto

    def quantized(self, lowering: Lowering, name: str, to: Target) -> Stored:
        """The largest code: rounding keeps the order."""
        codes = lowering.tensor(codes_of(lowering, f"{name}:codes", self.x, to))
        made = replace(self._pooled(lowering, name, codes), form=to.form)
        return bounded(lowering, made, to, self)

    def real(self, lowering: Lowering, name: str) -> Stored:
        """The largest of float32."""
        made = self._pooled(lowering, name, lowering.tensor(self.x))
        return bounded_real(lowering, made, self)

    def _pooled(self, lowering: Lowering, name: str, x: Stored) -> Stored:
        return lowering.apply(import_node(self.node, x.type, {}), name, [x])


def max_pool(lowering: Lowering, node: onnx.NodeProto) -> Sequence[Value] | None:
    """MaxPool of dequantized values: of the codes, whose order is the same; of a function of codes,
    or of what waits, as soon as it is known what its values become."""
    given = lowering.inputs(node)[0]
    value = lowering.affine(given)
    if value is None or value.scale is None or value.scale.scale.ravel()[0] <= 0:
        if not isinstance(given, Mapped | Pending):
            return None
        kind = import_node(node, given.type, {})  # for its shape
        return [Largest(TensorType(kind.y.shape, "float32"), -np.inf, np.inf, given, node)]
    imported = import_node(node, value.codes.type, {})
    pooled = lowering.apply(imported, node.output[0], [value.codes])
    return [Mapped(replace(pooled, form=value.form), value.table, value.scale)]


RULES = {
    "DequantizeLinear": dequantize,
    "QuantizeLinear": quantize,
    "MaxPool": max_pool,
    "GlobalMaxPool": max_pool,
}
