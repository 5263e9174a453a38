"""Product: sums of products of codes, and what becomes of them: an epilogue that waits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from lpgen.formats import Format
from lpgen.onnx.imported import Imported, Relayout, inverse, same
from lpgen.onnx.rules import real
from lpgen.onnx.rules.bounds import bounded_real
from lpgen.onnx.values import Mapped, Pending, Stored, Target
from lpgen.ops.epilogue import Bias, Clamp, Quantize, Residual, Step
from lpgen.ops.epilogue import Scale as Scaled
from lpgen.ops.layers import NAME

if TYPE_CHECKING:
    from lpgen.onnx.lowering import Lowering

_ONE = np.float32(1)


@dataclass(frozen=True)
class Product(Pending):
    """Sums of products of codes.

    imported: the operator with int32 sums; scale: what one of a sum is worth, float32[channels], or
    [channels, groups] where `group` neighbours in k share one; channels: the axis of the result
    that they are on; bias: int32 in these steps, or float32, or None; input, hadamard: how x comes
    in, as in a workload; residual: what is added of the same shape, codes or another product;
    layers: how many bit layers of the weights are used (`rules.layered`), None: they have none.
    """

    costly: ClassVar[bool] = True

    x: Stored
    imported: Imported
    scale: np.ndarray
    channels: int
    bias: np.ndarray | None
    input: str = "act"
    hadamard: int = 0
    group: int = 0
    residual: Mapped | Product | None = None
    layers: int | Stored | None = None

    def quantized(self, lowering: Lowering, name: str, to: Target) -> Stored:
        """Requantized: sums times scale / that of the codes, in float32."""
        low, high = to.code(self.low), to.code(self.high)
        bounds = [] if (low, high) == (to.form.min, to.form.max) else [Clamp((low, high))]
        last = [*bounds, Quantize(to.form, int(to.zero))]
        made = self._per(to.scale)._step(lowering, name, last, to.scale)
        return replace(made, form=to.form)

    def _per(self, unit: np.float32) -> Product:
        """The product in units of a scale, its residual as it is."""
        with np.errstate(all="ignore"):
            bias = self.bias
            bias = bias / unit if bias is not None and bias.dtype == np.float32 else bias
            imported = self.imported
            if "offset" in imported.parameters:  # of bit layers
                offset = {"offset": imported.parameters["offset"] / unit}
                imported = replace(imported, parameters=imported.parameters | offset)
            return replace(self, scale=self.scale / unit, bias=bias, imported=imported)

    def real(self, lowering: Lowering, name: str) -> Stored:
        """float32: sums times scale."""
        whole = all(np.isinf(b) or float(b).is_integer() for b in (self.low, self.high))
        if not whole:
            made = self._step(lowering, f"{name}:unbounded", [])
            return bounded_real(lowering, made, self)
        bounds: list[Step] = []
        if (self.low, self.high) != (-np.inf, np.inf):
            low, high = (int(np.clip(b, -(2.0**31), 2.0**31 - 1)) for b in (self.low, self.high))
            bounds = [Clamp("relu" if (self.low, self.high) == (0, np.inf) else (low, high))]
        return self._step(lowering, name, bounds)

    def _step(
        self, lowering: Lowering, name: str, last: Sequence[Step], unit: np.float32 = _ONE
    ) -> Stored:
        """The operator; unit: that of its result."""
        scale, bias = self.scale, self.bias
        each = bool(self.group or np.any(scale != scale[0]))
        of = f"group{self.group}" if self.group else "channel" if each else "tensor"
        steps: list[Step] = [Scaled(of)]
        parameters = {"scale": scale if each else scale[:1]}
        if bias is not None:
            real = bias.dtype == np.float32
            steps.insert(1 if real else 0, Bias("f32" if real else "s32"))
            parameters["bias"] = bias
        rotated = {"hadamard": self.hadamard} if self.hadamard else {}
        added, more, tensors = self._added(lowering, name, unit)
        op = replace(
            self.imported.op, epilogue=(*steps, *added, *last), input=self.input, **rotated
        )
        parameters = self.imported.parameters | parameters | more
        op.legal_parameters(parameters)
        y = self.imported.y
        seen = tuple(y.view[axis] for axis in y.axes)
        back = Relayout(y.shape, seen, inverse(y.axes), y.given)
        inputs = self.imported.inputs | dict.fromkeys(["residual"][: len(tensors)], back)
        constants, numbers = self._number()
        inputs |= dict.fromkeys([NAME][: len(numbers)], same((), ()))
        imported = replace(self.imported, op=op, inputs=inputs, parameters=parameters)
        return lowering.apply(imported, name, [self.x, *tensors, *numbers], constants)

    def _number(self) -> tuple[dict[str, np.ndarray], list[Stored]]:
        """How many bit layers: a constant, or a tensor."""
        if isinstance(self.layers, int):
            return {NAME: np.array(self.layers, np.int32)}, []
        return {}, [] if self.layers is None else [self.layers]

    def _added(
        self, lowering: Lowering, name: str, unit: np.float32
    ) -> tuple[list[Step], dict[str, np.ndarray], list[Stored]]:
        """The step that adds the residual in units of a scale, its parameters, its tensor."""
        other = self.residual
        if other is None:
            return [], {}, []
        if isinstance(other, Product):
            return [Residual("f32")], {}, [other._per(unit).real(lowering, f"{name}:added")]
        codes, (scale, zero, _) = other.codes, other.scale
        step = Residual(codes.form, int(zero.item()))
        return [step], {"residual_scale": scale.reshape(1) / unit}, [codes]

    def joined(self, other: Mapped | Product) -> Product | None:
        """With another tensor added; None where it is bounded, broadcast, or not the only one."""
        for product in (self, *([other] if isinstance(other, Product) else [])):
            if product.residual is not None or (product.low, product.high) != (-np.inf, np.inf):
                return None
        return replace(self, residual=other) if other.type.shape == self.type.shape else None

    def biased(self, values: np.ndarray) -> Product | None:
        """With float32 numbers added, one for each channel or the same for all; None where they are
        others."""
        if self.bias is not None or self.residual is not None:
            return None
        if (self.low, self.high) != (-np.inf, np.inf):
            return None
        each = real.along(values, self.type.shape, self.channels)
        return None if each is None else replace(self, bias=each)


def narrowed(imported: Imported, act: Format) -> Imported:
    """With the format of the activations, and that of the fewest bits that holds the weights."""
    op = replace(imported.op, act=act)
    if not op.zero_weight:
        op = replace(op, weight=Format.of_values(imported.weights))
    weights = imported.weights.astype(op.weight.dtype)
    return replace(imported, op=op, weights=weights)
